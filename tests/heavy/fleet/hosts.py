"""The hosts under test and the playbooks that are run on them, as a person runs them: with ansible-playbook.

FLEET is a command with the verbs `up N`, `inventory`, `ssh H COMMAND`, `off H` (pull the plug), `on H`, `cut H` (pull
the cable), `heal H`, `loss H PERCENT` and `status` (each host's PID 1 is the first child of the pid that it names);
FLEET_STATE the folder below which it keeps the hosts' disks.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from appliance.bundle import archive, examples

ROOT = Path(__file__).parents[3]
FLEET = os.environ["FLEET"]
FLEET_STATE = Path(os.environ.get("FLEET_STATE", "/tmp/fleet"))
# The hosts are up: nothing is fetched any more, and to find out from where would cost each call a second.
os.environ.setdefault("MIRROR", "none")
ASSETS = Path(os.environ["ASSETS"])
ANSIBLE = ROOT / ".cache/ansible/venv/bin/ansible-playbook"
HOSTS = tuple(os.environ.get("FLEET_HOSTS", "h1 h2 h3 h4 h5").split())
ENGINES = {"docker": os.environ.get("FLEET_DOCKER_HOSTS", "h5"), "podman": os.environ.get("FLEET_PODMAN_HOSTS", "h2")}
CONTAINER_HOSTS = tuple(name for name in HOSTS if name in " ".join(ENGINES.values()).split())
"""Those of HOSTS that run the program by the container method, with either engine; the others have the binary."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PORT = 8080
TOKEN = "fleet-test-predict-0123456789"
ADMIN_TOKEN = "fleet-test-admin-0123456789"
FLOWER = (6.3, 3.3, 6.0, 2.5)
OUTLIER = (55.0, 3.3, 40.0, 20.0)
"""Also a virginica; see assets.OUTLIERS."""


def fleet(*words: str) -> str:
    """Run one of the fleet's verbs."""
    return subprocess.run([FLEET, *words], check=True, capture_output=True, timeout=900, text=True).stdout


def host(name: str, command: str, *, check: bool = True, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run a shell command on a host."""
    line = [FLEET, "ssh", name, command]
    done = subprocess.run(line, input=given, capture_output=True, check=False, timeout=180, text=True)
    assert not check or done.returncode == 0, f"{name}: {command}\n{done.stdout}{done.stderr}"
    return done


def console(name: str, command: str) -> str:
    """Return the output of a shell command at a host's own keyboard, as it were: also while its cable is cut."""
    found = re.search(rf"^{name}\t.*\tpid (\d+)", fleet("status"), re.MULTILINE)
    assert found, name
    first = Path(f"/proc/{found[1]}/task/{found[1]}/children").read_text().split()[0]
    line = ["nsenter", "--target", first, "--all", "/usr/bin/env", "-i", f"PATH={PATH}", "sh", "-ec", command]
    done = subprocess.run(line, capture_output=True, check=False, timeout=300, text=True)
    assert done.returncode == 0, f"{name}: {command}\n{done.stdout}{done.stderr}"
    return done.stdout


def everywhere(command: str, hosts: Iterable[str] = HOSTS) -> dict[str, str]:
    """Return {host: output} of a shell command that must succeed on every host."""
    names = list(hosts)
    with ThreadPoolExecutor(len(names)) as pool:
        return dict(
            zip(names, (done.stdout for done in pool.map(lambda name: host(name, command), names)), strict=True)
        )


def models(hosts: Iterable[str] = HOSTS) -> dict[str, dict[str, Any]]:
    """Return {host: what it says of its model iris}."""
    absent = {"active": None, "versions": [], "state": None}
    listed = {name: json.loads(out)["models"] for name, out in everywhere("appliance models --json", hosts).items()}
    return {name: next((one for one in found if one["name"] == "iris"), absent) for name, found in listed.items()}


def active(hosts: Iterable[str] = HOSTS) -> dict[str, str | None]:
    """Return {host: its active version of iris}."""
    return {name: found["active"] for name, found in models(hosts).items()}


def receipts(hosts: Iterable[str] = HOSTS) -> dict[str, list[dict[str, Any]]]:
    """Return {host: its receipts since the test began, oldest first}; see conftest.SETTLE."""
    found = everywhere("cat /var/lib/appliance/receipts/* | tail -n +$(($(cat /root/settled) + 1))", hosts)
    return {name: [json.loads(line) for line in text.splitlines()] for name, text in found.items()}


def probes(hosts: Iterable[str] = HOSTS) -> dict[str, dict[str, Any]]:
    """Return {host: what `appliance probe` found there}, its exit code in `code`."""
    found = everywhere("appliance probe iris --json 2> /tmp/probe-error && echo 0 || echo $?", hosts)
    parts = {name: text.rstrip().rpartition("\n") for name, text in found.items()}
    return {name: {**(json.loads(text) if text else {}), "code": int(code)} for name, (text, _, code) in parts.items()}


def disk_of(name: str) -> Path:
    """Return the root folder of a host, seen from this machine: also while its cable is cut."""
    return FLEET_STATE / "hosts" / name / "root"


def bundle(version: str) -> dict[str, str]:
    """Return an entry of bundle_models."""
    return {"name": "iris", "version": version, "file": str(ASSETS / f"iris-{version}.bundle")}


def engine(name: str) -> str:
    """Return what runs the containers of a host of CONTAINER_HOSTS."""
    return next(one for one, names in ENGINES.items() if name in names.split())


def rows(version: str) -> int:
    """Return how many examples a bundle has."""
    inputs, _ = examples.read(archive.open_bundle(ASSETS / f"iris-{version}.bundle").members[archive.EXAMPLES])
    return len(inputs[0])


def kit(version: str) -> str:
    """Return the path of a kit."""
    return str(next(ASSETS.glob(f"appliance-{version}-*.tar.gz")))


STATE = {
    "appliance_method": "binary",
    "appliance_kit": kit("0.1.0"),
    "appliance_kit_key": str(ASSETS / "plant.key.pub"),
    "appliance_trusted_keys": [str(ASSETS / "plant.key.pub")],
    "appliance_http_host": "0.0.0.0",
    "appliance_http_port": PORT,
    "appliance_tokens": [{"scope": "predict", "token": TOKEN}, {"scope": "admin", "token": ADMIN_TOKEN}],
    "bundle_models": [bundle("1.0.0")],
    "appliance_soak": 5,
    "appliance_max_latency_ratio": 3.0,
    "appliance_latency_slack": 0.05,
}
"""What is stated for all hosts; five of them on a machine of two cores hold each other up, so latency has some room."""
CONTAINER = {"appliance_method": "container", "appliance_image": str(ASSETS / "image.tar.gz")}


class Play:
    """An ansible-playbook that runs, or ran."""

    def __init__(self, folder: Path, playbook: str, variables: dict[str, Any], *words: str) -> None:
        """Start a playbook of the collection; `variables` go into a file that it is given with -e @."""
        self.log = folder / f"{playbook}-{time.monotonic_ns()}.log"
        extra = self.log.with_suffix(".json")
        extra.write_text(json.dumps(variables))
        inventory = write_inventory(folder / "inventory")
        line = [str(ANSIBLE), "-i", str(inventory), f"inference.appliance.{playbook}", "-e", f"@{extra}", *words]
        environment = os.environ | {
            "ANSIBLE_CONFIG": str(ROOT / "ansible/ansible.cfg"),
            "ANSIBLE_HOME": str(folder / "ansible"),
            "ANSIBLE_NOCOLOR": "1",
            "PATH": f"{ANSIBLE.parent}:{os.environ['PATH']}",
        }
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                line, cwd=ROOT, env=environment, stdout=out, stderr=out, start_new_session=True
            )

    def wait(self, seconds: float = 900) -> "Play":
        """Wait for its end."""
        self.process.wait(seconds)
        return self

    def kill(self) -> None:
        """Kill the controller, its workers with it, as a closed laptop does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    def until(self, true: Callable[[], Any], what: str, seconds: float = 600) -> Any:
        """Return what `true` gives once it is truthy, while the playbook runs."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := true():
                return found
            assert self.process.poll() is None, f"it ended before {what}\n{self.output[-4000:]}"
            time.sleep(0.05)
        raise AssertionError(f"never {what}\n{self.output[-4000:]}")

    def says(self, text: str) -> bool:
        """Return whether the output has `text` so far."""
        return text in self.output

    @property
    def output(self) -> str:
        """What it printed."""
        return self.log.read_text(errors="replace")

    @property
    def code(self) -> int:
        """Its exit code."""
        assert self.process.returncode is not None
        return self.process.returncode

    @property
    def recap(self) -> dict[str, dict[str, int]]:
        """{host: {ok, changed, unreachable, failed, ...}} of the recap at the end."""
        lines = re.findall(r"^(\S+)\s+: (ok=.*)$", self.output.rpartition("PLAY RECAP")[2], re.MULTILINE)
        return {name: {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", rest)} for name, rest in lines}

    def changed(self) -> dict[str, int]:
        """Return {host: how many tasks changed it}, the controller left out."""
        return {name: counts["changed"] for name, counts in self.recap.items() if name in HOSTS}


def write_inventory(folder: Path) -> Path:
    """Write the hosts under test and the state that is stated for them as a person would keep it; return the folder."""
    other = re.compile(r"^(h\d+) ")
    lines = [one for one in fleet("inventory").splitlines() if not (found := other.match(one)) or found[1] in HOSTS]
    for group in ENGINES:
        lines += ["", f"[{group}]", *(name for name in CONTAINER_HOSTS if engine(name) == group)]
    lines += ["", "[container:children]", *ENGINES]
    (folder / "group_vars").mkdir(parents=True, exist_ok=True)
    (folder / "hosts.ini").write_text("\n".join(lines) + "\n")
    engines = {group: {"appliance_engine": group} for group in ENGINES}
    for group, variables in {"all": STATE, "container": CONTAINER, **engines}.items():
        (folder / "group_vars" / f"{group}.json").write_text(json.dumps(variables, indent=1))
    return folder


@contextlib.contextmanager
def loaded(hosts: Iterable[str] = HOSTS, rows: dict[str, tuple[float, ...]] | None = None) -> Iterator["Loads"]:
    """Ask hosts for predictions all the while, FLOWER where `rows` has no other; the counts are there afterwards."""
    loads = Loads(hosts, rows or {})
    try:
        loads.warm()
        yield loads
    finally:
        loads.stop()


class Loads:
    """A process of load.py for each host."""

    def __init__(self, hosts: Iterable[str], rows: dict[str, tuple[float, ...]]) -> None:
        script = str(Path(__file__).parent / "load.py")
        self.found: dict[str, dict[str, Any]] = {}
        self._running = {
            name: subprocess.Popen(
                [sys.executable, script, address(name), str(PORT), TOKEN, json.dumps(rows.get(name, FLOWER))],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for name in hosts
        }  # fmt: skip

    def warm(self) -> None:
        """Let some requests pass before anything begins."""
        time.sleep(2)

    def stop(self) -> None:
        """End all, and keep what each counted."""
        for name, process in self._running.items():
            out, _ = process.communicate("", timeout=60)
            self.found[name] = json.loads(out)

    def failures(self) -> dict[str, Any]:
        """Return {host: its first failures} of those that had any."""
        return {name: found["failures"] for name, found in self.found.items() if found["failed"]}


def address(name: str) -> str:
    """Return a host's address."""
    found = re.search(rf"^{name} ansible_host=(\S+)", fleet("inventory"), re.MULTILINE)
    assert found, name
    return found[1]


class Background(threading.Thread):
    """Runs a function beside the test; what it raised is raised by join()."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._work, self._error = work, None
        self.start()

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._error = error

    def join(self, timeout: float | None = 120) -> None:
        super().join(timeout)
        if self._error:
            raise self._error
