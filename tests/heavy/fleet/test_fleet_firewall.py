"""A host with a firewall that lets nobody in: site.yml opens the port, and check mode has told of it before."""

import socket
import subprocess

import pytest
from hosts import CONTAINER_HOSTS, HOSTS, PORT, Play, address, disk_of, host
from test_fleet_site import changes, predict

NAME = next(name for name in HOSTS if name not in CONTAINER_HOSTS)
START = {
    "ufw": "ufw allow 22/tcp > /dev/null && ufw --force enable",
    "firewalld": "systemctl start firewalld && firewall-cmd --query-service=ssh",  # its default zone lets ssh in
}
STOP = {"ufw": "ufw --force disable", "firewalld": "systemctl stop firewalld"}
AGAIN = {"ufw": "ufw reload", "firewalld": "systemctl restart firewalld"}


def fetch(name: str, package: str) -> str:
    """Install a Debian package with all that it needs, fetched by this machine; return the names of what is new."""
    state = ["-o", f"Dir::State::status={disk_of(name)}/var/lib/dpkg/status"]
    place = disk_of(name) / "root" / "debs"
    (place / "partial").mkdir(parents=True)
    words = ["install", "-y", "-q", "--no-install-recommends", "--download-only", "-o", f"Dir::Cache::archives={place}"]
    subprocess.run(["apt-get", *state, *words, package], check=True, capture_output=True)
    new = " ".join(path.name.partition("_")[0] for path in place.glob("*.deb"))
    # A service would be started by its package before anybody has said whom it lets in.
    policy = "printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d"
    install = "DEBIAN_FRONTEND=noninteractive dpkg --install /root/debs/*.deb; rc=$?"
    host(name, f"{policy}; {install}; rm -r /usr/sbin/policy-rc.d /root/debs; exit $rc")
    return new


def is_open(name: str) -> bool:
    """Return whether the port can be reached from here."""
    try:
        socket.create_connection((address(name), PORT), timeout=3).close()
    except OSError:
        return False
    return True


@pytest.fixture(params=["ufw", "firewalld"])
def firewall(request, serving):
    """A firewall of this name runs on the host and lets in ssh alone; it is gone at the end."""
    new = fetch(NAME, request.param)
    host(NAME, START[request.param])
    yield request.param
    host(NAME, f"{STOP[request.param]}; dpkg --purge {new}")


def test_check_mode_tells_that_the_port_would_be_opened_and_the_run_opens_it(firewall, run):
    assert not is_open(NAME)
    wanted = {"appliance_hosts": NAME, "appliance_firewall": firewall}
    checked: Play = run("site", wanted, "--check", "--diff")
    assert checked.code == 0, checked.output[-4000:]
    assert changes(checked.output)["inference.appliance.appliance : Open the port", NAME]
    assert not is_open(NAME)
    done = run("site", wanted, "--diff")
    assert done.code == 0, done.output[-4000:]
    assert predict(NAME)[0] == 200
    assert changes(checked.output) == changes(done.output) != {}
    host(NAME, AGAIN[firewall])
    assert is_open(NAME)
    second = run("site", wanted)
    assert (second.code, second.changed()) == (0, {NAME: 0}), second.output[-4000:]
