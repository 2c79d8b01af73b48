"""A run that takes too long is ended, whatever made it long, and those beside and after it answer rightly."""

import threading
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from appliance.errors import InvalidInput, TooLarge
from appliance.inference import overdue
from appliance.inference.session import Session
from tests.loops import adding


def looping() -> bytes:
    """Return a graph that adds 1 to `x` as often as `turns` says."""
    graph = helper.make_graph(
        [helper.make_node("Loop", ["turns", "", "x"], ["y"], body=adding("one"))],
        "looping",
        [
            helper.make_tensor_value_info("turns", TensorProto.INT64, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.ones(1, np.float32), "one")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def feeds(turns: int) -> dict[str, np.ndarray]:
    return {"turns": np.array(turns, np.int64), "x": np.zeros(1, np.float32)}


def test_overdue_run_is_ended_and_the_session_goes_on(monkeypatch, capfd):
    monkeypatch.setattr(overdue, "LOOK_SECONDS", 0.05)
    session = Session(looping(), run_seconds=0.5)
    beside: list[float] = []

    def ask() -> None:
        while not done.is_set():
            beside.append(float(session.run(feeds(3))[0][0]))

    done = threading.Event()
    thread = threading.Thread(target=ask)
    thread.start()
    begun = time.monotonic()
    with pytest.raises(TooLarge, match=r"more than 0\.5 seconds \(\[models\] run_seconds\)"):
        session.run(feeds(2**40))
    assert time.monotonic() - begun < 20
    done.set()
    thread.join()
    assert set(beside) == {3.0}
    for _ in range(5):
        assert session.run(feeds(7))[0][0] == 7
    assert overdue._running == {}
    assert "terminate" not in capfd.readouterr().err


def test_wrong_rows_are_told_as_before():
    session = Session(looping(), run_seconds=60)
    with pytest.raises(InvalidInput) as caught:
        session.run({"turns": np.array(1, np.int64), "x": np.zeros((1, 2, 3), np.float32)})
    assert not isinstance(caught.value, TooLarge)
    assert overdue._running == {}


def test_options_of_runs_in_time_are_used_again():
    session = Session(looping(), run_seconds=60)
    session.run(feeds(1))
    spare = len(overdue._spare)
    for _ in range(50):
        session.run(feeds(1))
    assert len(overdue._spare) == spare
