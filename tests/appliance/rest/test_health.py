"""Ready means: what the store wants active is loaded here, and it answered its examples rightly a moment ago."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from appliance.errors import NotReady, SelfTestFailed
from appliance.inference import selftest, version
from appliance.inference.version import LoadedVersion
from appliance.predictor import Predictor
from appliance.repository import ModelRepository
from appliance.rest import health
from appliance.rest.http_types import Context
from appliance.store import activation
from appliance.store.versions import Store

IRIS = ("iris", "1.0.0", "regression")


@pytest.fixture
def context(tmp_path, make_bundle) -> Context:
    store = Store(tmp_path / "state")
    store.install(make_bundle(tmp_path))
    activation.activate(store, "iris", "1.0.0", selftest.self_test)
    models = ModelRepository(store)
    models.refresh()
    return Context(Predictor(models), models, store, SimpleNamespace())


def failing(found: str) -> Callable[[LoadedVersion], None]:
    def self_test(self: LoadedVersion) -> None:
        raise SelfTestFailed("self-test of iris 1.0.0", found)

    return self_test


def test_a_service_with_its_active_version_loaded_and_tested_is_ready(start_service):
    service = start_service(IRIS, ("wine", "2.0.0", "classifier"))
    assert service.ask("GET", "/health/live") == (200, {"live": True})
    status, body = service.ask("GET", "/health/ready")
    assert (status, body["ready"], body["reasons"]) == (200, True, [])
    assert body["models"] == {
        "iris": {"ready": True, "version": "1.0.0"},
        "wine": {"ready": True, "version": "2.0.0"},
    }


def test_health_needs_no_token(start_service, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("predict 0123456789abcdef\n")
    tokens.chmod(0o600)
    service = start_service(IRIS, tokens_file=str(tokens))
    assert service.ask("GET", "/health/live")[0] == 200
    assert service.ask("GET", "/health/ready")[0] == 200
    assert service.ask("GET", "/models")[0] == 401


def test_a_service_without_any_model_lives_but_is_not_ready_and_says_what_to_do(start_service):
    service = start_service()
    assert service.ask("GET", "/health/live")[0] == 200
    status, body = service.ask("GET", "/health/ready")
    assert (status, body["ready"]) == (503, False)
    assert "appliance activate" in body["reasons"][0]


def test_the_version_before_answers_for_one_that_was_activated_but_is_not_loaded_yet(context, tmp_path, make_bundle):
    assert health.is_ready(context)[0]
    context.store.install(make_bundle(tmp_path, version="1.1.0"))
    activation.activate(context.store, "iris", "1.1.0", selftest.self_test)
    ready, details = health.is_ready(context)
    assert ready
    found = details.models["iris"]
    assert (found.version, found.wanted, found.reason) == ("1.0.0", "1.1.0", "version 1.1.0 is not loaded yet")
    context.models.refresh()
    found = health.is_ready(context)[1].models["iris"]
    assert (found.ready, found.version, found.wanted, found.reason) == (True, "1.1.0", None, "")


def test_a_model_that_is_new_does_not_make_the_others_unready_until_it_cannot_be_loaded(context, tmp_path, make_bundle):
    context.store.install(make_bundle(tmp_path, name="wine"))
    activation.activate(context.store, "wine", "1.0.0", selftest.self_test)
    ready, details = health.is_ready(context)
    assert ready
    assert (details.models["wine"].ready, details.models["wine"].reason) == (False, "version 1.0.0 is not loaded yet")
    (context.store.folder("wine", "1.0.0") / "model.onnx").write_bytes(b"bad sector")
    context.models.refresh()
    ready, details = health.is_ready(context)
    assert not ready
    assert "model.onnx" in details.reasons[0]


def test_a_version_that_cannot_be_loaded_is_named_while_the_old_one_serves(context, tmp_path, make_bundle):
    context.store.install(make_bundle(tmp_path, version="1.1.0"))
    activation.activate(context.store, "iris", "1.1.0", selftest.self_test)
    (context.store.folder("iris", "1.1.0") / "model.onnx").write_bytes(b"bad sector")
    context.models.refresh()
    ready, details = health.is_ready(context)
    assert ready
    assert "model.onnx" in details.models["iris"].reason
    assert (details.models["iris"].version, details.models["iris"].wanted) == ("1.0.0", "1.1.0")
    assert context.predictor.route("iris").version == "1.0.0"


def test_a_model_that_was_deactivated_does_not_keep_the_others_from_being_ready(context, tmp_path, make_bundle):
    context.store.install(make_bundle(tmp_path, name="wine"))
    activation.activate(context.store, "wine", "1.0.0", selftest.self_test)
    activation.deactivate(context.store, "iris")
    context.models.refresh()
    ready, details = health.is_ready(context)
    assert ready
    assert set(details.models) == {"wine"}


def test_a_version_that_begins_to_answer_wrongly_is_not_ready(context, monkeypatch):
    monkeypatch.setattr(version, "LEAST_AGE", 0.0)
    monkeypatch.setattr(version, "SHARE", float("inf"))
    assert health.is_ready(context)[0]
    monkeypatch.setattr(LoadedVersion, "self_test", failing("output 'prediction' is 3 instead of 2"))
    ready, details = health.is_ready(context)
    assert not ready
    assert "is 3 instead of 2" in details.reasons[0]
    monkeypatch.undo()


def test_a_load_balancer_that_asks_often_costs_one_self_test(context, monkeypatch):
    runs = []
    real = LoadedVersion.self_test
    monkeypatch.setattr(LoadedVersion, "self_test", lambda self: runs.append(1) or real(self))
    monkeypatch.setattr(version, "LEAST_AGE", 3600.0)
    assert all(health.is_ready(context)[0] for _ in range(50))
    assert len(runs) == 1


def test_a_service_that_stops_is_not_ready(context):
    stopping = Context(context.predictor, context.models, context.store, context.config, stopping=lambda: True)
    ready, details = health.is_ready(stopping)
    assert not ready
    assert details.reasons == ["the service is stopping"]


def test_a_store_that_cannot_be_read_is_a_reason(context):
    (context.store.models_dir / "iris" / "activation.json").write_text("{")
    ready, details = health.is_ready(context)
    assert not ready
    assert "activation.json" in details.reasons[0]


def test_the_graph_that_refuses_to_run_is_a_reason(context, monkeypatch):
    def refuse(*_: object) -> None:
        raise NotReady("run the model", "no memory")

    monkeypatch.setattr(LoadedVersion, "self_test", refuse)
    assert health.is_ready(context)[1].reasons == ["iris: run the model: no memory"]
