"""Measures drift detection: false alarms, detection, time and memory: `python -m benchmarks.drift --help`.

False alarms on six streams without drift, beside thresholds that others use; windows until a shift is found; what a row
costs; what a request costs with the watch and without it; the memory of 100 columns.
"""

import argparse
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from appliance.bundle.baseline import PROBABILITIES, Baseline, Conformal, Numbers
from appliance.bundle.manifest import Input, Manifest, Output, Provenance
from appliance.inference import binning
from appliance.inference.quality import QualityJudge
from appliance.monitoring import drift
from appliance.monitoring.drift import FINE, Reference, Window
from appliance.monitoring.drift_judge import Limits
from appliance.monitoring.drift_tables import TableCounter, Tables
from appliance.monitoring.open_window import OpenWindow
from benchmarks.drift_peers import told_by_peers
from benchmarks.drift_streams import ROWS, STREAMS, Stream
from convert import baseline

COLUMNS = 30
TRAINING_ROWS, REFERENCE_WINDOWS = 5000, 72
ALPHA = drift.alpha_of(1, 3600, COLUMNS * 5)
PSI = 0.1
OTHERS_WINDOWS = 300  # windows that the other tests get: they sort each window again
YEAR = 8760


def main() -> None:
    options = _options()
    print(f"{options.years:g} years of hourly windows of {ROWS} readings, reference of {TRAINING_ROWS} rows; no drift")
    print(f"{'stream':22} {'KS p<0.05':>10} {'Wasser. 0.1':>12} {'PSI>0.1':>8} {'PSI>0.2':>8}"
          f" {'ours, training':>15} {'ours, device':>13} {'alarms a year':>14}")  # fmt: skip
    for stream in STREAMS:
        print(_false_alarms(stream, round(options.years * YEAR)), flush=True)
    print(f"\nhours until a shift is found (median; share found in {options.hours} h)")
    for stream in STREAMS:
        print(f"{stream.name:22} " + "  ".join(_detected(stream, shift, options.hours) for shift in (2, 1, 0.5)))
    print()
    for columns in (4, COLUMNS, 100):
        print(f"{columns:4} columns: {_row_us(columns):5.2f} us a row in chunks of 256")
    print(f" 100 columns: {_memory_mib(100):.2f} MiB for tables, cells and an open window of 40 blocks")
    for rows in (1, 256):
        print(f"  30 columns: {_quality_us(rows):5.2f} us a row for the quality flag, {rows} rows in a request")
    off, on = _hot_path()
    print(f"a prediction costs {off:.2f} us more where nobody watches and {on:.2f} us where drift is watched")
    p50, p99 = _requests()
    print(f"a prediction of W2's rows with the watch beside one without: p50 {p50:.3f}, p99 {p99:.3f} times as long")
    if options.peers:
        told_by_peers()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drift", description=__doc__)
    parser.add_argument("--years", type=float, default=1, help="of hourly windows on each stream (10: ten minutes)")
    parser.add_argument("--hours", type=int, default=16, help="in which a shift may be found")
    parser.add_argument("--peers", action="store_true", help="also Evidently and NannyML, in environments of their own")
    return parser.parse_args()


class Bins:
    """The bins that a bundle has of a stream's training rows."""

    def __init__(self, stream: Stream) -> None:
        self.sample = stream.rows(TRAINING_ROWS, seed=1)
        found = baseline.summary(self.sample, "float32")
        assert isinstance(found, Numbers)
        self.edges = np.array(found.edges, np.float32)
        self.training = Reference(np.array(found.counts, float), found.design)

    def blocks(self, window: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return a window's counts [20 blocks, bins]."""
        return binning.consecutive(np.searchsorted(self.edges, window), len(self.edges) + 1)

    def live(self, stream: Stream) -> Reference:
        """Return the device's own reference, of windows of another time."""
        windows = [self.blocks(window).sum(axis=0) for window in stream.windows(REFERENCE_WINDOWS, seed=2)]
        return drift.live_reference(np.array(windows))


def _false_alarms(stream: Stream, count: int) -> str:
    """Return a line of the table: the share of windows that each test calls drift, and our alarms a year."""
    bins = Bins(stream)
    live = bins.live(stream)
    hits = np.zeros(6)
    alarms, states = 0, [FINE, FINE]
    for number, window in enumerate(stream.windows(count, seed=3)):
        blocks = bins.blocks(window)
        index = drift.psi(bins.training.counts, blocks.sum(axis=0))
        found = [drift.judge(one, Window(blocks), ALPHA, PSI).level in (1, 2) for one in (bins.training, live)]
        others = _others(bins.sample, window) if number < OTHERS_WINDOWS else (0, 0)
        hits += [*others, index > 0.1, index > 0.2, *found]
        level = drift.judge(live, Window(blocks), ALPHA, PSI).level
        state = drift.settled(states[0], states[1], level)
        alarms += state != FINE and states[0] == FINE
        states = [state, level]
    shares = hits / ([min(count, OTHERS_WINDOWS)] * 2 + [count] * 4)
    cells = "".join(f"{share:>{width}.1%}" for share, width in zip(shares, (11, 13, 9, 9, 16, 14), strict=True))
    return f"{stream.name:22}{cells} {alarms / count * YEAR:14.2f}"


def _others(sample: NDArray[np.float32], window: NDArray[np.float32]) -> tuple[bool, bool]:
    """Return what a Kolmogorov-Smirnov test and a Wasserstein threshold say."""
    distance = stats.wasserstein_distance(sample, window) / sample.std()
    return bool(stats.ks_2samp(sample, window).pvalue < 0.05), bool(distance >= 0.1)


def _detected(stream: Stream, shift: float, hours: int) -> str:
    """Return in how many hours a shift is found against the device's own reference."""
    bins = Bins(stream)
    live = bins.live(stream)
    found = [_first(bins, live, stream, shift, hours, seed) for seed in range(100, 130)]
    seen = [hour for hour in found if hour is not None]
    median = f"{statistics.median(seen):g} h" if seen else "-"
    return f"{shift:g} deviations: {median:>6} ({len(seen) / len(found):4.0%})"


def _first(bins: Bins, live: Reference, stream: Stream, shift: float, hours: int, seed: int) -> int | None:
    """Return the window that raises the alarm."""
    state = before = FINE
    for hour, window in enumerate(stream.windows(hours, seed, shift), 1):
        level = drift.judge(live, Window(bins.blocks(window)), ALPHA, PSI).level
        state, before = drift.settled(state, before, level), level
        if state != FINE:
            return hour
    return None


def _tables(columns: int) -> Tables:
    """Return the tables of a model with columns of numbers and one output."""
    names = [f"c{number}" for number in range(columns)]
    summary = baseline.summary(np.random.default_rng(0).normal(size=5000), "float32")
    manifest = Manifest(
        format=1, name="m", version="1.0.0", task="regression",
        inputs=[Input(name="features", type="float32", shape=[-1, columns], columns=names)],
        outputs=[Output(name="prediction", type="float32", shape=[-1], role="prediction")],
        opset={"": 18}, ir_version=9, least_onnxruntime="1.20.0", members={},
        provenance=Provenance(source="bench", sha256="0" * 64, model_type="bench"),
    )  # fmt: skip
    one = Baseline(2, 5000, PROBABILITIES, dict.fromkeys(names, summary), {"prediction": summary})
    return Tables(manifest, one)


def _row_us(columns: int, chunks: int = 400) -> float:
    """Return the microseconds that counting takes for a row, in chunks of fresh rows."""
    tables = _tables(columns)
    counter, cells = TableCounter(tables), np.zeros(tables.size)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(chunks, 256, columns)).astype(np.float32)
    answers = rows.sum(axis=2)
    rounds = []
    for _ in range(3):
        begun = time.process_time()
        for chunk, answer in zip(rows, answers, strict=True):
            counter.add(cells, {"features": chunk}, {"prediction": answer})
        rounds.append((time.process_time() - begun) / chunks / 256 * 1e6)
    return min(rounds)


def _memory_mib(columns: int) -> float:
    """Return the memory that a version's counting takes, with an open window of as many blocks as can be."""
    tracemalloc.start()
    tables = _tables(columns)
    counter, cells = TableCounter(tables), np.zeros(tables.size)
    window, limits = OpenWindow(0.0, cells.copy(), {}), Limits(PSI, 1, 3600, 500)
    rng = np.random.default_rng(0)
    for second in range(1, 39):
        rows = rng.normal(size=(256, columns)).astype(np.float32)
        counter.add(cells, {"features": rows}, {"prediction": rows.sum(axis=1)})
        window.look(second * 181.0, cells.copy(), {}, tables.tail, limits)
    size = tracemalloc.get_traced_memory()[0] / 1024**2
    tracemalloc.stop()
    return size


def _quality_us(rows: int) -> float:
    """Return the microseconds that judging the quality of a row takes, all rows being good, with an interval."""
    names = [f"c{number}" for number in range(COLUMNS)]
    summary = baseline.summary(np.random.default_rng(0).normal(size=5000), "float32")
    made = Baseline(
        2, 5000, PROBABILITIES, dict.fromkeys(names, summary), {}, True, [], Conformal("absolute", 0.9, 5000, [1.0])
    )
    judge = QualityJudge(_tables(COLUMNS).manifest, made)
    table = np.random.default_rng(1).uniform(-1, 1, (64, rows, COLUMNS)).astype(np.float32)
    answers = table.sum(axis=2)
    rounds = []
    for _ in range(20):
        begun = time.perf_counter()
        for chunk, answer in zip(table, answers, strict=True):
            judge.judged({"features": chunk}, {"prediction": answer}, rows)
        rounds.append((time.perf_counter() - begun) / len(table) / rows * 1e6)
    return min(rounds)


def _hot_path() -> tuple[float, float]:
    """Return the microseconds that an observer's call takes: one that does nothing, and the watch."""
    from appliance.monitoring.watch import DriftWatch
    from appliance.predictor import Prediction
    from appliance.store.versions import Store

    rng = np.random.default_rng(0)
    made = [
        Prediction("m", "1.0.0", {"f": row}, {}, 1, "1", "http", 0.0, 0.0, 0.0)
        for row in rng.normal(size=(2000, 1, COLUMNS)).astype(np.float32)
    ]
    with tempfile.TemporaryDirectory() as folder:
        watch = DriftWatch(Store(Path(folder)), Limits(PSI, 1, 3600, 500))

        def timed(calls: Sequence[object]) -> float:
            rounds = []
            for _ in range(20):
                watch._waiting.clear()
                watch._rows = 0
                begun = time.perf_counter()
                for prediction in made:
                    for call in calls:
                        call(prediction)  # type: ignore[operator]
                rounds.append((time.perf_counter() - begun) / len(made) * 1e6)
            return min(rounds)

        nothing = timed(())
        return 0.0, timed((watch.predicted,)) - nothing


def _requests(rounds: int = 20, count: int = 2000) -> tuple[float, float]:
    """Return how many times as long a prediction takes with the watch and its thread: p50 and p99, the median round."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from appliance.inference.version import LoadedVersion
    from appliance.monitoring.watch import DriftWatch
    from appliance.predictor import Predictor
    from appliance.repository import ModelRepository, Served
    from appliance.store.versions import Store
    from convert import convert_model

    x, y = load_breast_cancer(return_X_y=True)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "state")
        installed = store.install(convert_model(model, x, name="w2", version="1.0.0").write(Path(folder)))
        loaded = LoadedVersion(installed.folder)
        watch = DriftWatch(store, Limits(PSI, 1, 3600, 500))
        watch.switched(Served("w2", "1.0.0", loaded))
        watch.start()
        predictors = [Predictor(ModelRepository(store), one) for one in ([], [watch])]
        rng = np.random.default_rng(0)
        found = []
        for _ in range(rounds):
            rows = x[rng.integers(0, len(x), count)] * rng.uniform(0.99, 1.01, (count, 1))
            feeds = [loaded.schema.from_rows([row]) for row in rows.tolist()]
            times = [[], []]
            for number, feed in enumerate(feeds):  # in turns, so that other work on the machine meets both
                for which in (0, 1) if number % 2 else (1, 0):
                    begun = time.perf_counter()
                    predictors[which].run(loaded, feed)
                    times[which].append(time.perf_counter() - begun)
            found.append([np.quantile(times[1], q) / np.quantile(times[0], q) for q in (0.5, 0.99)])
        watch.stop()
    p50, p99 = np.median(found, axis=0)
    return float(p50), float(p99)


if __name__ == "__main__":
    main()
