"""Knows the options that no graph can represent and that show before training: functions, random draws, kernels."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import skl2onnx
import sklearn.gaussian_process.kernels as gp
from skl2onnx.common.data_types import DoubleTensorType, StringTensorType
from sklearn.base import is_classifier
from sklearn.cluster import FeatureAgglomeration
from sklearn.compose import TransformedTargetRegressor
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.manifold import Isomap
from sklearn.neighbors import KernelDensity
from sklearn.preprocessing import (
    FunctionTransformer,
)

from appliance.errors import ConversionRefused
from convert.converters.inverses import INSTEAD, INVERTIBLE
from convert.converters.skl2onnx_graph import TARGET_OPSET

Reason = tuple[str, str]
"""What was found, and what to use instead."""

_TRIED_COLUMNS = 64  # for a function whose table is not known yet
_POOLS = (np.mean, np.median, np.max, np.min, np.sum)
_KERNELS = (
    gp.Sum,
    gp.Product,
    gp.Exponentiation,
    gp.ConstantKernel,
    gp.WhiteKernel,
    gp.DotProduct,
    gp.PairwiseKernel,
    gp.RationalQuadratic,
    gp.ExpSineSquared,
    gp.RBF,  # and Matern, which derives from it
)


def refused_option(model: Any) -> Reason | None:
    """Return why an estimator of a known class cannot be converted with its options, or None.

    Precondition: our converters are registered."""
    return next((reason for rule in _RULES for reason in rule(model)), None)


def _functions(model: Any) -> Iterator[Reason]:
    for option in ("kernel", "metric", "weights"):
        value = getattr(model, option, None)
        if callable(value) and not isinstance(value, gp.Kernel) and not isinstance(model, FeatureAgglomeration):
            yield f"its {option} is a function", f"use {option} by a name that scikit-learn knows"


def _random_draws(model: Any) -> Iterator[Reason]:
    if isinstance(model, DummyClassifier) and model.strategy in ("stratified", "uniform"):
        yield f"strategy={model.strategy!r} draws at random", "use 'prior', 'most_frequent' or 'constant'"


def _searches(model: Any) -> Iterator[Reason]:
    if getattr(model, "refit", True) is False and hasattr(model, "cv"):
        yield "it is not refitted on all rows", "set refit=True, or convert the estimator you choose"


def _neighbours(model: Any) -> Iterator[Reason]:
    if isinstance(model, Isomap) and model.n_neighbors is None:
        yield "it searches neighbours by radius", "use n_neighbors instead of radius"
    if isinstance(model, KernelDensity) and model.metric != "euclidean":
        yield f"metric {model.metric!r}", "use metric='euclidean'"
    if isinstance(model, KernelDensity) and model.kernel == "cosine":
        yield "kernel 'cosine'", "use gaussian, exponential, tophat, epanechnikov or linear"
    if getattr(model, "novelty", True) is False:
        yield "it answers for its training rows only", "set novelty=True"


def _pools(model: Any) -> Iterator[Reason]:
    if isinstance(model, FeatureAgglomeration) and model.pooling_func not in _POOLS:
        yield "its pooling function has no ONNX form", "use numpy.mean, median, max, min or sum"


def _processes(model: Any) -> Iterator[Reason]:
    if not isinstance(model, GaussianProcessClassifier | GaussianProcessRegressor) or model.kernel is None:
        return
    waiting = [model.kernel]
    while waiting:
        kernel = waiting.pop()
        waiting += [part for part in vars(kernel).values() if isinstance(part, gp.Kernel)]
        name = type(kernel).__name__
        if not isinstance(kernel, _KERNELS):
            yield f"its kernel {name} has no closed form here", "use RBF, Matern, RationalQuadratic or DotProduct"
        elif isinstance(kernel, gp.PairwiseKernel) and is_classifier(model):
            yield f"the variance of its kernel {name} depends on the rows", "use RBF or Matern"
        elif isinstance(kernel, gp.Matern) and kernel.nu not in (0.5, 1.5, 2.5, math.inf):
            yield f"its kernel {name} has nu={kernel.nu}", "use nu=0.5, 1.5, 2.5 or infinity"


def _boosters(model: Any) -> Iterator[Reason]:
    library = type(model).__module__.partition(".")[0]
    if library not in ("lightgbm", "xgboost", "catboost") or not hasattr(model, "get_params"):
        return
    options = model.get_params()
    objective = options.get("loss_function" if library == "catboost" else "objective")
    if callable(objective) and (
        library != "lightgbm" or is_classifier(model)
    ):  # a LightGBM regressor then gives raw scores, which convert
        yield "it has an objective of its own", "train it with a built-in objective"
    if options.get("booster") == "gblinear":
        yield "its booster is linear", "use scikit-learn's linear models, or booster='gbtree'"
    if options.get("multi_strategy") == "multi_output_tree":
        yield "its leaves hold vectors", "use multi_strategy='one_output_per_tree'"
    if options.get("linear_tree"):
        yield "its leaves are linear models", "train it with linear_tree=False"
    for kind in ("text", "embedding"):
        if library == "catboost" and options.get(f"{kind}_features"):
            yield f"it has {kind} features", "make numbers of them with scikit-learn and train on those"


def _texts(model: Any) -> Iterator[Reason]:
    """Yield why the converter refuses the patterns or functions of a bag of words; one word is enough to ask it."""
    if isinstance(model, CountVectorizer):  # TfidfVectorizer is one too
        options = {name: getattr(model, name) for name in CountVectorizer().get_params()}
        bag = CountVectorizer(**options)
        bag.vocabulary_ = {"a": 0}
        if reason := converter_says(bag, StringTensorType([None, 1])):
            yield reason


def _target(model: Any) -> Iterator[Reason]:
    if not isinstance(model, TransformedTargetRegressor):
        return
    if model.transformer is not None and not isinstance(model.transformer, INVERTIBLE):
        yield f"the inverse of {type(model.transformer).__name__} has no ONNX form here", INSTEAD
    if model.inverse_func is not None and (reason := traced(FunctionTransformer(model.inverse_func), 1)):
        yield reason


def traced(model: Any, columns: int | None = None) -> Reason | None:
    """Return why the function of a FunctionTransformer cannot be written for so many columns, or None."""
    width = columns or getattr(model, "n_features_in_", _TRIED_COLUMNS)
    return converter_says(model, DoubleTensorType([None, width]))


def converter_says(model: Any, columns: Any) -> Reason | None:
    """Return why the converter of this estimator refuses it, or None.

    Other errors mean nothing here: the estimator may not be trained."""
    types = [("columns", columns)]
    try:
        skl2onnx.convert_sklearn(model, initial_types=types, target_opset=TARGET_OPSET)
    except ConversionRefused as error:
        return error.found.removeprefix(f"{type(model).__name__}: "), error.next_step
    except Exception:  # noqa: BLE001 - skl2onnx raises every kind there is at what is not trained
        return None
    return None


_RULES: tuple[Callable[[Any], Iterator[Reason]], ...] = (
    _functions,
    _random_draws,
    _searches,
    _neighbours,
    _pools,
    _processes,
    _boosters,
    _texts,
    _target,
)
