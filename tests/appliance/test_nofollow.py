"""Nothing is followed below a folder that others may write to, and nothing there makes a reader wait."""

import contextlib
import os
import stat
import threading
import time
from pathlib import Path

import pytest

from appliance import nofollow
from appliance.errors import StoreError
from appliance.store import durable


@pytest.fixture
def base(tmp_path) -> Path:
    path = tmp_path / "state"
    (path / "inner").mkdir(parents=True)
    (path / "inner" / "file").write_bytes(b"content")
    return path


@pytest.fixture
def secret(tmp_path) -> Path:
    path = tmp_path / "secret"
    path.mkdir()
    (path / "file").write_bytes(b"secret")
    return path


def test_a_file_below_is_read_and_the_folder_itself_may_be_reached_by_a_link(base, tmp_path):
    (tmp_path / "way").symlink_to(base)
    way = tmp_path / "way"
    assert nofollow.read(way / "inner" / "file", within=way) == b"content"
    assert list(nofollow.entries(way, within=way)) == ["inner"]
    assert stat.S_ISREG(nofollow.status(way / "inner" / "file", within=way).st_mode)


@pytest.mark.parametrize("target", ["file", "absent", "."])
def test_a_link_in_the_place_of_a_file_is_refused_as_a_link(base, secret, target):
    (base / "inner" / "file").unlink()
    (base / "inner" / "file").symlink_to(secret / target)
    for work in (nofollow.read, nofollow.status, lambda path, within: durable.append_line(path, b"x", within=within)):
        with pytest.raises(StoreError, match="it is a link"):
            work(base / "inner" / "file", within=base)
    assert [path.name for path in secret.iterdir()] == ["file"]
    assert (secret / "file").read_bytes() == b"secret"


def test_a_link_in_the_place_of_a_folder_is_refused_as_a_link(base, secret):
    (base / "outer").symlink_to(secret)
    with pytest.raises(StoreError, match="outer: it is a link"):
        nofollow.read(base / "outer" / "file", within=base)
    for work in (
        lambda: durable.write_atomically(base / "outer" / "new", b"x", within=base),
        lambda: durable.make_folder(base / "outer" / "new", within=base),
        lambda: durable.publish_folder(base / "outer" / "new", {"a": b"x"}, within=base),
        lambda: durable.remove_folder(base / "outer" / "file", within=base),
        lambda: durable.delete(base / "outer" / "file", within=base),
        lambda: durable.append_line(base / "outer" / "new", b"x", within=base),
        lambda: nofollow.entries(base / "outer", within=base),
    ):
        with pytest.raises(StoreError, match="outer: it is a link"):
            work()
    assert [path.name for path in secret.iterdir()] == ["file"]


def test_a_link_among_what_is_deleted_goes_and_what_it_leads_to_stays(base, secret):
    (base / "inner" / "link").symlink_to(secret)
    durable.delete(base / "inner", within=base)
    assert not (base / "inner").exists()
    assert (secret / "file").read_bytes() == b"secret"


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR])
def test_a_fifo_is_refused_and_nobody_waits_for_its_other_end(base, flags):
    os.mkfifo(base / "fifo")
    begun = time.monotonic()
    with pytest.raises(StoreError, match="neither a file nor a folder"):
        nofollow.open_file(base / "fifo", flags, within=base)
    assert time.monotonic() - begun < 20


def test_a_second_name_of_another_users_file_is_refused(base, secret):
    os.chown(base, 12345, 12345) if os.geteuid() == 0 else None
    os.link(secret / "file", base / "hard")
    if os.geteuid() == 0:
        with pytest.raises(StoreError, match="hard link to a file of user 0"):
            durable.append_line(base / "hard", b"x", within=base)
        assert (secret / "file").read_bytes() == b"secret"
    else:  # one's own file
        assert nofollow.read(base / "hard", within=base) == b"secret"


def test_root_takes_nothing_from_a_third_user(base):
    if os.geteuid() == 0:
        os.chown(base / "inner", 12345, 12345)
        with pytest.raises(StoreError, match="belongs to user 12345"):
            nofollow.read(base / "inner" / "file", within=base)
    else:
        assert nofollow.read(base / "inner" / "file", within=base) == b"content"


def test_what_was_there_before_keeps_its_owner_and_mode(base):
    file = base / "inner" / "file"
    file.chmod(0o604)
    if os.geteuid() == 0:
        os.chown(base, 12345, 12345)
        os.chown(base / "inner", 12345, 12345)
    before = file.stat()
    with durable.locked(file, 1, within=base) as held:
        assert held
    durable.append_line(file, b"more", within=base)
    durable.make_folder(base / "inner", within=base)
    after = file.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)


@pytest.mark.parametrize("umask", [0o777, 0o000])
def test_no_umask_takes_a_files_rights_or_gives_more(base, umask):
    old = os.umask(umask)
    try:
        durable.write_atomically(base / "new", b"x", within=base)
    finally:
        os.umask(old)
    assert stat.S_IMODE((base / "new").stat().st_mode) == 0o640


@pytest.mark.filterwarnings("error")
def test_a_folder_that_turns_into_a_link_and_back_is_never_followed(base, secret):
    """What a user may do to a privileged reader and writer, for a second: swap a name as fast as can be."""
    real, link, name = base / "real", base / "link", base / "inner"
    link.symlink_to(secret)
    end = time.monotonic() + 1.0

    def swap() -> None:
        while time.monotonic() < end:
            name.rename(real)
            link.rename(name)
            name.rename(link)
            real.rename(name)

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen = []
    while swapper.is_alive():
        for work in (
            lambda: seen.append(nofollow.read(name / "file", within=base)),
            lambda: durable.append_line(name / "lines", b"x", within=base),
            lambda: durable.write_atomically(name / "new", b"x", within=base),
            lambda: nofollow.entries(name, within=base),
        ):
            with contextlib.suppress(StoreError, OSError):
                work()
    swapper.join()
    assert set(seen) == {b"content"}
    assert [path.name for path in secret.iterdir()] == ["file"]
    assert (secret / "file").read_bytes() == b"secret"
