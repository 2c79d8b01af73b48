"""The binary tensor extension: every dtype bit for bit, and no bytes that break the reader."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import InvalidInput
from appliance.openinference.binary import datatype_of, read, split, write
from appliance.openinference.tensors import DATATYPES, elements

NUMBERS = sorted(set(DATATYPES) - {"BYTES"})
SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=3)


@given(st.sampled_from(NUMBERS), SHAPES, st.data())
def test_numbers_come_back_bit_for_bit(datatype, shape, data):
    dtype = np.dtype(DATATYPES[datatype])
    size = int(np.prod(shape)) * dtype.itemsize
    content = data.draw(st.binary(min_size=size, max_size=size))
    if datatype == "BOOL":
        content = bytes(byte & 1 for byte in content)
    array = read("x", datatype, shape, memoryview(content))
    assert (array.dtype, array.shape) == (dtype, tuple(shape))
    assert datatype_of(array) == datatype
    assert write(array) == content


@given(st.lists(st.text(), min_size=1))
def test_texts_come_back(texts):
    content = write(np.array(texts, dtype=object))
    array = read("x", "BYTES", [len(texts), 1], memoryview(content))
    assert array.reshape(-1).tolist() == texts
    assert datatype_of(array) == "BYTES"


@given(
    st.sampled_from(sorted(DATATYPES)), st.lists(st.integers(-2, 5) | st.integers(), max_size=4), st.binary(max_size=40)
)
def test_any_bytes_fill_the_shape_exactly_or_are_refused(datatype, shape, content):
    try:
        array = read("x", datatype, shape, memoryview(content))
    except InvalidInput:
        return
    assert array.shape == tuple(shape)
    if datatype != "BOOL":  # any byte but 0 is true
        assert write(array) == content


@pytest.mark.parametrize("offset", range(8))
def test_numbers_at_any_address_are_aligned(offset):
    content = memoryview(bytes(offset) + np.arange(4, dtype="<f8").tobytes())[offset:]
    array = read("x", "FP64", [4], content)
    assert array.flags.aligned
    assert array.tolist() == [0, 1, 2, 3]


def test_aligned_numbers_are_not_copied():
    content = np.arange(4, dtype="<f4").tobytes()
    assert np.shares_memory(read("x", "FP32", [4], memoryview(content)), np.frombuffer(content, np.uint8))


def test_false_is_0_and_true_is_1():
    assert write(np.array([True, False])) == b"\1\0"
    assert read("x", "BOOL", [3], memoryview(b"\0\1\2")).tolist() == [False, True, True]


def test_big_endian_arrays_are_written_little_endian():
    assert write(np.array([1], ">i4")) == b"\1\0\0\0"


@pytest.mark.parametrize("shape", [[-1], [0], [2, -3], [1] * 9, [2**70, 0]])
def test_shape_that_cannot_be_is_refused(shape):
    with pytest.raises(InvalidInput, match="its shape is"):
        elements("x", shape)


def test_shape_beyond_any_memory_is_refused_before_anything_is_made():
    for datatype in DATATYPES:
        with pytest.raises(InvalidInput):
            read("x", datatype, [2**62, 2**62], memoryview(b"abcd"))


@pytest.mark.parametrize(
    ("content", "count", "found"),
    [
        (struct.pack("<I", 4) + b"abc", 1, "goes beyond"),
        (struct.pack("<I", 2**32 - 1) + b"abc", 1, "goes beyond"),
        (struct.pack("<I", 4) + b"abcd", 2, "end within text 1"),
        (struct.pack("<I", 1) + b"abcd", 1, "3 bytes are left over"),
        (struct.pack("<I", 2) + b"\xc3\x28", 1, "no UTF-8"),
        (b"abc", 1, "hold no 1 texts"),
    ],
)
def test_texts_that_are_none_are_refused(content, count, found):
    with pytest.raises(InvalidInput, match=found):
        read("x", "BYTES", [count], memoryview(content))


@given(st.binary(max_size=20), st.text(max_size=5) | st.integers(-1, 25).map(str))
def test_body_is_split_at_its_header_length_or_refused(body, length):
    try:
        header, rest = split(body, length)
    except InvalidInput:
        return
    assert len(header) == int(length)
    assert header + bytes(rest) == body
