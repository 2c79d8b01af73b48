"""An MQTT broker to try things with, on a free port of this host: mosquitto where there is one, else amqtt.

Run as a program, `python broker.py PORT` is amqtt itself. Neither keeps anything when it ends.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

_START_SECONDS = 20.0


@dataclass(frozen=True)
class Broker:
    """One that takes connections."""

    name: str
    port: int
    protocol: str
    """The newest version of MQTT that it speaks."""
    process: "subprocess.Popen[bytes]"

    def stop(self) -> None:
        """Tell it to end, and end it if it does not."""
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(folder: Path, wanted: str = "") -> Broker:
    """Start `wanted` (mosquitto or amqtt; empty: the first that is there); what it says goes to `folder`/broker.log."""
    port = _free_port()
    mosquitto = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")
    if mosquitto and wanted != "amqtt":
        config = folder / "mosquitto.conf"
        config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
        return _started("mosquitto", port, "5", [mosquitto, "-c", str(config)], folder / "broker.log")
    return _started("amqtt", port, "3.1.1", [sys.executable, __file__, str(port)], folder / "broker.log")


def _started(name: str, port: int, protocol: str, command: list[str], log: Path) -> Broker:
    """Start a broker and return it when it takes connections."""
    with log.open("wb") as sink:
        # A session of its own: the terminal's Ctrl-C is for who started it, who then ends it last.
        process = subprocess.Popen(command, stdout=sink, stderr=sink, start_new_session=True)
    broker = Broker(name, port, protocol, process)
    try:
        _wait(broker, log)
    except BaseException:
        broker.stop()
        raise
    return broker


def _wait(broker: Broker, log: Path) -> None:
    """Wait until a broker takes connections, or exit with what it said."""
    until = time.monotonic() + _START_SECONDS
    while broker.process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", broker.port), 1):
            return
        time.sleep(0.02)
    sys.exit(f"{broker.name} did not start on port {broker.port}:\n{log.read_text(errors='replace')[-2000:]}")


def _free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _serve(port: int) -> None:
    """Be an amqtt broker until SIGTERM."""
    from amqtt.broker import Broker as Amqtt

    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    config = {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }
    broker = Amqtt(config)
    await broker.start()
    await ended.wait()
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
