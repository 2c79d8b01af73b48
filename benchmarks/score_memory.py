"""Measures whether the memory of `appliance score` depends on the number of rows: `python -m benchmarks.score_memory
--help`.

A small model scores files of 100,000 rows and of ten and a hundred times as many, CSV and Parquet, each in one process.
The files repeat the same 100,000 rows: what is asked for is memory alone, the largest proportional set size (PSS).
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.linear_model import LogisticRegression

from benchmarks import report
from benchmarks.score import ROOT
from benchmarks.score_run import run
from benchmarks.targets import Target

COLUMNS = [f"x{index}" for index in range(8)]
LEAST = 100_000
GROUP = 65536


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.score_memory", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="of the largest file, default 10,000,000")
    parser.add_argument("--folder", type=Path, help="where the files are written (default: the temporary folder)")
    options = parser.parse_args()
    aims = []
    with tempfile.TemporaryDirectory(prefix="bench-memory-", dir=options.folder) as name:
        folder = Path(name)
        bundle = _bundle(folder)
        environment = {"APPLIANCE_STATE_DIR": str(folder / "state"), "PYTHONPATH": str(ROOT)}
        for kind in ("csv", "parquet"):
            found = []
            for times in (1, 10, 100):
                if LEAST * times > options.rows:
                    break
                source, output = folder / f"rows.{kind}", folder / f"out.{kind}"
                (_write_csv if kind == "csv" else _write_parquet)(source, times)
                command = [sys.executable, "-c", "from appliance.cli import main; main()", "score", str(bundle)]
                command += [str(source), "-o", str(output), "--processes", "1", "--no-resume"]
                found.append(run(f"score {kind}", command, LEAST * times, environment))
                print(
                    f"{kind:8} {found[-1].rows:>11,} rows: {found[-1].pss_mib:6.1f} MiB,"
                    f" {found[-1].cpu:7.1f} s of processor time, {found[-1].wall:7.1f} s",
                    flush=True,
                )
                output.unlink()
            growth = found[-1].pss_mib / found[0].pss_mib
            title = f"PSS of {kind}, {found[-1].rows:,} rows against {found[0].rows:,}"
            aims.append(Target(title, 1.15, growth, at_most=True))
    print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors")
    report.print_targets(aims)


def _bundle(folder: Path) -> Path:
    """Return a logistic regression as a bundle."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(1000, len(COLUMNS))).astype(np.float32)
    model = LogisticRegression().fit(rows, rows[:, 0] + rows[:, 1] > 0)
    joblib.dump(model, folder / "small.joblib")
    pd.DataFrame(rows[:300], columns=COLUMNS).to_csv(folder / "sample.csv", index=False)
    command = [sys.executable, "-c", "from appliance.cli import main; main()", "convert", str(folder / "small.joblib")]
    command += ["--name", "small", "--version", "1.0.0", "--sample", str(folder / "sample.csv"), "-o", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder / "small-1.0.0.bundle"


def _rows() -> np.ndarray:
    """Return the rows that every file repeats."""
    return np.random.default_rng(1).normal(size=(LEAST, len(COLUMNS))).astype(np.float32)


def _write_csv(path: Path, times: int) -> None:
    """Write the rows so many times."""
    text = pd.DataFrame(_rows(), columns=COLUMNS).to_csv(index=False, float_format="%.6g")
    header, _, body = text.partition("\n")
    with path.open("w") as file:
        file.write(header + "\n")
        for _ in range(times):
            file.write(body)


def _write_parquet(path: Path, times: int) -> None:
    """Write the rows so many times."""
    table = pa.table(list(_rows().T), names=COLUMNS)
    with pq.ParquetWriter(path, table.schema, use_dictionary=False) as writer:
        for _ in range(times):
            writer.write_table(table, row_group_size=GROUP)


if __name__ == "__main__":
    main()
