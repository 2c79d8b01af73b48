"""The main job on the iris flowers: train, convert with proof, install, activate, serve, ask through both listeners.

Keeps serving until Ctrl-C. What was trained and converted is kept in the given folder, so a second run starts quickly.
"""

import argparse
import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import broker as brokers
import listeners

HERE = Path(os.path.relpath(Path(__file__).parent))
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    options = _options()
    for number in ENDING:
        signal.signal(number, _end)
    try:
        _check_port(options.host, options.port)
        state = _activated(options.work)
        broker = brokers.start(options.work, options.broker)
        try:
            return _serve(options, state, broker)
        finally:
            broker.stop()
    except KeyboardInterrupt:
        return 130


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, help="folder for the model, the bundle and the state")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--broker", choices=["mosquitto", "amqtt"], help="default: mosquitto where there is one")
    return parser.parse_args()


def _end(*_: object) -> None:
    """Have everything end, once: a second Ctrl-C must not leave a part of it running."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _check_port(host: str, port: int) -> None:
    """Exit when somebody else serves on the port, whose answers would else be taken for ours."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), 1):
        sys.exit(f"port {port} of {host} is taken: choose another one, as in make run PORT=9000")


def _activated(work: Path) -> Path:
    """Train and convert what is not there yet, install and activate it; return the state folder."""
    work.mkdir(parents=True, exist_ok=True)
    bundle, state = work / "iris-1.0.0.bundle", work / "state"
    if not bundle.exists():
        _step([sys.executable, str(HERE / "train.py"), str(work)])
        sample = ["--sample", str(work / "sample.csv"), "--target", "species"]
        model = ["--name", "iris", "--version", "1.0.0"]
        _step(["appliance", "convert", str(work / "model.joblib"), *model, *sample, "-o", str(work)])
    _step(["appliance", "install", str(bundle), "--state-dir", str(state)])
    _step(["appliance", "activate", "iris", "1.0.0", "--state-dir", str(state)])
    return state


def _show(command: list[str]) -> None:
    print(f"$ {shlex.join(command).replace(sys.executable, 'python')}", flush=True)


def _step(command: list[str]) -> None:
    """Run one command as a person would, and stop at the first that fails."""
    _show(command)
    ended = subprocess.run(command)
    if ended.returncode:
        sys.exit(ended.returncode)


def _serve(options: argparse.Namespace, state: Path, broker: brokers.Broker) -> int:
    """Serve until a signal, and ask through both listeners as soon as the service is ready."""
    url = f"http://{options.host}:{options.port}"
    config = listeners.configured(options.work, broker)
    where = ["--host", options.host, "--port", str(options.port), "--config", str(config)]
    command = ["appliance", "serve", *where, "--state-dir", str(state)]
    _show(command)
    # A session of its own: the service is told to stop once, by us, and not also by the terminal.
    service = subprocess.Popen(command, start_new_session=True)
    try:
        if _ready(service, url):
            listeners.ask_http(url)
            listeners.ask_mqtt(url, broker)
            listeners.show_next(url, broker)
        service.wait()
    except KeyboardInterrupt:
        pass
    finally:
        service.terminate()
        code = service.wait()
    print("stopped" if code == 0 else f"the service ended with exit code {code}", flush=True)
    return code


def _ready(service: "subprocess.Popen[bytes]", url: str) -> bool:
    """Wait until the service answers; False when it has ended instead."""
    while service.poll() is None:
        with (
            contextlib.suppress(urllib.error.URLError, OSError),
            urllib.request.urlopen(f"{url}/health/ready", timeout=5),
        ):
            return True
        time.sleep(0.05)
    return False


if __name__ == "__main__":
    sys.exit(main())
