"""examples.npz: rows with the original model's own answers, for the self-test on the device.

Members are `input_0`, `input_1`, ... and `output_0`, ... in the manifest's order, so that any column name will do.
Strings are stored as fixed-width unicode: nothing in the file needs pickle, and nothing is unpickled. Every array's
header is held against the bytes that are there before the array is made (NEP 1 has the format; numpy believes it).
"""

import io
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from appliance.arrays import Array
from appliance.bundle import zipped
from appliance.errors import BundleRefused

MAX_ARRAYS = 65_534
"""A table has one input for each column; a zip without zip64 counts no further."""
MAX_TEXTS = 4_000_000
"""Texts in all arrays: each becomes an object of some 60 bytes."""

_WHERE = "examples.npz"
_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 4096
# As numpy.lib.format writes it; the dtypes are the manifest's.
_HEADER = re.compile(
    rb"\{'descr': '(?P<dtype>[<|](?:b1|i[1248]|u[1248]|f[248]|U[1-9]\d{0,6}))', "
    rb"'fortran_order': (?P<fortran>True|False), "
    rb"'shape': \((?P<shape>(?:\d{1,10}(?:, \d{1,10}){0,31},?)?)\), \} *\n"
)


def write(inputs: Sequence[Array], outputs: Sequence[Array]) -> bytes:
    """Return examples.npz of input and output tensors, each of shape [rows, ...]."""
    members = {f"input_{index}": _plain(array) for index, array in enumerate(inputs)}
    members |= {f"output_{index}": _plain(array) for index, array in enumerate(outputs)}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **members)
    return buffer.getvalue()


def read(content: bytes) -> tuple[list[Array], list[Array]]:
    """Return the input and output tensors; strings come back as dtype object, as onnxruntime takes them.

    Raises BundleRefused when the file is no npz, is compressed (its real size would be unbounded), needs pickle, or an
    array's header claims what its bytes do not hold.
    """
    members = _members(content)
    series = {kind: [members[name] for name in _names(kind, members)] for kind in ("input", "output")}
    if len(series["input"]) + len(series["output"]) != len(members):
        raise _refused("it has members that are no input_N or output_N in a row")
    texts = 0
    arrays: dict[str, list[Array]] = {"input": [], "output": []}
    for kind, raws in series.items():
        for raw in raws:
            array = _array(raw)
            if array.dtype.kind == "U":
                texts += array.size
                if texts > MAX_TEXTS:
                    raise _refused(f"it has more than {MAX_TEXTS} texts")
                array = array.astype(object)
            arrays[kind].append(array)
    return arrays["input"], arrays["output"]


def _members(content: bytes) -> dict[str, bytes]:
    """Return {member: its bytes} of the zip, whose table is bounded by its own content."""
    file = io.BytesIO(content)
    found: dict[str, bytes] = {}
    for entry in zipped.read_table(file, _WHERE, most_entries=MAX_ARRAYS, most_bytes=len(content)):
        if entry.method != zipped.STORED or entry.encrypted:
            raise _refused("cannot be read (compressed members)")
        if entry.name in found:
            raise _refused(f"{entry.name!a} is there twice")
        found[entry.name] = b"".join(zipped.pieces(file, entry, _WHERE))
    return found


def _names(kind: str, members: Mapping[str, bytes]) -> list[str]:
    """Return the names of `kind_0`, `kind_1`, ... until the first that is absent."""
    names: list[str] = []
    while (name := f"{kind}_{len(names)}.npy") in members:
        names.append(name)
    return names


def _array(raw: bytes) -> Array:
    """Return the array in an npy file whose header says exactly what its bytes are."""
    lengths = {b"\1\0": 2, b"\2\0": 4}.get(raw[6:8])
    if raw[:6] != _MAGIC or lengths is None:
        raise _refused("a member is no npy file of version 1 or 2")
    start = 8 + lengths
    size = int.from_bytes(raw[8:start], "little")
    if size > _LONGEST_HEADER or start + size > len(raw):
        raise _refused(f"an array's header has {size} bytes, more than the {_LONGEST_HEADER} that are read")
    header = _HEADER.fullmatch(raw, start, start + size)
    if header is None:
        raise _refused("an array's header is none that this format has (numbers, booleans and texts; no pickle)")
    dtype = np.dtype(header["dtype"].decode())
    shape = tuple(int(part) for part in header["shape"].split(b",") if part.strip())
    count = math.prod(shape)
    if start + size + count * dtype.itemsize != len(raw):
        raise _refused(f"an array of shape {shape} and type {dtype} is not in a member of {len(raw)} bytes")
    array: Array = np.frombuffer(raw, dtype, count, start + size)
    # A copy of its own: onnxruntime takes arrays that are aligned, and raw need not be.
    return array.reshape(shape, order="F" if header["fortran"] == b"True" else "C").copy(order="C")


def _plain(array: Array) -> Array:
    """Return `array` in a dtype that needs no pickle."""
    return array.astype(str) if array.dtype.kind == "O" else array


def _refused(found: str) -> BundleRefused:
    return BundleRefused(_WHERE, found, "build the bundle again")
