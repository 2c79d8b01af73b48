"""Measures the MQTT listener beside its references on one mosquitto: `python -m benchmarks.mqtt --help`."""

import argparse
import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contenders import COMMAND
from benchmarks.mqtt_load import Listener, publish
from benchmarks.prepare import Prepared, prepare
from benchmarks.processes import cpu_seconds, descendants, free_port, own_mib, pss_mib
from benchmarks.targets import Target
from benchmarks.workloads import Workload, workloads

IDLE_SECONDS = 60
ECHO, ONE_BY_ONE, OURS = "(a) paho echo", "(b) paho, one prediction a message", "appliance"


@dataclass(frozen=True)
class Figures:
    """What one program did with one workload: messages a second, its CPU time for each, and latencies at half of it."""

    per_second: float
    cpu_us: float
    p50_ms: float
    p99_ms: float


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="bench-mqtt-") as folder:
        prepared = prepare(Path(folder))
        results: dict[tuple[str, str], Figures] = {}
        with _broker(Path(folder), options.in_flight) as port:
            for workload in [one for one in workloads(prepared.models)[:2] if one.name in options.only.split(",")]:
                for name in (ECHO, ONE_BY_ONE, OURS):
                    rounds = [_measured(options, prepared, workload, name, port) for _ in range(options.rounds)]
                    results[workload.name, name] = _median(rounds)
                    print(f"{workload.name} {name:36} {_line(results[workload.name, name])}", flush=True)
            idle = _idle(prepared, port, workloads(prepared.models)[0]) if not options.no_idle else None
            flat = _flat(prepared, port, workloads(prepared.models)[0], options) if options.minutes else None
    print()
    for target in [*_targets(results), *_quiet(idle, flat)]:
        sign, said = "<=" if target.at_most else ">=", "reached" if target.reached else "MISSED"
        print(f"{said:7} {target.found:9.2f} {sign} {target.bound:5g}  {target.title}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mqtt", description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000, help="that wait when a program begins (default 20,000)")
    parser.add_argument("--rounds", type=int, default=3, help="of each; the median counts (default 3)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of the load at half the rate (default 5)")
    parser.add_argument("--only", default="W1,W2", help="workloads (default W1,W2); empty for none")
    parser.add_argument(
        "--in-flight", type=int, default=1000, help="messages the broker sends before an acknowledgement (default 1000)"
    )
    parser.add_argument("--minutes", type=float, default=0.0, help="of a load that watches memory (default: none)")
    parser.add_argument("--rate", type=int, default=1000, help="messages a second of that load (default 1000)")
    parser.add_argument("--no-idle", action="store_true", help="leave out idle CPU")
    return parser.parse_args()


def _measured(options: argparse.Namespace, prepared: Prepared, workload: Workload, name: str, port: int) -> Figures:
    """Measure one program once: what waits while it is stopped, then a paced load at half the rate it had."""
    values = f'"x":{json.dumps(workload.rows[0].tolist(), separators=(",", ":"))}'
    with _program(prepared, workload, name, port) as process:
        listener = Listener(port, "bench/out")
        os.kill(process.pid, signal.SIGSTOP)
        publish(port, "bench/in", values, options.messages)
        used = cpu_seconds(descendants(process.pid))
        os.kill(process.pid, signal.SIGCONT)
        listener.wait(options.messages, 120)
        used = cpu_seconds(descendants(process.pid)) - used
        listener.close()
        times = sorted(listener.arrived.values())
        rate = (len(times) - 1) / (times[-1] - times[0])
        time.sleep(0.5)
        listener = Listener(port, "bench/out")
        count = int(rate / 2 * options.seconds)
        # In a process of its own: in ours it would keep the listener waiting and count that as the program's time.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as beside:
            sent = beside.submit(publish, port, "bench/in", values, count, rate / 2).result()
        listener.wait(count, 60)
        listener.close()
    late = sorted(listener.arrived[number] - sent[number] for number in range(count // 5, count))
    return Figures(rate, used / options.messages * 1e6, 1e3 * late[len(late) // 2], 1e3 * late[int(len(late) * 0.99)])


@contextlib.contextmanager
def _program(
    prepared: Prepared, workload: Workload, name: str, port: int, *, http: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """Run one of the programs; it is subscribed when this yields."""
    if name == OURS:
        config = prepared.state_dir / "mqtt.toml"
        config.write_text(
            f'[http]\nport = 0\n[mqtt]\nhost = "127.0.0.1"\nport = {port}\n'
            'client_id = "bench-appliance"\nkeepalive = 600\nsession_expiry = 0\n'
            f'[[mqtt.subscriptions]]\ntopic = "bench/in"\nmodel = "{workload.model}"\nat = "x"\necho = ["n"]\n'
            'answer = "bench/out"\n'
        )
        shutil.rmtree(prepared.state_dir / "mqtt", ignore_errors=True)
        listeners = [] if http else ["--no-http"]
        command = [COMMAND, "serve", "--state-dir", prepared.state_dir, "--config", config, *listeners]
    else:
        model = [prepared.onnx[workload.model]] if name == ONE_BY_ONE else []
        command = [sys.executable, Path(__file__).with_name("mqtt_echo.py"), port, *model]
    words = [str(part) for part in command]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout
        for line in process.stdout:
            if "ready" in line or "subscribed" in line:
                break
        else:
            raise SystemExit(f"{name} did not start")
        # What it says later must go somewhere, or it would wait for us to read.
        threading.Thread(target=process.stdout.read, daemon=True).start()
        time.sleep(1.0)
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGTERM)
        process.wait(20)


@contextlib.contextmanager
def _broker(folder: Path, in_flight: int) -> Iterator[int]:
    """Run a mosquitto that keeps everything in memory, and sends so many messages before an acknowledgement."""
    port = free_port()
    config = folder / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 1000000\n"
        f"max_inflight_messages {in_flight}\nset_tcp_nodelay true\n"
    )
    executable = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    process = subprocess.Popen([executable, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _idle(prepared: Prepared, port: int, workload: Workload) -> float:
    """Return the share of a core that the service takes with both listeners open and nothing to do."""
    with _program(prepared, workload, OURS, port, http=True) as process:
        time.sleep(2)
        used = cpu_seconds(descendants(process.pid))
        time.sleep(IDLE_SECONDS)
        return (cpu_seconds(descendants(process.pid)) - used) / IDLE_SECONDS


def _flat(prepared: Prepared, port: int, workload: Workload, options: argparse.Namespace) -> list[float]:
    """Return the MiB of its own that the service has before a steady load and after each tenth of it."""
    values = f'"x":{json.dumps(workload.rows[0].tolist(), separators=(",", ":"))}'
    tenth = int(options.minutes * 6 * options.rate)
    with _program(prepared, workload, OURS, port, http=True) as process:
        found = [own_mib(process.pid)]
        shares = [pss_mib(process.pid)]
        for _ in range(10):
            publish(port, "bench/in", values, tenth, options.rate)
            found.append(own_mib(process.pid))
            shares.append(pss_mib(process.pid))
    print("MiB of its own, before and after each tenth:", " ".join(f"{each:.1f}" for each in found))
    print("proportional share (PSS):                   ", " ".join(f"{each:.1f}" for each in shares), flush=True)
    return found


def _median(rounds: list[Figures]) -> Figures:
    return Figures(*(statistics.median(values) for values in zip(*map(_plain, rounds), strict=True)))


def _plain(figures: Figures) -> tuple[float, ...]:
    return figures.per_second, figures.cpu_us, figures.p50_ms, figures.p99_ms


def _line(figures: Figures) -> str:
    return (
        f"{figures.per_second:9,.0f} msg/s {figures.cpu_us:6.0f} us CPU   at half of it: "
        f"p50 {figures.p50_ms:6.2f} ms, p99 {figures.p99_ms:6.2f} ms"
    )


def _targets(results: dict[tuple[str, str], Figures]) -> Iterator[Target]:
    for workload in dict.fromkeys(name for name, _ in results):
        ours, echo, single = (results[workload, name] for name in (OURS, ECHO, ONE_BY_ONE))
        yield Target(f"{workload}: {OURS} / {ECHO}, messages a second", 0.8, ours.per_second / echo.per_second)
        yield Target(f"{workload}: {OURS} / {ONE_BY_ONE}, messages a second", 1.2, ours.per_second / single.per_second)
        yield Target(f"{workload}: p99 at half the rate / the echo's", 4, ours.p99_ms / echo.p99_ms, at_most=True)


def _quiet(idle: float | None, flat: list[float] | None) -> Iterator[Target]:
    if idle is not None:
        yield Target("idle CPU with both listeners open, % of a core", 1, 100 * idle, at_most=True)
    if flat is not None:
        tenth, half, end = flat[1], flat[5], flat[-1]
        yield Target(f"own memory at the end / after a tenth ({tenth:.1f} MiB)", 1.05, end / tenth, at_most=True)
        yield Target(f"own memory at the end / after half ({half:.1f} MiB)", 1.02, end / half, at_most=True)


if __name__ == "__main__":
    main()
