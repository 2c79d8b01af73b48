"""What a person sees while a model is converted: on a terminal, and in a pipe."""

import pytest

from convert.progress import PAUSE, Shown


class Watched:
    """A `Shown` whose clock stands still until it is set."""

    def __init__(self, is_terminal):
        self.now, self.written = 0.0, []
        self.shown = Shown(self.written.append, is_terminal, lambda: self.now)


@pytest.fixture
def terminal():
    return Watched(True)


@pytest.fixture
def pipe():
    return Watched(False)


def test_a_terminal_shows_steps_rows_and_the_seconds_left(terminal):
    terminal.shown.step("proving the float32 graph")
    terminal.shown.proved(0, 20_000)
    terminal.now = 10.0
    terminal.shown.proved(5_000, 20_000)
    terminal.shown.end()
    step, first, second, end = terminal.written
    assert step == "proving the float32 graph ...\n"
    assert first.rstrip() == "\r  0 of 20,000 rows proved".rstrip()
    assert second.rstrip() == "\r  5,000 of 20,000 rows proved, about 30 s left"
    assert end == "\n"


def test_a_longer_line_of_rows_is_written_over(terminal):
    terminal.shown.step("proving")
    terminal.now = 100.0
    terminal.shown.proved(50, 1_000)
    terminal.shown.proved(1_000, 1_000)
    first, second = terminal.written[1:]
    assert len(second) >= len(first.rstrip())


def test_a_pipe_is_told_nothing_of_quick_work(pipe):
    pipe.shown.step("loading the model")
    pipe.now = PAUSE - 1
    pipe.shown.proved(10, 100)
    pipe.shown.tick()
    pipe.shown.end()
    assert pipe.written == []


def test_a_pipe_has_a_line_each_half_minute(pipe):
    pipe.shown.step("converting to ONNX with float32 inputs")
    for pipe.now in range(0, 62):
        pipe.shown.tick()
    pipe.shown.step("proving the float32 graph")
    for pipe.now in range(62, 122):
        pipe.shown.proved((pipe.now - 61) * 100, 12_100)
    assert pipe.written == [
        "converting to ONNX with float32 inputs: 30 s so far\n",
        "converting to ONNX with float32 inputs: 60 s so far\n",
        "proving the float32 graph: 2,900 of 12,100 rows proved, about 92 s left\n",
        "proving the float32 graph: 5,900 of 12,100 rows proved, about 62 s left\n",
    ]


def test_what_a_model_calls_itself_cannot_move_the_cursor(terminal):
    terminal.shown.step("converting \x1b[2Jmodel")
    assert "\x1b" not in terminal.written[0]
