"""How the time of a rollout grows with the hosts and with Ansible's forks, on hosts that are simulated.

    python -m benchmarks.fleet [--hosts 10,100] [--forks 5,20,50] [--json FILE]

A host is a folder: a connection `local`, a command that keeps its state there (fleet_host.sh) and an address of
loopback at which this program answers as its service would. The playbook, its waves and its gates are the real ones.
What differs from a plant: no ssh, no network, and the modules of all hosts run on this machine, where a plant's hosts
run their own.
"""

import argparse
import http.server
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
ANSIBLE = ROOT / ".cache/ansible/venv/bin/ansible-playbook"
OLD, NEW = "1.0.0", "1.1.0"


@dataclass(frozen=True)
class Figure:
    """One rollout."""

    hosts: int
    forks: int
    seconds: float
    cpu_seconds: float
    """Of the controller and of all modules, which run here as well."""
    again_seconds: float
    """Of a second run, which finds every host in the stated state."""


def main() -> None:
    """Measure each combination and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", default="10,100", help="numbers of hosts (10,100)")
    parser.add_argument("--forks", default="5,20,50", help="numbers of forks (5,20,50)")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    given = parser.parse_args()
    if not ANSIBLE.exists():
        sys.exit(f"{ANSIBLE} is not there: make collection")
    figures = []
    for hosts in map(int, given.hosts.split(",")):
        for forks in map(int, given.forks.split(",")):
            figures.append(measure(hosts, forks))
            print(line(figures[-1], figures[0]), flush=True)
    if given.json:
        given.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=1))


def line(figure: Figure, first: Figure) -> str:
    """Return a figure as a line of the table; ratios are to the first one."""
    each = figure.seconds / figure.hosts
    return (
        f"{figure.hosts:5} hosts, {figure.forks:3} forks: {figure.seconds:7.1f} s, {each:6.3f} s a host "
        f"({each / (first.seconds / first.hosts):.2f} of the first), CPU {figure.cpu_seconds / figure.hosts:.2f} s "
        f"a host, a second run {figure.again_seconds / figure.hosts:.3f} s a host"
    )


def measure(hosts: int, forks: int) -> Figure:
    """Roll a bundle out to so many new hosts, then once more."""
    folder = Path(tempfile.mkdtemp(prefix="fleet-"))
    try:
        with Services(folder) as services:
            write_hosts(folder, hosts, services.port)
            used, begun = _cpu(), time.perf_counter()
            play(folder, forks, changed=True)
            seconds, cpu = time.perf_counter() - begun, _cpu() - used
            begun = time.perf_counter()
            play(folder, forks, changed=False)
            again = time.perf_counter() - begun
        wrong = [host for host in range(hosts) if (folder / str(host) / "state/active").read_text() != NEW]
        if wrong:
            sys.exit(f"{len(wrong)} of {hosts} hosts have not got {NEW}")
    finally:
        shutil.rmtree(folder)
    return Figure(hosts, forks, seconds, cpu, again)


def write_hosts(folder: Path, hosts: int, port: int) -> None:
    """Write each host's folder, with the old version active, and the inventory."""
    listed = {}
    for number in range(hosts):
        home = folder / str(number)
        (home / "state/versions").mkdir(parents=True)
        (home / "state/versions" / OLD).touch()
        for name, text in (("active", OLD), ("good", "good")):
            (home / "state" / name).write_text(text)
        shutil.copy(Path(__file__).parent / "fleet_host.sh", home / "appliance")
        (home / "appliance").chmod(0o755)
        listed[f"n{number}"] = {
            "appliance_http_host": address(number), "bundle_url": f"http://{address(number)}:{port}",
            "appliance_command": str(home / "appliance"), "bundle_command": str(home / "appliance"),
            "appliance_journal": str(home / "journal"), "bundle_cache": str(home / "cache"),
            "appliance_cache": str(home / "cache"),
        }  # fmt: skip
    bundle = folder / f"iris-{NEW}.bundle"
    make_bundle(folder, bundle)
    common = {
        "ansible_connection": "local", "ansible_python_interpreter": shutil.which("python3"), "appliance_become": False,
        "appliance_http_port": port, "appliance_soak": 0,
        "bundle_models": [{"name": "iris", "version": NEW, "file": str(bundle)}],
    }  # fmt: skip
    (folder / "inventory.json").write_text(json.dumps({"all": {"hosts": listed, "vars": common}}))


def make_bundle(folder: Path, path: Path) -> None:
    """Convert the iris model, whose file is what the hosts are brought."""
    train = [sys.executable, str(ROOT / "examples/iris/train.py"), str(folder)]
    subprocess.run(train, check=True, capture_output=True)
    line = [str(Path(sys.executable).parent / "appliance"), "convert", str(folder / "model.joblib"), "--name", "iris"]
    sample = ["--version", NEW, "--sample", str(folder / "sample.csv"), "--target", "species", "-o", str(folder)]
    subprocess.run([*line, *sample], check=True, capture_output=True)
    if not path.exists():
        sys.exit(f"appliance convert left no {path.name}")


def play(folder: Path, forks: int, *, changed: bool) -> None:
    """Run rollout.yml; ends the program unless it changed something exactly where it should."""
    command = [str(ANSIBLE), "-i", str(folder / "inventory.json"), "ansible/playbooks/rollout.yml", "-f", str(forks)]
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(ROOT / "ansible/ansible.cfg"),
        "ANSIBLE_HOME": str(folder / "ansible"),
        "ANSIBLE_NOCOLOR": "1",
        "PATH": f"{ANSIBLE.parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    recap = done.stdout.rpartition("PLAY RECAP")[2]
    counts = [int(count) for count in re.findall(r"^n\d+ .*changed=(\d+)", recap, re.MULTILINE)]
    if done.returncode or all(counts) is not changed or any(counts) is not changed:
        sys.exit(f"rollout.yml ended with {done.returncode}\n{done.stdout[-6000:]}{done.stderr[-2000:]}")


class Services:
    """Answers at every address of loopback as the service of the host would that has the address."""

    def __init__(self, folder: Path) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            """One request; which host is meant, the address that was called tells."""

            def do_GET(self) -> None:
                host = number(self.connection.getsockname()[0])
                active = (folder / str(host) / "state/active").read_text()
                body = answers(self.path, active)
                self.send_response(200 if body else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        # 0.0.0.0 is the one way to have all of 127.0.0.0/8; who comes from elsewhere is not answered.
        self._server = http.server.ThreadingHTTPServer(("0.0.0.0", 0), Handler)
        self._server.verify_request = lambda _, client: client[0].startswith("127.")  # type: ignore[method-assign]
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> "Services":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def answers(path: str, active: str) -> bytes:
    """Return what the service answers; nothing for a path that the playbook has no business with."""
    documents = {
        "/health/ready": {"ready": True, "reasons": []},
        "/models": {"models": [{"name": "iris", "serving": active}]},
    }
    if path == "/metrics":
        return b'appliance_requests_total{model="iris",outcome="success"} 1\n'
    return json.dumps(documents[path]).encode() if path in documents else b""


def address(host: int) -> str:
    """Return the address of a host, 127.1.0.1 and so on."""
    return f"127.1.{host // 250}.{host % 250 + 1}"


def number(text: str) -> int:
    """Return the host that has an address."""
    _, _, high, low = map(int, text.split("."))
    return 250 * high + low - 1


def _cpu() -> float:
    """Return the CPU seconds of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
