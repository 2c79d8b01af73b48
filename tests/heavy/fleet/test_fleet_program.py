"""rollout.yml and site.yml with versions of the program: up, down, and back where one does not start."""

from pathlib import Path

from hosts import CONTAINER_HOSTS, HOSTS, active, everywhere, kit, probes
from test_fleet_rollout import CANARY, WAVES

BINARY_HOSTS = tuple(name for name in HOSTS if name not in CONTAINER_HOSTS)


def versions() -> set[str]:
    """Return the program versions of the hosts that have the binary."""
    return {out.split()[-1] for out in everywhere("appliance --version", BINARY_HOSTS).values()}


def test_program_goes_up_and_down_and_the_models_stay(serving, run):
    for version in ("0.2.0", "0.1.0"):
        wanted = {"appliance_kit": kit(version), "appliance_canary": CANARY, "appliance_waves": WAVES}
        play = run("rollout", wanted)
        assert play.code == 0, play.output[-4000:]
        assert versions() == {version}
        assert active() == dict.fromkeys(HOSTS, "1.0.0")
        assert {found["code"] for found in probes().values()} == {0}
        again = run("site", {"appliance_kit": kit(version)})
        assert again.code == 0, again.output[-4000:]
        assert again.changed() == dict.fromkeys(HOSTS, 0)


def test_kit_that_was_altered_is_refused_before_any_host_sees_it(serving, run, tmp_path):
    altered = bytearray(Path(kit("0.2.0")).read_bytes())
    altered[len(altered) // 2] ^= 1
    bad = tmp_path / "appliance-0.2.0-linux-x86_64.tar.gz"
    bad.write_bytes(altered)
    play = run("rollout", {"appliance_kit": str(bad), "appliance_canary": CANARY, "appliance_waves": WAVES})
    assert play.code == 2, play.output[-4000:]
    assert versions() == {"0.1.0"}
    assert {found["code"] for found in probes().values()} == {0}
