import hashlib
import io
import json
import os
import random
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.bundle import archive
from appliance.errors import BundleRefused, NotFound


@pytest.fixture(scope="module")
def good(bundle_bytes):
    return bundle_bytes(baseline=b"{}", signature=b"a signature")


def contents(bundle: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(bundle)) as file:
        return {name: file.read(name) for name in file.namelist()}


def pack(members, compression=zipfile.ZIP_DEFLATED, **attributes) -> bytes:
    """Zip (name, content) pairs as a hostile hand would, `attributes` being those of the last entry."""
    members = list(members.items()) if isinstance(members, dict) else members
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for index, (name, content) in enumerate(members):
            info = zipfile.ZipInfo(name)
            info.compress_type = compression
            if index == len(members) - 1:
                for key, value in attributes.items():
                    setattr(info, key, value)
            file.writestr(info, content)
    return buffer.getvalue()


def declare(members: dict[str, bytes], /, **changes) -> dict[str, bytes]:
    """Return `members` with a manifest that was changed as `changes` say."""
    manifest = json.loads(members["manifest.json"]) | changes
    return members | {"manifest.json": json.dumps(manifest).encode()}


def refused(content: bytes) -> str:
    with pytest.raises(BundleRefused) as caught:
        archive.read(content)
    assert caught.value.tried
    assert caught.value.next_step
    return caught.value.found


def test_what_was_written_reads_back(good):
    bundle = archive.read(good)
    assert list(bundle.members) == list(archive.ORDER)
    assert bundle.manifest.name == "iris"
    assert bundle.members["baseline.json"] == b"{}"
    assert bundle.members["model.sig"] == b"a signature"
    assert bundle.size == sum(map(len, contents(good).values()))
    for name, member in bundle.manifest.members.items():
        assert member.sha256 == hashlib.sha256(bundle.members[name]).hexdigest()


def test_baseline_and_signature_may_be_absent(bundle_bytes):
    assert set(archive.read(bundle_bytes()).members) == {"manifest.json", "model.onnx", "parity.json", "examples.npz"}


def test_the_same_inputs_give_the_same_bytes_in_every_process(tmp_path, good):
    members = contents(good)
    script = """
import sys, pathlib, msgspec
from appliance.bundle import archive
from appliance.bundle.manifest import Manifest
folder = pathlib.Path(sys.argv[1])
manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
parts = [(folder / name).read_bytes() for name in archive.ORDER[1:]]
sys.stdout.buffer.write(archive.write(manifest, *parts))
"""
    for name, content in members.items():
        (tmp_path / name).write_bytes(content)
    root = Path(archive.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    written = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, check=True, env=environment
    ).stdout
    assert written == good


def test_the_zip_carries_fixed_dates_rights_and_order(good):
    with zipfile.ZipFile(io.BytesIO(good)) as file:
        assert file.namelist() == list(archive.ORDER)
        assert {info.date_time for info in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {stat.filemode(info.external_attr >> 16) for info in file.infolist()} == {"-rw-r--r--"}


def test_a_bundle_packed_again_by_another_tool_is_read(good):
    again = pack(contents(good), zipfile.ZIP_STORED)
    assert dict(archive.read(again).members) == dict(archive.read(good).members)


def test_a_file_is_opened_and_a_folder_read_the_same(tmp_path, good):
    (tmp_path / "x.bundle").write_bytes(good)
    folder = tmp_path / "unpacked"
    folder.mkdir()
    for name, content in contents(good).items():
        (folder / name).write_bytes(content)
    assert archive.open_bundle(tmp_path / "x.bundle") == archive.read_folder(folder) == archive.read(good)
    assert archive.read_manifest(folder) == archive.read(good).manifest


def test_an_absent_file_or_folder_is_not_found(tmp_path):
    for read in (archive.open_bundle, archive.read_folder, archive.read_manifest):
        with pytest.raises(NotFound):
            read(tmp_path / "absent")


def test_a_folder_given_as_bundle_is_refused(tmp_path):
    with pytest.raises(BundleRefused, match="is no regular file"):
        archive.open_bundle(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip at all", bytes(10_000)])
def test_what_is_no_zip_is_refused(content):
    assert "no zip" in refused(content)


def test_a_newer_format_is_named_before_its_unknown_keys(good):
    found = refused(pack(declare(contents(good), format=3, novelty={"a": 1})))
    assert found == "manifest.json: format 3 is newer than this appliance (reads 1-1)"


@pytest.mark.parametrize("number", [0, -1, "1", None, 1.5, True, 10**30])
def test_a_format_that_is_no_known_number_is_refused(good, number):
    assert "manifest.json" in refused(pack(declare(contents(good), format=number)))


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b'{"format": 1}', b"\xff\xfe", b'{"format": 1, ' + b'"a":' + b"[" * 100_000, b"null"]
)
def test_a_manifest_that_cannot_be_understood_is_refused(good, raw):
    assert "manifest.json" in refused(pack(contents(good) | {"manifest.json": raw}))


def test_an_unknown_key_in_a_known_format_is_refused(good):
    assert "novelty" in refused(pack(declare(contents(good), novelty=1)))


@pytest.mark.parametrize("name", ["", "Iris", "../iris", "a/b", "a" * 64, ".hidden", "-x", "iris\n"])
def test_a_name_that_could_not_be_a_folder_is_refused(good, name):
    assert "model name" in refused(pack(declare(contents(good), name=name)))


@pytest.mark.parametrize(
    "version", ["", "1", "1.0", "1.0.0/..", "..", "v1.0.0", "01.0.0", "1.0.0\n", "1.0.0-" + "a" * 200]
)
def test_a_version_that_is_not_semver_is_refused(good, version):
    assert "SemVer" in refused(pack(declare(contents(good), version=version)))


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "parity.json", "examples.npz", "baseline.json"])
def test_a_missing_member_is_refused(good, name):
    members = contents(good)
    del members[name]
    assert refused(pack(members)) == f"{name}: is missing"


def test_a_required_member_that_the_manifest_leaves_out_too_is_refused(good):
    members = contents(good)
    declared = json.loads(members["manifest.json"])["members"]
    del declared["parity.json"], members["parity.json"]
    assert refused(pack(declare(members, members=declared))) == "parity.json: is missing"


@pytest.mark.parametrize("name", ["extra.txt", "model.onnx.data", "MODEL.ONNX"])
def test_an_extra_member_is_refused(good, name):
    assert "is no member of a bundle" in refused(pack(contents(good) | {name: b"x"}))


def test_a_name_that_only_zipfile_takes_for_a_member_is_refused(good):
    """zipfile cuts names at a NUL byte; another reader may not."""
    packed = pack(contents(good) | {"model.sig2": b"x"}).replace(b"model.sig2", b"model.sig\0")
    assert "is no member of a bundle" in refused(packed)


def test_a_member_that_is_not_declared_is_refused(bundle_bytes):
    members = contents(bundle_bytes()) | {"baseline.json": b"{}"}
    assert refused(pack(members)) == "baseline.json: is not declared in manifest.json"


@pytest.mark.parametrize("name", ["model.sig", "manifest.json"])
def test_a_member_that_no_manifest_can_digest_is_refused(good, name):
    members = contents(good)
    declared = json.loads(members["manifest.json"])["members"]
    declared[name] = declared["model.onnx"]
    assert refused(pack(declare(members, members=declared))) == f"{name}: cannot be digested by manifest.json"


def test_a_declared_member_that_no_bundle_has_is_refused(good):
    members = contents(good)
    declared = json.loads(members["manifest.json"])["members"]
    declared["../../etc/passwd"] = declared["model.onnx"]
    assert "no member of a bundle" in refused(pack(declare(members, members=declared)))


def test_a_member_that_is_there_twice_is_refused(good):
    members = [*contents(good).items(), ("model.onnx", b"another")]
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = pack(members)
    assert refused(twice) == "model.onnx: is there twice"


def test_a_digest_that_differs_is_refused(good):
    members = contents(good)
    members["model.onnx"] = members["model.onnx"][:-1] + b"\0"
    assert refused(pack(members)) == "model.onnx: its SHA-256 is not the one in manifest.json"


def test_a_member_larger_than_declared_is_refused_unread(good):
    members = contents(good) | {"parity.json": bytes(64 * 1024 * 1024)}
    declared = json.loads(members["manifest.json"])["members"]["parity.json"]["size"]
    assert refused(pack(members)) == f"parity.json: has {64 * 1024 * 1024} bytes, manifest.json says {declared}"


def test_a_member_whose_header_understates_its_size_is_not_inflated_beyond_it(good):
    """The central directory says what the manifest says, the deflated stream holds a thousand times more."""
    members = contents(good)
    declared = len(members["parity.json"])
    lying = pack(members | {"parity.json": bytes(declared * 1000)})
    real, claimed = (declared * 1000).to_bytes(4, "little"), declared.to_bytes(4, "little")
    assert lying.count(real) >= 2
    assert "no zip" in refused(lying.replace(real, claimed))


def test_a_manifest_beyond_its_cap_is_refused_unread(good):
    members = contents(good) | {"manifest.json": b" " * (archive.MAX_MANIFEST_BYTES + 1)}
    assert "more than" in refused(pack(members))


@pytest.mark.parametrize("name", ["../model.sig", "/model.sig", "a/../../model.sig", "..\\model.sig", "C:model.sig"])
def test_a_path_that_climbs_is_refused(bundle_bytes, name):
    assert "climbs" in refused(pack(contents(bundle_bytes()) | {name: b"x"}))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR])
def test_an_entry_that_is_no_plain_file_is_refused(good, kind):
    assert "link or a folder" in refused(pack(contents(good), external_attr=(kind | 0o777) << 16))


def test_a_folder_entry_is_refused(good):
    assert "link or a folder" in refused(pack(contents(good) | {"model.d/": b""}))


def test_an_encrypted_entry_is_refused(good):
    content = bytearray(pack(contents(good)))
    for header, flags in ((content.index(b"PK\3\4"), 6), (content.index(b"PK\1\2"), 8)):
        content[header + flags] |= 1
    assert "is encrypted" in refused(bytes(content))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_another_compression_is_refused(good, method):
    assert "is compressed by method" in refused(pack(contents(good), method))


@pytest.mark.parametrize("where", ["before", "after", "between"])
def test_bytes_that_belong_to_no_member_are_refused(good, where):
    if where == "before":
        refused(b"#!/bin/sh\n" + good)
    elif where == "after":
        refused(good + b"\0")
        refused(good + good)
    else:
        position = good.index(b"PK\1\2")
        moved = bytearray(good[:position] + b"hidden" + good[position:])
        moved[-6:-2] = (position + 6).to_bytes(4, "little")
        assert refused(bytes(moved)) == "holds bytes that belong to no member"


def test_a_zip_comment_is_refused(good):
    buffer = io.BytesIO(good)
    with zipfile.ZipFile(buffer, "a") as file:
        file.comment = b"trust me"
    assert "table of members" in refused(buffer.getvalue())


@pytest.mark.parametrize("plant", ["link", "folder", "extra", "changed", "missing"])
def test_a_version_folder_is_held_to_the_same_rules(tmp_path, good, plant):
    for name, content in contents(good).items():
        (tmp_path / name).write_bytes(content)
    model = tmp_path / "model.onnx"
    if plant == "link":
        (tmp_path.parent / "elsewhere").write_bytes(model.read_bytes())
        model.unlink()
        model.symlink_to(tmp_path.parent / "elsewhere")
    elif plant == "folder":
        (tmp_path / "sub").mkdir()
    elif plant == "extra":
        (tmp_path / "notes.txt").write_text("x")
    elif plant == "changed":
        model.write_bytes(bytes(model.stat().st_size))
    else:
        model.unlink()
    with pytest.raises(BundleRefused):
        archive.read_folder(tmp_path)


def test_write_refuses_what_read_would_refuse(good):
    bundle = archive.read(good)
    manifest = msgspec.structs.replace(bundle.manifest, name="No Name")
    with pytest.raises(BundleRefused, match="model name"):
        archive.write(manifest, b"", b"", b"")


@settings(max_examples=600, deadline=None)
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_changes_nothing(good, position, bit):
    content = bytearray(good)
    content[int(position * len(content))] ^= 1 << bit
    assert_harmless(bytes(content), good)


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 40), tail=st.booleans())
def test_many_changed_bytes_are_refused_or_change_nothing(good, seed, count, tail):
    """Half of the tries change only the zip's own tables at the end, where the structure is."""
    content, source = bytearray(good), random.Random(seed)
    for _ in range(count):
        content[source.randrange(len(good) - 400 if tail else 0, len(good))] = source.randrange(256)
    assert_harmless(bytes(content), good)


@settings(max_examples=200, deadline=None)
@given(start=st.floats(0, 1), end=st.floats(0, 1))
def test_a_cut_bundle_is_refused(good, start, end):
    low, high = sorted((int(start * len(good)), int(end * len(good))))
    if (low, high) != (0, len(good)):
        refused(good[low:high])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(content):
    refused(content)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_an_arbitrary_manifest_is_refused(good, raw):
    refused(pack(contents(good) | {"manifest.json": raw}))


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["name", "version", "inputs", "members", "policy", "opset", "format", "task", "class_labels"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=5,
        ),
        min_size=1,
    )
)
def test_a_manifest_of_odd_types_is_refused_or_read(good, changes):
    """What a changed manifest says of the other members is still held against them."""
    try:
        bundle = archive.read(pack(declare(contents(good), **changes)))
    except BundleRefused:
        return
    assert bundle.members["model.onnx"] == contents(good)["model.onnx"]


def assert_harmless(changed: bytes, good: bytes) -> None:
    """Assert that the reader refuses `changed` or sees in it what is in `good`."""
    try:
        bundle = archive.read(changed)
    except BundleRefused:
        return
    before, after = dict(archive.read(good).members), dict(bundle.members)
    assert after == before
