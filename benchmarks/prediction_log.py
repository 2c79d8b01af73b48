"""The prediction log: cost on the hot path, rows a second, bytes a row, memory, verify, replay, against its goals.

    python -m benchmarks.prediction_log [--rows 1000000] [--columns 30] [--only NAME,...]

Times are processor time of this process, so that a busy machine changes them little; each figure that has a reference
is measured in turns with it. Rows are random: no load repeats a row.
"""

import argparse
import gc
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import joblib
import numpy as np
from sklearn.ensemble import RandomForestClassifier

from appliance.config import PredictionLogConfig
from appliance.experiments import replay as replaying
from appliance.inference import selftest
from appliance.inference.version import LoadedVersion
from appliance.memory import give_back
from appliance.monitoring.counters import RequestCounters
from appliance.monitoring.prediction_log import export, segments
from appliance.monitoring.prediction_log.log import PredictionLog
from appliance.monitoring.prediction_log.segments import Writer
from appliance.monitoring.prediction_log.verify import verify
from appliance.predictor import Predictor
from appliance.response import response_format
from appliance.store import activation
from appliance.store.versions import Store
from benchmarks.contenders import COMMAND

TURNS = 7
PAUSE = 0.0003
"""Seconds between two requests: some 2,000 come in a second, as a busy service has them; at full speed the two threads
would mostly wait for each other."""
MEBIBYTE = 1024 * 1024


class OneVersion:
    """A repository of one version."""

    def __init__(self, loaded: LoadedVersion) -> None:
        self.loaded = loaded

    def get(self, model: str | None = None, version: str | None = None) -> LoadedVersion:
        """Return the version."""
        return self.loaded

    def arms(self, model: str | None = None) -> None:
        """Return None: no experiment runs."""
        return


def main() -> None:
    """Measure and print a line for each figure, with its goal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=30)
    parser.add_argument("--only", default="hot,write,verify,replay,memory")
    chosen = parser.parse_args()
    parts = set(chosen.only.split(","))
    with tempfile.TemporaryDirectory(prefix="prediction-log-") as folder:
        loaded = installed(Path(folder), chosen.columns)
        print(f"{chosen.rows} rows of {chosen.columns} columns, a forest of 100 trees")
        if "hot" in parts:
            hot_path(Path(folder) / "hot", loaded)
        if parts & {"write", "verify", "replay"}:
            written(Path(folder) / "written", loaded, chosen.rows, parts)
        if "memory" in parts:
            overloaded(Path(folder) / "memory", loaded)


def installed(folder: Path, columns: int) -> LoadedVersion:
    """Return a forest of readings with one decimal, converted, installed and loaded."""
    table = readings(np.random.default_rng(0), 2000, columns)
    forest = RandomForestClassifier(100, max_depth=8, random_state=0).fit(table, table[:, 0] > np.median(table[:, 0]))
    joblib.dump(forest, folder / "forest.joblib")
    names = [f"c{number}" for number in range(columns)]
    np.savetxt(folder / "sample.csv", table, "%.1f", ",", header=",".join(names), comments="")
    model, sample = folder / "forest.joblib", folder / "sample.csv"
    command = [COMMAND, "convert", model, "--name", "forest", "--version", "1.0.0", "--sample", sample, "-o", folder]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    store = Store(folder / "state")
    done = store.install(folder / "forest-1.0.0.bundle")
    activation.activate(store, done.name, done.version, selftest.self_test)
    loaded = LoadedVersion(done.folder)
    loaded.schema.keeps_rows = True
    return loaded


def readings(random: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Return rows as sensors send them: one decimal."""
    return np.round(random.normal(20, 5, (rows, columns)), 1)


def log_of(folder: Path, loaded: LoadedVersion, **settings: Any) -> tuple[PredictionLog, Predictor]:
    """Return a log that writes, and a predictor that is logged."""
    folder.mkdir(parents=True, exist_ok=True)
    models = OneVersion(loaded)
    config = PredictionLogConfig(enabled=True, max_bytes=4 * 1024 * MEBIBYTE, **settings)
    log = PredictionLog(config, folder, models)
    log.start()
    return log, Predictor(models, [RequestCounters()], listener="http", recorder=log)


def hot_path(folder: Path, loaded: LoadedVersion) -> None:
    """Print what a request of one row costs its thread, without and with the log, in turns."""
    models, names = OneVersion(loaded), response_format(loaded).outputs
    log, logged = log_of(folder, loaded)
    plain = Predictor(models, [RequestCounters()], listener="http")
    random = np.random.default_rng(1)
    found: dict[str, list[list[float]]] = {"off": [], "on": []}
    for _ in range(TURNS):
        for name, predictor in (("off", plain), ("on", logged)):
            loaded.schema.keeps_rows = name == "on"
            rows = readings(random, 1000, len(loaded.schema.columns)).tolist()
            times = []
            for number, row in enumerate(rows):
                begun = time.thread_time_ns()
                feeds = loaded.schema.from_rows([row], typed=True)
                predictor.run(loaded, feeds, names, request=f"bench-{number}")
                times.append((time.thread_time_ns() - begun) / 1000)
                time.sleep(PAUSE)
            found[name].append(times)
            time.sleep(0.2)  # the log's thread ends what it has, so that each turn begins alike
    log.stop()
    loaded.schema.keeps_rows = True
    # Of the turn that other programs disturbed least.
    medians = {name: min(map(statistics.median, turns)) for name, turns in found.items()}
    worst = {name: min(float(np.quantile(turn, 0.99)) for turn in turns) for name, turns in found.items()}
    share = 100 * (worst["on"] / worst["off"] - 1)
    added = medians["on"] - medians["off"]
    say("request's thread, us of CPU", f"{medians['off']:.1f} off, {medians['on']:.1f} on, +{added:.1f}")
    say(
        "its 99th percentile",
        f"{worst['off']:.1f} off, {worst['on']:.1f} on, {share:+.1f} %",
        "+2 % of a request at most",
    )


def written(folder: Path, loaded: LoadedVersion, count: int, parts: set[str]) -> None:
    """Write `count` rows and print the cost of writing, the bytes, and the speed of verify and replay."""
    log, predictor = log_of(folder, loaded)
    names = response_format(loaded).outputs
    random, step = np.random.default_rng(2), 250
    asking = time.thread_time()
    begun, logged = time.process_time(), 0
    for number in range(0, count, step):
        table = readings(random, step, len(loaded.schema.columns)).tolist()
        predictor.run(loaded, loaded.schema.from_rows(table, typed=True), names, request=f"r-{number}")
        logged += step
        while log.waiting > 4_000:
            time.sleep(0.01)
    log.stop(600)
    asking, spent = time.thread_time() - asking, time.process_time() - begun
    disk = sum(one.size for one in segments.of_writer(Writer(folder, loaded.name, loaded.version, 0)))
    gaps = verify_all(folder, loaded)
    say("rows in gaps", str(gaps.gaps), "0")
    say("writing, us of CPU a row off the path", f"{1e6 * (spent - asking) / logged:.1f}", "6 in the design")
    per_million = disk / logged * 1e6 / 1e6
    say("1,000,000 rows on disk, MB", f"{per_million:.0f}", "120 at most")
    if "verify" in parts:
        rate = best(lambda: verify_all(folder, loaded), logged)
        say("verify, rows a second of CPU", f"{rate:,.0f}", "200,000 at least")
    if "replay" in parts:
        some = min(logged, 100_000)
        rate = best(lambda: replayed(folder, loaded, some), some, 2)
        bare = best(lambda: in_batches(loaded, some), some, 2)
        say("replay, rows a second of CPU", f"{rate:,.0f}; schema and graph alone in the same batches {bare:,.0f}")


def verify_all(folder: Path, loaded: LoadedVersion) -> Any:
    """Verify the log; end where it is not sound."""
    checked = verify(Writer(folder, loaded.name, loaded.version, 0))
    if checked.problems:
        raise SystemExit(f"the log is not sound: {checked.problems[:3]}")
    return checked


def replayed(folder: Path, loaded: LoadedVersion, count: int) -> None:
    """Replay the first rows; end where the version does not agree with itself."""
    result = replaying.Replayed(loaded.name, loaded.version, list(loaded.manifest.class_labels))
    rows = (one for one, _ in zip(export.rows(folder, loaded.name), range(count), strict=False))
    for _ in replaying.replay(rows, loaded, {}, result):
        pass
    if result.rows != count or result.same_version_differs:
        raise SystemExit(f"replay: {result.rows} rows, {result.same_version_differs} differ")


def in_batches(loaded: LoadedVersion, count: int) -> None:
    """Ask the version as many rows, which nobody logged, in batches of the same size."""
    table = readings(np.random.default_rng(3), count, len(loaded.schema.columns)).tolist()
    for start in range(0, count, replaying.BATCH):
        feeds = loaded.schema.from_rows(table[start : start + replaying.BATCH])
        loaded.session.run(feeds, list(response_format(loaded).outputs))


def overloaded(folder: Path, loaded: LoadedVersion) -> None:
    """Print the memory that the log takes while far more comes than it writes."""
    log, predictor = log_of(folder, loaded, sync="always")
    names = response_format(loaded).outputs
    version = loaded
    answer = predictor.run(version, version.schema.from_rows([[0.0] * len(version.schema.columns)]), names)
    gc.collect()
    give_back()
    before, most, random = resident(), 0, np.random.default_rng(4)
    tables = readings(random, 256, len(version.schema.columns)).tolist()
    for number in range(4000):  # a million rows that no graph slows down
        rows = [[value + number for value in row] for row in tables]
        feeds = version.schema.from_rows(rows, typed=True)
        made = SimpleNamespace(
            inputs=feeds, outputs={name: np.repeat(one, 256, axis=0) for name, one in answer.outputs.items()}, rows=256,
            request_id=f"m-{number}", shared_by=(), prepare_seconds=0.0, run_seconds=0.0, time=time.time(),
            listener="http", arm="",
        )  # fmt: skip
        log.record(version, made)  # type: ignore[arg-type]
        del rows, feeds, made
        if number % 20 == 0:
            most = max(most, resident())
    log.stop(600)
    checked = verify_all(folder, loaded)
    say("memory while too much comes, MiB", f"{(most - before) / MEBIBYTE:.1f}", "12 at most")
    say("of 1,024,001 rows", f"{checked.gaps} in gaps, {rows_of(folder, loaded)} written: none lost without a word")
    if checked.gaps + rows_of(folder, loaded) != 1_024_001:
        raise SystemExit("rows are lost without a gap")


def rows_of(folder: Path, loaded: LoadedVersion) -> int:
    """Return how many rows a log holds."""
    return sum(1 for _ in export.rows(folder, loaded.name))


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def best(work: Callable[[], object], rows: int, turns: int = 3) -> float:
    """Return the most rows a second of processor time."""

    def rates() -> Iterator[float]:
        for _ in range(turns):
            begun = time.process_time()
            work()
            yield rows / (time.process_time() - begun)

    return max(rates())


def say(what: str, found: str, goal: str = "") -> None:
    """Print a figure."""
    print(f"{what:<42} {found}" + (f"   (goal: {goal})" if goal else ""), flush=True)


if __name__ == "__main__":
    main()
