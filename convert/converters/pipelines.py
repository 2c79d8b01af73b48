"""Corrects skl2onnx's parsers: a predictor in the middle of a pipeline must transform, not predict.

This concerns KMeans and other clusterings, discriminant analysis and partial least squares, before the last step of a
Pipeline and inside a FeatureUnion or ColumnTransformer. Also, texts and numbers that one step takes together stay in
separate tensors. skl2onnx would make one tensor of texts, in which 1.0 becomes "1" and a gap becomes a text.
"""

import copy
from typing import Any

import numpy as np
from skl2onnx import _parse, update_registered_converter
from skl2onnx._parse import (
    _parse_sklearn,
    _parse_sklearn_column_transformer,
    _parse_sklearn_feature_union,
    update_registered_parser,
)
from skl2onnx.common.data_types import StringTensorType
from skl2onnx.common.utils import get_column_index
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer

from convert.converters.estimator_tensors import FLOATS
from convert.converters.expressions import Graph
from convert.converters.writers import (
    InputTensors,
    number_type,
    predictors_that_transform,
    transformed,
    unwrapped,
    width,
)
from convert.model.steps import before_last, column_positions, hashed_columns, is_dropped, parts, stages

_ALIAS = "ApplianceTransform"


class Transforming:
    """Stands for a predictor of which only the transform is wanted: skl2onnx finds converters by type."""

    def __init__(self, model: Any) -> None:
        self.model = model


class _MixedColumns(ColumnTransformer):  # type: ignore[misc]
    """A part of a ColumnTransformer that takes texts and numbers; for others skl2onnx joins them into one tensor."""

    def __init__(self, step: Any) -> None:
        self.step = step


def register() -> None:
    """Make skl2onnx parse pipelines, unions and column transformers through this module."""
    update_registered_converter(Transforming, _ALIAS, _shape, _convert)
    update_registered_parser(Pipeline, _parse_pipeline)
    update_registered_parser(FeatureUnion, _parse_union)
    update_registered_parser(ColumnTransformer, _parse_columns)
    update_registered_parser(_MixedColumns, _parse_mixed)
    _parse._fetch_input_slice = _slice


def _parse_pipeline(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
    before, end = before_last(model)
    *first, last = stages(model)
    for step in first:
        if step is not None and not passes(step):
            custom = _transforming()
            if step is before[-1] and hashed_columns(end):
                custom[ColumnTransformer] = _parse_columns_singly
            if isinstance(step, SimpleImputer) and _are_mixed(inputs) and _keeps_all(step):
                inputs = _parse_imputer_singly(scope, step, inputs)
            else:
                inputs = _parse_sklearn(scope, step, inputs, custom_parsers=custom)
    if last is None or (isinstance(last, str) and last == "passthrough"):
        return inputs
    part = unwrapped(last)
    if (scope.options is None or id(part) not in scope.options) and hasattr(part, "classes_"):
        scope.add_options(id(part), scope.get_options(model, {"zipmap": False}))
    return _parse_sklearn(scope, last, inputs, custom_parsers=custom_parsers)


def _parse_union(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
    kept = copy.copy(model)
    kept.transformer_list = [part for part in model.transformer_list if not is_dropped(part[1])]
    outputs = _parse_sklearn_feature_union(scope, kept, inputs, custom_parsers=_transforming())
    if not isinstance(inputs[0].type, FLOATS):  # skl2onnx assumes float32 for computed columns
        outputs[0].set_type(number_type(inputs, scope)([None, None]))
    return outputs


def _parse_columns(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
    """Return what a ColumnTransformer gives: one tensor, or one for each part where some are texts and some are not."""
    numbered = _by_position(model, inputs)
    taken = [(step, _taken(inputs, columns)) for _, step, columns in numbered.transformers_ if not is_dropped(step)]
    if len({kind for step, columns in taken for kind in _gives_texts(step, columns)}) > 1:
        return _singly(scope, numbered, inputs)
    return _parse_sklearn_column_transformer(scope, numbered, inputs, custom_parsers=_transforming())


def _gives_texts(step: Any, columns: list[Any]) -> set[bool]:
    """Return whether a part of a ColumnTransformer gives texts; both where it lets texts and numbers through."""
    last = stages(step)[-1] if isinstance(step, Pipeline) else step
    if isinstance(last, ColumnTransformer | FeatureUnion):
        inner = [part.estimator for part in parts(last) if not is_dropped(part.estimator)]
        return set[bool]().union(*(_gives_texts(one, columns) for one in inner))
    return {_is_text(column) for column in columns} if passes(last) or isinstance(last, SimpleImputer) else {False}


def _parse_columns_singly(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
    return _singly(scope, _by_position(model, inputs), inputs)


def _singly(scope: Any, numbered: Any, inputs: Any) -> Any:
    """Return an output for each transformer, and each column that passes: texts and numbers do not fit one tensor."""
    outputs = []
    for name, step, columns in numbered.transformers_:
        groups = [columns]
        if passes(step) and isinstance(columns, (list, np.ndarray)):
            groups = [[column] for column in columns]
        for part in groups:
            one = copy.copy(numbered)
            one.transformers_ = [(name, "passthrough" if passes(step) else step, part)]
            made = _parse_sklearn_column_transformer(scope, one, inputs, custom_parsers=_transforming())
            if len(made) == 1 and made[0] not in inputs:  # the next step looks for positions before shapes are known
                given = numbered.output_indices_[name]
                made[0].type.shape = [None, (given.stop - given.start) // len(groups)]
            outputs += made
    return outputs


def passes(step: Any) -> bool:
    """Return whether a part of a ColumnTransformer lets its columns through as they are."""
    if isinstance(step, str):
        return step == "passthrough"
    return isinstance(step, FunctionTransformer) and step.func is None


def _by_position(model: Any, inputs: Any) -> Any:
    """Return the column transformer with positions for names of columns that a step before it made (`set_output`).

    Slices, masks and positions from the end become positions too, since skl2onnx does not read all of them. Parts that
    take texts and numbers are marked.
    """
    names = {str(name) for name in getattr(model, "feature_names_in_", ())}
    given = {variable.raw_name for variable in inputs}
    named = given >= names or given <= names  # else a step before it made some of the columns
    if len(inputs) == 1:
        inputs[0].type.shape = [None, int(model.n_features_in_)]  # positions are looked up before shapes are inferred
    numbered = copy.copy(model)
    numbered.transformers_ = []
    for part, step, columns in model.transformers_:
        if not (named and _are_names(columns)):
            columns = column_positions(model, part)
        taken = [] if is_dropped(step) else _taken(inputs, columns)
        if passes(step) and taken and all(map(_is_text, taken)):
            step = "passthrough"  # the converter of a FunctionTransformer would make numbers of them
        elif not isinstance(step, str) and not passes(step) and _are_mixed(taken):
            step = _MixedColumns(step)
        numbered.transformers_.append((part, step, columns))
    return numbered


def _taken(inputs: Any, columns: Any) -> list[Any]:
    return [inputs[get_column_index(column, inputs)[0]] for column in np.ravel(columns).tolist()]


def _are_mixed(variables: Any) -> bool:
    """Return whether some variables are texts and some are not."""
    return len(set(map(_is_text, variables))) > 1


def _is_text(variable: Any) -> bool:
    return isinstance(variable.type, StringTensorType)


def _keeps_all(imputer: Any) -> bool:
    """Return whether an imputer gives the columns that it takes, and nothing beside them."""
    return not imputer.add_indicator and all(value == value for value in imputer.statistics_)


def _parse_imputer_singly(scope: Any, model: Any, inputs: Any) -> Any:
    """Return an output for each input, for a step that takes texts and numbers: they do not fit one tensor."""
    outputs: list[Any] = []
    start = 0
    for variable in inputs:
        one = copy.copy(model)
        one.n_features_in_ = variable.type.shape[1]
        one.statistics_ = model.statistics_[start : start + one.n_features_in_]
        vars(one).pop("feature_names_in_", None)  # of all columns
        start += one.n_features_in_
        (output,) = _parse_sklearn(scope, one, [variable])
        output.type.shape = [None, one.n_features_in_]  # another imputer may follow before shapes are inferred
        outputs.append(output)
    return outputs


def _parse_mixed(scope: Any, part: _MixedColumns, inputs: Any, custom_parsers: Any = None) -> Any:
    return _parse_sklearn(scope, part.step, inputs, custom_parsers=custom_parsers)


def _are_names(columns: Any) -> bool:
    return all(isinstance(name, str) for name in np.ravel(columns)) and not isinstance(columns, slice)


def _slice(scope: Any, inputs: Any, indices: list[int]) -> Any:
    """Return the columns at `indices` of one input, as skl2onnx's function of this use.

    skl2onnx's own function compares only the number of columns, and so takes a permutation for the identity.
    """
    kind = inputs[0].type
    if list(indices) == list(range(len(indices))) and kind.shape[1] == len(indices):
        return inputs
    operator = scope.declare_local_operator("SklearnArrayFeatureExtractor")
    operator.inputs, operator.column_indices = inputs, indices
    own = type(kind)([None, len(indices)])
    operator.outputs.append(scope.declare_local_variable("extracted_feature_columns", own))
    return operator.outputs


def _transforming() -> dict[type, Any]:
    return dict.fromkeys(predictors_that_transform(), _parse_transform)


def _parse_transform(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
    operator = scope.declare_local_operator(_ALIAS, Transforming(model))
    operator.inputs = inputs
    operator.outputs.append(scope.declare_local_variable("variable", number_type(inputs, scope)()))
    return operator.outputs


def _shape(operator: Any) -> None:
    kind = number_type(operator.inputs, operator.scope_inst)
    operator.outputs[0].set_type(kind([None, width(operator.raw_operator.model)]))


def _convert(scope: Any, operator: Any, container: Any) -> None:
    rows = InputTensors(Graph(scope, container), list(operator.inputs)).widened()
    result = transformed(rows, operator.raw_operator.model).matrix
    to = operator.outputs[0].type.to_onnx_type().tensor_type.elem_type
    container.add_node("Cast", [result.name], [operator.outputs[0].onnx_name], name=f"cast {result.name}", to=to)
