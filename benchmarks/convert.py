"""Measures conversion, and what a converted graph costs on the device beside plain skl2onnx's: `--help` says how.

python -m benchmarks.convert [--only NAME,...] [--no-conversion] [--json FILE]
"""

import argparse
import statistics
import tempfile
from importlib.metadata import version
from pathlib import Path

import msgspec

from benchmarks import convert_device, convert_recipe
from benchmarks.convert_device import BATCHES, Pair
from benchmarks.convert_recipe import Conversion
from benchmarks.report import print_targets
from benchmarks.targets import Target

SLOWER = 1.3  # so much slower than plain skl2onnx's no graph of ours is to be
_SHOWN = 30


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.convert", description=__doc__)
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], help="estimators by name")
    parser.add_argument("--no-conversion", action="store_true", help="leave out how long a conversion takes")
    parser.add_argument("--no-device", action="store_true", help="leave out what the graphs cost on the device")
    parser.add_argument("--json", type=Path, help="file to write every figure to")
    given = parser.parse_args()
    conversions: list[Conversion] = []
    if not given.no_conversion:
        with tempfile.TemporaryDirectory(prefix="bench-convert-") as folder:
            conversions = list(convert_recipe.measured(Path(folder)))
    pairs = [] if given.no_device else convert_device.measured(given.only)
    _print_conversions(conversions)
    _print_pairs(pairs)
    aims = list(targets(pairs))
    print_targets(aims)
    if given.json:
        _write(given.json, conversions, pairs, aims)


def targets(pairs: list[Pair]) -> list[Target]:
    """Return the aims: no graph of ours more than SLOWER times plain skl2onnx's, and the median faster."""
    found = []
    for rows in BATCHES:
        ratios = [pair.ratio(rows) for pair in pairs]
        if ratios:
            unit = "1 row" if rows == 1 else f"{rows} rows"
            slow = f"{sum(ratio > SLOWER for ratio in ratios)} of {len(ratios)} graphs beyond it"
            found.append(Target(f"slowest graph / plain skl2onnx's, {unit} ({slow})", SLOWER, max(ratios), True))
            found.append(Target(f"median graph / plain skl2onnx's, {unit}", 1.0, statistics.median(ratios), True))
    return found


def _print_conversions(conversions: list[Conversion]) -> None:
    if conversions:
        print(f"\n{'':44} {'seconds':>8} {'CPU s':>7} {'MiB':>7} {'pickle':>8} {'bundle':>8} {'graph':>8}  rows proved")
    for one in conversions:
        sizes = " ".join(f"{size / 2**20:6.2f} M" for size in (one.pickle_bytes, one.bundle_bytes, one.graph_bytes))
        costs = f"{one.seconds:8.1f} {one.cpu_seconds:7.1f} {one.peak_mib:7.0f}"
        print(f"{one.title:44} {costs} {sizes}  {one.rows:,} ({one.float_type})")


def _print_pairs(pairs: list[Pair]) -> None:
    for rows in BATCHES:
        ordered = sorted(pairs, key=lambda pair: -pair.ratio(rows))
        print(f"\n{len(pairs)} graphs, {rows} row(s), slowest beside plain skl2onnx's first (us a run)")
        for pair in ordered[:_SHOWN]:
            mine, other = pair.ours_us[rows], pair.plain_us[rows]
            print(f"  {pair.ratio(rows):5.2f} {mine:9.1f} {pair.ours:7} {other:9.1f} {pair.plain:7}  {pair.title[:90]}")


def _write(file: Path, conversions: list[Conversion], pairs: list[Pair], aims: list[Target]) -> None:
    libraries = {name: version(name) for name in ("onnxruntime", "skl2onnx", "scikit-learn", "onnx", "numpy")}
    document = {
        "libraries": libraries,
        "conversions": conversions,
        "device": pairs,
        "targets": [msgspec.to_builtins(aim) | {"reached": aim.reached} for aim in aims],
    }
    file.write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")


if __name__ == "__main__":
    main()
