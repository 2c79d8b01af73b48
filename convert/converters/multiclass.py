"""Writes classifiers and regressors made of several others (sklearn.multiclass, sklearn.multioutput)."""

import functools
from typing import Any

import numpy as np
from sklearn.base import is_classifier, is_regressor
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, MultiOutputRegressor, RegressorChain

from convert.converters.distances import nearest
from convert.converters.expressions import Tensor, concat, expit, row, where
from convert.converters.linear import is_one_by_one
from convert.converters.support_vectors import votes_and_confidences
from convert.converters.writers import (
    EstimatorKind,
    InputTensors,
    OutputTensors,
    ask,
    ask_index,
    ask_score,
    classified,
    label_constants,
    refusal,
    several,
)
from convert.converters.writers import register as register_writer

_LEAST = float(np.finfo(np.float64).tiny)  # divides zeros into zeros


def register() -> None:
    """Register every estimator of this family with skl2onnx."""
    register_writer(OneVsRestClassifier, _kind_vs_rest, one_vs_rest)
    register_writer(OneVsOneClassifier, "classifier", one_vs_one)
    register_writer(OutputCodeClassifier, "classifier", _output_code)
    register_writer(ClassifierChain, "multilabel", _classifier_chain)
    register_writer(RegressorChain, "regressor", _regressor_chain)
    register_writer(MultiOutputRegressor, "regressor", _multi_output)
    register_writer(MultiOutputClassifier, "multilabel", _multi_output_classifier)


def _kind_vs_rest(model: Any) -> EstimatorKind:
    return "multilabel" if getattr(model, "multilabel_", False) else "classifier"


def one_vs_rest(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.multiclass.OneVsRestClassifier: the largest score of one classifier per class."""
    if getattr(model, "multilabel_", False):
        return _labels_vs_rest(rows, model)
    if len(model.estimators_) > 1 and all(_is_logistic(part) for part in model.estimators_):
        return _logistic_vs_rest(rows, model)
    scores = [_binary_score(rows, part) for part in model.estimators_]
    if not all(hasattr(part, "predict_proba") for part in model.estimators_):
        proba = None
    else:
        columns = [_second(rows, part) for part in model.estimators_]
        proba = concat([1.0 - columns[0], columns[0]] if len(columns) == 1 else columns)
        total = proba.sum()
        proba = proba / where(total.equals(0.0), 1.0, total)
    threshold = 0.0 if _has_decision(model.estimators_[0]) else 0.5
    one = len(scores) == 1
    index = (scores[0] > threshold).cast("int64").reshape(-1) if one else _largest(scores)
    decision = concat(scores) if all(hasattr(part, "decision_function") for part in model.estimators_) else None
    return classified(rows, model, proba, decision, index=index)


def _labels_vs_rest(rows: InputTensors, model: Any) -> OutputTensors:
    """Return whether each label's own classifier says yes, as 0 and 1 [n, labels]."""
    threshold = 0.0 if _has_decision(model.estimators_[0]) else 0.5
    scores = concat([_binary_score(rows, part) for part in model.estimators_])
    return OutputTensors((scores > threshold).cast("int64"), decision_function=scores)


def _is_logistic(part: Any) -> bool:
    return type(part) is LogisticRegression and len(part.classes_) == 2 and is_one_by_one(part)


def _logistic_vs_rest(rows: InputTensors, model: Any) -> OutputTensors:
    """Return `one_vs_rest` of logistic regressions, whose scores are one product together."""
    weights = np.vstack([part.coef_ for part in model.estimators_]).T
    scores = rows.matrix.affine(weights, row([part.intercept_[0] for part in model.estimators_]))
    shares = expit(scores)
    proba = shares / shares.sum().clip(_LEAST, None)
    columns = [scores.columns(place) for place in range(len(model.estimators_))] if _last_of_equals_wins() else [scores]
    return classified(rows, model, proba, scores, index=_largest(columns))


def _largest(scores: list[Tensor]) -> Tensor:
    """Return the class of the largest score, int64 [n]."""
    if not _last_of_equals_wins():
        return concat(scores).argmax()
    return len(scores) - 1 - concat(scores[::-1]).argmax()


@functools.cache
def _last_of_equals_wins() -> bool:
    """Return whether this scikit-learn predicts the last of several classes of one score; newer ones the first."""
    undecided = OneVsRestClassifier(DummyClassifier(strategy="constant", constant=0)).fit([[0]] * 3, [0, 1, 2])
    return bool(undecided.predict([[0]])[0] == 2)


def one_vs_one(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.multiclass.OneVsOneClassifier.decision_function: votes of the pairs, ties broken by confidence."""
    if getattr(model, "pairwise_indices_", None) is not None:
        raise refusal(model, "its kernel is precomputed", "use a kernel by name")
    wins = [_one_column(ask_index(rows, part)) for part in model.estimators_]
    scores = [_binary_score(rows, part) for part in model.estimators_]
    votes = votes_and_confidences(concat(wins), concat(scores), len(model.classes_))
    if len(model.classes_) > 2:
        return classified(rows, model, decision=votes)
    threshold = 0.0 if _has_decision(model.estimators_[0]) else 0.5
    decision = votes.columns(1)
    return classified(rows, model, decision=decision, index=(decision > threshold).cast("int64").reshape(-1))


def _output_code(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.multiclass.OutputCodeClassifier.predict: the class whose code is nearest to the scores."""
    scores = concat([_binary_score(rows, part) for part in model.estimators_])
    return classified(rows, model, index=nearest(scores, model.code_book_))


def _classifier_chain(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.multioutput.ClassifierChain: each classifier sees the answers of those before it."""
    method = getattr(model, "chain_method_", "predict")
    found: dict[str, list[Tensor]] = {"predict": [], "predict_proba": [], "decision_function": []}
    seen = rows.matrix
    for position, part in enumerate(model.estimators_):
        here = rows.of(seen, model.n_features_in_ + position)
        for name, answers in found.items():
            if hasattr(part, name):
                answers.append(_chain_answer(here, part, name))
        seen = concat([seen, _chain_answer(here, part, method)])
    order = [int(i) for i in np.argsort(model.order_)]
    complete = {name: concat(parts).columns(*order) for name, parts in found.items() if len(parts) == len(order)}
    return OutputTensors(complete["predict"], complete.get("predict_proba"), complete.get("decision_function"))


def _chain_answer(rows: InputTensors, part: Any, method: str) -> Tensor:
    """Return one label's answer, float64 [n, 1]; of probabilities the second class's."""
    if method == "predict":
        return rows.graph.constant(label_constants(part.classes_).astype(np.float64)).take(
            _one_column(ask_index(rows, part)).cast("int64"), axis=0
        )
    if method == "predict_log_proba":
        return ask_score(rows, part, ("predict_proba",)).log()
    return ask_score(rows, part, (method,))


def _regressor_chain(rows: InputTensors, model: Any) -> OutputTensors:
    seen, found = rows.matrix, []
    for position, part in enumerate(model.estimators_):
        found.append(ask(rows.of(seen, model.n_features_in_ + position), part, "predict"))
        seen = concat([seen, found[-1]])
    return OutputTensors(concat(found).columns(*(int(i) for i in np.argsort(model.order_))))


def _multi_output(rows: InputTensors, model: Any) -> OutputTensors:
    return OutputTensors(concat([ask(rows, part, "predict") for part in model.estimators_]))


def _multi_output_classifier(rows: InputTensors, model: Any) -> OutputTensors:
    return several(rows, model, [ask_index(rows, part) for part in model.estimators_])


def _binary_score(rows: InputTensors, part: Any) -> Tensor:
    """As sklearn.multiclass._predict_binary, [n, 1]."""
    if not hasattr(part, "classes_") and hasattr(part, "y_"):  # _ConstantPredictor: it was trained on one class only
        return _constant(rows, float(part.y_[0]))
    if is_regressor(part):
        return ask(rows, part, "predict")
    return ask_score(rows, part)


def _second(rows: InputTensors, part: Any) -> Tensor:
    if not hasattr(part, "classes_") and hasattr(part, "y_"):
        return _constant(rows, float(part.y_[0]))
    return ask(rows, part, "predict_proba").columns(1)


def _constant(rows: InputTensors, value: float) -> Tensor:
    return rows.matrix.columns(0) * 0.0 + value


def _has_decision(part: Any) -> bool:
    return hasattr(part, "decision_function") and is_classifier(part)


def _one_column(index: Tensor) -> Tensor:
    return index.cast("float64").reshape(-1, 1)
