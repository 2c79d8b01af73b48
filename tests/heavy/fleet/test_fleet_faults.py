"""What goes wrong in the middle of a rollout: power, cables, disks, and the controller itself."""

import time
from pathlib import Path

import pytest
from hosts import HOSTS, Play, active, bundle, disk_of, everywhere, fleet, host, loaded, models, probes
from test_fleet_rollout import CANARY, FIRST, LAST, SECOND, untouched, wanted

VICTIM, BESIDE = SECOND[0], SECOND[1:]


def arrived(name: str, version: str) -> bool:
    """Return whether a version lies in a host's store, looked at from outside."""
    return (disk_of(name) / "var/lib/appliance/models/iris" / version).exists()


def record(name: str) -> str:
    """Return a host's activation record, looked at from outside."""
    try:
        return (disk_of(name) / "var/lib/appliance/models/iris/activation.json").read_text()
    except OSError:
        return ""


def bring_up(name: str) -> None:
    """Boot a host again and wait for its service."""
    fleet("on", name)
    host(name, "for i in $(seq 60); do appliance status --ready && exit 0; sleep 1; done; exit 1")


def brought_up_to_date(run, version: str) -> Play:
    """Run the same rollout once more; every host has the version afterwards."""
    again = run("rollout", wanted(version))
    assert again.code == 0, again.output[-4000:]
    assert active() == dict.fromkeys(HOSTS, version)
    assert {found["state"] for found in models().values()} == {"good"}
    assert {found["code"] for found in probes().values()} == {0}
    return again


def test_host_without_power_from_the_start_is_pending_and_comes_later(serving, run):
    fleet("off", VICTIM)
    play = run("rollout", wanted("1.1.0"))
    assert play.code == 0, play.output[-4000:]
    assert f"pending: {VICTIM}" in play.output
    others = [name for name in HOSTS if name != VICTIM]
    assert active(others) == dict.fromkeys(others, "1.1.0")
    bring_up(VICTIM)
    assert active([VICTIM]) == {VICTIM: "1.0.0"}
    again = brought_up_to_date(run, "1.1.0")
    assert {name for name, count in again.changed().items() if count} == {VICTIM}


def test_host_that_loses_power_during_its_wave_is_pending_and_the_others_are_done(serving, run, start):
    play = start("rollout", wanted("1.1.0"))
    play.until(lambda: arrived(VICTIM, "1.1.0"), f"1.1.0 is in the store of {VICTIM}")
    fleet("off", VICTIM)
    play.wait()
    assert play.code == 0, play.output[-4000:]
    assert f"pending: {VICTIM}" in play.output
    others = [name for name in HOSTS if name != VICTIM]
    assert active(others) == dict.fromkeys(others, "1.1.0")
    bring_up(VICTIM)
    assert active([VICTIM])[VICTIM] in ("1.0.0", "1.1.0")
    assert probes([VICTIM])[VICTIM]["code"] == 0
    brought_up_to_date(run, "1.1.0")


def test_more_pending_hosts_than_allowed_stop_the_rollout(serving, run):
    for name in SECOND:
        fleet("off", name)
    play = run("rollout", wanted("1.1.0", appliance_max_pending=1))
    assert play.code == 2, play.output[-4000:]
    assert "stopped:" in play.output
    assert active([LAST]) == {LAST: "1.0.0"}
    untouched([LAST], "1.1.0")
    for name in SECOND:
        bring_up(name)
    brought_up_to_date(run, "1.1.0")


def partial_bytes(name: str) -> int:
    """Return how much of something large is on its way to a host, wherever it is put first."""
    sizes = [0]
    for place in ("root/.ansible/tmp", "var/cache/appliance", "tmp", "var/tmp"):
        for path in (disk_of(name) / place).rglob("*"):
            try:
                sizes.append(path.stat().st_size if path.is_file() else 0)
            except OSError:
                continue
    return max(sizes)


def test_cable_cut_in_mid_copy_makes_the_host_pending(serving, run, start):
    fleet("loss", VICTIM, "15")  # slow enough to be met in the middle
    play = start("rollout", wanted("1.6.0"))
    size = Path(bundle("1.6.0")["file"]).stat().st_size
    play.until(lambda: 1_000_000 < partial_bytes(VICTIM) < size, "a part of the bundle has arrived")
    fleet("cut", VICTIM)
    cut = time.monotonic()
    assert 0 < partial_bytes(VICTIM) < size
    play.wait()
    print(f"ended {time.monotonic() - cut:.0f} s after the cut")
    assert play.code == 0, play.output[-4000:]
    assert f"pending: {VICTIM}" in play.output
    others = [name for name in HOSTS if name != VICTIM]
    assert active(others) == dict.fromkeys(others, "1.6.0")
    fleet("heal", VICTIM)
    assert active([VICTIM]) == {VICTIM: "1.0.0"}
    assert probes([VICTIM])[VICTIM]["code"] == 0
    brought_up_to_date(run, "1.6.0")


@pytest.fixture
def full_disk(serving):
    """The victim's state folder on a small disk of its own that is full; calling what it gives makes room."""
    state = "/var/lib/appliance"
    small = (
        f"systemctl stop appliance && cp -a {state} /root/state && mount -t tmpfs -o size=40M,mode=0750 small {state} "
        f"&& cp -a /root/state/. {state}/ && chown --reference=/root/state {state} && systemctl start appliance"
    )
    host(VICTIM, small)
    host(
        VICTIM,
        f"dd if=/dev/zero of={state}/filling bs=64k 2>/dev/null; test $(df --output=avail {state} | tail -1) -lt 64",
    )
    yield lambda: host(VICTIM, f"rm -f {state}/filling")
    back = f"systemctl stop appliance; umount {state}; rm -rf /root/state; systemctl start appliance"
    host(VICTIM, back)


def test_host_with_a_full_disk_keeps_serving_and_takes_its_wave_back(full_disk, run):
    with loaded(SECOND) as loads:
        play = run("rollout", wanted("1.1.0"))
    assert play.code == 2, play.output[-4000:]
    assert "stopped: wave 2" in play.output
    assert f"{VICTIM}: " in play.output
    assert loads.failures() == {}
    now = active()
    assert {now[name] for name in SECOND} == {"1.0.0"}
    assert (now[CANARY], now[FIRST]) == ("1.1.0", "1.1.0")
    untouched([LAST], "1.1.0")
    full_disk()
    brought_up_to_date(run, "1.1.0")


@pytest.mark.parametrize("moment", ["between waves", "within a wave"])
def test_killed_controller_is_started_again_and_ends_in_the_stated_state(serving, run, start, moment):
    play = start("rollout", wanted("1.1.0", appliance_soak=8))
    if moment == "between waves":
        play.until(
            lambda: '"state": "good"' in (now := record(FIRST)) and '"active": "1.1.0"' in now,
            "wave 1 has proved itself",
        )
    else:
        play.until(lambda: '"active": "1.1.0"' in record(VICTIM), f"{VICTIM} has activated 1.1.0")
    play.kill()
    assert play.code != 0
    now = active()
    assert now[LAST] == "1.0.0"
    assert now[CANARY] == "1.1.0"
    everywhere("appliance status --ready")
    again = brought_up_to_date(run, "1.1.0")
    assert again.changed()[CANARY] == 0
