"""What a source cannot undo: roll back, deactivate and remove stay, older versions and other models do not come."""

import json
import shutil

import pytest

from appliance.errors import ConfigError
from appliance.inference.selftest import self_test
from appliance.store import activation, marks

INDEX = "index.json"


def empty(site) -> None:
    site.files[f"/{INDEX}"] = b'{"format": 1, "bundles": []}'


@pytest.fixture
def at_two(host, site, signed):
    """Pull 1.0.0 and 2.0.0; return the source."""
    source = f"{site.base}/{INDEX}"
    for version in ("1.0.0", "2.0.0"):
        site.publish(signed(version))
        assert host.pull(source) == [("iris", version, "activated")]
    return source


def roll_back(host) -> None:
    activation.roll_back(host.store, "iris", self_test)


def deactivate(host) -> None:
    activation.deactivate(host.store, "iris")


def go_back_and_remove(host) -> None:
    activation.roll_back(host.store, "iris", self_test)
    host.store.remove("iris", "2.0.0")


def remove_all(host) -> None:
    activation.deactivate(host.store, "iris")
    for version in ("2.0.0", "1.0.0"):
        host.store.remove("iris", version)


DECISIONS = [roll_back, deactivate, go_back_and_remove, remove_all]


@pytest.mark.parametrize("decide", DECISIONS)
def test_what_an_operator_decided_stays_so_until_a_newer_version_comes(host, site, signed, at_two, decide):
    decide(host)
    active, versions = host.active(), host.store.versions("iris")
    for change in (lambda: None, lambda: empty(site), lambda: site.publish(signed("2.0.0"))):
        change()
        host.pull(at_two)
        assert (host.active(), host.store.versions("iris")) == (active, versions)
    site.publish(signed("2.0.1"))
    assert host.pull(at_two) == [("iris", "2.0.1", "activated")]


@pytest.mark.parametrize("decide", DECISIONS)
@pytest.mark.parametrize("older", ["1.0.0", "1.5.0", "2.0.0-rc.1", "2.0.0+again"])
def test_a_signed_version_that_is_not_newer_is_refused(host, site, signed, at_two, decide, older):
    decide(host)
    active, versions = host.active(), host.store.versions("iris")
    bundle = signed(older)
    site.publish(bundle)
    site.requests.clear()
    what = "unchanged" if older == active else "refused"
    assert host.pull(at_two) == [("iris", older, what)]
    assert (host.active(), host.store.versions("iris")) == (active, versions)
    if what == "refused":
        assert "not newer than 2.0.0" in host.error
        assert "--allow-older" in host.outcomes[0].error.next_step
        assert [path for path, _ in site.requests] == [f"/{INDEX}"]


def test_a_lost_or_foreign_record_undoes_nothing(host, site, signed, at_two):
    roll_back(host)
    (host.state / "pull" / "record.json").unlink()
    assert host.pull(at_two) == [("iris", "2.0.0", "unchanged")]
    site.files["/other.json"] = site.files[f"/{INDEX}"]
    assert host.pull(f"{site.base}/other.json") == [("iris", "2.0.0", "unchanged")]
    assert host.active() == "1.0.0"


@pytest.mark.parametrize(
    ("newer", "than"),
    [("2.0.0", "2.0.0-rc.1"), ("2.0.0-rc.11", "2.0.0-rc.2"), ("2.0.0-rc.1", "2.0.0-9"), ("10.0.0", "9.9.9")],
)
def test_newer_is_by_semver_s_precedence(host, site, signed, newer, than):
    source = f"{site.base}/{INDEX}"
    site.publish(signed(than))
    host.pull(source)
    site.publish(signed(newer))
    assert host.pull(source) == [("iris", newer, "activated")]
    site.publish(signed(than))
    assert host.pull(source) == [("iris", than, "refused")]


def test_an_older_version_comes_where_it_is_asked_for_and_becomes_the_mark(host, site, signed, at_two):
    site.publish(signed("1.5.0"))
    assert host.pull(at_two, allow_older=True) == [("iris", "1.5.0", "activated")]
    assert host.store.mark("iris").version == "1.5.0"
    site.publish(signed("1.6.0"))
    assert host.pull(at_two) == [("iris", "1.6.0", "activated")]


def test_allowing_older_ones_does_not_undo_a_roll_back(host, at_two):
    roll_back(host)
    assert host.pull(at_two, allow_older=True) == [("iris", "2.0.0", "unchanged")]
    assert host.active() == "1.0.0"


def test_an_index_cannot_raise_the_mark(host, site, signed, at_two):
    site.publish(signed("3.0.0"), version="999.0.0")
    assert host.pull(at_two) == [("iris", "999.0.0", "refused")]
    assert host.store.mark("iris").version == "2.0.0"
    site.publish(signed("3.0.0"))
    assert host.pull(at_two, again=True) == [("iris", "3.0.0", "activated")]


def test_what_another_key_signed_does_not_raise_the_mark(host, site, signed, at_two, other_key):
    site.publish(signed("9.0.0", key=other_key))
    assert host.pull(at_two) == [("iris", "9.0.0", "refused")]
    site.publish(signed("3.0.0"))
    assert host.pull(at_two) == [("iris", "3.0.0", "activated")]


def test_what_was_installed_by_hand_counts_too(host, site, signed, at_two):
    host.store.install(signed("3.0.0"))
    site.publish(signed("2.5.0"))
    assert host.pull(at_two) == [("iris", "2.5.0", "refused")]
    host.store.remove("iris", "3.0.0")
    assert host.pull(at_two) == [("iris", "2.5.0", "refused")]
    site.publish(signed("3.0.0"))
    assert host.pull(at_two)[0][2] != "activated"
    assert host.active() == "2.0.0"


def test_a_host_of_an_earlier_program_counts_what_is_installed(host, site, signed):
    for version in ("1.0.0", "2.0.0"):
        host.store.install(signed(version))
    activation.activate(host.store, "iris", "1.0.0", self_test)
    marks.path(host.store.marks_dir, "iris").unlink()
    site.publish(signed("2.0.0"))
    assert host.pull(f"{site.base}/{INDEX}") == [("iris", "2.0.0", "unchanged")]
    assert host.active() == "1.0.0"


def test_a_decision_between_installing_and_activating_stands(host, signed, monkeypatch):
    """`activate = false` first: what waits for a person is decided by the person."""
    folder = signed("1.0.0").parent
    host.pull(folder)
    signed("2.0.0")
    assert host.pull(folder, activate=False) == [("iris", "2.0.0", "installed")]
    activation.activate(host.store, "iris", "2.0.0", self_test)
    roll_back(host)
    assert host.pull(folder) == [("iris", "2.0.0", "unchanged")]
    assert host.active() == "1.0.0"


def test_an_operator_who_acts_during_a_pull_is_not_overtaken(host, site, signed, at_two, monkeypatch):
    site.publish(signed("3.0.0"))
    install = host.store.__class__.install

    def install_and_decide(store, *arguments, **rest):
        done = install(store, *arguments, **rest)
        activation.deactivate(store, "iris")
        return done

    monkeypatch.setattr(host.store.__class__, "install", install_and_decide)
    assert host.pull(at_two) == [("iris", "3.0.0", "installed")]
    assert host.active() is None


@pytest.mark.parametrize("content", [b"", b"{", b'{"version": "x"}', b'{"version": "1.0.0", "more": 1}', b"\xff"])
def test_a_damaged_mark_keeps_pulls_away_and_operators_free(host, site, signed, at_two, content):
    marks.path(host.store.marks_dir, "iris").write_bytes(content)
    site.publish(signed("3.0.0"), signed("1.0.0", name="pump"))
    assert host.pull(at_two) == [("iris", "3.0.0", "failed"), ("pump", "1.0.0", "activated")]
    assert "marks/iris.json" in host.outcomes[0].error.tried
    roll_back(host)
    assert host.active() == "1.0.0"
    host.store.install(signed("4.0.0"))
    activation.activate(host.store, "iris", "4.0.0", self_test)
    assert host.active() == "4.0.0"


@pytest.mark.parametrize("planted", ["marks", "marks/iris.json"])
def test_a_link_in_the_place_of_a_mark_is_not_followed(host, site, signed, at_two, tmp_path, planted):
    target = tmp_path / "target"
    if planted == "marks":
        shutil.rmtree(host.state / planted)
        target.mkdir()
        (target / "iris.json").write_text('{"version": "0.0.1"}')
    else:
        (host.state / planted).unlink()
        target.write_text('{"version": "0.0.1"}')
    (host.state / planted).symlink_to(target)
    before = (target / "iris.json" if target.is_dir() else target).read_bytes()
    site.publish(signed("3.0.0"))
    assert host.pull(at_two) == [("iris", "3.0.0", "failed")]
    assert "link" in host.error
    roll_back(host)
    assert host.active() == "1.0.0"
    assert (target / "iris.json" if target.is_dir() else target).read_bytes() == before


def test_only_models_that_are_named_or_installed_come(host, site, signed):
    source = f"{site.base}/{INDEX}"
    site.publish(signed("1.0.0"), signed("1.0.0", name="pump"))
    assert host.pull(source, models=("iris",)) == [("iris", "1.0.0", "activated"), ("pump", "1.0.0", "skipped")]
    assert host.store.names() == ["iris"]
    site.publish(signed("1.1.0"), signed("1.1.0", name="pump"))
    assert host.pull(source, models=()) == [("iris", "1.1.0", "activated"), ("pump", "1.1.0", "skipped")]
    assert host.pull(source, models=("pump",)) == [("iris", "1.1.0", "unchanged"), ("pump", "1.1.0", "activated")]
    assert not [path for path, _ in site.requests if path.endswith("pump-1.0.0.bundle")]


def test_a_removed_model_does_not_come_back_where_it_is_not_named(host, site, signed, at_two):
    host.store.install(signed("1.0.0", name="pump"))
    remove_all(host)
    site.publish(signed("3.0.0"))
    assert host.pull(at_two, models=()) == [("iris", "3.0.0", "skipped")]


def test_a_fresh_host_without_models_is_told_what_to_set(host, site, signed):
    site.publish(signed("1.0.0"), signed("1.0.0", name="pump"))
    with pytest.raises(ConfigError) as caught:
        host.pull(f"{site.base}/{INDEX}", models=())
    assert caught.value.next_step == 'set [pull] models = ["iris", "pump"]'
    assert host.store.names() == []


def test_a_mark_names_the_bundle_and_whether_it_is_decided(host, site, signed, at_two):
    said = json.loads((host.state / "marks" / "iris.json").read_bytes())
    digest = json.loads(site.files[f"/{INDEX}"])["bundles"][0]["sha256"]
    assert said == {"version": "2.0.0", "sha256": digest, "open": False}
