"""Measures `appliance score` beside bare inference and other programs that score files: `python -m benchmarks.score
--help`.

All in one run, of the same fresh rows of 30 numbers and the same forest of 100 trees of depth 12; no row comes twice.
Processor time is of the whole tree of processes; memory is the largest proportional set size (PSS) of the tree.
"""

import argparse
import os
import platform
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import joblib
import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.ensemble import RandomForestClassifier

from benchmarks import report, score_peers
from benchmarks.score_run import Figures, run
from benchmarks.targets import Target

ROOT = Path(__file__).parent.parent
COLUMNS = [f"x{index}" for index in range(30)]
PIECE = 50_000
BLOCK = 4096
_BARE = (
    """
import sys, time, numpy as np
from pathlib import Path
from appliance.bundle import archive
from appliance.inference.version import LoadedVersion
import pyarrow.parquet as pq
path, rows = Path(sys.argv[1]), sys.argv[2]
with archive.opened(path, most_bytes=10**9) as opened:
    version = LoadedVersion(path, 1, opened=opened)
table = np.column_stack([column.to_numpy() for column in pq.read_table(rows).columns])
name = version.manifest.inputs[0].name
outputs = version.output_names
begun = time.process_time()
for first in range(0, len(table), {block}):
    version.session.run({{name: table[first:first + {block}]}}, outputs)
print(time.process_time() - begun)
""".replace("{block}", str(BLOCK))
    .replace("{{", "{")
    .replace("}}", "}")
)


def main() -> None:
    """Measure and print."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="bench-score-", dir=options.folder) as name:
        folder = Path(name)
        bundle, model = _bundle(folder)
        files = _write_rows(folder, options.rows)
        small = _write_rows(folder / "small", max(options.rows // 10, 1000))
        for step in (["install", str(bundle)], ["activate", "forest", "1.0.0"]):
            _appliance(folder, step)
        found = list(_measured(folder, bundle, files, small, options))
        found += score_peers.measured(folder, model, small, options.peers, run)
    bare = next(one for one in found if one.name == "session.run alone")
    _print(found, bare)
    aims = _aims({one.name: one for one in found}, bare)
    report.print_targets(aims)
    if options.json:
        document = {"machine": platform.platform(), "load": os.getloadavg(), "figures": found, "aims": aims}
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.score", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="default 1,000,000; ten times fewer beside them")
    peers = "also MLflow, MLServer, Ray Data and Spark, installed in BENCH_PEERS_DIR"
    parser.add_argument("--peers", action="store_true", help=peers)
    parser.add_argument("--folder", type=Path, help="where the files are written (default: the temporary folder)")
    parser.add_argument("--json", type=Path, help="file to write every figure to")
    return parser.parse_args()


def _measured(
    folder: Path, bundle: Path, files: dict[str, Path], small: dict[str, Path], options: argparse.Namespace
) -> Iterator[Figures]:
    """Yield the figures of session.run alone and of `appliance score`."""
    rows, few = options.rows, max(options.rows // 10, 1000)
    text = subprocess.run(
        [sys.executable, "-c", _BARE, str(bundle), str(files["parquet"])],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    yield Figures("session.run alone", rows, float(text), float(text), 0.0)
    for kind in ("csv", "jsonl", "parquet"):
        yield _scored(f"score {kind}", folder, bundle, files[kind], rows)
        yield _scored(f"score {kind}, a tenth", folder, bundle, small[kind], few)
        yield _scored(f"score {kind}, nothing kept", folder, bundle, files[kind], rows, "--keep", "none")
    yield _scored("score csv, 2 processes", folder, bundle, files["csv"], rows, processes=2)
    yield _scored(
        "score csv, 1 % bad", folder, bundle, files["bad"], rows, "--bad-rows", "quarantine", "--max-bad", "2%"
    )


def _scored(name: str, folder: Path, bundle: Path, source: Path, rows: int, *more: str, processes: int = 1) -> Figures:
    """Return the figures of one run of `appliance score`."""
    output = folder / f"out{source.suffix}"
    command = [sys.executable, "-c", "from appliance.cli import main; main()", "score", "forest", str(source)]
    command += ["-o", str(output), "--processes", str(processes), "--no-resume", *more]
    environment = {"APPLIANCE_STATE_DIR": str(folder / "state"), "PYTHONPATH": str(ROOT)}
    figures = run(name, command, rows, environment, begun=_has_rows(output))
    output.unlink()
    return figures


def _appliance(folder: Path, arguments: list[str]) -> None:
    """Run a command on the store of the run."""
    command = [sys.executable, "-c", "from appliance.cli import main; main()", *arguments]
    environment = {**os.environ, "APPLIANCE_STATE_DIR": str(folder / "state")}
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env=environment)


def _has_rows(output: Path) -> Callable[[], bool]:
    """Return what says whether rows are on disk: more than a header."""
    partial = output.with_name(f"{output.name}.partial")

    def is_there() -> bool:
        try:
            return partial.stat().st_size > 16384
        except FileNotFoundError:
            return output.exists()

    return is_there


def _bundle(folder: Path) -> tuple[Path, Path]:
    """Return the forest as a bundle, and as a pickle."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3000, len(COLUMNS))).astype(np.float32)
    truth = (rows[:, 0] + rows[:, 1] * rows[:, 2] + rng.normal(size=len(rows)) / 2 > 0).astype(int)
    model = RandomForestClassifier(100, max_depth=12, random_state=0).fit(rows, truth)
    joblib.dump(model, folder / "forest.joblib")
    pd.DataFrame(rows[:300], columns=COLUMNS).to_csv(folder / "sample.csv", index=False)
    command = [sys.executable, "-c", "from appliance.cli import main; main()", "convert", str(folder / "forest.joblib")]
    command += ["--name", "forest", "--version", "1.0.0", "--sample", str(folder / "sample.csv"), "-o", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder / "forest-1.0.0.bundle", folder / "forest.joblib"


def _write_rows(folder: Path, rows: int) -> dict[str, Path]:
    """Write fresh rows in every format, and once more as CSV with one bad row in a hundred; return {kind: file}."""
    folder.mkdir(exist_ok=True)
    files = {kind: folder / f"rows.{kind}" for kind in ("csv", "jsonl", "parquet")} | {"bad": folder / "bad.csv"}
    rng, chance = np.random.default_rng(rows), random.Random(rows)
    schema = pa.schema([(name, pa.float32()) for name in COLUMNS])
    keys = [f'"{name}":' for name in COLUMNS]
    with (
        files["csv"].open("w") as text,
        files["bad"].open("w") as bad,
        files["jsonl"].open("w") as lines,
        pq.ParquetWriter(files["parquet"], schema, use_dictionary=False) as writer,
    ):
        for file in (text, bad):
            file.write(",".join(COLUMNS) + "\n")
        for first in range(0, rows, PIECE):
            piece = rng.normal(size=(min(PIECE, rows - first), len(COLUMNS))).astype(np.float32)
            writer.write_table(pa.table(list(piece.T), schema=schema), row_group_size=65536)
            for row in piece.tolist():
                cells = [f"{value:.6g}" for value in row]
                text.write(",".join(cells) + "\n")
                lines.write("{" + ",".join(map("".join, zip(keys, cells, strict=True))) + "}\n")
                if chance.random() < 0.01:
                    cells[chance.randrange(len(cells))] = chance.choice(["", "x", "1e39"])
                bad.write(",".join(cells) + "\n")
    return files


def _print(found: list[Figures], bare: Figures) -> None:
    """Print a line for each program."""
    print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors\n")
    heads = f"{'rows':>9} {'wall s':>8} {'CPU s':>8} {'us/row':>8} {'of bare':>8} {'PSS MiB':>8} {'first s':>8}"
    print(f"{'':34} {heads} {'CPU s':>6}")
    for one in found:
        first = f"{one.first_row:8.2f} {one.first_row_cpu:6.2f}" if one.first_row is not None else ""
        share = bare.per_row / one.per_row
        print(
            f"{one.name:34} {one.rows:>9,} {one.wall:8.1f} {one.cpu:8.1f} {one.per_row:8.2f} {share:8.0%}"
            f" {one.pss_mib:8.0f} {first}"
        )


def _aims(found: dict[str, Figures], bare: Figures) -> list[Target]:
    """Return what is to be reached. The programs' own starts count as work of theirs, but for the shares of bare."""

    def share(kind: str, more: str = "") -> float:
        whole, tenth = found[f"score {kind}{more}"], found[f"score {kind}, a tenth"]
        start = max(0.0, tenth.cpu - (found[f"score {kind}"].cpu - tenth.cpu) / 9)  # what no row causes
        return bare.cpu / (whole.cpu - start)

    aims = [
        Target("Parquet in rows per processor second, of session.run alone", 0.70, share("parquet")),
        Target("Parquet, nothing kept", 0.70, share("parquet", ", nothing kept")),
        Target("CSV", 0.30, share("csv")),
        Target("JSON Lines", 0.30, share("jsonl")),
        Target(
            "two processes against one, wall",
            1.8,
            found["score csv"].wall / found["score csv, 2 processes"].wall,
        ),
        Target(
            "two processes against one, processor time",
            1.10,
            found["score csv, 2 processes"].cpu / found["score csv"].cpu,
            at_most=True,
        ),
        Target(
            "processor time of 1 % bad rows in quarantine against none",
            1.10,
            found["score csv, 1 % bad"].cpu / found["score csv"].cpu,
            at_most=True,
        ),
    ]
    for kind, most in (("csv", 80), ("jsonl", 80), ("parquet", 200)):
        whole = found[f"score {kind}"]
        aims.append(Target(f"PSS of {kind}, MiB", most, whole.pss_mib, at_most=True))
        growth = whole.pss_mib / found[f"score {kind}, a tenth"].pss_mib
        aims.append(Target(f"PSS of {kind} against that of a tenth of the rows", 1.15, growth, at_most=True))
        aims.append(Target(f"seconds to the first rows of {kind}", 0.5, whole.first_row or 99.0, at_most=True))
        title = f"seconds of processor time to the first rows of {kind}"
        aims.append(Target(title, 0.5, whole.first_row_cpu or 99.0, at_most=True))
    peers = [one for name, one in found.items() if name.startswith("(")]
    if peers:
        best = min(peers, key=lambda one: one.per_row)
        title = f"rows per processor second of CSV against {best.name}, the same file"
        aims.append(Target(title, 5.0, best.per_row / found["score csv, a tenth"].per_row))
    for ray in (one for one in peers if one.name == score_peers.RAY):
        tenfold = 10 * found["score csv"].pss_mib / ray.pss_mib
        aims.append(Target("PSS of CSV against a tenth of Ray Data's", 1.0, tenfold, at_most=True))
    return aims


if __name__ == "__main__":
    main()
