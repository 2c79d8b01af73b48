"""Backups of a state folder: consistent while it is written to, held to their digests, restored whole or not at all."""

import contextlib
import io
import json
import sqlite3
import stat
import tarfile
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.errors import BackupRefused, Refused, StoreError
from appliance.inference.selftest import self_test
from appliance.store import activation, backup, durable, restore, running
from appliance.store.versions import Store
from tests.appliance.store.test_power_cut import DIED, DyingOs, count_calls, in_child, view

OUTBOX = "mqtt/outbox.sqlite"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory, make_bundle):
    folder = tmp_path_factory.mktemp("bundles")
    return [make_bundle(folder, version=version) for version in ("1.0.0", "2.0.0")]


@pytest.fixture
def store(tmp_path, bundles) -> Store:
    """A store with 1.0.0 active, an outbox with a message that is in its WAL alone, a log, and what is left out."""
    made = Store(tmp_path / "state")
    for path in bundles:
        made.install(path)
    activation.activate(made, "iris", "1.0.0", self_test)
    log = made.state_dir / "log" / "iris" / "1.0.0" / "0"
    log.mkdir(parents=True)
    (log / "000001.jsonl").write_bytes(b'{"row": 1}\n{"row": 2}\n')
    (made.state_dir / "log" / "hash.key").write_bytes(b"k" * 32)
    (made.state_dir / "log" / "hash.key").chmod(0o600)
    (log / ".000001.jsonl.partial-00000000").write_bytes(b"half")
    (made.state_dir / "service.json").write_text("{}")
    (made.state_dir / "mqtt").mkdir()
    (made.state_dir / "mqtt" / "lock").touch()
    (made.state_dir / "mqtt" / "client-id").write_text("appliance-1\n")
    return made


@contextlib.contextmanager
def outbox(store: Store):
    """Give a connection as the MQTT listener has it."""
    with contextlib.closing(sqlite3.connect(store.state_dir / OUTBOX, isolation_level=None)) as connection:
        connection.execute("pragma journal_mode = wal").fetchall()
        connection.execute("create table if not exists answers (id integer primary key, text blob)")
        yield connection


def backed_up(store: Store) -> bytes:
    out = io.BytesIO()
    backup.write(store, out)
    return out.getvalue()


def restored(content: bytes, folder: Path, **rest) -> Store:
    store = Store(folder)
    restore.restore(store, io.BytesIO(content), **rest)
    return store


def files(folder: Path) -> dict[str, bytes]:
    """Return what lies in a state folder but locks and SQLite files, whose bytes differ from copy to copy."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name[0] != "." and "mqtt/outbox" not in path.as_posix()
    }


def test_a_restored_folder_is_as_the_one_that_was_backed_up(store, tmp_path):
    with outbox(store) as connection:
        connection.execute("insert into answers (text) values ('kept in the WAL')")
        assert (store.state_dir / f"{OUTBOX}-wal").stat().st_size > 0
        content = backed_up(store)
    again = restored(content, tmp_path / "again")
    assert view(again.state_dir) == view(store.state_dir)
    wanted = files(store.state_dir)
    del wanted["service.json"], wanted["mqtt/lock"]
    assert files(again.state_dir) == wanted
    assert again.receipts() == store.receipts()
    assert stat.S_IMODE((again.state_dir / "log/hash.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((again.state_dir / "log").stat().st_mode) == 0o750
    before, after = (one.state_dir / "log/iris/1.0.0/0/000001.jsonl" for one in (store, again))
    assert int(after.stat().st_mtime) == int(before.stat().st_mtime)
    with outbox(again) as connection:
        assert connection.execute("select text from answers").fetchall() == [("kept in the WAL",)]
    assert self_test(again.folder("iris", "1.0.0")).rows > 0
    assert [name for name in again.state_dir.iterdir() if name.name.startswith(".restore")] == []
    restored(backed_up(again), tmp_path / "third")


def test_a_backup_while_everything_is_written_to_is_one_moment_of_it(store, tmp_path):
    stop = threading.Event()
    log = store.state_dir / "log/iris/1.0.0/0/000001.jsonl"
    failed = []

    def messages():
        with outbox(store) as connection, log.open("ab", buffering=0) as lines:
            count = 0
            while not stop.is_set():
                count += 1
                connection.execute("begin")
                connection.execute("insert into answers (text) values (?)", (b"a" * 5000,))
                connection.execute("insert into answers (text) values (?)", (b"b" * 5000,))
                connection.execute("commit")
                lines.write(b'{"row": %d}\n' % count)

    def activations():
        versions = ["2.0.0", "1.0.0"]
        while not stop.is_set():
            activation.activate(store, "iris", versions[0], self_test)
            versions.reverse()

    def run(work):
        try:
            work()
        except Exception as error:
            failed.append(error)

    with outbox(store):
        pass
    threads = [threading.Thread(target=run, args=(work,)) for work in (messages, activations)]
    for thread in threads:
        thread.start()
    try:
        contents = [backed_up(store) for _ in range(5)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failed == []
    for number, content in enumerate(contents):
        again = restored(content, tmp_path / str(number))
        told = [one.version for one in again.receipts() if one.what == "activate"]
        assert activation.read(again, "iris").active == told[-1]
        with outbox(again) as connection:
            assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
            ((pairs,),) = connection.execute("select sum(case when text < x'62' then 1 else -1 end) from answers")
            assert not pairs
        for line in (again.state_dir / log.relative_to(store.state_dir)).read_bytes().split(b"\n")[:-1]:
            json.loads(line)


@pytest.mark.parametrize(
    "plant",
    [
        lambda state: (state / "models/iris/1.0.0/other").symlink_to("/etc/passwd"),
        lambda state: (state / "log/link").symlink_to("/etc"),
    ],
)
def test_a_link_in_the_state_folder_is_refused(store, plant):
    plant(store.state_dir)
    with pytest.raises(StoreError, match="is a link, and none is followed"):
        backed_up(store)


def entry(name: str, content: bytes = b"x", **fields) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    made.size = len(content) if fields.get("type", tarfile.REGTYPE) == tarfile.REGTYPE else 0
    for field, value in fields.items():
        setattr(made, field, value)
    return made, content


HEAD = entry("backup.json", b'{"format": 1, "program": "1.0.0", "when": "2026-01-01T00:00:00+00:00"}')
SUM = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"  # of x
GOOD = entry("state/models/a", b"x")
TAIL = entry("digests.json", json.dumps({"models/a": {"size": 1, "sha256": SUM}}).encode())


def packed(*entries) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for made, content in entries:
            archive.addfile(made, io.BytesIO(content))
    return out.getvalue()


def other_head(**fields):
    return entry("backup.json", json.dumps({"format": 1, "program": "1.0.0", "when": ""} | fields).encode())


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (packed(HEAD, entry("state/a", type=tarfile.SYMTYPE, linkname="/etc/passwd"), TAIL), "no plain file"),
        (packed(HEAD, GOOD, entry("state/b", type=tarfile.LNKTYPE, linkname="state/models/a"), TAIL), "no plain file"),
        (packed(HEAD, entry("state/dev", type=tarfile.CHRTYPE), TAIL), "no plain file"),
        (packed(HEAD, entry("state/folder", type=tarfile.DIRTYPE), TAIL), "no plain file"),
        (packed(HEAD, entry("state/../../etc/cron.d/x"), TAIL), "no path of a state folder"),
        (packed(HEAD, entry("/etc/passwd"), TAIL), "no path of a state folder"),
        (packed(HEAD, entry("state//etc/passwd"), TAIL), "no path of a state folder"),
        (packed(HEAD, entry("state/.hidden"), TAIL), "no path of a state folder"),
        (packed(HEAD, entry("state/service.json"), TAIL), "no path of a state folder"),
        (packed(HEAD, entry("elsewhere/a"), TAIL), "no path of a state folder"),
        (packed(HEAD, GOOD, GOOD, TAIL), "twice"),
        (packed(HEAD, GOOD, entry("state/models/a/b"), TAIL), "not as they were backed up"),
        (packed(HEAD, GOOD), "has no digests.json"),
        (packed(HEAD, GOOD, TAIL, entry("state/late")), "after its end"),
        (packed(HEAD, entry("state/models/a", b"y"), TAIL), "models/a: not as they were backed up"),
        (packed(HEAD, TAIL), "models/a: not as they were backed up"),
        (packed(GOOD, TAIL), "it is no backup"),
        (packed(other_head(format=2, program="3.1.0"), GOOD, TAIL), "format 2 is newer.*3.1.0 wrote it"),
        (packed(other_head(format="x"), GOOD, TAIL), "is damaged"),
        (packed(HEAD, GOOD, entry("digests.json", b"[]")), "is damaged"),
        (b"", "no whole backup"),
        (b"PK\x03\x04 a bundle, perhaps" * 100, "no whole backup"),
    ],
)
def test_what_is_no_backup_or_unsafe_is_refused_and_nothing_is_written(tmp_path, content, match):
    with pytest.raises(BackupRefused, match=match):
        restored(content, tmp_path / "state")
    assert not (tmp_path / "state").exists()


def test_a_file_below_a_file_is_refused(tmp_path):
    both = {"models/a": {"size": 1, "sha256": SUM}, "models/a/b": {"size": 1, "sha256": SUM}}
    tail = entry("digests.json", json.dumps(both).encode())
    with pytest.raises(BackupRefused, match="lies in a file"):
        restored(packed(HEAD, GOOD, entry("state/models/a/b"), tail), tmp_path / "state")


SMALL = packed(HEAD, GOOD, entry("state/log/b", b"x"), entry("digests.json", json.dumps(
    {"models/a": {"size": 1, "sha256": SUM}, "log/b": {"size": 1, "sha256": SUM}}).encode()))  # fmt: skip


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, len(SMALL) - 1), value=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_or_shortened_backup_is_refused_or_restores_the_same(tmp_path_factory, place, value, cut):
    content = SMALL[:place] if cut else SMALL[:place] + bytes([value]) + SMALL[place + 1 :]
    folder = tmp_path_factory.mktemp("damaged") / "state"
    try:
        restored(content, folder)
    except BackupRefused:
        assert not folder.exists()
    else:
        assert files(folder) == {"models/a": b"x", "log/b": b"x"}


def test_a_folder_that_is_not_empty_is_replaced_only_where_it_is_said(store, tmp_path, make_bundle):
    content = backed_up(store)
    other = Store(tmp_path / "other")
    other.install(make_bundle(tmp_path, name="wine"))
    with pytest.raises(Refused, match=r"it is not empty: it has .*models"):
        restored(content, other.state_dir)
    assert other.names() == ["wine"]
    restored(content, other.state_dir, replace=True)
    assert view(other.state_dir) == view(store.state_dir)
    assert not [path for path in other.state_dir.iterdir() if path.name.startswith(".restore")]


def test_a_folder_that_is_in_use_is_refused(store, tmp_path):
    content = backed_up(store)
    other = tmp_path / "other"
    other.mkdir()
    running.write(other, running.here("127.0.0.1", 8080))
    with pytest.raises(Refused, match=r"the service at http://127.0.0.1:8080 uses it"):
        restored(content, other, replace=True)
    running.remove(other)
    (other / "mqtt").mkdir()
    with durable.locked(other / "mqtt/lock", 0.0), pytest.raises(Refused, match="MQTT outbox"):
        restored(content, other, replace=True)
    with durable.locked(other / ".lock", 0.0), pytest.raises(Refused, match="another command"):
        restored(content, other, replace=True)
    restored(content, other, replace=True)


def test_where_there_is_no_room_nothing_is_written(store, tmp_path, monkeypatch):
    content = backed_up(store)
    monkeypatch.setattr(restore.shutil, "disk_usage", lambda place: type("Usage", (), {"free": 1000}))
    with pytest.raises(StoreError, match="are needed, 1000 are free"):
        restored(content, tmp_path / "other")
    assert not (tmp_path / "other/models").exists()


@pytest.mark.parametrize("over", [False, True], ids=["an empty folder", "a folder with a model"])
def test_killed_at_any_call_there_is_the_old_model_none_or_all_and_the_same_command_ends_it(
    store, tmp_path, monkeypatch, make_bundle, over
):
    content = backed_up(store)
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    if over:
        Store(before).install(make_bundle(tmp_path, name="wine"))
    monkeypatch.setattr(durable, "os", DyingOs())

    def work(target: Store) -> None:
        restore.restore(target, io.BytesIO(content), replace=True)

    points = count_calls(before, after, work)
    old, new = view(before), view(after)
    assert new == view(store.state_dir)
    renames = [index for index, point in enumerate(points) if point == "rename"]
    for index in sorted({*range(0, len(points), 61), *renames[-8:], len(points) - 1}):
        state = tmp_path / str(index)
        assert in_child(before, state, work, DyingOs(index, after=True, lost=index % 2 == 0)) == DIED
        assert view(state) in (old, {}, new), f"{index}: {points[index]}"
        monkeypatch.setattr(durable, "os", DyingOs())
        work(Store(state))
        assert view(state) == new
        assert files(state) == files(after)
        assert [path.name for path in state.iterdir() if path.name.startswith(".restore")] == []
