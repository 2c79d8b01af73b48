"""Archives from strangers: plain files are unpacked, everything else is refused before a file is written."""

import io
import tarfile
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.errors import ConversionRefused
from convert.sources import unpack


def archive(path, *members, mode="w:gz"):
    """Write (name, content) files and whole TarInfo entries."""
    with tarfile.open(path, mode) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            tar.addfile(info, io.BytesIO(member[1]))
    return path


def entry(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_the_one_model_in_an_archive_is_found_in_its_folder(tmp_path):
    path = archive(
        tmp_path / "model.tar.gz", entry("code", tarfile.DIRTYPE), ("code/inference.py", b"1"), ("a/m.skops", b"x")
    )
    model = unpack.open_model(path, tmp_path, "", "s3://b/model.tar.gz")
    assert (model.path.read_bytes(), model.format, model.source) == (b"x", "skops", "s3://b/model.tar.gz")


def test_one_of_several_models_is_named_by_its_path(tmp_path):
    path = archive(tmp_path / "model.tar", ("a.skops", b"a"), ("b.skops", b"b"), mode="w")
    with pytest.raises(ConversionRefused, match=r"2 model files \(a.skops, b.skops\)"):
        unpack.open_model(path, tmp_path / "1", "", "s3://b/model.tar")
    with pytest.raises(ConversionRefused, match=r"no c\.skops in it"):
        unpack.open_model(path, tmp_path / "2", "c.skops", "s3://b/model.tar")
    assert unpack.open_model(path, tmp_path / "3", "b.skops", "s3://b/model.tar").path.read_bytes() == b"b"


@pytest.mark.parametrize(
    "bad",
    [
        ("../m.skops", b"x"),
        ("/tmp/m.skops", b"x"),
        ("a/../../m.skops", b"x"),
        ("a\\..\\m.skops", b"x"),
        entry("m.skops", tarfile.SYMTYPE, "/etc/passwd"),
        entry("m.skops", tarfile.LNKTYPE, "good.skops"),
        entry("m.skops", tarfile.CHRTYPE),
        entry("m.skops", tarfile.FIFOTYPE),
        ("good.skops", b"twice"),
        ("./good.skops", b"twice"),
    ],
    ids=lambda bad: f"{bad.name}-{bad.type.decode()}" if isinstance(bad, tarfile.TarInfo) else str(bad),
)
def test_a_member_that_is_no_plain_file_in_its_place_refuses_the_archive(tmp_path, bad):
    path = archive(tmp_path / "model.tar.gz", ("good.skops", b"x"), bad)
    with pytest.raises(ConversionRefused, match=r"unpack model\.tar\.gz"):
        unpack.unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path):
    path = archive(tmp_path / "model.tar.gz", ("a", b"x"), ("a/b", b"x"))
    with pytest.raises(ConversionRefused):
        unpack.unpack(path, tmp_path / "out")


def test_more_members_or_bytes_than_allowed_are_refused(tmp_path, monkeypatch):
    path = archive(tmp_path / "model.tar.gz", *[(f"{i}.skops", b"12345678") for i in range(4)])
    monkeypatch.setattr(unpack, "MOST_MEMBERS", 3)
    with pytest.raises(ConversionRefused, match="more than 3 members"):
        unpack.unpack(path, tmp_path / "out")
    monkeypatch.setattr(unpack, "MOST_MEMBERS", 4)
    monkeypatch.setattr(unpack, "MOST_BYTES", 31)
    with pytest.raises(ConversionRefused, match="its files have more"):
        unpack.unpack(path, tmp_path / "out")


def test_a_torn_archive_is_refused(tmp_path):
    content = archive(tmp_path / "whole.tar.gz", ("m.skops", bytes(range(256)) * 50)).read_bytes()
    for length in (0, 5, len(content) // 2, len(content) - 9):
        (tmp_path / "torn.tar.gz").write_bytes(content[:length])
        with pytest.raises(ConversionRefused):
            unpack.unpack(tmp_path / "torn.tar.gz", tmp_path / f"out{length}")


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=1500))
def test_any_bytes_are_refused_as_an_archive_or_hold_nothing(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.tar"
    path.write_bytes(content)
    folder = tmp_path_factory.mktemp("any")
    with suppress(ConversionRefused):
        unpack.unpack(path, folder)
        assert not content.strip(b"\0")
    assert not list(folder.iterdir())
