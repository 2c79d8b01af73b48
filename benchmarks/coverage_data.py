"""Small training sets for the coverage table, measured to two decimals, and fresh rows around them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.datasets import make_classification, make_regression

DECIMALS = 2  # of every training value, and of half the fresh rows
_TRAINED, _FRESH, _WIDTH = 90, 120, 5
_BY_NAME = " by name"  # a kind that ends so is a table with column names


@dataclass(frozen=True)
class Data:
    """What a model is trained on, and the rows [n, columns] (or texts, or a table) that it is then asked about."""

    rows: Any
    answers: Any
    fresh: Any


def draw(kind: str) -> Data:
    """Return the training set of this name; the names are those of tests/convert/converters."""
    if kind == "texts":
        return Data(TEXTS, np.array(["even", "odd"])[np.arange(len(TEXTS)) % 2], NEW_TEXTS)
    if kind in ("table", "unseen"):
        return _table(kind)
    rows, answers = _numbers()[kind.removesuffix(_BY_NAME)]
    if kind.endswith(_BY_NAME):
        names = [f"column {i}" for i in range(rows.shape[1])]
        table, fresh = (pd.DataFrame(x, columns=names) for x in (rows, _fresh(rows, kind)))
        return Data(table, answers, fresh)
    return Data(rows, answers, _fresh(rows, kind))


def _numbers() -> dict[str, tuple[Any, Any]]:
    three, of_three = make_classification(
        _TRAINED, _WIDTH, n_informative=4, n_redundant=0, n_classes=3, n_clusters_per_class=1, random_state=0
    )
    two, of_two = make_classification(_TRAINED, _WIDTH, n_informative=3, n_redundant=0, random_state=0)
    rows, numbers = make_regression(_TRAINED, _WIDTH, noise=5, random_state=0)
    three, two, rows = (np.round(x, DECIMALS) for x in (three, two, rows))
    texts = np.array(["b", "a", "c"])[of_three]
    gaps = np.where(np.random.default_rng(0).random(three.shape) < 0.2, np.nan, three)
    return {
        "three": (three, texts),
        "two": (two, np.array(["no", "yes"])[of_two]),
        "zero or one": (two, of_two),
        "numbers": (rows, numbers),
        "positive numbers": (rows, np.abs(numbers) + 1),
        "shares": (rows, np.abs(numbers) / np.abs(numbers).max()),
        "one column": (rows[:, :1], numbers),
        "two numbers": (rows, np.c_[numbers, 3 * rows[:, 0] + 1]),
        "labels": (three, np.c_[of_three == 0, of_three > 0, of_two > 0].astype(int)),
        "unlabelled": (three, np.where(np.arange(_TRAINED) % 3, of_three, -1)),
        "rows": (three, None),
        "positive": (np.abs(three) + 0.1, of_three),
        "few values": (np.clip(np.round(np.abs(three)), 0, 2), of_three),
        "repeated": (np.round(three), None),
        "gaps": (gaps, of_three),
        "gaps and numbers": (gaps, np.abs(numbers) + 1),
        "kernel": (three @ three.T, of_three),
        "dictionaries": ([{"a": 1.0, "b": 2.0}, {"a": 3.0}] * 4, None),
        "token lists": ([["a", "b"], ["c"]] * 4, None),
        "label sets": ([["a", "b"], ["c"]] * 4, None),
        "class labels": (texts.tolist(), None),
        "images": (np.arange(800.0).reshape(2, 20, 20), None),
    }


def _fresh(rows: Any, kind: str) -> Any:
    """Return rows near the training rows, the second half rounded as these are, with gaps as these have."""
    if isinstance(rows, list) or rows.ndim != 2 or kind == "kernel":
        return rows
    rng = np.random.default_rng(1)
    filled = np.nan_to_num(rows)
    moved = filled[rng.integers(0, len(rows), _FRESH)]
    if not kind.startswith(("few values", "repeated")):
        moved = moved + rng.normal(size=moved.shape) * filled.std(0) * 0.3
    moved = np.maximum(np.abs(moved), 0.05) if (filled > 0).all() else moved
    moved[_FRESH // 2 :] = np.round(moved[_FRESH // 2 :], DECIMALS)
    return np.where(rng.random(moved.shape) < np.isnan(rows).mean(), np.nan, moved)


def _table(kind: str) -> Data:
    """Return whole numbers, numbers with gaps, flags and texts with gaps; `unseen` asks of values that are new."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"whole": rng.integers(0, 5, 200), "number": rng.choice([1.5, 2.5, np.nan], 200)})
    table["flag"] = rng.random(200) < 0.5
    texts = rng.choice(np.array([*"xyzüw", None], dtype=object), 200, p=[0.4, 0.3, 0.15, 0.06, 0.04, 0.05])
    table = table.assign(text=pd.Series(texts, dtype=object))
    fresh = table.sample(_FRESH, replace=True, random_state=1).reset_index(drop=True)
    if kind == "unseen":
        fresh.loc[:20, "text"] = "new"
        fresh.loc[30:50, "whole"] = 99
    return Data(table, np.arange(200) % 3, fresh)


TEXTS = [
    "The quick brown fox jumps over the lazy dog",
    "Über die Brücke, naïve café — ÉTÉ 2024",
    "a b cc dd",
    "",
    "!!!",
    "foo_bar  baz\n\tqux foo",
    "Привет мир привет",
    "the the the the fox",
    "日本語 テキスト です",
    "state-of-the-art X1 y22 z_3",
    "  leading and trailing  ",
    "it's a dog's life",
]
NEW_TEXTS = [
    *TEXTS,
    "New Über fox fox FOX",
    "мир мир ЁЛКА",
    "dog\n dog\u00a0dog",
    "quick  brown   fox over the the lazy",
    "zz",
]
