"""Brings the hosts from bare to serving once, and every test to the same start: iris 1.0.0 good, program 0.1.0."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hosts as lab
import pytest
from hosts import CONTAINER_HOSTS, HOSTS, Play, everywhere, fleet, host

TMPFS = """
findmnt -n /var/lib/docker > /dev/null && exit 0
systemctl stop docker docker.socket; rm -rf /var/lib/docker; mkdir -p /var/lib/docker /var/lib/containers
mount -t tmpfs -o size=2G docker /var/lib/docker && systemctl start docker
systemctl stop podman.socket; rm -rf /run/containers /run/libpod
mount -t tmpfs -o size=2G containers /var/lib/containers
"""
"""The hosts' disks are overlays, on which an engine can only copy whole images for each container; in memory not. What
Podman found out of the disk at the start of the host lies in /run."""
# Podman locks a file of its own there when it is asked for an image.
LOOK = (
    "find /etc /opt /usr/local /var/lib/appliance /var/cache -xdev -type f -newer /root/mark "
    "! -path '/var/cache/containers/*.lock' | sort"
)
SETTLE = """
set -e
rm -rf /var/lib/appliance-rollout
if [ -e /etc/systemd/system/appliance.service.d/fleet.conf ]; then
  rm -r /etc/systemd/system/appliance.service.d; systemctl daemon-reload; systemctl restart appliance
fi
systemctl is-active -q appliance || { systemctl reset-failed appliance; systemctl start appliance; }
appliance models --json | grep -q '"active": "1.0.0"' || appliance activate iris 1.0.0 --why settle > /dev/null
appliance mark-good iris > /dev/null
for one in /var/lib/appliance/models/iris/[0-9]*; do
  version=${one##*/}; [ "$version" = 1.0.0 ] || appliance remove iris "$version" > /dev/null
done
cat /var/lib/appliance/receipts/* | wc -l > /root/settled
"""


@dataclass
class Sited:
    """What happened when site.yml met bare hosts."""

    check: Play
    left: dict[str, str]
    """{host: files that the check wrote}."""
    first: Play
    second: Play


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for inventories and logs; short, as ssh's sockets lie below it."""
    return tmp_path_factory.mktemp("fleet")


@pytest.fixture(scope="session")
def start(folder: Path) -> Iterator[Callable[..., Play]]:
    """Return start(playbook, variables, *words) -> Play, which runs; what still runs at the end is killed."""
    plays: list[Play] = []

    def start(playbook: str, variables: dict[str, Any] | None = None, *words: str) -> Play:
        plays.append(Play(folder, playbook, variables or {}, *words))
        return plays[-1]

    yield start
    for play in plays:
        play.kill()


@pytest.fixture(scope="session")
def run(start: Callable[..., Play]) -> Callable[..., Play]:
    """Return run(playbook, variables, *words) -> Play, which has ended."""

    def run(playbook: str, variables: dict[str, Any] | None = None, *words: str) -> Play:
        return start(playbook, variables, *words).wait()

    return run


@pytest.fixture(scope="session")
def sited(run: Callable[..., Play]) -> Sited:
    """Bare hosts, site.yml in check mode, then twice for good."""
    everywhere(TMPFS, CONTAINER_HOSTS)
    everywhere("systemctl is-active -q ssh && ! command -v appliance && touch /root/mark && sleep 1")
    check = run("site", None, "--check", "--diff")
    left = everywhere(LOOK)
    return Sited(check, left, run("site"), run("site"))


@pytest.fixture
def serving(request: pytest.FixtureRequest) -> None:
    """Every host on, connected, and on iris 1.0.0, marked good, with nothing else installed.

    With FLEET_SITED set, hosts that site.yml is done with are taken as they are.
    """
    if not os.environ.get("FLEET_SITED"):
        sited: Sited = request.getfixturevalue("sited")
        assert sited.first.code == 0, sited.first.output[-4000:]
    for name in HOSTS:
        with contextlib.suppress(subprocess.CalledProcessError):  # one without power has no cable either
            fleet("heal", name)
        fleet("on", name)
    everywhere(SETTLE)


@pytest.fixture
def drop_in() -> Iterator[Callable[[str, str], None]]:
    """Return drop_in(host, lines): what an operator wrote by `systemctl edit appliance` and forgot; gone at the end."""
    edited: list[str] = []
    place = "/etc/systemd/system/appliance.service.d"

    def write(name: str, lines: str) -> None:
        edited.append(name)
        host(name, f"mkdir -p {place} && cat > {place}/fleet.conf", given=f"[Service]\n{lines}\n")
        host(name, "systemctl daemon-reload && systemctl restart appliance")

    yield write
    for name in edited:
        host(name, f"rm -r {place}; systemctl daemon-reload; systemctl restart appliance")


assert lab.ANSIBLE.exists(), f"{lab.ANSIBLE} is not there: make collection"
