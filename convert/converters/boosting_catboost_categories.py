"""Knows what a CatBoost model keeps of categories: their hashes, and tables of target statistics (CTRs) by hash.

As in CatBoost's applier: `CalcHashes` (catboost/libs/model/ctr_provider.h) for the hash of a combination, `TModelCtr`
(online_ctr.h) and `TStaticCtrProvider::CalcCtrs` (static_ctr_provider.cpp) for the numbers, which are float32's. The
idea is described in Prokhorenkova et al., CatBoost: unbiased boosting with categorical features (2018), section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import catboost
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from convert.converters.estimator_tensors import refusal
from convert.model.arrays import Array

Hashes = NDArray[np.uint64]
Export = Callable[[Any], dict[str, Any]]
"""Returns the model's JSON; for a pool, it also lists the pool's texts with their hashes."""

UNKNOWN = 2**40
"""Stands for the hash of an unseen category: no table holds it, since hashes are int32."""
_FACTOR = 0x4906BA494954CB65
_MODULUS = 2**64
_EMPTY_KEY = _MODULUS - 1
_MEANS = ("BinarizedTargetMeanValue", "FloatTargetMeanValue")
_COUNTS = ("Counter", "FeatureFreq")
_MOST_TRIED = 4_000_000  # combinations of categories, to find which of them a table holds
_NO_LIMIT = _MODULUS - 1
_FLAGS = np.arange(2, dtype=np.uint64)


@dataclass(frozen=True, slots=True)
class Element:
    """One part of a combination: a category's hash, or 1 where a number is above `border` or a hash equals `value`.

    `index` counts the categorical columns, or the float ones where `kind` is "float".
    """

    kind: Literal["category", "float", "value"]
    index: int
    border: float = 0.0
    value: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """What training counted for each combination: `keys` (hashes [n]) and `counts` [n, k]."""

    keys: Hashes
    counts: Array
    denominator: int


@dataclass(frozen=True, slots=True)
class Ctr:
    """One column of target statistics, and the borders that trees compare it with."""

    kind: str
    elements: tuple[Element, ...]
    borders: tuple[float, ...]
    table: Table
    target_border: int
    prior: tuple[float, float]
    shift: float
    scale: float

    def values(self) -> tuple[Array, np.float32]:
        """Return the statistic of each of the table's keys, float32 [n], and of a combination that it lacks."""
        counts, none = self.table.counts, np.zeros(1, dtype=np.float32)
        if self.kind in _COUNTS:
            total = np.array([self.table.denominator], dtype=np.float32)
            return self._of(counts[:, 0], total), self._of(none, total)[0]
        if self.kind in _MEANS:
            return self._of(counts[:, 0], counts[:, 1]), self._of(none, none)[0]
        if self.kind == "Buckets":
            good = counts[:, self.target_border]
        else:
            good = counts[:, (self.target_border if counts.shape[1] > 2 else 0) + 1 :].sum(axis=1)
        return self._of(good, counts.sum(axis=1)), self._of(none, none)[0]

    def _of(self, good: Array, total: Array) -> Array:
        numerator, denominator, shift, scale = (np.float32(v) for v in (*self.prior, self.shift, self.scale))
        with np.errstate(divide="ignore", invalid="ignore"):
            share = (good.astype(np.float32) + numerator) / (total.astype(np.float32) + denominator)
            return np.asarray((share + shift) * scale)


def ctrs(content: Mapping[str, Any]) -> Iterator[Ctr]:
    """Yield the columns of target statistics of a model's JSON."""
    tables: dict[str, Table] = {}
    for entry in content["features_info"].get("ctrs") or ():
        name = entry["identifier"]
        if name not in tables:
            tables[name] = _table(content["ctr_data"][name])
        yield Ctr(
            kind=entry["ctr_type"],
            elements=tuple(map(_element, entry["elements"])),
            borders=tuple(entry["borders"]),
            table=tables[name],
            target_border=entry["target_border_idx"],
            prior=(entry["prior_numerator"], entry["prior_denomerator"]),
            shift=entry["shift"],
            scale=entry["scale"],
        )


def is_whole(content: Mapping[str, Any], columns: Sequence[Ctr]) -> bool:
    """Return whether the JSON holds each table of target statistics.

    It names them by columns and type: of several ways to cut the target, or several targets, it keeps the last
    (`ModelCtrBaseToStr` in json_model_helpers.cpp leaves TargetBorderClassifierIdx out), and then gives other answers.
    """
    params = content["model_info"]["params"]
    if params["loss_function"]["type"].startswith("MultiRMSE") and any(ctr.kind not in _COUNTS for ctr in columns):
        return False
    options = params.get("cat_feature_params", {})
    described = [options.get("simple_ctrs"), options.get("combinations_ctrs")]
    for ctrs in (*described, *(options.get("per_feature_ctrs") or {}).values()):
        cuts: dict[str, Any] = {}
        if any(cuts.setdefault(ctr["ctr_type"], cut := ctr.get("target_binarization")) != cut for ctr in ctrs or ()):
            return False
    return True


def _table(entry: Mapping[str, Any]) -> Table:
    stride, flat = entry["hash_stride"], entry["hash_map"]
    keys = np.array([int(key) for key in flat[::stride]], dtype=np.uint64)
    counts = np.array([flat[start::stride] for start in range(1, stride)]).T.reshape(len(keys), stride - 1)
    kept = keys != _EMPTY_KEY  # an unused entry of the hash table, which is written with the counts of the first one
    return Table(keys[kept], counts[kept], entry["counter_denominator"])


def _element(entry: Mapping[str, Any]) -> Element:
    kind = entry["combination_element"]
    if kind == "float_feature":
        return Element("float", entry["float_feature_index"], border=entry["border"])
    if kind == "cat_feature_exact_value":
        return Element("value", entry["cat_feature_index"], value=entry["value"])
    return Element("category", entry["cat_feature_index"])


def factors(count: int) -> list[int]:
    """Return what each of `count` parts of a combination is multiplied with; the sum modulo 2^64 is its hash.

    CatBoost takes the parts in turn, `hash = F * (hash + F * part)`, which is linear in each.
    """
    return [pow(_FACTOR, count - place + 1, _MODULUS) for place in range(count)]


@dataclass(frozen=True)
class Known:
    """The categories of the sample: of each categorical column its distinct values and their hashes, int64 [n].

    `rows` [rows, columns] holds the hashes of the sample's own rows, those that differ.
    """

    values: Sequence[Array]
    hashes: Sequence[Array]
    rows: Array

    @cached_property
    def bits(self) -> list[Hashes]:
        """The hashes as CatBoost combines them: widened with their sign, modulo 2^64."""
        return [np.unique(column).astype(np.int64).view(np.uint64) for column in self.hashes]


def known(columns: Sequence[Array], model: Any, export: Export) -> tuple[Known, dict[str, Any]]:
    """Return the categories in `columns`, the sample's categorical ones, and the JSON of the model.

    CatBoost itself hashes the texts: its JSON lists those of a pool.
    """
    coded = [pd.factorize(np.asarray(column, dtype=object)) for column in columns]
    texts = [np.array([text_of(value) for value in values], dtype=object) for _, values in coded]
    wanted = list(dict.fromkeys(text for column in texts for text in column))
    found: dict[str, int] = {}
    content: dict[str, Any] = {}
    while missing := [text for text in wanted if text not in found]:  # it lists one of two texts with the same hash
        content = export(_pool(model, missing))
        listed = {entry["value"]: entry["hash"] for entry in content["features_info"]["cat_features_hash"]}
        if not listed.keys() & set(missing):
            raise refusal(model, f"CatBoost writes the category {missing[0]!r} in another way", "rename that category")
        found |= {text: int(np.uint32(hashed).astype(np.int32)) for text, hashed in listed.items()}
    hashes = [np.array([found[text] for text in column], dtype=np.int64) for column in texts]
    rows = np.column_stack([of_column[codes] for of_column, (codes, _) in zip(hashes, coded, strict=True)])
    return Known([values for _, values in coded], hashes, np.unique(rows, axis=0)), content


def text_of(value: Any) -> str:
    """Return the text that CatBoost hashes for a category: the digits of a number, 0 or 1 for a boolean."""
    return value if isinstance(value, str) else str(int(value))


def _pool(model: Any, texts: Sequence[str]) -> Any:
    """Return rows of the model's columns that hold each of `texts`."""
    categorical = set(model.get_cat_feature_indices())
    rows = -(-len(texts) // len(categorical))
    padded = iter(np.resize(np.array(texts, dtype=object), (len(categorical), rows)))
    names = model.feature_names_
    columns = {i: next(padded) if i in categorical else np.zeros(rows, dtype=np.float32) for i in range(len(names))}
    table = pd.DataFrame(columns)
    return catboost.Pool(table, cat_features=sorted(categorical), feature_names=names, thread_count=1)


def lacking(content: Mapping[str, Any], columns: Sequence[Ctr], known: Known) -> Iterator[tuple[tuple[int, ...], int]]:
    """Yield what the model knows and the sample lacks: categorical columns, and how many of their categories.

    For several columns these are combinations with an unknown category. Nothing is yielded for a combination of columns
    whose own tables prove that the sample holds all their categories.
    """
    absent: dict[int, set[int]] = {}
    proved: set[int] = set()
    for index, values in enumerate(one_hot_values(content)):
        absent.setdefault(index, set()).update(set(values) - set(known.hashes[index].tolist()))
    tables = {(id(ctr.table), ctr.elements): ctr for ctr in columns}.values()
    for ctr in tables:
        categories = _categories(ctr)
        if len(categories) == 1:
            hashes = _inverted(ctr.table.keys, ctr.elements, known.hashes[categories[0]])
            absent.setdefault(categories[0], set()).update(hashes.tolist())
            proved.add(categories[0])
    yield from (((index,), len(hashes)) for index, hashes in absent.items() if hashes)
    if any(absent.values()):
        return
    trusted = proved if _counts_alike(content) else set()
    for ctr in tables:
        is_open = not trusted.issuperset(_categories(ctr))
        if is_open and (left := len(_unexplained(ctr.table.keys, ctr.elements, known))):
            yield _categories(ctr), left


def one_hot_values(content: Mapping[str, Any]) -> list[list[int]]:
    """Return for each categorical column the hashes that trees and combinations compare it with."""
    return [feature.get("values") or [] for feature in content["features_info"]["categorical_features"]]


def _categories(ctr: Ctr) -> tuple[int, ...]:
    return tuple(element.index for element in ctr.elements if element.kind == "category")


def _counts_alike(content: Mapping[str, Any]) -> bool:
    """Return whether every table counts the same rows, all of those in training, and keeps them all."""
    params = content["model_info"]["params"].get("cat_feature_params", {})
    whole = params.get("ctr_leaf_count_limit") == _NO_LIMIT
    return bool(whole and params.get("counter_calc_method") == "SkipTest")


def _inverted(keys: Hashes, elements: Sequence[Element], known: Array) -> Array:
    """Return the hashes of the one category in keys that none of the `known` gives, int64 [n].

    Whatever the other parts of the combination were, the category's own hash is the one that fits int32.
    """
    first, *flags = factors(len(elements))
    tried = _without(keys, flags, [_FLAGS] * len(flags)) * np.uint64(pow(first, -1, _MODULUS))
    signed = tried.view(np.int64)
    signed = signed[~np.isin(signed, known).any(axis=1)]
    fits = (signed == signed.astype(np.int32)).argmax(axis=1)
    return np.asarray(signed[np.arange(len(signed)), fits])


def _unexplained(keys: Hashes, elements: Sequence[Element], known: Known) -> Hashes:
    """Return the keys that no combination of the sample's categories gives; all keys where those are too many."""
    weights = np.array(factors(len(elements)), dtype=np.uint64)
    categories = [element.index for element in elements if element.kind == "category"]
    flags = len(elements) - len(categories)
    rows = known.rows[:, categories].view(np.uint64) @ weights[: len(categories)]
    switched = -_without(np.zeros(1, dtype=np.uint64), weights[len(categories) :].tolist(), [_FLAGS] * flags)
    left = keys[~np.isin(keys, np.unique(rows)[:, None] + switched)]
    first, *others = (known.bits[index] for index in categories)
    values = [*others, *[_FLAGS] * flags]
    each = int(np.prod([len(choices) for choices in values], dtype=np.float64))
    if len(left) * each > _MOST_TRIED:
        return left
    tried = _without(left, weights[1:].tolist(), values) * np.uint64(pow(int(weights[0]), -1, _MODULUS))
    return np.asarray(left[~np.isin(tried, first).any(axis=1)])


def _without(keys: Hashes, weights: Sequence[int], values: Sequence[Hashes]) -> Hashes:
    """Return keys [n, combinations] minus weight * value, for each way to choose one of each of `values`."""
    rest = keys[:, None]
    for weight, choices in zip(weights, values, strict=True):
        rest = (rest[:, :, None] - choices * np.uint64(weight)).reshape(len(keys), rest.shape[1] * len(choices))
    return rest
