"""Ages are told by the monotonic clock: a wall clock that is set changes none, in a run or over a restart."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.mqtt.clock import Clock
from appliance.mqtt.codec import iso_time
from appliance.mqtt.disk import Disk
from appliance.mqtt.outbox import LOCAL, Answer, Outbox

START = 1_800_000_000.0
HOUR = 3600.0
GAPS = {
    "name": "two", "model": "gaps", "answer": "out/{d}", "when": "each", "max_age": 2.0,
    "feeds": [
        {"topic": "in/{d}/a", "columns": {"sepal_length": "last"}},
        {"topic": "in/{d}/b", "columns": {"sepal_width": "last"}},
    ],
}  # fmt: skip


class Host:
    """A machine: its clocks, its boots, and one disk."""

    def __init__(self, folder):
        self.wall, self.monotonic, self.boot = START, 100.0, "a"
        self.disk = Disk(folder / "disk")

    def clock(self) -> Clock:
        return Clock(self.disk, wall=lambda: self.wall, monotonic=lambda: self.monotonic, boot=lambda: self.boot)

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    def reboot(self, off: float) -> None:
        self.wall += off
        self.monotonic, self.boot = 5.0, self.boot + "b"


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def test_it_counts_evenly_and_labels_by_todays_wall_clock(host):
    clock = host.clock()
    first = clock.now()
    host.passes(10)
    host.wall -= HOUR
    assert clock.now() - first == 10
    assert clock.label(first) == START - HOUR
    assert clock.has_jumped()
    host.disk.commit([clock.write()])
    assert not clock.has_jumped()


@pytest.mark.parametrize("jump", [-HOUR, 0.0, HOUR, 400 * 24 * HOUR, -START])
def test_a_restart_in_the_same_boot_goes_on_by_the_monotonic_clock_alone(host, jump):
    first = host.clock().now()
    host.passes(10)
    host.wall += jump
    assert host.clock().now() - first == 10


def test_after_a_reboot_the_wall_clock_says_how_long_the_machine_was_off(host):
    clock = host.clock()
    first = clock.now()
    host.passes(10)
    host.wall += 400 * 24 * HOUR  # set rightly at last
    host.disk.commit([clock.write()])
    host.passes(50)
    host.reboot(off=300)
    again = host.clock()
    assert again.now() - first == pytest.approx(360)
    assert again.known_since == float("-inf")


@pytest.mark.parametrize("wall", [START - HOUR, 1000.0])
def test_after_a_reboot_with_a_clock_that_lies_no_age_from_before_is_known(host, wall):
    box = Outbox(host.disk, max_bytes=10**6, max_age=60.0, clock=host.clock())
    host.passes(10)
    host.disk.commit(box.prepare([Answer("t", b"x", model="m")]).writes)
    host.reboot(off=0)
    host.wall = wall
    clock = host.clock()
    assert clock.known_since == clock.now()
    again = Outbox(host.disk, max_bytes=10**6, max_age=60.0, clock=clock)
    assert again.expire() == 0
    host.passes(61)
    assert again.expire() == 1


def test_a_machine_without_a_clock_of_its_own_drops_nothing_when_the_time_is_set(host):
    host.wall = 1000.0
    box = Outbox(host.disk, max_bytes=10**6, max_age=60.0, clock=host.clock())
    addition = box.prepare([Answer("t", b"x", model="m")])
    host.disk.commit(addition.writes)
    host.wall = START
    assert box.expire() == 0
    host.reboot(off=5)
    again = Outbox(host.disk, max_bytes=10**6, max_age=60.0, clock=host.clock())
    assert again.expire() == 0
    host.passes(61)
    assert again.expire() == 1


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
def test_retention_is_by_the_monotonic_clock(host, jump):
    box = Outbox(host.disk, max_bytes=10**6, max_age=60.0, clock=host.clock())
    addition = box.prepare([Answer("t", b"x", model="m")])
    host.disk.commit(addition.writes)
    box.added(addition)
    host.wall += jump
    host.passes(59)
    assert box.expire() == 0
    host.passes(2)
    assert box.expire() == 1


@given(st.lists(st.tuples(st.sampled_from(["pass", "jump", "restart", "reboot"]), st.floats(0, 1e6)), max_size=12))
def test_it_never_goes_back(tmp_path_factory, steps):
    host = Host(tmp_path_factory.mktemp("clock"))
    clock = host.clock()
    last = clock.now()
    for step, size in steps:
        if step == "pass":
            host.passes(size)
        elif step == "jump":
            host.wall += size - 5e5
            if clock.has_jumped():
                host.disk.commit([clock.write()])
        elif step == "restart":
            clock = host.clock()
        else:
            host.reboot(size)
            clock = host.clock()
        assert clock.now() >= last - 1e-3
        last = clock.now()
    host.disk.close()


@pytest.fixture
def jump(monkeypatch):
    """Return a function that sets the wall clock of this process, for every module."""
    real, offset = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + offset[0])  # before the listener is made

    def set_by(seconds: float) -> None:
        offset[0] = seconds

    return set_by


@pytest.mark.parametrize("seconds", [-HOUR, HOUR])
@pytest.mark.parametrize("restarts", [False, True])
def test_a_value_is_too_old_after_its_age_whatever_the_wall_clock_says(listen, plain, jump, seconds, restarts):
    running = listen(rows=[GAPS]).connected()
    client = plain("out/#")
    client.publish("in/x/a", "1")
    client.wait(1, "out/x")
    jump(seconds)
    if restarts:
        running.stop()
        listen(rows=[GAPS]).connected()
    client.publish("in/x/b", "2")
    assert client.answers(2, "out/x")[1]["prediction"] == [100.0 + 1 + 2 + 2000]  # a is good still
    time.sleep(2.1)
    client.publish("in/x/b", "2")
    assert client.answers(3, "out/x")[2]["prediction"] == [100.0 + 2 + 3000]


def test_rows_by_the_clock_come_while_the_wall_clock_is_set_back(listen, plain, jump):
    listen(rows=[{**GAPS, "when": "every", "seconds": 0.3}]).connected()
    client = plain("out/#")
    for number in range(1, 4):
        client.publish("in/x/a", "1")
        client.wait(number, "out/x")
        jump(-HOUR * number)


def test_a_late_answer_says_when_it_was_given_by_todays_wall_clock(host, tmp_path):
    box = Outbox(host.disk, max_bytes=10**6, clock=host.clock())
    addition = box.prepare([Answer("t", b"{}", model="m")])
    host.disk.commit(addition.writes)
    box.added(addition)
    host.passes(10)
    host.wall += HOUR
    (stored,) = box.read(LOCAL, 0, box.last, 1)
    assert iso_time(box.clock.label(stored.created)) == iso_time(START + HOUR)
