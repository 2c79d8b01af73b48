"""A prediction is plain data with the ids of its rows, and every observer is told of it."""

import gc
import time
import weakref

import msgspec
import numpy as np
import pytest

from appliance.correlation import request_id
from appliance.errors import InvalidInput
from appliance.inference.version import LoadedVersion
from appliance.predictor import Prediction, Predictor
from appliance.store.versions import Store

FEEDS = {"features": np.ones((2, 4), np.float32)}


class Recorder:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.predictions: list[Prediction] = []
        self.failures: list[tuple[str, str, str, float]] = []

    def predicted(self, prediction: Prediction) -> None:
        self.predictions.append(prediction)

    def failed(self, model, version, error, seconds, arm="", key="") -> None:
        self.failures.append((model, version, type(error).__name__, seconds))


class OneVersion:
    """A repository of one version."""

    def __init__(self, loaded: LoadedVersion) -> None:
        self.loaded = loaded

    def get(self, model: str | None = None, version: str | None = None) -> LoadedVersion:
        return self.loaded

    def arms(self, model: str | None = None) -> None:
        return None


@pytest.fixture
def loaded(tmp_path, make_bundle) -> LoadedVersion:
    return LoadedVersion(Store(tmp_path / "state").install(make_bundle(tmp_path)).folder)


def made(request: str = "a", rows: int = 1, **arrays: np.ndarray) -> Prediction:
    return Prediction("iris", "1.0.0", arrays, {}, rows, request, "http", 1_700_000_000.0, 0.001, 0.002)


def test_a_prediction_has_names_inputs_outputs_and_when(loaded):
    seen = Recorder()
    predictor = Predictor(OneVersion(loaded), [seen]).of("http")
    before = time.time()
    prediction = predictor.run(predictor.route("iris"), FEEDS, started=time.perf_counter(), request="r1")
    assert seen.predictions == [prediction]
    assert (prediction.model, prediction.version, prediction.rows) == ("iris", "1.0.0", 2)
    assert (prediction.request_id, prediction.listener, prediction.requests) == ("r1", "http", 1)
    assert prediction.inputs["features"] is FEEDS["features"]
    assert prediction.outputs["prediction"].tolist() == [104.0, 104.0]
    assert before <= prediction.time <= time.time()
    assert list(prediction.ids()) == ["r1.0", "r1.1"]


def test_a_prediction_that_is_kept_keeps_no_session(loaded):
    prediction = Predictor(OneVersion(loaded)).run(loaded, FEEDS)
    held = {type(getattr(prediction, field)) for field in prediction.__struct_fields__}
    assert held <= {str, int, float, bool, dict, tuple, type(None)}
    assert {type(array) for array in (*prediction.inputs.values(), *prediction.outputs.values())} == {np.ndarray}


def test_the_session_ends_while_its_predictions_wait(tmp_path, make_bundle):
    loaded = LoadedVersion(Store(tmp_path / "state").install(make_bundle(tmp_path)).folder)
    prediction = Predictor(OneVersion(loaded)).run(loaded, FEEDS)
    session = weakref.ref(loaded.session)
    del loaded
    gc.collect()
    assert session() is None
    assert prediction.version == "1.0.0"


def test_the_id_is_the_requests_of_the_context_unless_given(loaded):
    predictor = Predictor(OneVersion(loaded))
    token = request_id.set("from-the-header")
    try:
        assert predictor.run(loaded, FEEDS).request_id == "from-the-header"
        assert predictor.run(loaded, FEEDS, request="own").request_id == "own"
    finally:
        request_id.reset(token)


def test_rows_of_several_requests_bear_each_ones_id(loaded):
    prediction = Predictor(OneVersion(loaded)).run(loaded, FEEDS, shared_by=[("m1", 1), ("m2", 1)])
    assert list(prediction.ids()) == ["m1.0", "m2.0"]
    assert (prediction.requests, prediction.request_id) == (2, "m1")


def test_predictors_of_two_listeners_tell_the_same_observers(loaded):
    seen = Recorder()
    predictor = Predictor(OneVersion(loaded), [seen])
    for listener in ("http", "mqtt"):
        predictor.of(listener).run(loaded, FEEDS)
        predictor.of(listener).failed("iris", "", InvalidInput("read", "nothing"), 0.5)
    assert [one.listener for one in seen.predictions] == ["http", "mqtt"]
    assert seen.failures == [("iris", "", "InvalidInput", 0.5)] * 2


def test_a_prediction_cannot_be_changed():
    with pytest.raises(AttributeError):
        made().model = "wine"
    assert msgspec.structs.replace(made(), model="wine").model == "wine"
