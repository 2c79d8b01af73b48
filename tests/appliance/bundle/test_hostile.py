"""Bundles made to cost a host its memory or its time: each is refused, by a real process whose peak is measured."""

import io
import json
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from appliance.bundle import archive, examples, keys, onnx_wire, signature, strict_json, zipped
from appliance.bundle.members import MAX_MEMBERS
from appliance.errors import BundleRefused

ROOT = Path(archive.__file__).parents[2]
MIB = 1024**2
PEAK = 100 * MIB
SECONDS = 1.0
"""Of processor time: the clock on the wall also tells of whatever else runs here."""

_MEASURED = """
import sys, time
from appliance.cli import main
try:
    main()
finally:
    with open("/proc/self/status") as status:
        peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    print(f"measured {peak} {time.process_time()}", file=sys.stderr)
"""


@dataclass(frozen=True)
class Done:
    code: int
    told: str
    peak: int
    seconds: float


@pytest.fixture
def appliance(tmp_path):
    """Return a function that runs a command in a process of its own: appliance("install", path, TRUSTED_KEYS=...)."""

    def run(*arguments: object, **store: object) -> Done:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("APPLIANCE_")}
        environment |= {"PYTHONPATH": str(ROOT), "APPLIANCE_STATE_DIR": str(tmp_path / "state")}
        environment |= {f"APPLIANCE_STORE_{name}": str(value) for name, value in store.items()}
        command = [sys.executable, "-c", _MEASURED, *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
        told, _, figures = done.stderr.rpartition("measured ")
        peak, seconds = figures.split()
        return Done(done.returncode, told, int(peak), float(seconds))

    return run


@pytest.fixture(scope="module")
def pair() -> tuple[bytes, bytes]:
    return keys.generate_key()


@pytest.fixture
def pub(tmp_path, pair) -> Path:
    path = tmp_path / "key.pub"
    path.write_bytes(pair[1])
    return path


def refused_cheaply(done: Done, found: str) -> None:
    assert done.code == 3, done.told
    assert found in done.told
    assert done.peak < PEAK
    assert done.seconds < SECONDS


def members_of(content: bytes) -> dict[str, bytes]:
    return dict(archive.read(content).members)


def raw_zip(members: dict[str, tuple[bytes, int, int]]) -> bytes:
    """Return a zip of {name: (deflated bytes, size that is claimed, CRC-32)}."""
    content, table = b"", b""
    for name, (packed, size, crc) in members.items():
        sizes = (0, 8, 0, 0, crc, len(packed), size, len(name), 0)
        table += struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, *sizes, 0, 0, 0, 0, len(content)) + name.encode()
        content += struct.pack("<4s5H3L2H", b"PK\3\4", 20, *sizes) + name.encode() + packed
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, len(members), len(members), len(table), len(content), 0)
    return content + table + end


def deflated(content: bytes) -> tuple[bytes, int, int]:
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    return packer.compress(content) + packer.flush(), len(content), zlib.crc32(content)


def zeros(count: int) -> tuple[bytes, int, int]:
    """Return `count` MiB of zeros, deflated a thousandfold."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    crc = 0
    for _ in range(count):
        crc = zlib.crc32(bytes(MIB), crc)
    return first * count + zlib.compressobj(9, zlib.DEFLATED, -15).flush(), count * MIB, crc


@pytest.fixture(scope="module")
def good(bundle_bytes) -> bytes:
    return bundle_bytes(baseline=b"{}")


@pytest.fixture(scope="module")
def bomb(good) -> bytes:
    """A bundle of 2 MB whose model has 2,047 MiB of zeros, as its manifest says."""
    members = members_of(good)
    manifest = json.loads(members["manifest.json"])
    manifest["members"]["model.onnx"]["size"] = 2047 * MIB
    members["manifest.json"] = json.dumps(manifest).encode()
    return raw_zip({name: deflated(content) for name, content in members.items()} | {"model.onnx": zeros(2047)})


def with_file(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "sent.bundle"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("command", ["install", "inspect", "verify"])
def test_two_gigabytes_of_zeros_are_refused_by_the_table_alone(tmp_path, appliance, bomb, command):
    found = "bytes unpacked, more than the 1073741824 that are read"
    refused_cheaply(appliance(command, with_file(tmp_path, bomb)), found)


def test_unsigned_bundle_is_refused_before_anything_is_inflated(tmp_path, appliance, bomb, pub):
    settings = {"TRUSTED_KEYS": pub, "MAX_BUNDLE_BYTES": 4 * 1024 * MIB}
    refused_cheaply(appliance("install", with_file(tmp_path, bomb), **settings), "unsigned")
    assert not (tmp_path / "state").exists()


def test_good_signature_of_another_bundle_is_refused_before_the_model_is_inflated(tmp_path, appliance, good, pub, pair):
    members = members_of(good)
    taken = signature.sign(members, pair[0])
    manifest = members["manifest.json"].replace(b'"iris"', b'"wine"')
    packed = {name: deflated(content) for name, content in members.items()}
    packed |= {"manifest.json": deflated(manifest), "model.onnx": zeros(512), "model.sig": deflated(taken)}
    done = appliance("install", with_file(tmp_path, raw_zip(packed)), TRUSTED_KEYS=pub)
    refused_cheaply(done, "manifest.json: is not as it was when it was signed")


def zip_of_entries(count: int) -> bytes:
    """Return a zip of `count` members without content: its table, and the ends that tell its size (ZIP64)."""
    table = (struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, *[0] * 7, 1, *[0] * 6) + b"x") * count
    zip64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(table), 0)
    zip64 += struct.pack("<4sLQL", b"PK\6\7", 0, len(table), 1)
    return table + zip64 + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, len(table), 0, 0)


def test_table_of_two_million_entries_is_refused_by_its_count(tmp_path, appliance):
    assert len(zipfile.ZipFile(io.BytesIO(zip_of_entries(70_000))).infolist()) == 70_000  # a usual reader takes it
    path = with_file(tmp_path, zip_of_entries(2_000_000))
    for command in ("install", "inspect"):
        refused_cheaply(appliance(command, path), "has 65535 or more members, more than the 64 that are read")


def test_table_that_hides_its_size_in_comments_is_refused_by_its_size(tmp_path):
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, *[0] * 7, 10, 0, 65535, *[0] * 4)
    entry += b"model.onnx" + bytes(65535)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2, 2, 2 * len(entry), 0, 0)
    with pytest.raises(BundleRefused, match="its table of members has"):
        archive.read(entry * 2 + end)


def test_more_members_than_are_read_are_refused_by_count():
    content = raw_zip({f"member{number}": deflated(b"") for number in range(MAX_MEMBERS + 1)})
    with pytest.raises(BundleRefused, match="has 65 members, more than the 64"):
        archive.read(content)


@pytest.mark.parametrize("fault", ["sizes", "behind", "overlap", "zip64", "unicode path", "comment", "claim"])
def test_two_readers_can_not_see_two_bundles(good, fault):
    content = bytearray(good)
    local, entry = content.index(b"PK\3\4"), content.index(b"PK\1\2")
    if fault == "sizes":
        content[local + 22] ^= 1
    elif fault == "behind":
        content[local + 6] |= 8
        content[entry + 8] |= 8
    elif fault == "overlap":
        second = content.index(b"PK\1\2", entry + 4)
        content[second + 42 : second + 46] = bytes(4)
    elif fault == "claim":
        packed = struct.unpack_from("<L", content, entry + 20)[0]
        for place in (local + 22, entry + 24):
            content[place : place + 4] = (packed * 2000).to_bytes(4, "little")
    else:
        with_more = {"zip64": b"\1\0\0\0", "unicode path": b"up\0\0", "comment": b""}[fault]
        comment = b"c" * (fault == "comment")
        named = struct.unpack_from("<H", content, entry + 28)[0]
        content[entry + 30 : entry + 34] = struct.pack("<2H", len(with_more), len(comment))
        content[entry + 46 + named : entry + 46 + named] = with_more + comment
        size = len(content) - 22 - entry
        content[-10:-6] = size.to_bytes(4, "little")
    with pytest.raises(BundleRefused):
        archive.read(bytes(content))


# JSON


@pytest.mark.parametrize("place", ["name", "members", "nested", "escaped"])
def test_signed_manifest_with_a_repeated_key_is_refused(tmp_path, appliance, good, pub, pair, place):
    members = members_of(good)
    raw = members["manifest.json"]
    members["manifest.json"] = {
        "name": raw.replace(b'"name": "iris"', b'"name": "wine", "name": "iris"', 1),
        "members": raw.replace(b'"members": {', b'"members": {}, "members": {', 1),
        "nested": raw.replace(b'"source": ', b'"source": "elsewhere", "source": ', 1),
        "escaped": raw.replace(b'"name": "iris"', b'"\\u006eame": "wine", "name": "iris"', 1),
    }[place]
    assert members["manifest.json"] != raw
    members["model.sig"] = signature.sign(members, pair[0])
    content = raw_zip({name: deflated(content) for name, content in members.items()})
    refused_cheaply(appliance("install", with_file(tmp_path, content), TRUSTED_KEYS=pub), "has a key twice")


@pytest.mark.parametrize("name", ["parity.json", "baseline.json"])
@pytest.mark.parametrize("content", [b'{"a": {"b": 1, "b": 2}}', b'[{"a": NaN}]', b"{", b"\xff", b"[" * 100_000])
def test_other_members_in_json_are_held_to_the_same_rules(bundle_bytes, name, content):
    bundle = archive.read(bundle_bytes(baseline=b"{}"))
    parts = {name: bundle.members[name] for name in (archive.MODEL, archive.PARITY, archive.EXAMPLES, archive.BASELINE)}
    with pytest.raises(BundleRefused, match=name):
        archive.write(bundle.manifest, *(parts | {name: content}).values())


def test_json_of_many_small_arrays_is_refused_before_they_are_made():
    with pytest.raises(ValueError, match="more than 500000 arrays"):
        strict_json.check(b"[" + b"[]," * 5_000_000 + b"[]]")


# examples.npz


def npz(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def npy(header: str, data: bytes = b"", version: bytes = b"\1\0") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + data


@pytest.mark.parametrize(
    "member",
    [
        npy("{'descr': '<U0', 'fortran_order': False, 'shape': (200000000,), }"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (200000000,), }", bytes(16)),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", bytes(16)),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }", bytes(17)),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"cos\nsystem\n(S'id'\ntR."),
        npy("{'descr': '|V8', 'fortran_order': False, 'shape': (2,), }", bytes(16)),
        npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (4,), }", bytes(16)),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4,), 'x': " + "(" * 2000 + ")" * 2000 + "}"),
        npy(" " * 60_000),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }", bytes(16), b"\3\0"),
        b"\x80\x04.",
        b"",
    ],
    ids=[
        "U0",
        "claims",
        "negative",
        "left-over",
        "objects",
        "void",
        "record",
        "deep",
        "long",
        "version",
        "pickle",
        "empty",
    ],
)
def test_array_whose_header_lies_is_refused_before_it_is_made(member):
    with pytest.raises(BundleRefused, match=r"examples\.npz"):
        examples.read(npz({"input_0.npy": member}))


def test_hostile_examples_in_a_bundle_cost_an_activation_nothing(tmp_path, appliance, good):
    members = members_of(good)
    member = npy("{'descr': '<U0', 'fortran_order': False, 'shape': (200000000,), }")
    parts = [members[name] for name in (archive.MODEL, archive.PARITY)]
    content = archive.write(archive.read(good).manifest, *parts, npz({"input_0.npy": member}))
    assert appliance("install", with_file(tmp_path, content)).code == 0
    done = appliance("activate", "iris", "1.0.0")
    assert (done.code, done.peak < PEAK) == (3, True)
    assert "examples.npz" in done.told


def test_compressed_or_strange_members_of_examples_are_refused():
    plain = {"input_0.npy": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }", bytes(16))}
    examples.read(npz(plain))
    for content in (npz(plain, zipfile.ZIP_DEFLATED), npz({**plain, "x": b""}), npz({"input_1.npy": b""})):
        with pytest.raises(BundleRefused):
            examples.read(content)


@settings(max_examples=200)
@given(st.data())
def test_arrays_of_every_type_order_and_shape_come_back(data):
    kind = data.draw(st.sampled_from(["?", "i1", "u8", "f2", "f4", "f8", "U"]))
    shape = tuple(data.draw(st.lists(st.integers(0, 4), max_size=3)))
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype("f8" if kind == "U" else kind)
    if kind == "U":
        array = array.astype(str).astype(object)
    order = data.draw(st.sampled_from("CF"))
    (read,), (again,) = examples.read(examples.write([np.asarray(array, order=order)], [array]))
    assert read.dtype == array.dtype
    assert np.array_equal(read, array)
    assert np.array_equal(again, array)


@settings(max_examples=300)
@given(st.binary(max_size=200), st.integers(0, 300), st.booleans())
def test_arbitrary_or_changed_examples_are_refused_or_read_within_their_bytes(noise, place, whole):
    content = bytearray(examples.write([np.ones((3, 2), np.float32)], [np.array(["a", "b"], object)]))
    content[place : place + len(noise)] = noise
    try:
        inputs, outputs = examples.read(noise if whole else bytes(content))
    except BundleRefused:
        return
    assert sum(array.nbytes for array in inputs + outputs if array.dtype != object) <= len(content)


# model.onnx


def model_with(change) -> bytes:
    """Return a small model after change(model)."""
    tensor = numpy_helper.from_array(np.ones(4, np.float32), "w")
    names = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", names[:1], names[1:], [tensor])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    model.doc_string = "location"  # the word alone is no harm
    change(model)
    return model.SerializeToString()


def outside() -> onnx.TensorProto:
    """Return a tensor whose data is in another file."""
    tensor = onnx.TensorProto(name="e", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def inner(model: onnx.ModelProto) -> onnx.GraphProto:
    node = model.graph.node.add(op_type="If")
    attribute = node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH)
    return attribute.g


def attribute(model: onnx.ModelProto) -> onnx.AttributeProto:
    return model.graph.node[0].attribute.add(name="value")


PLACES = {
    "initializer": lambda model: model.graph.initializer.append(outside()),
    "sparse": lambda model: model.graph.sparse_initializer.add().values.CopyFrom(outside()),
    "indices": lambda model: model.graph.sparse_initializer.add().indices.CopyFrom(outside()),
    "attribute": lambda model: attribute(model).t.CopyFrom(outside()),
    "attributes": lambda model: attribute(model).tensors.append(outside()),
    "sparse attribute": lambda model: attribute(model).sparse_tensor.values.CopyFrom(outside()),
    "subgraph": lambda model: inner(model).initializer.append(outside()),
    "subgraphs": lambda model: inner(model).node.add().attribute.add().graphs.add().initializer.append(outside()),
    "function": lambda model: model.functions.add().node.add().attribute.add().t.CopyFrom(outside()),
    "training": lambda model: model.training_info.add().algorithm.initializer.append(outside()),
}


@pytest.mark.parametrize("place", PLACES)
def test_tensor_whose_data_is_elsewhere_is_refused_wherever_it_is(place):
    onnx_wire.check(model_with(lambda model: None))
    with pytest.raises(BundleRefused, match="data is elsewhere"):
        onnx_wire.check(model_with(PLACES[place]))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"\x12\x06\0\0ORTM" + b"\x08\x09\x3a\0", "onnxruntime's own format"),
        (b"\0" * 100, "no ONNX model"),
        (b"\x08\x09", "one IR version and one graph"),
        (b"\x08\x09\x3a\0\x3a\0", "one IR version and one graph"),
        (b"\x08\x09\x3a\x05", "cut off"),
        (b"\x08\x09\x3a\0\xf8\x3f\0", "field 1023"),
        (b"\x08" + b"\xff" * 12, "no end"),
        (b"\x0b\x0c", "type 3"),
        (b"", "one IR version and one graph"),
    ],
)
def test_what_is_no_onnx_model_is_refused(content, found):
    with pytest.raises(BundleRefused, match=found):
        onnx_wire.check(content)


def test_install_and_verify_refuse_a_model_of_another_format(tmp_path, appliance, good):
    members = members_of(good)
    for model in (b"\x12\x06\0\0ORTM" + b"\x08\x09\x3a\0", model_with(PLACES["initializer"])):
        parts = [members[name] for name in (archive.PARITY, archive.EXAMPLES)]
        path = with_file(tmp_path, archive.write(archive.read(good).manifest, model, *parts))
        for command in ("install", "verify"):
            done = appliance(command, path)
            assert (done.code, "model.onnx" in done.told) == (3, True)
    assert not (tmp_path / "state").exists()


@settings(max_examples=300)
@given(st.binary(max_size=60), st.integers(1, 20))
def test_scan_says_the_same_in_pieces_of_any_size(noise, size):
    def said(pieces) -> object:
        scan = onnx_wire.Scan()
        try:
            for piece in pieces:
                scan.feed(piece)
            return scan.end()
        except BundleRefused as error:
            return error.found

    for content in (noise, model_with(lambda model: None)[: len(noise) * 4], model_with(PLACES["initializer"])):
        assert said([content]) == said([content[at : at + size] for at in range(0, len(content), size)])


@settings(max_examples=500)
@given(st.sampled_from(sorted(PLACES)), st.integers(0, 400), st.integers(0, 255))
def test_changed_model_is_refused_or_has_no_data_elsewhere(place, at, value):
    content = bytearray(model_with(PLACES[place]))
    content[at % len(content)] = value
    try:
        onnx_wire.check(bytes(content))
    except BundleRefused:
        return
    try:
        model = onnx.load_model_from_string(bytes(content))
    except DecodeError:
        return
    tensors = list(onnx.external_data_helper._get_all_tensors(model))
    assert not any(entry.key == "location" for tensor in tensors for entry in tensor.external_data)


def test_numbers_of_a_forest_are_passed_over_in_one_step():
    def grow(model) -> None:
        attribute = model.graph.node[0].attribute.add(name="values", type=onnx.AttributeProto.FLOATS)
        attribute.floats.extend(np.random.default_rng(0).random(300_000).astype(np.float32).tolist())
        model.graph.node[0].attribute.add(name="ids").ints.extend(range(-5, 300_000))
        PLACES["initializer"](model)

    with pytest.raises(BundleRefused, match="data is elsewhere"):
        onnx_wire.check(model_with(grow))


@settings(max_examples=300)
@given(st.binary(max_size=400), st.integers(0, 70_000), st.integers(0, 400), st.integers(0, 400))
def test_arbitrary_table_is_refused_and_nothing_else_is_raised(noise, count, size, offset):
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count & 0xFFFF, count & 0xFFFF, size, offset, 0)
    with pytest.raises(BundleRefused):
        zipped.read_table(io.BytesIO(noise + b"\1" + end), "it", most_entries=64, most_bytes=400)
