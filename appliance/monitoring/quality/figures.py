"""From sums to figures, coverage first: what is known of accuracy depends on which predictions have a label. Pure.

Where coverage differs between predicted classes by more than UNEVEN, each class is weighted by 1 / coverage
(Horvitz & Thompson 1952), and the figures say so; a class with less than LEAST_COVERAGE of its rows labelled has none,
and is left out. Intervals are Wilson's (1927) at 95 %, good for one look.
"""

import math
from collections.abc import Sequence
from typing import Any

from appliance.monitoring.quality import sums as cells
from appliance.monitoring.quality.sums import Sums

UNEVEN, LEAST_COVERAGE = 2.0, 0.01
Z = 1.959963984540054  # 95 %

Json = dict[str, Any]


def report(sums: Sums, classes: Sequence[Any]) -> Json:
    """Return the coverage and the figures of some sums; `classes` are empty for a model of numbers."""
    coverage, weights = _coverage(sums, classes)
    return {"coverage": coverage, **(_of_classes(sums, classes, weights) if classes else _of_numbers(sums))}


def wilson(right: float, rows: float) -> list[float] | None:
    """Return the 95 % interval of a share, None of no rows."""
    if rows <= 0:
        return None
    share, square = right / rows, Z * Z
    middle, half = share + square / (2 * rows), Z * math.sqrt(share * (1 - share) / rows + square / (4 * rows * rows))
    return [max(0.0, (middle - half) / (1 + square / rows)), min(1.0, (middle + half) / (1 + square / rows))]


def _coverage(sums: Sums, classes: Sequence[Any]) -> tuple[Json, dict[int, float]]:
    """Return how many predictions have a label, and the weight of each predicted class: 1 where coverage is even."""
    rows, labelled = sums.get("rows", 0.0), sums.get("labelled", 0.0)
    found: Json = {
        "rows": int(rows),
        "labelled": int(labelled),
        "share": labelled / rows if rows else None,
        "median_delay_seconds": _quantile(sums, "delay", 0.5),
        "unseen_labels": int(sums.get("unseen", 0)),
    }
    if not classes:
        return found, {}
    shares: dict[int, float] = {}
    by_class = []
    for place, name in enumerate(classes):
        of, with_label = sums.get(f"rows:{name!r}", 0.0), sums.get(f"labelled:{name!r}", 0.0)
        share = min(1.0, with_label / of) if of else None
        by_class.append({"class": name, "rows": int(of), "labelled": int(with_label), "share": share})
        if share is not None:
            shares[place] = share
    known = {place: share for place, share in shares.items() if share >= LEAST_COVERAGE}
    uneven = bool(known) and max(known.values()) > UNEVEN * min(known.values())
    found |= {
        "by_predicted_class": by_class,
        "weighted": uneven,
        "left_out": [classes[place] for place, share in shares.items() if share < LEAST_COVERAGE],
    }
    return found, {place: 1 / share if uneven else 1.0 for place, share in known.items()}


def _of_classes(sums: Sums, classes: Sequence[Any], weights: dict[int, float]) -> Json:
    """Return the figures of a classifier."""
    count = len(classes)
    if count > cells.MOST_CLASSES:
        labelled, right = sums.get("labelled", 0.0), sums.get("right", 0.0)
        return {"accuracy": right / labelled if labelled else None, "interval": wilson(right, labelled)}
    table = [[sums.get(f"table:{true}:{place}", 0.0) for place in range(count)] for true in range(count)]
    weighted = [[number * weights.get(place, 0.0) for place, number in enumerate(row)] for row in table]
    # Rows whose label is no class of the model: it was wrong, whichever class it said.
    unseen = [sums.get(f"unseen:{place}", 0.0) for place in range(count)]
    lost = [number * weights.get(place, 0.0) for place, number in enumerate(unseen)]
    total, right = sum(map(sum, weighted)) + sum(lost), sum(weighted[place][place] for place in range(count))
    squares = sum(number * weights.get(place, 0.0) ** 2 for row in [*table, unseen] for place, number in enumerate(row))
    effective = total * total / squares if squares else 0.0  # Kish's effective number of rows
    accuracy = right / total if total else None
    per_class = [_class_figures(weighted, lost[place], place, name) for place, name in enumerate(classes)]
    return {
        "accuracy": accuracy,
        "interval": wilson((accuracy or 0.0) * effective, effective),
        **_averages(per_class),
        "classes": per_class,
        "table": [[int(number) for number in row] for row in table],
        **_of_probabilities(sums, count),
    }


def _class_figures(table: list[list[float]], lost: float, place: int, name: Any) -> Json:
    right, told, true = table[place][place], sum(row[place] for row in table) + lost, sum(table[place])
    precision, recall = right / told if told else None, right / true if true else None
    f1 = 2 * right / (told + true) if told + true else None
    return {"class": name, "precision": precision, "recall": recall, "f1": f1, "support": true}


def _averages(per_class: list[Json]) -> Json:
    """Return F1 over the classes: their mean, and by how many rows each has."""
    known = [one for one in per_class if one["f1"] is not None]
    support = sum(one["support"] for one in known)
    macro = sum(one["f1"] for one in known) / len(known) if known else None
    weighted = sum(one["f1"] * one["support"] for one in known) / support if support else None
    return {"f1_macro": macro, "f1_weighted": weighted}


def _of_probabilities(sums: Sums, count: int) -> Json:
    rows = sums.get("probable", 0.0)
    if not rows:
        return {"log_loss": None, "brier": None, "calibration": None, "auc": None}
    bins, error = [], 0.0
    for place in range(cells.CALIBRATION_BINS):
        of = sums.get(f"calibration:{place}:rows", 0.0)
        if of > 0:
            mean, right = (sums.get(f"calibration:{place}:{cell}", 0.0) / of for cell in ("top", "right"))
            bins.append({"rows": int(of), "mean_probability": mean, "share_right": right})
            error += of / rows * abs(mean - right)
    areas = [_auc(sums, place) for place in range(1 if count == 2 else 0, count)]
    known = [area for area in areas if area is not None]
    return {
        "log_loss": sums.get("log_loss", 0.0) / rows,
        "brier": sums.get("brier", 0.0) / rows,
        "calibration": {"expected_error": error, "bins": bins},
        "auc": sum(known) / len(known) if known and count <= cells.MOST_AUC_CLASSES else None,
    }


def _auc(sums: Sums, place: int) -> float | None:
    """Return the area under one class's curve against all others, from histograms; equal bins count half."""
    others, own = ([sums.get(f"auc:{place}:{is_own}:{at}", 0.0) for at in range(cells.AUC_BINS)] for is_own in (0, 1))
    pairs = sum(others) * sum(own)
    if not pairs:
        return None
    below = area = 0.0
    for other, one in zip(others, own, strict=True):
        area += one * (below + other / 2)
        below += other
    return area / pairs


def _of_numbers(sums: Sums) -> Json:
    """Return the figures of a regressor."""
    rows = sums.get("labelled", 0.0)
    if not rows:
        return dict.fromkeys(
            ("mae", "mae_interval", "rmse", "bias", "bias_interval", "r2", "within_tolerance", "error")
        )
    mae, bias, mean_square = (sums.get(cell, 0.0) / rows for cell in ("absolute", "error", "squares"))
    mean = sums.get("truth", 0.0) / rows
    spread = sums.get("truth_squares", 0.0) / rows - mean * mean
    return {
        "mae": mae,
        "mae_interval": _interval(mae, mean_square - mae * mae, rows),
        "rmse": math.sqrt(max(0.0, mean_square)),
        "bias": bias,
        "bias_interval": _interval(bias, mean_square - bias * bias, rows),
        "r2": 1 - mean_square / spread if spread > 0 else None,
        "within_tolerance": sums["within"] / rows if "within" in sums else None,
        "error": {f"{level:g}": _quantile(sums, "size", level) for level in (0.5, 0.9, 0.99)},
    }


def _interval(mean: float, variance: float, rows: float) -> list[float]:
    """Return the 95 % interval of a mean, by the normal distribution."""
    half = Z * math.sqrt(max(0.0, variance) / rows)
    return [mean - half, mean + half]


def _quantile(sums: Sums, name: str, level: float) -> float | None:
    """Return a quantile of a histogram, None of an empty one."""
    bins = sorted(
        (int(cell.rpartition(":")[2]), number) for cell, number in sums.items() if cell.startswith(f"{name}:")
    )
    total, below = sum(number for _, number in bins), 0.0
    for place, number in bins:
        below += number
        if below >= level * total:
            return cells.bound(place)
    return None
