"""The four workloads: which model, which rows, and the request that asks for them in each protocol."""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.loads import Request

_DATATYPES = {"FP32": "<f4", "FP64": "<f8"}


@dataclass(frozen=True)
class Workload:
    """A model and rows for it, shape [rows, columns], float64; `binary` workloads travel as binary tensors."""

    name: str
    title: str
    model: str
    rows: NDArray[np.float64]
    binary: bool = False

    def predict(self) -> Request:
        """Return the request of the service's own route."""
        rows = self.rows.tolist()
        return Request(f"/models/{self.model}/predict", msgspec.json.encode({"features": _single(rows)}))

    def batch(self) -> Request:
        """Return the request of the service's own route with the rows as a list of lists, however few they are."""
        return Request(f"/models/{self.model}/predict", msgspec.json.encode({"features": self.rows.tolist()}))

    def instances(self) -> Request:
        """Return the request of KServe's version 1 protocol."""
        return Request(f"/v1/models/{self.model}:predict", msgspec.json.encode({"instances": self.rows.tolist()}))

    def infer(self, datatype: str) -> Request:
        """Return the Open Inference request, JSON or binary as the workload says, in `datatype` (FP32 or FP64)."""
        path = f"/v2/models/{self.model}/infer"
        tensor = {"name": "features", "shape": list(self.rows.shape), "datatype": datatype}
        if not self.binary:
            return Request(path, msgspec.json.encode({"inputs": [tensor | {"data": self.rows.ravel().tolist()}]}))
        return _binary(path, tensor, self.rows.astype(_DATATYPES[datatype]).tobytes())


def workloads(folder: Path) -> list[Workload]:
    """Return the workloads, their rows drawn (with a fixed seed) from the tables that train.py wrote to `folder`."""
    iris, forest = _table(folder / "iris.csv"), _table(folder / "forest.csv")
    many = forest[np.random.default_rng(0).integers(len(forest), size=1000)]
    return [
        Workload("W1", "iris LogisticRegression, 1 x 4", "iris", iris[:1]),
        Workload("W2", "RandomForest of 100 trees, 1 x 30", "forest", forest[:1]),
        Workload("W3-json", "the forest, 1,000 x 30, as JSON", "forest", many),
        Workload("W3-binary", "the forest, 1,000 x 30, as binary tensors", "forest", many, binary=True),
    ]


def _table(file: Path) -> NDArray[np.float64]:
    """Return the columns of a CSV written by train.py, the target left out."""
    return np.loadtxt(file, delimiter=",", skiprows=1)[:, :-1]


def _single(rows: list[list[float]]) -> list[float] | list[list[float]]:
    """Return one row as a plain list, as a client with one row writes it."""
    return rows[0] if len(rows) == 1 else rows


def _binary(path: str, tensor: dict[str, object], data: bytes) -> Request:
    """Return a request whose tensor follows the JSON as bytes, asking for binary answers.

    Source: Open Inference Protocol, binary tensor data extension.
    """
    tensor = tensor | {"parameters": {"binary_data_size": len(data)}}
    head = msgspec.json.encode({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return Request(path, head + data, headers)
