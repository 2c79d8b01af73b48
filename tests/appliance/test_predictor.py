"""A prediction is plain data with the ids of its rows; a slow observer has a queue and keeps nobody waiting."""

import gc
import threading
import time
import weakref

import msgspec
import numpy as np
import pytest

from appliance.correlation import request_id
from appliance.errors import InvalidInput
from appliance.inference.version import LoadedVersion
from appliance.observer_queue import ObserverQueue
from appliance.predictor import Prediction, Predictor
from appliance.store.versions import Store

FEEDS = {"features": np.ones((2, 4), np.float32)}


class Recorder:
    """An observer that keeps what it is told; where `gate` is closed, it waits there."""

    def __init__(self) -> None:
        self.predictions: list[Prediction] = []
        self.failures: list[tuple[str, str, str, float]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def predicted(self, prediction: Prediction) -> None:
        self.entered.set()
        self.gate.wait(30)
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


def wait_until(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


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


def test_a_queue_tells_the_observer_all_in_order_on_a_thread_of_its_own():
    seen = Recorder()
    queue = ObserverQueue(seen)
    queue.start()
    for number in range(100):
        queue.predicted(made(str(number)))
    queue.failed("iris", "1.0.0", InvalidInput("read", "nothing"), 0.5)
    queue.stop(30)
    assert [one.request_id for one in seen.predictions] == list(map(str, range(100)))
    assert seen.failures == [("iris", "1.0.0", "InvalidInput", 0.5)]
    assert (queue.dropped, queue.faults) == (0, 0)


def test_a_slow_observer_keeps_nobody_waiting_and_loses_the_oldest():
    seen = Recorder()
    seen.gate.clear()
    queue = ObserverQueue(seen, most=10)
    queue.start()
    queue.predicted(made("first"))
    assert seen.entered.wait(30)  # taken out of the queue; the observer has it
    begun = time.perf_counter()
    for number in range(1000):
        queue.predicted(made(str(number)))
    assert time.perf_counter() - begun < 5
    assert queue.dropped == 990
    seen.gate.set()
    queue.stop(30)
    assert [one.request_id for one in seen.predictions] == ["first", *map(str, range(990, 1000))]


def test_large_predictions_are_bounded_by_their_bytes():
    seen = Recorder()
    queue = ObserverQueue(seen, most_bytes=1000)
    numbers, texts = np.zeros(100, np.float32), np.array(["a"] * 100, object)
    for number in range(4):
        queue.predicted(made(str(number), x=numbers))
    assert queue.dropped == 2
    queue.predicted(made("texts", x=texts))  # 100 references and texts: more than may wait at all
    assert queue.dropped == 3
    queue.predicted(made("last", x=numbers))
    queue.start()
    queue.stop(30)
    assert [one.request_id for one in seen.predictions] == ["3", "last"]


def test_an_observer_that_raises_is_told_of_the_next_one():
    class Faulty(Recorder):
        def predicted(self, prediction: Prediction) -> None:
            super().predicted(prediction)
            raise RuntimeError(prediction.request_id)

    seen = Faulty()
    queue = ObserverQueue(seen)
    queue.start()
    queue.predicted(made("1"))
    queue.predicted(made("2"))
    queue.stop(30)
    assert [one.request_id for one in seen.predictions] == ["1", "2"]
    assert queue.faults == 2


def test_nothing_is_kept_of_what_was_told_or_of_what_comes_after_the_end():
    seen = Recorder()
    queue = ObserverQueue(seen)
    queue.start()
    array = np.zeros(3)
    gone = weakref.ref(array)
    queue.predicted(made("1", x=array))
    wait_until(lambda: seen.predictions)
    seen.predictions.clear()
    del array
    wait_until(lambda: gone() is None)
    queue.stop(30)
    queue.predicted(made("2"))
    assert queue.dropped == 1


def test_a_prediction_cannot_be_changed():
    with pytest.raises(AttributeError):
        made().model = "wine"
    assert msgspec.structs.replace(made(), model="wine").model == "wine"
