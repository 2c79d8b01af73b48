"""Measures `appliance convert` from outside: seconds, memory of all its processes, and how large the bundle is."""

import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import msgspec
import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from appliance.bundle import archive
from benchmarks.processes import descendants

_PAUSE = 0.05  # seconds between two looks at the memory


class Conversion(msgspec.Struct, frozen=True):
    """What one conversion took and gave.

    `cpu_seconds` are all its processes' together; `peak_mib` is the largest sum of their resident memory.
    """

    title: str
    seconds: float
    cpu_seconds: float
    peak_mib: float
    pickle_bytes: int
    bundle_bytes: int
    graph_bytes: int
    rows: int
    float_type: str


def measured(folder: Path) -> Iterator[Conversion]:
    """Yield what converting a large forest and a wide pipeline takes."""
    for title, make in _MODELS.items():
        print(f"training and converting: {title}", file=sys.stderr)
        model, sample = make()
        path, rows = folder / "model.joblib", folder / "sample.parquet"
        joblib.dump(model, path)
        sample.to_parquet(rows)
        yield _converted(title, path, rows, folder)


def _forest() -> tuple[Any, pd.DataFrame]:
    """Return 500 trees grown to the end on 30 columns of readings with two decimals."""
    x, y = _readings(5_000, 30)
    forest = RandomForestClassifier(500, n_jobs=-1, random_state=0).fit(x.to_numpy(), y)
    return forest, x.head(1_000)


def _wide() -> tuple[Any, pd.DataFrame]:
    """Return a pipeline over a table of 500 columns: 450 numbers with gaps and 50 of texts."""
    table, y = _readings(3_000, 450)
    rng = np.random.default_rng(1)
    table = table.mask(rng.random(table.shape) < 0.02)
    numbers = list(table.columns)
    texts = {f"kind {i}": rng.choice(["a", "b", "c", "d"], len(table)).astype(object) for i in range(50)}
    table = pd.concat([table, pd.DataFrame(texts)], axis=1)
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), numbers),
        (OneHotEncoder(handle_unknown="ignore"), list(texts)),
    )
    return make_pipeline(columns, LogisticRegression(max_iter=500)).fit(table, y), table.head(1_000)


def _readings(rows: int, columns: int) -> tuple[pd.DataFrame, Any]:
    rng = np.random.default_rng(0)
    x = rng.normal(20, 5, (rows, columns)).round(2)
    y = np.digitize(x[:, :5].sum(axis=1) + rng.normal(size=rows), [95, 105])
    return pd.DataFrame(x, columns=[f"sensor {i}" for i in range(columns)]), y


_MODELS: dict[str, Callable[[], tuple[Any, pd.DataFrame]]] = {
    "forest of 500 trees, 30 columns, 3 classes": _forest,
    "pipeline over 500 columns": _wide,
}


def _converted(title: str, model: Path, sample: Path, folder: Path) -> Conversion:
    """Run the command and watch its processes."""
    command = [_appliance(), "convert", str(model), "--name", "bench", "--version", "1.0.0", "-o", str(folder)]
    command += ["--sample", str(sample), "--json", "--time-limit", "1800"]
    start, before = time.perf_counter(), _children_seconds()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    peak = _Peak(process.pid)
    output, complaints = process.communicate()
    seconds, spent = time.perf_counter() - start, _children_seconds() - before
    peak.stop()
    if process.returncode:
        raise SystemExit(f"{title} was not converted:\n{complaints.decode(errors='replace')}")
    report = msgspec.json.decode(output)
    bundle = Path(report["bundle"])
    rows = sum(kind["rows"] - kind["refused_by_original"] for kind in report["parity"]["kinds"])
    graph = archive.open_bundle(bundle).members[archive.MODEL]
    sizes = [model.stat().st_size, bundle.stat().st_size, len(graph)]
    return Conversion(title, seconds, spent, peak.mib, *sizes, rows, report["parity"]["float_type"])


def _children_seconds() -> float:
    """Return the processor seconds of all children that have ended, and theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _appliance() -> str:
    beside = Path(sys.executable).with_name("appliance")
    found = str(beside) if beside.exists() else shutil.which("appliance")
    if found is None:
        raise SystemExit("the appliance command is not installed: pip install -e '.[convert]'")
    return found


class _Peak:
    """Watches how much resident memory a process and those below it have together, until it is stopped."""

    def __init__(self, pid: int) -> None:
        self.mib = 0.0
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        while not self._over.wait(_PAUSE):
            pages = sum(_resident(pid) for pid in descendants(self._pid))
            self.mib = max(self.mib, pages * page / 2**20)


def _resident(pid: int) -> int:
    """Return a process' resident pages (proc(5), statm), 0 if it just ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
