"""rollout.yml with bundles: a canary, then waves, each with a gate; what fails a gate goes back with its wave."""

import json

import pytest
from hosts import ASSETS, HOSTS, OUTLIER, active, bundle, host, loaded, models, probes, receipts

CANARY, FIRST, *SECOND, LAST = HOSTS
WAVES = [1, len(SECOND), "100%"]
"""After the canary: one host, then those of SECOND, then the rest."""


def wanted(version: str, **more: object) -> dict:
    """Return the variables of a rollout of iris alone, the program left as it is."""
    alone = {"appliance_kit": "", "appliance_image": "", "appliance_soak": 1}
    return {**alone, "bundle_models": [bundle(version)], "appliance_canary": CANARY, "appliance_waves": WAVES, **more}


def untouched(names: tuple[str, ...] | list[str], version: str) -> None:
    """Assert that hosts have nothing of a version, not even its file."""
    assert not [name for name, found in models(names).items() if version in found["versions"]]
    assert not [name for name, done in receipts(names).items() if any(one["version"] == version for one in done)]


def test_rollout_under_load_fails_no_request(serving, run):
    with loaded() as loads:
        play = run("rollout", wanted("1.1.0", appliance_soak=5))
    assert play.code == 0, play.output[-4000:]
    assert loads.failures() == {}
    assert active() == dict.fromkeys(HOSTS, "1.1.0")
    for name in HOSTS:
        assert set(loads.found[name]["versions"]) == {"1.0.0", "1.1.0"}, name
        assert loads.found[name]["asked"] > 100
    assert {found["state"] for found in models().values()} == {"good"}
    assert {found["code"] for found in probes().values()} == {0}
    print({name: found["asked"] for name, found in loads.found.items()})
    again = run("rollout", wanted("1.1.0"))
    assert again.code == 0, again.output[-4000:]
    assert again.changed() == dict.fromkeys(HOSTS, 0)


def test_check_mode_of_a_rollout_changes_nothing(serving, run):
    play = run("rollout", wanted("1.1.0"), "--check", "--diff")
    assert play.code == 0, play.output[-4000:]
    assert active() == dict.fromkeys(HOSTS, "1.0.0")
    untouched(HOSTS, "1.1.0")


def test_bundle_that_fails_its_self_test_stops_at_the_canary(serving, run):
    with loaded([CANARY]) as loads:
        play = run("rollout", wanted("1.2.0"))
    assert play.code == 2, play.output[-4000:]
    assert "stopped:" in play.output
    assert f"{CANARY}: " in play.output
    assert "self-test" in play.output
    assert loads.failures() == {}
    assert active() == dict.fromkeys(HOSTS, "1.0.0")
    untouched([FIRST, *SECOND, LAST], "1.2.0")
    assert receipts([CANARY])[CANARY][-1]["outcome"] == "refused"
    assert probes([CANARY])[CANARY]["version"] == "1.0.0"


def test_slow_bundle_goes_back_at_the_canary(serving, run):
    with loaded([CANARY]) as loads:
        play = run("rollout", wanted("1.4.0", appliance_soak=5))
    assert play.code == 2, play.output[-4000:]
    assert "stopped:" in play.output
    assert loads.failures() == {}
    assert "1.4.0" in loads.found[CANARY]["versions"]
    assert active() == dict.fromkeys(HOSTS, "1.0.0")
    untouched([FIRST, *SECOND, LAST], "1.4.0")


def test_bundle_that_is_slow_for_what_one_plant_sends_takes_its_wave_back(serving, run):
    with loaded(HOSTS, {SECOND[0]: OUTLIER}) as loads:
        play = run("rollout", wanted("1.5.0", appliance_soak=5))
    assert play.code == 2, play.output[-4000:]
    assert "stopped: wave 2" in play.output
    assert f"{SECOND[0]}: " in play.output
    assert loads.failures() == {}
    now = active()
    assert (now[CANARY], now[FIRST]) == ("1.5.0", "1.5.0")
    assert {now[name] for name in SECOND} == {"1.0.0"}
    assert receipts(SECOND[-1:])[SECOND[-1]][-1]["what"] == "roll back"
    untouched([LAST], "1.5.0")


def test_host_that_answers_otherwise_than_its_store_says_takes_its_wave_back(serving, run, drop_in):
    # A drop-in that nobody remembers: the service hardly ever looks at the store.
    drop_in(SECOND[0], "Environment=APPLIANCE_MODELS_POLL_SECONDS=3600")
    play = run("rollout", wanted("1.1.0"))
    assert play.code == 2, play.output[-4000:]
    assert "stopped: wave 2" in play.output
    assert f"{SECOND[0]}: " in play.output
    now = active()
    assert (now[CANARY], now[FIRST], now[LAST]) == ("1.1.0", "1.1.0", "1.0.0")
    assert {now[name] for name in SECOND} == {"1.0.0"}
    untouched([LAST], "1.1.0")
    # Mended, the same command ends in the stated state.
    host(
        SECOND[0], "rm -r /etc/systemd/system/appliance.service.d; systemctl daemon-reload; systemctl restart appliance"
    )
    again = run("rollout", wanted("1.1.0"))
    assert again.code == 0, again.output[-4000:]
    assert active() == dict.fromkeys(HOSTS, "1.1.0")
    assert (again.changed()[CANARY], again.changed()[FIRST]) == (0, 0)


def test_first_version_that_fails_its_gate_serves_nowhere_afterwards(serving, run, drop_in):
    host(CANARY, "appliance deactivate iris --why 'as if none had ever served'")
    drop_in(CANARY, "Environment=APPLIANCE_MODELS_POLL_SECONDS=3600")
    play = run("rollout", wanted("1.1.0"))
    assert play.code == 2, play.output[-4000:]
    assert "stopped: canary" in play.output
    assert active() == {**dict.fromkeys(HOSTS, "1.0.0"), CANARY: None}
    assert [one["what"] for one in receipts([CANARY])[CANARY][-2:]] == ["activate", "deactivate"]
    untouched([FIRST, *SECOND, LAST], "1.1.0")


def test_bundle_signed_by_the_wrong_key_is_refused_everywhere(serving, run):
    play = run("rollout", wanted("1.3.0"))
    assert play.code == 2, play.output[-4000:]
    assert active() == dict.fromkeys(HOSTS, "1.0.0")
    untouched(HOSTS, "1.3.0")
    site = run("site", {"bundle_models": [bundle("1.3.0")]})
    assert site.code == 2, site.output[-4000:]
    untouched(HOSTS, "1.3.0")
    # And by each host itself, whoever brings it.
    content = (ASSETS / "iris-1.3.0.bundle").read_bytes().hex()
    for name in HOSTS:
        place = "/var/lib/appliance/brought.bundle"
        host(
            name,
            f'python3 -c \'import sys; open("{place}", "wb").write(bytes.fromhex(sys.stdin.read()))\'',
            given=content,
        )
        done = host(name, f"appliance install {place}", check=False)
        host(name, f"rm {place}")
        assert done.returncode == 3, (name, done.stdout, done.stderr)
        assert "not signed by the trusted key" in done.stderr
    untouched(HOSTS, "1.3.0")


def test_rollback_playbook_returns_every_host_to_the_version_before(serving, run):
    assert run("rollout", wanted("1.1.0", appliance_waves=["100%"])).code == 0
    assert active() == dict.fromkeys(HOSTS, "1.1.0")
    with loaded() as loads:
        play = run("rollback", {"bundle_rollback": [{"name": "iris"}]})
    assert play.code == 0, play.output[-4000:]
    assert loads.failures() == {}
    assert active() == dict.fromkeys(HOSTS, "1.0.0")


def test_status_shows_every_host_and_takes_the_receipt_of_an_offline_site(serving, run, tmp_path):
    offline = json.loads(host(CANARY, "appliance status --json").stdout)
    (tmp_path / "receipts").mkdir()
    (tmp_path / "receipts" / "far.json").write_text(json.dumps({**offline, "host": "far-away"}))
    report = tmp_path / "status.json"
    play = run("status", {"appliance_receipts": str(tmp_path / "receipts"), "appliance_status_file": str(report)})
    assert play.code == 0, play.output[-4000:]
    assert play.changed() == dict.fromkeys(HOSTS, 0)
    text = report.read_text()
    assert all(name in text for name in (*HOSTS, "far-away"))
    assert text.count("1.0.0") >= len(HOSTS) + 1
    assert all(name in play.output for name in (*HOSTS, "far-away"))


@pytest.mark.parametrize(
    "wrong",
    [{"appliance_waves": "some"}, {"appliance_soak": "long"}, {"appliance_max_pending": "few"}],
    ids=["waves", "soak", "pending"],
)
def test_rollout_variables_of_the_wrong_kind_are_refused(serving, run, wrong):
    play = run("rollout", {**wanted("1.1.0"), **wrong})
    assert play.code != 0
    assert active() == dict.fromkeys(HOSTS, "1.0.0")
    untouched(HOSTS, "1.1.0")
