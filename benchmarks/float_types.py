"""The cost of float64 inputs on a device, compared with float32, for the models that `appliance convert` gives float64.

    python -m benchmarks.float_types [NAME ...]

Both graphs are ours, of the same model; timed as benchmarks/convert_device.py does, 1 row and 500.
"""

import statistics
import sys
import warnings

from benchmarks.convert_device import BATCHES, FLOAT_TYPES, Pair, kept_from, pair, timeable
from benchmarks.coverage_measure import graph, register
from benchmarks.fresh import Make, jobs

_SHOWN = 12


def main(names: list[str]) -> None:
    """Time each model's two graphs and print the ratios, the slowest first."""
    warnings.simplefilter("ignore")
    register()
    chosen = {title: make for title, make in jobs(False).items() if not names or title.startswith(tuple(names))}
    pairs = [made for title, make in chosen.items() if (made := _pair(title, make))]
    for rows in BATCHES:
        ratios = [1 / one.ratio(rows) for one in pairs]
        print(
            f"{len(pairs)} graphs, {rows} row(s): float64 inputs take {statistics.median(ratios):.2f} of float32's time"
        )
        for one in sorted(pairs, key=lambda one: one.ratio(rows))[:_SHOWN]:
            print(
                f"  {1 / one.ratio(rows):5.2f} {one.plain_us[rows]:9.1f} us, {one.ours_us[rows]:9.1f}  {one.title[:80]}"
            )


def _pair(title: str, make: Make) -> Pair | None:
    """Return float32's times as `ours` and float64's as `plain`, None for what has no such choice."""
    try:
        model, data = make()
        if not kept_from(model, data):
            return None
        ours, plain = (timeable(graph(model, data.fresh, kind, "ours"), data, kind) for kind in FLOAT_TYPES)
        return pair(title, ours, plain)
    except Exception as error:  # noqa: BLE001 - what cannot be trained or converted is not compared
        print(f"{title}: {type(error).__name__}", file=sys.stderr)
        return None


if __name__ == "__main__":
    main(sys.argv[1:])
