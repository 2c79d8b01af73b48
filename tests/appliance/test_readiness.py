"""Ready means: what the store wants active is loaded here, and it answered its examples rightly a moment ago."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from appliance.errors import NotReady, SelfTestFailed
from appliance.inference import selftest, version
from appliance.inference.version import LoadedVersion
from appliance.readiness import Readiness, Ready
from appliance.repository import ModelRepository
from appliance.store import activation
from appliance.store.versions import Store


@dataclass(frozen=True)
class Process:
    """What a process asks and is asked."""

    models: ModelRepository
    store: Store
    readiness: Readiness

    def is_ready(self) -> tuple[bool, Ready]:
        found = self.readiness.look()
        return found.ready, found


@pytest.fixture
def process(tmp_path, make_bundle) -> Process:
    store = Store(tmp_path / "state")
    store.install(make_bundle(tmp_path))
    activation.activate(store, "iris", "1.0.0", selftest.self_test)
    models = ModelRepository(store)
    models.refresh()
    return Process(models, store, Readiness(models, store))


def failing(found: str) -> Callable[[LoadedVersion], None]:
    def self_test(self: LoadedVersion) -> None:
        raise SelfTestFailed("self-test of iris 1.0.0", found)

    return self_test


def test_the_version_before_answers_for_one_that_was_activated_but_is_not_loaded_yet(process, tmp_path, make_bundle):
    assert process.is_ready()[0]
    process.store.install(make_bundle(tmp_path, version="1.1.0"))
    activation.activate(process.store, "iris", "1.1.0", selftest.self_test)
    ready, details = process.is_ready()
    assert ready
    found = details.models["iris"]
    assert (found.version, found.wanted, found.reason) == ("1.0.0", "1.1.0", "version 1.1.0 is not loaded yet")
    process.models.refresh()
    found = process.is_ready()[1].models["iris"]
    assert (found.ready, found.version, found.wanted, found.reason) == (True, "1.1.0", None, "")


def test_a_model_that_is_new_does_not_make_the_others_unready_until_it_cannot_be_loaded(process, tmp_path, make_bundle):
    process.store.install(make_bundle(tmp_path, name="wine"))
    activation.activate(process.store, "wine", "1.0.0", selftest.self_test)
    ready, details = process.is_ready()
    assert ready
    assert (details.models["wine"].ready, details.models["wine"].reason) == (False, "version 1.0.0 is not loaded yet")
    (process.store.folder("wine", "1.0.0") / "model.onnx").write_bytes(b"bad sector")
    process.models.refresh()
    ready, details = process.is_ready()
    assert not ready
    assert "model.onnx" in details.reasons[0]


def test_a_version_that_cannot_be_loaded_is_named_while_the_old_one_serves(process, tmp_path, make_bundle):
    process.store.install(make_bundle(tmp_path, version="1.1.0"))
    activation.activate(process.store, "iris", "1.1.0", selftest.self_test)
    (process.store.folder("iris", "1.1.0") / "model.onnx").write_bytes(b"bad sector")
    process.models.refresh()
    ready, details = process.is_ready()
    assert ready
    assert "model.onnx" in details.models["iris"].reason
    assert (details.models["iris"].version, details.models["iris"].wanted) == ("1.0.0", "1.1.0")
    assert process.models.get("iris").version == "1.0.0"


def test_a_model_that_was_deactivated_does_not_keep_the_others_from_being_ready(process, tmp_path, make_bundle):
    process.store.install(make_bundle(tmp_path, name="wine"))
    activation.activate(process.store, "wine", "1.0.0", selftest.self_test)
    activation.deactivate(process.store, "iris")
    process.models.refresh()
    ready, details = process.is_ready()
    assert ready
    assert set(details.models) == {"wine"}


def test_a_version_that_begins_to_answer_wrongly_is_not_ready(process, monkeypatch):
    monkeypatch.setattr(version, "LEAST_AGE", 0.0)
    monkeypatch.setattr(version, "SHARE", float("inf"))
    assert process.is_ready()[0]
    monkeypatch.setattr(LoadedVersion, "self_test", failing("output 'prediction' is 3 instead of 2"))
    ready, details = process.is_ready()
    assert not ready
    assert "is 3 instead of 2" in details.reasons[0]
    monkeypatch.undo()


def test_a_load_balancer_that_asks_often_costs_one_self_test(process, monkeypatch):
    runs = []
    real = LoadedVersion.self_test
    monkeypatch.setattr(LoadedVersion, "self_test", lambda self: runs.append(1) or real(self))
    monkeypatch.setattr(version, "LEAST_AGE", 3600.0)
    assert all(process.is_ready()[0] for _ in range(50))
    assert len(runs) == 1


def test_a_service_that_stops_is_not_ready(process):
    details = Readiness(process.models, process.store, stopping=lambda: True).look()
    ready = details.ready
    assert not ready
    assert details.reasons == ["the service is stopping"]


def test_a_store_that_cannot_be_read_is_a_reason(process):
    (process.store.models_dir / "iris" / "activation.json").write_text("{")
    ready, details = process.is_ready()
    assert not ready
    assert "activation.json" in details.reasons[0]


def test_the_graph_that_refuses_to_run_is_a_reason(process, monkeypatch):
    def refuse(*_: object) -> None:
        raise NotReady("run the model", "no memory")

    monkeypatch.setattr(LoadedVersion, "self_test", refuse)
    assert process.is_ready()[1].reasons == ["iris: run the model: no memory"]


def test_the_watchdog_is_told_which_version_fails(process, monkeypatch):
    assert process.readiness.failure() == ""
    monkeypatch.setattr(version, "LEAST_AGE", 0.0)
    monkeypatch.setattr(version, "SHARE", float("inf"))
    monkeypatch.setattr(LoadedVersion, "self_test", failing("output 'prediction' is 3 instead of 2"))
    assert process.readiness.failure().startswith("iris 1.0.0: ")
    assert "is 3 instead of 2" in process.readiness.failure()
