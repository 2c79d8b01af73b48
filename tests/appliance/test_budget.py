"""The budget: what bytes become at most, compared with what the decoders take; one sum that requests share."""

import gc
import subprocess
import sys
import threading
import time
import tracemalloc

import msgspec
import pytest

from appliance import memory
from appliance.budget import MOST, SMALL, WORST, Budget, csv_cost, default_bytes, json_cost
from appliance.errors import Overloaded, TooLarge
from appliance.inference.values import Scalar

MIB = 1024**2
SHAPES = {
    "whole numbers": (b"[1", b",123456", b"]"),
    "floats": (b"[1", b",1.5", b"]"),
    "lists of one": (b"[[]", b",[1.5]", b"]"),
    "empty lists": (b"[[]", b",[]", b"]"),
    "empty objects": (b"[{}", b",{}", b"]"),
    "objects of one": (b"[{}", b',{"a":1.5}', b"]"),
    "objects of eleven": (b"[{}", b"," + msgspec.json.encode({f"k{n}": n + 0.5 for n in range(11)}), b"]"),
    "rows of three": (b"[[]", b",[1.5,2.5,3.5]", b"]"),
    "short texts": (b"[1", b',"ab"', b"]"),
    "one long text": (b'["', b"a", b'"]'),
    "one long wide text": ('["\U0001f600'.encode(), b"a", b'"]'),
    "one long escaped text": (b'["\\ud83d\\ude00', b"a", b'"]'),
}


def body_of(shape: str, size: int) -> bytes:
    start, middle, end = SHAPES[shape]
    return start + middle * (size // len(middle)) + end


def peak_of(work) -> int:
    """Return the bytes that Python held most of while `work` ran."""
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("shape", SHAPES)
def test_json_takes_no_more_than_its_cost(shape):
    body = body_of(shape, MIB // 2)
    kind = list[Scalar | list[Scalar] | dict[str, Scalar]]
    taken = peak_of(lambda: msgspec.json.decode(body, type=kind)) + len(body)
    assert taken <= json_cost(body) <= WORST * len(body)


def test_one_object_of_many_keys_takes_no_more_than_its_cost():
    body = msgspec.json.encode({f"{n:x}": 1 for n in range(90_000)})
    assert peak_of(lambda: msgspec.json.decode(body, type=dict[str, Scalar])) <= json_cost(body)


@pytest.mark.parametrize(("shape", "factor"), [("floats", 3), ("rows of three", 3), ("objects of eleven", 4)])
def test_cost_of_ordinary_rows_is_not_far_from_what_they_take(shape, factor):
    body = body_of(shape, MIB // 2)
    kind = list[Scalar | list[Scalar] | dict[str, Scalar]]
    assert json_cost(body) <= factor * peak_of(lambda: msgspec.json.decode(body, type=kind))


def test_commas_of_csv_cost_more_than_their_bytes():
    assert csv_cost(b"," * MIB) > 100 * MIB
    assert csv_cost(b"5.1,3.5,1.4,0.2\n" * 1000) < 1000 * 5 * 200


def test_default_is_a_quarter_of_the_limit_shared_by_the_processes():
    assert default_bytes(64 * 1024 * MIB) == MOST
    assert default_bytes(128 * MIB) == 32 * MIB
    assert default_bytes(128 * MIB, processes=2) == 16 * MIB


def test_more_than_there_ever_is_is_refused_with_the_numbers():
    budget = Budget(1000)
    with pytest.raises(TooLarge, match=r"body would take up to 1001 bytes of memory, 1000 may be.*max_decoded_bytes"):
        budget.claim("read the body", 1001, "the body")
    budget.claim("read the body", 1000, "the body")
    assert budget.used == 1000


def test_what_others_hold_is_waited_for_and_then_refused():
    budget = Budget(1000)
    budget.claim("read", 600, "it")
    with pytest.raises(Overloaded, match="other requests hold 600 of 1000 bytes"):
        budget.claim("read", 600, "it", wait=0.01)
    threading.Timer(0.1, budget.release, (600,)).start()
    began = time.monotonic()
    budget.claim("read", 600, "it", wait=10)
    assert 0.05 < time.monotonic() - began < 5
    assert budget.used == 600


def test_two_that_ask_for_more_do_not_wait_for_each_other():
    budget = Budget(1000)
    budget.claim("read", 500, "it")
    budget.claim("read", 500, "it")
    budget.claim("answer", 300, "it", instead_of=500)
    budget.claim("answer", 700, "it", instead_of=500)
    assert budget.used == 1000


def test_what_is_held_outside_counts_but_never_stops_the_last_one():
    budget = Budget(1000)
    budget.outside = lambda: 900
    budget.claim("read", 1000, "it")
    assert not budget.try_claim(1)
    budget.release(1000)
    assert budget.try_claim(100)
    assert not budget.try_claim(100)


def test_when_nothing_is_held_any_more_it_is_told():
    told = []
    budget = Budget(1000, idle=lambda: told.append(budget.used))
    for _ in range(2):
        budget.claim("read", 100, "it")
    budget.release(100)
    assert told == []
    budget.release(100)
    assert told == [0]


def test_memory_is_given_back_once_for_all_who_ask_within_a_moment():
    given = []
    done = threading.Semaphore(0)
    give_back = memory.GiveBack(lambda: (given.append(time.monotonic()), done.release()), 0.1)
    for _ in range(50):
        give_back()
    assert given == []
    assert done.acquire(timeout=10)
    give_back()
    assert done.acquire(timeout=10)
    assert len(given) == 2
    assert given[1] - given[0] > 0.09


def test_collector_is_back_when_the_last_has_ended():
    with memory.collector_paused():
        with memory.collector_paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_freed_memory_goes_back_to_the_system():
    script = """if True:
        import msgspec
        from appliance import memory

        def resident():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * 4096

        memory.keep_little()
        body = b"[" + b",".join(b"%d.5" % n for n in range(300_000)) + b"]"
        before = resident()
        rows = msgspec.json.decode(body)
        peak = resident()
        del rows
        memory.give_back()
        print(peak - before, resident() - before)
    """
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    grown, left = map(int, shown.split())
    assert grown > 8 * MIB
    assert left < 2 * MIB


def test_small_requests_are_not_counted():
    assert SMALL * WORST < 16 * MIB
