"""What one request may cost: every hostile body, under the container's 128 MiB and under RLIMIT_DATA."""

import gzip
import threading
import time
from collections.abc import Callable, Iterator

import pytest

MIB = 2**20
ROWS = 100_000
JSON, CSV = {"Content_Type": "application/json"}, {"Content_Type": "text/csv"}
WORST_SECONDS = 3.0
BUDGET_MIB = {"cgroup": 32, "rlimit": 128}
"""A quarter of the cgroup's limit; the default's most where no cgroup says anything."""
SLACK_MIB = 16
LONGEST_REFUSAL = 4096
NEIGHBOUR_SECONDS = 0.1
"""Of a small request beside a large one, the median: other work on the machine delays single ones."""


def rows(number: int) -> bytes:
    """Return that many different rows of four numbers."""
    return b"[" + b",".join(b"[%d.5,%d,1,2]" % (n % 97, n % 89) for n in range(number)) + b"]"


def infer(number: int) -> bytes:
    """Return an Open Inference request of that many rows, a tensor for each column."""
    data = b",".join(b"%d.5" % (n % 97) for n in range(number))
    one = b'{"name":"%s","datatype":"FP64","shape":[%d,1],"data":[%s]}'
    return b'{"inputs":[' + b",".join(one % (name, number, data) for name in (b"a", b"b", b"c", b"d")) + b"]}"


CASES: dict[str, tuple[str, Callable[[], bytes], dict[str, str], set[int]]] = {
    "a long key": ("/predict", lambda: b'{"features": {"' + b"a" * 31 * MIB + b'": 1}}', JSON, {400, 413}),
    "a long key in gzip": (
        "/predict",
        lambda: gzip.compress(b'{"features": {"' + b"a" * 31 * MIB + b'": 1}}'),
        JSON | {"Content_Encoding": "gzip"},
        {400, 413},
    ),
    "NaN literals": ("/predict", lambda: b'{"features": [' + b"NaN, " * (28 * MIB // 5) + b"1]}", JSON, {413}),
    "empty objects": ("/predict", lambda: b'{"features": [' + b"{}," * (10 * MIB) + b"{}]}", JSON, {413}),
    "empty lists": ("/invocations", lambda: b'{"inputs": [' + b"[]," * (10 * MIB) + b"[]]}", JSON, {413}),
    "many keys": (
        "/invocations",
        lambda: b'{"instances": [{' + b",".join(b'"k%d":1' % n for n in range(2_000_000)) + b"}]}",
        JSON,
        {413},
    ),
    "commas as CSV": ("/invocations", lambda: b"," * (32 * MIB), CSV, {413, 400}),
    "line ends as CSV": ("/invocations", lambda: b"\n" * (32 * MIB), CSV, {413, 400}),
    "quotes as CSV": ("/invocations", lambda: b'"' * (32 * MIB), CSV, {413, 400}),
    "a bomb of gzip": (
        "/predict",
        lambda: gzip.compress(b" " * (1024 * MIB)),
        JSON | {"Content_Encoding": "gzip"},
        {413},
    ),
    "deep lists": ("/predict", lambda: b'{"features": ' + b"[" * (8 * MIB) + b"]" * (8 * MIB) + b"}", JSON, {413, 400}),
    "an infer request of numbers": (
        "/v2/models/small/infer",
        lambda: infer(1_000_000),
        JSON,
        {413},
    ),
    "a split table": (
        "/invocations",
        lambda: b'{"dataframe_split": {"columns": ["a","b","c","d"], "data": ' + rows(1_000_000) + b"}}",
        JSON,
        {413},
    ),
    "a large answer": ("/models/wide/predict", lambda: b'{"features": ' + rows(ROWS) + b"}", JSON, {413}),
    "a large answer of infer": ("/v2/models/wide/infer", lambda: infer(ROWS), JSON, {413}),
    "a large answer of v1": (
        "/v1/models/wide:predict",
        lambda: b'{"instances": ' + rows(ROWS) + b"}",
        JSON,
        {413, 200},
    ),
    "noise": ("/predict", lambda: bytes(range(256)) * (MIB // 16), JSON, {400, 413}),
    "noise as a tensor": (
        "/v2/models/small/infer",
        lambda: bytes(range(256)) * (MIB // 16),
        {"Inference_Header_Content_Length": "100"},
        {400, 413},
    ),
    "eight million columns": ("/invocations", lambda: b"a," * (4 * MIB) + b"b\n1", CSV, {400, 413}),
}


@pytest.fixture(scope="module", params=[("cgroup", 128), ("rlimit", 512)], ids=["container", "rlimit"])
def attacked(request, serve) -> Iterator:
    """A service that lives through all cases: its memory is not new for each."""
    kind, mib = request.param
    with serve(kind=kind, mib=mib) as service:
        service.most_mib = BUDGET_MIB[kind] + SLACK_MIB
        yield service


class Neighbour(threading.Thread):
    """Asks for one row again and again, as somebody else does meanwhile, and keeps the seconds of each."""

    def __init__(self, attacked) -> None:
        super().__init__(daemon=True)
        self.attacked, self.seconds, self.ended = attacked, [], threading.Event()

    def run(self) -> None:
        while not self.ended.is_set():
            began = time.perf_counter()
            assert self.attacked.predicts()
            self.seconds.append(time.perf_counter() - began)
            self.ended.wait(0.01)


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_body_is_refused_and_others_are_answered(attacked, figure, name):
    path, make, headers, expected = CASES[name]
    body = make()
    before = attacked.running.begin_peak()
    neighbour = Neighbour(attacked)
    neighbour.start()
    began = time.perf_counter()
    status, answer = attacked.ask(path, body, **headers)
    seconds = time.perf_counter() - began
    neighbour.ended.set()
    neighbour.join(10)
    more = attacked.running.peak_mib() - before
    figure(status, seconds, more)
    assert status in expected, answer[:300]
    assert attacked.alive()
    assert more <= attacked.most_mib
    assert status == 200 or len(answer) <= LONGEST_REFUSAL
    assert seconds <= WORST_SECONDS
    assert sorted(neighbour.seconds)[len(neighbour.seconds) // 2] <= NEIGHBOUR_SECONDS


def test_eight_large_requests_at_once_are_answered_or_told_to_come_again(attacked, figure):
    body = b'{"features": ' + rows(50_000) + b"}"
    before, began = attacked.running.begin_peak(), time.perf_counter()
    statuses: list[int] = []
    askers = [threading.Thread(target=lambda: statuses.append(attacked.ask("/predict", body)[0])) for _ in range(8)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    figure(sorted(statuses), time.perf_counter() - began, attacked.running.peak_mib() - before)
    assert len(statuses) == 8
    assert set(statuses) <= {200, 413, 503}
    assert attacked.alive()
