"""Hosts that lack what others have: Python for Ansible, or a broker; both come from packages on the controller."""

import json
import subprocess
import time
from pathlib import Path

import pytest
from hosts import CONTAINER_HOSTS, HOSTS, STATE, address, host
from test_fleet_site import changes

NAME = next(name for name in HOSTS if name not in CONTAINER_HOSTS)
PYTHON = [
    *("python3", "python3-minimal", "python3.11", "python3.11-minimal", "media-types"),
    *("libpython3-stdlib", "libpython3.11-stdlib", "libpython3.11-minimal"),
]
MOSQUITTO = [
    *("mosquitto", "libmosquitto1", "libwebsockets17", "libcjson1", "libdlt2", "libev4", "libuv1"),
    *("libwrap0", "libnsl2", "libtirpc3", "libtirpc-common"),
]
PASSWORD = "fleet-test-broker-0123456789"


def download(where: Path, names: list[str]) -> list[str]:
    """Return the packages' files; the hosts have this machine's release of Debian."""
    subprocess.run(["apt-get", "download", "-q", *names], cwd=where, check=True, capture_output=True)
    return [str(path) for path in sorted(where.glob("*.deb"))]


def test_host_without_python_gets_it_from_the_controller(serving, run, tmp_path):
    subprocess.run(
        ["tar", "-cf", tmp_path / "python.tar", *map(Path, download(tmp_path, PYTHON))], check=True, capture_output=True
    )
    host(NAME, "dpkg --purge --force-all $(dpkg -l | awk '/python3/ {print $2}') > /dev/null 2>&1 || true")
    host(NAME, "rm -rf /usr/bin/python3* /usr/lib/python3*; ! command -v python3")
    variables = {"appliance_hosts": NAME, "appliance_bootstrap_packages": str(tmp_path / "python.tar")}
    first = run("bootstrap", variables)
    assert first.code == 0, first.output[-4000:]
    assert first.changed() == {NAME: 1}
    assert host(NAME, "python3 -c 'import json, ssl, sqlite3; print(1)'").stdout == "1\n"
    second = run("bootstrap", variables)
    assert (second.code, second.changed()) == (0, {NAME: 0})
    host(NAME, "appliance probe iris")


@pytest.fixture
def broker(serving, run, tmp_path):
    """The variables of a host with a broker; it is as before at the end."""
    tls = ["-keyout", tmp_path / "tls.key", "-out", tmp_path / "tls.crt", "-subj", "/CN=broker", "-days", "2"]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *tls], check=True, capture_output=True)
    mqtt = {"host": "127.0.0.1", "username": "appliance", "password_file": "/etc/appliance/mqtt-password",
            "subscriptions": [{"topic": "line/+/flower", "model": "iris", "answer": "line/{1}/species"}]}  # fmt: skip
    yield {
        "appliance_hosts": NAME,
        "broker_enabled": True,
        "broker_packages": download(tmp_path, MOSQUITTO),
        "broker_certificate": str(tmp_path / "tls.crt"),
        "broker_key": (tmp_path / "tls.key").read_text(),
        "broker_users": [{"name": "appliance", "password": PASSWORD}],
        "appliance_secret_files": {"mqtt-password": PASSWORD},
        "appliance_config": {"mqtt": mqtt},
    }
    host(
        NAME,
        "systemctl stop mosquitto; dpkg --purge mosquitto; rm -rf /etc/mosquitto /etc/appliance/mqtt-password",
        check=False,
    )
    assert run("site", {"appliance_hosts": NAME}).code == 0


def line(command: str, tls: str, password: str) -> list[str]:
    """Return the command line of one of mosquitto's clients against the host, over TLS."""
    way = ["-h", address(NAME), "-p", "8883", "--cafile", tls, "--insecure", "-u", "appliance", "-P", password]
    return [command, *way]


def publish(tls: str, password: str) -> int:
    """Publish a flower and return the exit code."""
    message = ["-q", "1", "-t", "line/7/flower", "-m", "[6.3, 3.3, 6.0, 2.5]"]
    words = [*line("mosquitto_pub", tls, password), *message]
    return subprocess.run(words, capture_output=True, check=False, timeout=60).returncode


def test_broker_lets_messages_through_to_the_model_and_keeps_its_secrets(broker, run):
    checked = run("site", broker, "--check", "--diff")
    assert checked.code == 0, checked.output[-4000:]
    first = run("site", broker, "-vvv", "--diff")
    assert first.code == 0, first.output[-4000:]
    assert not set(changes(first.output)) - set(changes(checked.output))
    host(
        NAME,
        "for i in $(seq 60); do appliance status --json | grep -q '\"local\": true' && exit 0; sleep 1; done; exit 1",
    )
    tls = broker["broker_certificate"]
    listening = [*line("mosquitto_sub", tls, PASSWORD), "-t", "line/+/species", "-C", "1", "-W", "60"]
    with subprocess.Popen(listening, stdout=subprocess.PIPE, text=True) as listener:
        # Nobody tells from outside when it is subscribed.
        while listener.poll() is None:
            assert publish(tls, PASSWORD) == 0
            time.sleep(1)
        answer = listener.stdout.read()
    assert json.loads(answer)["prediction"] == ["virginica"]
    assert publish(tls, "wrong") == 5  # not authorised
    for secret in (PASSWORD, broker["broker_key"].splitlines()[3], STATE["appliance_tokens"][0]["token"]):
        assert secret not in checked.output + first.output
    modes = host(
        NAME,
        "stat -c '%a %U:%G' /etc/mosquitto/appliance-users /etc/mosquitto/appliance.key /etc/appliance/mqtt-password",
    )
    assert modes.stdout.split() == ["640", "root:mosquitto", "640", "root:mosquitto", "640", "root:appliance"]
    second = run("site", broker)
    assert (second.code, second.changed()) == (0, {NAME: 0}), second.output[-4000:]
