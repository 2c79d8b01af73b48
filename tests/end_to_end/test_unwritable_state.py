"""A state folder that cannot be written: what it holds is served, health says so, and MQTT begins once it can be.

Root's tests have a real mount in a namespace of the service's own. Without root's rights, modes stand for it.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

APPLIANCE = str(Path(sys.executable).parent / "appliance")
ROOT = os.geteuid() == 0
OWNER = 12345
BEFORE = {
    "read-only mount": 'mount --bind "$STATE" "$STATE" && mount -o remount,bind,ro "$STATE"',
    "closed by its mode": 'chmod -R a-w "$STATE"',
    "full disk": 'cp -a "$STATE" "$STATE.copy"; '
    'mount -t tmpfs -o size=512k none "$STATE"; cp -a "$STATE.copy/." "$STATE"'
    '; { dd if=/dev/zero of="$STATE/filler" bs=4k 2> /dev/null || true; }',
}
MENDED = {
    "read-only mount": 'mount -o remount,bind,rw "$STATE"',
    "closed by its mode": 'chmod -R u+w "$STATE"',
    "full disk": 'mount -o remount,size=64m "$STATE"',
}
SAID = {
    "read-only mount": "is mounted read-only",
    "closed by its mode": "cannot be written by user",
    "full disk": "is full",
}
WAYS = tuple(BEFORE) if ROOT else ("closed by its mode",)


class Host:
    """A service whose state folder is spoilt before it starts."""

    def __init__(self, base: Path, state: Path, way: str, broker_port: int) -> None:
        self.way = way
        self.log = base / "log"
        config = base / "appliance.toml"
        config.write_text(
            f'[http]\nport = 0\n[mqtt]\nhost = "127.0.0.1"\nport = {broker_port}\n'
            '[[mqtt.subscriptions]]\ntopic = "plant/+/in"\nanswer = "plant/{1}/out"\necho = ["n"]\n'
        )
        self.arguments = ["--config", str(config), "--state-dir", str(state)]
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("APPLIANCE_")}
        self.environment["STATE"] = str(state)
        inner = f'{BEFORE[way]} && exec "$@"'
        line = ["sh", "-ec", inner, "sh", APPLIANCE, "serve", *self.arguments]
        with self.log.open("wb") as sink:
            self.process = subprocess.Popen(
                ["unshare", "--mount", *line] if ROOT else line, env=self.environment, stderr=sink
            )

    def lines(self) -> list[dict]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    @property
    def url(self) -> str | None:
        return next((line["url"] for line in self.lines() if line["message"] == "listening"), None)

    def get(self, path: str, body: object = None) -> tuple[int, str]:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"{self.url}{path}", data, timeout=20) as answer:
            return answer.status, answer.read().decode()

    def health(self) -> dict:
        return json.loads(self.get("/health/ready")[1])

    def inside(self, *line: str) -> subprocess.CompletedProcess:
        """Run a command where the service is."""
        enter = ["nsenter", "--target", str(self.process.pid), "--mount"] if ROOT else []
        return subprocess.run(
            [*enter, *line], env=self.environment, capture_output=True, text=True, check=False, timeout=60
        )

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@pytest.fixture
def state(plant_state) -> Iterator[Path]:
    """A state folder of another user, where root makes it."""
    base = Path(tempfile.mkdtemp(prefix="appliance-state-"))
    base.chmod(0o755)
    folder = base / "state"
    shutil.copytree(plant_state, folder)
    if ROOT:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, OWNER, OWNER)
    yield folder
    folder.chmod(0o750)
    shutil.rmtree(base)


@pytest.fixture
def start(tmp_path, state, broker):
    hosts: list[Host] = []

    def begin(way: str) -> Host:
        hosts.append(Host(tmp_path, state, way, broker.port))
        return hosts[-1]

    yield begin
    for host in hosts:
        if host.process.poll() is None:
            host.process.kill()
            host.process.wait(30)


@pytest.mark.parametrize("way", WAYS)
def test_what_is_installed_is_served_and_said_and_mqtt_begins_once_the_folder_can_be_written(
    start, broker, make_sensor, until, way
):
    host = start(way)
    until(lambda: host.url, "listening")
    assert json.loads(host.get("/predict", {"features": [1, 2]})[1])["prediction"] == [4.0]
    health = until(lambda: (found := host.health()).get("mqtt") and found, "told of MQTT")
    assert health["ready"] is True
    assert health["models"]["plant"] == {"ready": True, "version": "1.0.0"}
    assert SAID[way] in health["warnings"][0]
    assert "nothing can be installed" in health["warnings"][0]
    assert "the flow begins by itself" in health["mqtt"]["problems"][0]
    assert "appliance_state_folder_writable 0.0" in host.get("/metrics")[1]
    assert [line for line in host.lines() if line["message"] == "state folder cannot be written"]
    for command in ("status", "doctor"):
        told = host.inside(APPLIANCE, command, *host.arguments)
        assert SAID[way] in told.stdout, told.stdout + told.stderr
    refused = host.inside(APPLIANCE, "deactivate", "plant", *host.arguments)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: deactivate plant\nfound: ")

    sensor = make_sensor(broker.port)
    assert host.inside("sh", "-ec", MENDED[way]).returncode == 0
    until(lambda: host.health()["warnings"] == [], "well again")
    until(lambda: host.health()["mqtt"]["connected"].get("local"), "connected")
    sensor.publish(range(5))
    sensor.wait()
    assert "appliance_state_folder_writable 1.0" in host.get("/metrics")[1]
    assert host.stop() == 0
