"""Graphs without end or bound, made active over HTTP and named in requests, under the container's 128 MiB."""

import json
import time
from collections.abc import Iterator

import pytest

from tests.appliance.conftest import build_bundle
from tests.appliance.test_trials import GRAPHS, Host

SECONDS = 5
HOSTILE = {name: f"{number + 2}.0.0" for number, name in enumerate(GRAPHS)}


@pytest.fixture(scope="module")
def attacked(serve, tmp_path_factory) -> Iterator:
    """A service whose store holds a sound version, which is active, and the hostile ones."""
    host = Host(tmp_path_factory.mktemp("graphs"), build_bundle)
    with serve(
        kind="cgroup", mib=128, toml=f"self_test_seconds = {SECONDS}", state=host.store.state_dir, model="iris"
    ) as one:
        yield one


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("path", ["/models/iris/versions/{}/activate", "/models/iris/versions/{}/predict"])
def test_a_hostile_graph_is_refused_and_others_are_answered(attacked, figure, name, path):
    before, began = attacked.running.begin_peak(), time.perf_counter()
    status, answer = 503, b""
    while status == 503 and time.perf_counter() - began < 4 * SECONDS:
        status, answer = attacked.ask(path.format(HOSTILE[name]), b'{"features": [1, 2, 3, 4]}')
        assert attacked.predicts()
    figure(status, time.perf_counter() - began, attacked.running.peak_mib() - before)
    assert status in (409, 503), answer
    assert any(limit in json.dumps(json.loads(answer)) for limit in ("self_test_seconds", "max_memory_bytes", "memory"))
    assert attacked.alive()
    assert attacked.running.peak_mib() - before <= 64
