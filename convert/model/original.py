"""The original model: what it answers, under which names, and which rows it refuses."""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
from sklearn.base import ClusterMixin, is_classifier, is_outlier_detector, is_regressor
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.naive_bayes import CategoricalNB
from threadpoolctl import ThreadpoolController

from appliance.bundle.manifest import Label, Task
from appliance.errors import ConversionRefused, Misuse
from convert.model import asked_once, reference_precision, sparse_input, trained_on
from convert.model.answer_cache import AnswerCache
from convert.model.arrays import Answers, Array, Mask
from convert.model.schema import Schema
from convert.model.steps import BOOSTERS, before_last, last_step, steps

Role = Literal["prediction", "probability", "score", "other"]
"""Which part of a prediction an output is."""

_TRANSFORMING = ("transform", "score_samples")  # densities have only the second
_FEW_ROWS = 2_000
MOST_SPLITS = 10_000
_ROWS_LED = 500  # rows of the sample that go through every tree, to find which splits they reach
CALLS_PER_BATCH = 200
"""Finding the refused rows by halving a batch costs a call each time."""


class Original:
    """A trained model and the outputs that are wanted of it.

    `methods` is {output name: method that answers it}, in the manifest's order, `roles` {output name: which part of a
    prediction it is}. Raises ConversionRefused when the model can neither predict nor transform, and Misuse when
    `outputs` names one that it does not have.
    """

    def __init__(self, model: Any, schema: Schema, outputs: list[str] | None = None) -> None:
        self.model = model
        self._kept = AnswerCache()
        self.schema = schema.with_nulls(*trained_on.nulls(model, len(schema.columns)))
        self.watch = sparse_input.Watch(step for _, step in steps(model))
        self.task = _task(model)
        several = self.task == "classification" and self._has_several_targets()
        # The probabilities of several targets are a list of tables, or one without a column for each label.
        methods: dict[Role, str] = {"prediction": "predict"} if several else self._answered(_methods(model, self.task))
        chosen = _chosen(methods, outputs)
        columns = {column.name for column in schema.columns}
        names = {role: _free_name(role, columns) for role in chosen}
        self.methods = {names[role]: method for role, method in chosen.items()}
        self.roles = {names[role]: role for role in chosen}
        labelled = "probability" in chosen or (self.task == "classification" and not several)
        self.class_labels = _labels(model) if labelled else []

    @property
    def model_type(self) -> str:
        """The estimator's qualified class name."""
        return f"{type(self.model).__module__}.{type(self.model).__qualname__}"

    def _has_several_targets(self) -> bool:
        """Return whether the model predicts a row of labels for each row: [rows, targets]."""
        rows = self.schema.for_original(self.schema.frame.iloc[:1])
        try:
            with _quiet():
                shape = _dense(self.model.predict(rows)).shape
        except Exception:  # noqa: BLE001 - a model that refuses its own sample is refused later, with what it raised
            return False
        return len(shape) > 1 and (shape[1] > 1 or isinstance(getattr(self.model, "classes_", None), list))

    def _answered(self, methods: dict[Role, str]) -> dict[Role, str]:
        """Return `methods` without those that the model has but refuses to answer; the prediction stays.

        Such are the probabilities of scikit-learn's pairwise Gaussian processes.
        """
        rows = self.schema.for_original(self.schema.frame.iloc[:1])
        first = next(iter(methods))
        if not _answers(self.model, methods[first], rows):
            return methods  # the row is refused, not the method; that is reported later
        return {name: method for name, method in methods.items() if _answers(self.model, method, rows)}

    def encoder_categories(self) -> Iterator[Array]:
        """Yield the categories of every encoder in the model, and the codes that a CategoricalNB knows."""
        for _, step in steps(self.model):
            listed = getattr(step, "categories_", None)
            yield from listed if isinstance(listed, list) else ()
            if isinstance(step, CategoricalNB):
                yield np.arange(int(np.max(step.n_categories_)))

    def thresholds(self) -> dict[str, tuple[Array, Array]]:
        """Return {column: thresholds of trees, and for each a row of the sample that reaches that split}.

        Only trees that see the float columns unchanged count; at most MOST_SPLITS splits, spread over the trees.
        """
        before, last = before_last(self.model)
        if before:
            return {}
        floats = {i: c.name for i, c in enumerate(self.schema.columns) if c.kind == "float" and not c.levels}
        trees = [tree for _, step in steps(last) for tree in _trees(step)]
        # The trees of a chain or a stack see answers beside the columns.
        trees = [tree for tree in trees if tree[0].max() < len(self.schema.columns)]
        if not trees or not floats or not all(column.kind != "string" for column in self.schema.columns):
            return {}
        sample = self.schema.frame.iloc[:_ROWS_LED].to_numpy(dtype="float64")
        share = -(-MOST_SPLITS // len(trees))
        parts = [_reached(tree, sample)[:, :share] for tree in trees[:: max(1, len(trees) // MOST_SPLITS)]]
        features, values, rows = np.concatenate(parts, axis=1)
        finite = np.isfinite(values)  # a split on "missing or not" has an infinite threshold
        found = {name: (features == i) & finite for i, name in floats.items()}
        return {name: (values[own], rows[own].astype(int)) for name, own in found.items() if own.any()}

    @property
    def jumps(self) -> bool:
        """Whether the model holds trees or bins: its answer jumps where a column passes a threshold."""
        return any(_is_tree(step) or hasattr(step, "bin_edges_") for _, step in steps(self.model))

    def answers(self, frame: pd.DataFrame) -> Answers:
        """Return {output name: array [rows, ...]}; raises whatever the model raises for rows that it refuses.

        The same rows are asked once: the answers are kept (AnswerCache) and no caller may change them.
        """
        return self._kept.of(frame, lambda: self._asked(frame, self.methods))

    def answers_anew(self, frame: pd.DataFrame) -> Answers:
        """Return what the model answers now, whatever it answered to these rows before; see `answers`."""
        return self._asked(frame, self.methods)

    def last_answer(self, frame: pd.DataFrame) -> Answers:
        """Return the answer of the last output alone, which holds numbers where the model has any; see `answers`."""
        last = dict([list(self.methods.items())[-1]])
        return self._kept.of(frame, lambda: self._asked(frame, last), under=self.methods)

    def equivalents(self, frame: pd.DataFrame) -> list[Answers]:
        """Return the model's answers computed by its own formula with fewer rounding errors; empty for most models."""
        if not any(reference_precision.knows(step, len(frame)) for _, step in steps(self.model)):
            return []
        return [self._asked(frame, self.methods, self._in_reference_precision)]

    def shares_drawn(self, frame: pd.DataFrame) -> Array | None:
        """Return probabilities [rows, labels] so close that rounding may decide the label; None for most models.

        Far from its training rows, the probabilities of a Gaussian process differ by rounding errors alone.
        """
        rows = self.schema.for_original(frame)
        draws = any(isinstance(step, GaussianProcessClassifier) for _, step in steps(self.model))
        if not draws or not self.class_labels or not _answers(self.model, "predict_proba", rows):
            return None
        with _quiet():
            return _dense(self.model.predict_proba(rows))

    @cached_property
    def _threads(self) -> ThreadpoolController:
        """The thread pools of the libraries that are loaded: to look for them takes longer than most models' answer."""
        return ThreadpoolController()

    @cached_property
    def _in_reference_precision(self) -> Any:
        """A copy of the model that computes with fewer rounding errors."""
        model = copy.deepcopy(self.model)
        for _, step in steps(model):
            reference_precision.compute(step)
        return model

    def _asked(self, frame: pd.DataFrame, methods: dict[str, str], model: Any = None) -> Answers:
        model = model or self.model
        rows = self.schema.for_original(frame)
        # For few rows, several threads cost more than they save.
        threads = 1 if len(frame) <= _FEW_ROWS else None
        limit = self._threads.limit(limits=threads, user_api="openmp")
        with _quiet(), self.watch.on(), asked_once.probabilities(last_step(model)), limit:
            found = {name: _dense(getattr(model, method)(rows)) for name, method in methods.items()}
        return {name: self._by_rows(name, answer, len(frame)) for name, answer in found.items()}

    def _by_rows(self, name: str, answer: Array, rows: int) -> Array:
        """Return an answer as [rows, ...], labels of one target as [rows].

        CatBoost's labels are [rows, 1]; SparsePCA gives one row's components alone, without the axis of rows.
        """
        if rows == 1 and answer.shape[:1] != (1,):
            answer = answer[None]
        is_label = self.class_labels and self.methods[name] == "predict"
        return answer.reshape(-1) if is_label and answer.shape[1:] == (1,) else answer

    def takes(self, frame: pd.DataFrame) -> bool:
        """Return whether the model answers these rows."""
        return self.refusal(frame) is None

    def refusal(self, frame: pd.DataFrame) -> Exception | None:
        """Return what the model raises for these rows, or None when it answers them."""
        try:
            self.answers(frame)
        except Exception as error:  # noqa: BLE001 - a model is other people's code: what it raises is its refusal
            return error
        return None

    def taken(self, frame: pd.DataFrame) -> tuple[Mask, Mask]:
        """Return for each row whether the model answers it, and whether it was asked; see `taken` below."""
        return taken(self.takes, frame)


def taken(
    takes: Callable[[pd.DataFrame], bool], frame: pd.DataFrame, most_calls: int = CALLS_PER_BATCH
) -> tuple[Mask, Mask]:
    """Return for each row whether `takes` accepts it, and whether it was asked: calls for a batch are limited.

    A row that was not asked counts as not taken. Rows are asked by halves.
    """
    calls = iter(range(most_calls))
    mask, asked = np.zeros(len(frame), dtype=bool), np.ones(len(frame), dtype=bool)
    waiting = [(0, len(frame))]
    while waiting and next(calls, None) is not None:
        start, stop = waiting.pop()
        if takes(frame.iloc[start:stop]):
            mask[start:stop] = True
        elif stop - start > 1:
            middle = (start + stop) // 2
            waiting += [(middle, stop), (start, middle)]
    for start, stop in waiting:
        asked[start:stop] = False
    return mask, asked


def _free_name(output: str, columns: set[str]) -> str:
    """Return a name for an output that no column has: a graph needs different names. Underscores are added."""
    while output in columns:
        output += "_"
    return output


def _trees(step: Any) -> Iterator[tuple[Array, Array, Array, Array]]:
    """Yield (feature, threshold, left, right) by node of a tree or histogram gradient boosting; a leaf has -1."""
    if hasattr(getattr(step, "tree_", None), "threshold"):  # a density has a `tree_` too, of its rows
        tree = step.tree_
        yield np.where(tree.feature < 0, -1, tree.feature), tree.threshold, tree.children_left, tree.children_right
    for trees in getattr(step, "_predictors", None) or ():
        for nodes in (tree.nodes for tree in trees):
            feature = np.where(nodes["is_leaf"].astype(bool), -1, nodes["feature_idx"].astype(int))
            yield feature, nodes["num_threshold"], nodes["left"].astype(int), nodes["right"].astype(int)


def _reached(tree: tuple[Array, Array, Array, Array], rows: Array) -> Array:
    """Return [feature, threshold, row] x splits that some of the rows reach; `row` is one of them."""
    feature, threshold, left, right = tree
    found, waiting = [], [(0, np.arange(len(rows)))]
    while waiting:
        node, here = waiting.pop(0)
        if feature[node] < 0 or not len(here):
            continue
        found.append((feature[node], threshold[node], here[node % len(here)]))
        below = rows[here, feature[node]] <= threshold[node]
        waiting += [(left[node], here[below]), (right[node], here[~below])]
    return np.array(found, dtype="float64").reshape(-1, 3).T


def _is_tree(step: Any) -> bool:
    """Return whether an estimator is a tree, or boosted trees."""
    return hasattr(step, "_predictors") or hasattr(step, "tree_") or type(step).__module__.startswith(BOOSTERS)


def _task(model: Any) -> Task:
    if is_classifier(model):
        return "classification"
    if is_regressor(model):
        return "regression"
    if is_outlier_detector(model):
        return "outlier"
    if hasattr(model, "predict"):
        return "clustering"
    if any(hasattr(model, method) for method in _TRANSFORMING):
        return "transformation"
    found = "it has neither predict nor transform"
    if isinstance(last_step(model), ClusterMixin):
        found = "it has no predict: it has answers only for the rows it was fitted on"
    raise ConversionRefused(f"use {type(model).__name__}", found, "choose an estimator that answers for new rows")


def _methods(model: Any, task: Task) -> dict[Role, str]:
    """Return {output name: method} of everything the model offers."""
    if task == "transformation":
        return {"prediction": next(method for method in _TRANSFORMING if hasattr(model, method))}
    if not hasattr(model, "predict"):
        found = "it has no predict: it has answers only for the rows it was fitted on"
        raise ConversionRefused(f"use {type(model).__name__}", found, "choose an estimator that predicts new rows")
    methods: dict[Role, str] = {"prediction": "predict"}
    if hasattr(model, "predict_proba"):
        methods["probability"] = "predict_proba"
    elif hasattr(model, "decision_function"):
        methods["score"] = "decision_function"
    return methods


def _chosen(offered: dict[Role, str], outputs: list[str] | None) -> dict[Role, str]:
    if outputs is None:
        return offered
    if unknown := [name for name in outputs if name not in offered]:
        raise Misuse(
            f"give the outputs {', '.join(unknown)}", "the model has none", f"choose from {', '.join(offered)}"
        )
    return {name: method for name, method in offered.items() if name in outputs}


def _labels(model: Any) -> list[Label]:
    """Return the class labels in the order of the probabilities' columns."""
    classes = getattr(model, "classes_", None)
    if isinstance(classes, list) or (isinstance(classes, np.ndarray) and classes.ndim != 1):
        found = "it answers several outputs at once"
        raise ConversionRefused(f"use {type(model).__name__}", found, "train one classifier for each output")
    if classes is None:  # a mixture model numbers its components
        return list(range(getattr(last_step(model), "n_components", 0)))
    labels: list[Label] = [label.item() if isinstance(label, np.generic) else label for label in classes]
    return labels


def _answers(model: Any, method: str, rows: Any) -> bool:
    try:
        with _quiet():
            getattr(model, method)(rows)
    except Exception:  # noqa: BLE001 - a model is other people's code: what it raises is its refusal
        return False
    return True


def _dense(answer: Any) -> Array:
    """Return an answer as a plain array: transformers may give sparse matrices or tables."""
    if isinstance(answer, list):
        found = f"it answers with {len(answer)} arrays at once"
        raise ConversionRefused("ask the original model", found, "train one model for each output")
    return np.asarray(answer.toarray() if hasattr(answer, "toarray") else answer)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warnings of scikit-learn and NumPy about unusual rows, which a proof asks on purpose."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield
