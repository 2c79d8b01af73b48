"""examples.npz: rows with the original model's own answers, for the self-test on the device.

Members are `input_0`, `input_1`, ... and `output_0`, ... in the manifest's order, so that any column name will do.
Strings are stored as fixed-width unicode: nothing in the file needs pickle, and nothing is unpickled.
"""

import io
import zipfile
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from appliance.errors import BundleRefused

Array = NDArray[np.generic]


def write(inputs: Sequence[Array], outputs: Sequence[Array]) -> bytes:
    """Return examples.npz of input and output tensors, each of shape [rows, ...]."""
    members = {f"input_{index}": _plain(array) for index, array in enumerate(inputs)}
    members |= {f"output_{index}": _plain(array) for index, array in enumerate(outputs)}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **members)
    return buffer.getvalue()


def read(content: bytes) -> tuple[list[Array], list[Array]]:
    """Return the input and output tensors; strings come back as dtype object, as onnxruntime takes them.

    Raises BundleRefused when the file is no npz, is compressed (its real size would be unbounded) or needs pickle.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("compressed members")
        with np.load(io.BytesIO(content), allow_pickle=False) as members:
            return _series(members, "input"), _series(members, "output")
    except Exception as error:  # numpy and zipfile raise many kinds for damaged bytes; all mean the same here
        raise BundleRefused("examples.npz", f"cannot be read ({error})", "build the bundle again") from error


def _series(members: "np.lib.npyio.NpzFile", kind: str) -> list[Array]:
    """Return `kind_0`, `kind_1`, ... until the first that is absent."""
    series: list[Array] = []
    while (name := f"{kind}_{len(series)}") in members:
        array = members[name]
        series.append(array.astype(object) if array.dtype.kind == "U" else array)
    return series


def _plain(array: Array) -> Array:
    """Return `array` in a dtype that needs no pickle."""
    return array.astype(str) if array.dtype.kind == "O" else array
