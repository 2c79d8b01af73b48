"""Examples of requests and answers for openapi.json, of `make run`'s model: four numbers in, three classes out.

A test sends each request and compares its answer.
"""

from typing import Any

from appliance.rest.routes import Route

_COLUMNS = ("sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)")
_ROW = [6.3, 3.3, 6.0, 2.5]
_PROBABILITY = {"setosa": 3.0615813102485845e-6, "versicolor": 0.008449651300907135, "virginica": 0.9915472865104675}
_TENSOR = {"name": "features", "datatype": "FP32", "shape": [1, 4], "data": _ROW}
_PREDICTED = {"name": "prediction", "shape": [1], "datatype": "BYTES", "data": ["virginica"]}

LINES = {"text/csv": "6.3,3.3,6.0,2.5\n", "application/jsonlines": '{"features": [6.3, 3.3, 6.0, 2.5]}\n'}
"""Bodies of one row a line by their Content-Type."""
ANSWERED_LINES = {"text/csv": "virginica\n", "application/jsonlines": '{"prediction":"virginica"}\n'}
"""Their answers by Accept."""
QUERY = {
    "probability": "Of an answer in lines: whether the probabilities stand beside the prediction.",
    "header": "Of an answer as CSV: whether its first line names the columns.",
}
"""What a query may ask of an answer in lines: field -> its meaning."""

_PREDICT = (
    {"features": [dict(zip(_COLUMNS, _ROW, strict=True))]},
    {"prediction": ["virginica"], "probability": [_PROBABILITY], "model": "iris", "version": "1.0.0"},
)
_INFER = (
    {"inputs": [_TENSOR], "outputs": [{"name": "prediction"}]},
    {"model_name": "iris", "model_version": "1.0.0", "outputs": [_PREDICTED]},
)
_INVOKE = ({"instances": [_ROW]}, {"predictions": ["virginica"]})

_EXAMPLES: dict[str, tuple[Any, Any]] = {
    "/predict": _PREDICT,
    "/models/{name}/predict": _PREDICT,
    "/models/{name}/versions/{version}/predict": _PREDICT,
    "/v2/models/{name}/infer": _INFER,
    "/v2/models/{name}/versions/{version}/infer": _INFER,
    "/invocations": ({"dataframe_split": {"columns": list(_COLUMNS), "data": [_ROW]}}, _INVOKE[1]),
    "/models/{name}/invoke": ([_ROW], _INVOKE[1]),
    "/v1/models/{name}:predict": _INVOKE,
    "/v1/models/{name}/versions/{version}:predict": _INVOKE,
}


def request(route: Route) -> Any:
    """Return the example of a route's JSON body, None where there is none."""
    return _EXAMPLES.get(route.path, (None, None))[0] if route.method == "POST" else None


def answer(route: Route) -> Any:
    """Return the answer to that."""
    return _EXAMPLES.get(route.path, (None, None))[1] if route.method == "POST" else None
