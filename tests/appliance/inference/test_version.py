"""A loaded version: its self-test is run again when the last one is too old, each version's for itself."""

import threading

import pytest

from appliance.bundle import baseline
from appliance.bundle.baseline import PROBABILITIES, Baseline
from appliance.errors import BundleRefused, SelfTestFailed
from appliance.inference import version
from appliance.inference.version import LoadedVersion
from appliance.store.versions import Store


@pytest.fixture
def load(tmp_path, make_bundle):
    """Return a function that installs and loads a version."""

    def load(number: str, **content: bytes) -> LoadedVersion:
        store = Store(tmp_path / "state")
        return LoadedVersion(store.install(make_bundle(tmp_path, version=number, **content)).folder)

    return load


def test_the_last_self_test_is_kept_with_its_result(load, monkeypatch):
    loaded = load("1.0.0")
    assert loaded.tested is None
    assert loaded.failure() == ""
    assert (loaded.tested.failure, loaded.tested.seconds >= 0) == ("", True)
    monkeypatch.setattr(version, "LEAST_AGE", 0.0)
    monkeypatch.setattr(version, "SHARE", float("inf"))

    def fail() -> None:
        raise SelfTestFailed("self-test of iris 1.0.0", "3 instead of 2")

    monkeypatch.setattr(loaded, "self_test", fail)
    assert "3 instead of 2" in loaded.failure()
    assert loaded.tested.failure == loaded.failure()


def test_a_version_whose_self_test_takes_long_keeps_no_other_one_waiting(load, monkeypatch):
    slow, quick = load("1.0.0"), load("2.0.0")
    begun, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr(slow, "self_test", lambda: begun.set() or go_on.wait(30))
    asking = threading.Thread(target=slow.failure)
    asking.start()
    try:
        assert begun.wait(30)
        assert quick.failure() == ""
        assert slow.tested is None
    finally:
        go_on.set()
        asking.join(30)
    assert slow.tested.failure == ""


def test_the_baseline_of_the_bundle_is_read_when_asked_for(load):
    known = Baseline(format=1, rows=5, probabilities=PROBABILITIES, inputs={}, outputs={})
    assert load("1.0.0").baseline is None
    assert load("2.0.0", baseline=baseline.write(known)).baseline == known
    broken = load("3.0.0", baseline=b'{"format": 99}')
    with pytest.raises(BundleRefused, match=r"baseline\.json"):
        _ = broken.baseline
