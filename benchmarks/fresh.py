"""Runs graphs, with the inputs that `appliance convert` chose, on many rows that no proof used.

    python -m benchmarks.fresh [--rows 20000] [--all] [--sample N] [--json FILE] [NAME ...]

The models are those of the coverage table on default options (`--all`: and all its options) and those of
benchmarks/fresh_cases.py. Each is trained, converted and proved, and asked rows drawn around its training rows: moved
by a tenth and by half of a column's deviation, with all digits and with as many decimals as the column has, and gaps
where it was trained with gaps. Counted are rows beyond the tolerance, and labels that differ: near-ties are those where
the original's two largest scores are within the tolerance of each other, or where it gives the other label itself with
its inputs one float64 further.
"""

import argparse
import multiprocessing
import os
import resource
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd

from appliance.errors import ApplianceError
from benchmarks import fresh_cases
from benchmarks.coverage_cases import Case, cases
from benchmarks.coverage_data import Data, draw
from benchmarks.coverage_measure import fitted
from benchmarks.fresh_rows import ROWS, Found, asked

TIME_LIMIT = 900  # processor seconds for each model

Make = Callable[[], tuple[Any, Data]]


def main() -> None:
    """Measure and print a line for each model that is off, and the sums."""
    parser = argparse.ArgumentParser(description="How many fresh rows are beyond the tolerance, by model.")
    parser.add_argument("names", nargs="*", help="only models whose title begins so")
    parser.add_argument("--rows", type=int, default=ROWS, help="fresh rows for each model (default: 20000)")
    parser.add_argument("--all", action="store_true", help="every set of options of the coverage table too")
    parser.add_argument("--json", type=Path, help="file of outcomes; those in it are not measured again")
    given = parser.parse_args()
    wanted = {title: make for title, make in jobs(given.all).items() if _is_asked(title, given.names)}
    earlier = _earlier(given.json)
    found = [one for title, one in earlier.items() if title in wanted]
    waiting = [title for title in wanted if title not in earlier]
    for title in waiting:
        one = _in_child(title, wanted[title], given.rows)
        found.append(one)
        if given.json is not None:
            with given.json.open("ab") as file:
                file.write(msgspec.json.encode(one) + b"\n")
        print(f"\r{len(found)} of {len(wanted)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print("\n".join(_lines(found)))


def _is_asked(title: str, names: list[str]) -> bool:
    return not names or any(title.startswith(name) for name in names)


def jobs(every: bool) -> dict[str, Make]:
    """Return {title: what trains the model}; `every` adds all options of the coverage table."""
    chosen = [case for case in cases() if every or case.default]
    return fresh_cases.made() | {f"{case.estimator}({case.options}), {case.data}": _trained(case) for case in chosen}


def _trained(case: Case) -> Make:
    def make() -> tuple[Any, Data]:
        data = draw(case.data)
        return fitted(case.model, data), data

    return make


def _earlier(file: Path | None) -> dict[str, Found]:
    if file is None or not file.exists():
        return {}
    read = [msgspec.json.decode(line, type=Found) for line in file.read_bytes().splitlines()]
    return {one.title: one for one in read}


def _lines(found: list[Found]) -> list[str]:
    asked = [one for one in found if one.state == "asked"]
    kinds = Counter(one.float_type for one in asked)
    off = [one for one in asked if one.beyond or one.flips]
    lines = [
        f"{one.title}: {one.float_type} inputs, {one.beyond} of {one.rows} rows beyond the tolerance "
        f"(at most {one.share:.3g} times), {one.flips} labels"
        for one in sorted(off, key=lambda one: -one.share)
    ]
    widest = max((one for one in asked if one not in off), key=lambda one: one.share, default=None)
    if widest is not None:
        lines.append(f"nearest to the tolerance of the others: {widest.title}, {widest.share:.2g} of it")
    lines.append(
        f"{len(asked)} graphs ({kinds['float32']} with float32 inputs, {kinds['float64']} with float64), "
        f"{sum(one.rows for one in asked):,} rows: {len(off)} graphs are off, {sum(one.beyond for one in off)} rows "
        f"beyond the tolerance, {sum(one.flips for one in off)} other labels, "
        f"{sum(one.near_ties for one in asked)} labels at near-ties, "
        f"{sum(one.refused for one in asked)} rows refused"
    )
    states = Counter(one.state for one in found)
    lines.append(f"not asked: {states['refused']} refused by convert, {states['failed']} not measured")
    return lines


def _in_child(title: str, make: Make, rows: int) -> Found:
    """Return what a model came to, measured in a child: converters once registered stay registered."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_measure, args=(title, make, rows, sender))
    child.start()
    sender.close()
    try:
        return msgspec.json.decode(receiver.recv_bytes(), type=Found)
    except EOFError:
        return Found(title, "failed", reason="out of time or ended")
    finally:
        child.join()


def _measure(title: str, make: Make, rows: int, sender: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (TIME_LIMIT, TIME_LIMIT))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # converters complain there at length
    warnings.simplefilter("ignore")
    try:
        model, data = make()
        sample = pd.DataFrame({"texts": data.rows}) if isinstance(data.rows, list) else data.rows
        found = asked(title, model, sample, rows)
    except (ApplianceError, ValueError) as error:
        found = Found(title, "refused", reason=str(error).splitlines()[0])
    except Exception as error:  # noqa: BLE001 - a model that cannot be trained must not end the others
        found = Found(title, "failed", reason=f"{type(error).__name__}: {error}"[:200])
    sender.send_bytes(msgspec.json.encode(found))


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"in {time.monotonic() - started:.0f} s")
