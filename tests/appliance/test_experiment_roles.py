"""Following an experiment: which versions are loaded for it, who answers a request, and what stays as it was."""

import numpy as np
import pytest

from appliance.experiment_roles import ExperimentRoles
from appliance.inference.selftest import self_test
from appliance.predictor import Predictor
from appliance.repository import ModelRepository
from appliance.store import activation, experiments
from appliance.store.experiments import Wish
from appliance.store.routing_record import Arm, Plan
from appliance.store.versions import Store

VERSIONS = ("1.0.0", "2.0.0", "3.0.0")
FEEDS = {"features": np.zeros((1, 4), np.float32)}
KEYS = [f"device-{number}" for number in range(400)]


@pytest.fixture
def store(tmp_path, make_bundle) -> Store:
    """Return a store whose model iris has three versions, 1.0.0 active."""
    store = Store(tmp_path / "state")
    for version in VERSIONS:
        store.install(make_bundle(tmp_path, version=version))
    activation.activate(store, "iris", "1.0.0", self_test)
    return store


@pytest.fixture
def models(store) -> ModelRepository:
    return ModelRepository(store, pinned_versions=1, roles=ExperimentRoles())


def begin(store: Store, wish: Wish):
    return experiments.begin(store, "iris", wish, self_test)


def canary(store: Store):
    return begin(store, Wish("canary", shadow=Arm("2.0.0", 1.0), plan=Plan(steps=(0.2, 0.5))))


def roles(models: ModelRepository) -> dict[str, str | None]:
    return {role: served.wanted for role, served in models.roles("iris").items()}


def answered(predictor: Predictor, key: str = "", version: str | None = None) -> tuple[str, str]:
    prediction = predictor.run(predictor.route("iris", version, key), FEEDS, keys=(key,))
    assert prediction.outputs["prediction"][0] == 100 * int(prediction.version[0])
    return prediction.version, prediction.arm


def test_without_an_experiment_no_prediction_has_an_arm(store, models):
    models.refresh()
    predictor = Predictor(models)
    assert predictor.arms("iris") is None
    prediction = predictor.run(predictor.route("iris", None, "device-1"), FEEDS, keys=("device-1",))
    assert (prediction.version, prediction.arm, prediction.keys) == ("1.0.0", "", ())


def test_a_canary_is_asked_as_shadow_and_then_answers_its_share_by_key(store, models):
    made = canary(store)
    models.refresh()
    predictor = Predictor(models)
    assert roles(models) == {"active": "1.0.0", "canary": "2.0.0", "shadow": "2.0.0"}
    assert models.roles("iris")["canary"].loaded is models.roles("iris")["shadow"].loaded
    assert {answered(predictor, key) for key in KEYS} == {("1.0.0", f"{made.id}/1.0.0")}
    experiments.advance(store, "iris", made.id, 1)
    models.refresh()
    first = {key: answered(predictor, key) for key in KEYS}
    assert set(first.values()) == {("1.0.0", f"{made.id}/1.0.0"), ("2.0.0", f"{made.id}/2.0.0")}
    assert first == {key: answered(predictor, key) for key in KEYS}
    experiments.advance(store, "iris", made.id, 2)
    models.refresh()
    assert all(answered(predictor, key)[0] == "2.0.0" for key, (version, _) in first.items() if version == "2.0.0")


def test_a_request_that_names_a_version_is_never_routed(store, models):
    begin(store, Wish("split", arms=(Arm("1.0.0", 0.5), Arm("2.0.0", 0.5))))
    models.refresh()
    predictor = Predictor(models)
    for version in ("1.0.0", "2.0.0"):
        assert {answered(predictor, key, version) for key in KEYS[:50]} == {(version, "")}
    assert {answered(predictor)[0] for _ in range(200)} == {"1.0.0", "2.0.0"}  # the default model, without a key


def test_a_prediction_of_an_arm_keeps_its_keys(store, models):
    made = begin(store, Wish("split", arms=(Arm("1.0.0", 0.5), Arm("2.0.0", 0.3), Arm("3.0.0", 0.2))))
    models.refresh()
    assert roles(models) == {"active": "1.0.0", "split 2.0.0": "2.0.0", "split 3.0.0": "3.0.0"}
    predictor = Predictor(models)
    prediction = predictor.run(predictor.route("iris", None, "device-1"), FEEDS, keys=("device-1",))
    assert (prediction.keys, prediction.arm) == (("device-1",), f"{made.id}/{prediction.version}")


def test_promote_and_abort_end_the_routing_and_free_what_has_no_role(store, models):
    canary(store)
    models.refresh()
    told = []
    models.switched = lambda served: told.append((served.role, served.wanted))
    experiments.abort(store, "iris")
    models.refresh()
    assert (roles(models), models.arms("iris")) == ({"active": "1.0.0"}, None)
    assert sorted(told) == [("canary", None), ("shadow", None)]  # and nothing of the active one: it is as it was
    canary(store)
    models.refresh()
    loaded = models.roles("iris")["canary"].loaded
    experiments.promote(store, "iris", self_test)
    models.refresh()
    assert (roles(models), models.arms("iris")) == ({"active": "2.0.0"}, None)
    assert models.get("iris") is loaded


def test_evidence_that_is_kept_switches_nothing(store, models):
    made = canary(store)
    models.refresh()
    told = []
    models.switched = told.append
    experiments.keep_evidence(store, "iris", made.id, log_e={"failures": 1.0}, snapshot={})
    models.refresh()
    assert told == []


def test_an_arm_that_cannot_load_leaves_its_share_to_the_active_version(store, models):
    made = begin(store, Wish("split", arms=(Arm("1.0.0", 0.5), Arm("2.0.0", 0.5))))
    (store.folder("iris", "2.0.0") / "model.onnx").write_bytes(b"damaged")
    models.refresh()
    assert "model.onnx" in str(models.roles("iris")["split 2.0.0"].problem)
    assert {answered(Predictor(models), key) for key in KEYS} == {("1.0.0", f"{made.id}/1.0.0")}


def test_a_record_that_cannot_be_read_leaves_the_active_version_answering(store, caplog):
    begin(store, Wish("split", arms=(Arm("1.0.0", 0.5), Arm("2.0.0", 0.5))))
    experiments.path(store, "iris").write_bytes(b"{ half")
    models = ModelRepository(store, roles=ExperimentRoles())  # as after a restart
    models.refresh()
    assert answered(Predictor(models)) == ("1.0.0", "")
    assert models.served()[0].problem is None
    assert "experiment cannot be read" in caplog.text
