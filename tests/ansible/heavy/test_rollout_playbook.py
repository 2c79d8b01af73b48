"""rollout.yml over three hosts that are folders of this machine, each with a real store and a real service."""

import json
import re
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.config import Config, HttpConfig, ModelsConfig, StoreConfig
from appliance.inference import selftest
from appliance.rest.server.listener import bind
from appliance.service import Service
from appliance.store import activation
from appliance.store.versions import Store
from tests.appliance.conftest import build_bundle
from tests.certificates import make_certificate

pytestmark = pytest.mark.timeout(1200)

NAMES = ("a", "b", "c")


class Host:
    """A folder with a store, a service over it, and the command `appliance` that means both."""

    def __init__(self, folder: Path, bundle: Path, certificate: str = "") -> None:
        """`certificate` is a file of certificate and key, for a service over TLS."""
        folder.mkdir()
        self.folder = folder
        self.store = Store(folder / "state")
        self.store.install(bundle)
        activation.activate(self.store, "iris", "1.0.0", selftest.self_test)
        activation.mark_good(self.store, "iris")
        config = Config(
            http=HttpConfig(port=0, certificate=certificate),
            models=ModelsConfig(poll_seconds=0.05),
            store=StoreConfig(state_dir=str(self.store.state_dir), preload_dir=str(folder / "none")),
        )
        listener = bind("127.0.0.1", 0)
        self.port = listener.getsockname()[1]
        self.service = Service(config, listener)
        ready = threading.Event()
        self.thread = threading.Thread(target=self.service.run, args=(ready.set,))
        self.thread.start()
        assert ready.wait(30)
        self.command = folder / "appliance"
        self.command.write_text(
            f"#!/bin/sh\nexport APPLIANCE_STATE_DIR={folder}/state APPLIANCE_HTTP_PORT={self.port}\n"
            f"exec {sys.executable} -c 'from appliance.cli import main; main()' \"$@\"\n"
        )
        self.command.chmod(0o755)

    @property
    def active(self) -> tuple[str | None, str]:
        record = activation.read(self.store, "iris")
        return record.active, record.state

    def stop(self) -> None:
        self.service.stop()
        self.thread.join(30)


@pytest.fixture
def hosts(tmp_path) -> Iterator[dict[str, Host]]:
    for version, error in (("1.0.0", 0.0), ("1.1.0", 0.0), ("1.2.0", 1.0)):
        (tmp_path / f"iris-{version}.bundle").write_bytes(build_bundle("iris", version, error=error))
    made = {name: Host(tmp_path / name, tmp_path / "iris-1.0.0.bundle") for name in NAMES}
    yield made
    for one in made.values():
        one.stop()


@pytest.fixture
def roll_out(hosts, run, tmp_path):
    """Return a function that states a version and runs the playbook: roll_out(version, **variables)."""

    def roll_out(version: str, silent: str = "", **variables: object):
        stated = {
            "appliance_become": False,
            "appliance_soak": 0.2,
            "appliance_latency_slack": 60,  # what is slow is not asked here: this machine may be busy
            "bundle_models": [{"name": "iris", "version": version, "file": str(tmp_path / f"iris-{version}.bundle")}],
            **variables,
        }
        inventory = {name: _inventory(one, name == silent) for name, one in hosts.items()}
        (tmp_path / "inventory.json").write_text(json.dumps({"all": {"hosts": inventory}}))
        (tmp_path / "stated.json").write_text(json.dumps(stated))
        files = ["-i", tmp_path / "inventory.json", "-e", f"@{tmp_path}/stated.json"]
        done = run("ansible-playbook", *files, "ansible/playbooks/rollout.yml")
        done.stdout += done.stderr
        return done

    return roll_out


def _inventory(host: Host, silent: bool) -> dict:
    """Return a host's variables; nothing listens where a silent one is said to be."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nowhere = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": closed.getsockname()[1]}
    return {
        **(nowhere if silent else {"ansible_connection": "local"}),
        "ansible_python_interpreter": sys.executable,
        "ansible_remote_tmp": str(host.folder / "tmp"),
        "appliance_http_port": host.port,
        "appliance_journal": str(host.folder / "journal"),
        "bundle_command": str(host.command),
        "bundle_cache": str(host.folder / "cache"),
    }


def changed(output: str) -> dict[str, int]:
    recap = output.rpartition("PLAY RECAP")[2]
    found = re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", recap, re.MULTILINE)
    return {name: int(count) for name, count in found if name in NAMES}


def test_a_good_version_goes_from_the_canary_to_every_host_and_a_second_run_changes_nothing(hosts, roll_out):
    done = roll_out("1.1.0", appliance_canary=["b"])
    assert done.returncode == 0, done.stdout
    assert {name: one.active for name, one in hosts.items()} == dict.fromkeys(NAMES, ("1.1.0", "good"))
    decided = re.findall(r'"msg": "((?:canary|wave \d): \w+ \w*)', done.stdout)
    assert [text.split(":")[0] for text in decided] == ["canary", "wave 1", "wave 2"]
    first = {name: one.store.receipts()[-2].when for name, one in hosts.items()}
    assert min(first, key=first.get) == "b"
    assert not any((one.folder / "journal").exists() for one in hosts.values())
    again = roll_out("1.1.0", appliance_canary=["b"])
    assert (again.returncode, changed(again.stdout)) == (0, dict.fromkeys(NAMES, 0)), again.stdout


def test_a_version_that_fails_its_self_test_stops_at_the_canary(hosts, roll_out):
    done = roll_out("1.2.0")
    assert done.returncode == 2, done.stdout
    assert re.search(r"stopped: canary: a: .*self-test", done.stdout), done.stdout
    assert {name: one.active for name, one in hosts.items()} == dict.fromkeys(NAMES, ("1.0.0", "good"))
    assert [one.store.versions("iris") for one in hosts.values()] == [["1.0.0", "1.2.0"], ["1.0.0"], ["1.0.0"]]


def test_a_host_out_of_reach_is_pending_and_comes_later(hosts, roll_out):
    done = roll_out("1.1.0", silent="b")
    assert done.returncode == 0, done.stdout
    assert '"pending: b"' in done.stdout
    assert {name: one.active[0] for name, one in hosts.items()} == {"a": "1.1.0", "b": "1.0.0", "c": "1.1.0"}
    later = roll_out("1.1.0")
    assert later.returncode == 0, later.stdout
    assert {name: one.active for name, one in hosts.items()} == dict.fromkeys(NAMES, ("1.1.0", "good"))
    assert changed(later.stdout)["a"] == changed(later.stdout)["c"] == 0


def test_a_wave_that_was_cut_off_goes_on_from_what_its_hosts_remember(hosts, roll_out):
    # As a killed controller leaves it: activated, on probation, the readings before it on the host's disk.
    hosts["a"].store.install(hosts["a"].folder.parent / "iris-1.1.0.bundle")
    activation.activate(hosts["a"].store, "iris", "1.1.0", selftest.self_test)
    done = roll_out("1.1.0")
    assert done.returncode == 0, done.stdout
    assert {name: one.active for name, one in hosts.items()} == dict.fromkeys(NAMES, ("1.1.0", "good"))


def test_a_service_over_tls_is_found_and_read(run, tmp_path):
    make_certificate(tmp_path)
    both = tmp_path / "both.pem"
    both.write_bytes(b"".join((tmp_path / f"server.{end}").read_bytes() for end in ("pem", "key")))
    (tmp_path / "iris-1.0.0.bundle").write_bytes(build_bundle("iris", "1.0.0"))
    host = Host(tmp_path / "a", tmp_path / "iris-1.0.0.bundle", str(both))
    try:
        arguments = json.dumps(
            {"command": str(host.command), "wanted": {"iris": "1.0.0"}, "probe": ["iris"], "wait": 20}
        )
        line = ["ansible", "localhost", "-i", "localhost,", "-c", "local", "-m", "inference.appliance.readings"]
        done = run(*line, "-e", f"ansible_python_interpreter={sys.executable}", "-a", arguments)
    finally:
        host.stop()
    readings = json.loads(done.stdout.partition("=>")[2])["readings"]
    assert (readings["ready"], readings["reasons"]) == (True, [])
    assert readings["status"]["service"]["tls"]["certificate"] == str(both)
    assert readings["models"]["iris"]["probation"]["state"] == "good"
    assert readings["probes"]["iris"]["code"] == 0


def test_a_variable_of_the_wrong_kind_stops_it_before_anything_changes(hosts, roll_out):
    done = roll_out("1.1.0", appliance_soak="long")
    assert done.returncode == 2
    assert "stopped: a: " in done.stdout
    assert "appliance_soak" in done.stdout
    assert [one.store.versions("iris") for one in hosts.values()] == [["1.0.0"]] * 3
