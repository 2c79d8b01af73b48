"""Answers on disk: no kill loses what was committed, the quota holds, a full or damaged disk is survived."""

import errno
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import Overloaded, StoreError
from appliance.mqtt.disk import Disk, is_full
from appliance.mqtt.outbox import EXPIRED_AT_ONCE, LOCAL, UPSTREAM, Answer, Outbox


def outbox(path: Path, **rest) -> tuple[Disk, Outbox]:
    disk = Disk(path)
    return disk, Outbox(disk, **{"max_bytes": 1_000_000, **rest})


def add(disk: Disk, box: Outbox, *payloads: bytes, way: int = LOCAL, now: float | None = None) -> list:
    addition = box.prepare([Answer("t", payload, way) for payload in payloads], now)
    disk.commit(addition.writes)
    box.added(addition)
    return addition.stored


def payloads(box: Outbox, way: int = LOCAL) -> list[bytes]:
    return [one.answer.payload for one in box.read(way, 0, box.last, 1000)]


def test_file_of_a_version_without_user_properties_is_read_and_kept(tmp_path):
    path = tmp_path / "mqtt" / "outbox.sqlite"
    disk = Disk(path)
    outbox = Outbox(disk, max_bytes=10**6)
    disk.commit(outbox.prepare([Answer("t", b"old", correlation=b"c")]).writes)
    disk.commit([("alter table answers drop column user", [()]), ("drop table parked_users", [()])])
    disk.close()
    disk = Disk(path)
    outbox = Outbox(disk, max_bytes=10**6)
    addition = outbox.prepare([Answer("t", b"new", user=(("a", "ä"), ("a", "2")))])
    disk.commit(addition.writes)
    outbox.added(addition)
    assert [one.answer for one in outbox.read(0, 1, 9, 9)] == [
        Answer("t", b"old", correlation=b"c"), Answer("t", b"new", user=(("a", "ä"), ("a", "2"))),
    ]  # fmt: skip
    assert outbox.bytes == Outbox(disk, max_bytes=10**6).bytes  # as SQL and as Python count it
    disk.close()


def test_what_was_committed_is_there_after_the_next_start_whole_and_in_order(tmp_path):
    disk, box = outbox(tmp_path / "o")
    full = Answer("a/ü", b"\0x", UPSTREAM, 0, True, 7, "application/json", b"\1", "iris", "1.0.0")
    disk.commit((addition := box.prepare([full, Answer("b", b"y")], 5.0)).writes)
    box.added(addition)
    disk.close()
    disk, again = outbox(tmp_path / "o")
    assert (again.count, again.bytes, again.last) == (2, box.bytes, 2)
    (stored,) = again.read(UPSTREAM, 0, 9, 10)
    assert (stored.seq, stored.created, stored.answer) == (1, 5.0, full)
    assert payloads(again) == [b"y"]


def test_an_answer_goes_when_it_was_acknowledged_and_not_before(tmp_path):
    disk, box = outbox(tmp_path / "o")
    first, second = add(disk, box, b"1", b"2")
    box.acknowledge(first)
    assert payloads(box) == [b"1", b"2"]
    assert box.is_acknowledged(first.seq)
    add(disk, box, b"3")  # the same commit deletes
    assert payloads(box) == [b"2", b"3"]
    assert (box.count, box.acknowledged) == (2, 0)
    box.acknowledge(second)
    box.flush()
    assert payloads(box) == [b"3"]


def test_numbers_are_not_given_twice_while_the_service_runs(tmp_path):
    disk, box = outbox(tmp_path / "o")
    for stored in add(disk, box, b"1", b"2"):
        box.acknowledge(stored)
    box.flush()
    assert [one.seq for one in add(disk, box, b"3")] == [3]


def test_a_full_outbox_refuses_and_takes_again_when_there_is_room(tmp_path):
    disk, box = outbox(tmp_path / "o", max_bytes=500)
    first, second, _ = add(disk, box, b"x" * 100, b"y" * 100, b"z" * 100)
    with pytest.raises(Overloaded, match="outbox_bytes"):
        add(disk, box, b"no" * 50)
    box.acknowledge(first)
    add(disk, box, b"1" * 100)
    assert payloads(box) == [b"y" * 100, b"z" * 100, b"1" * 100]
    box.acknowledge(second)
    add(disk, box, b"2" * 1000)  # one addition may be larger than the quota: it would else wait for ever
    assert box.dropped == 0


def test_a_full_outbox_drops_the_oldest_where_it_is_told_so(tmp_path):
    disk, box = outbox(tmp_path / "o", max_bytes=500, when_full="oldest")
    add(disk, box, b"1" * 100, b"2" * 100)
    add(disk, box, b"3" * 100)
    assert payloads(box) == [b"2" * 100, b"3" * 100]
    assert (box.dropped, box.count) == (1, 2)
    disk.close()
    assert outbox(tmp_path / "o")[1].bytes == box.bytes


def test_a_full_outbox_drops_the_newest_where_it_is_told_so(tmp_path):
    disk, box = outbox(tmp_path / "o", max_bytes=500, when_full="newest")
    add(disk, box, b"1" * 100, b"2" * 100, b"3" * 100)
    assert add(disk, box, b"4" * 100) == []
    assert payloads(box) == [b"1" * 100, b"2" * 100, b"3" * 100]
    assert box.dropped == 1


def test_answers_that_are_too_old_are_dropped_but_none_of_a_clock_that_was_never_set(tmp_path):
    disk, box = outbox(tmp_path / "o", max_age=60.0)
    add(disk, box, b"unset", now=1000.0)
    add(disk, box, b"old", now=1_800_000_000.0)
    add(disk, box, b"young", now=1_800_000_100.0)
    assert box.expire(1_800_000_110.0) == 1
    assert payloads(box) == [b"unset", b"young"]
    assert box.dropped == 1


def test_the_age_limit_holds_behind_answers_of_a_clock_that_was_never_set_and_for_more_than_one_look(tmp_path):
    disk, box = outbox(tmp_path / "o", max_age=60.0, max_bytes=10**8)
    add(disk, box, *[b"unset"] * 1200, now=1000.0)
    add(disk, box, *[b"old"] * (EXPIRED_AT_ONCE + 700), now=1_800_000_000.0)
    add(disk, box, b"young", now=1_800_000_100.0)
    first = box.expire(1_800_000_110.0)
    assert first >= EXPIRED_AT_ONCE
    assert first + box.expire(1_800_000_110.0) == EXPIRED_AT_ONCE + 700
    assert box.expire(1_800_000_110.0) == 0
    assert box.count == 1201


def test_days_of_answers_are_not_looked_through_for_a_few(tmp_path, monkeypatch):
    disk, box = outbox(tmp_path / "o", max_bytes=10**8)
    add(disk, box, *[b"x" * 100] * 20_000)
    disk.close()
    disk, box = outbox(tmp_path / "o", max_bytes=box.bytes, max_age=60.0, when_full="oldest")
    read, seen = disk.read, []
    monkeypatch.setattr(disk, "read", lambda *question: seen.append(found := read(*question)) or found)
    add(disk, box, b"y" * 100)
    assert box.dropped == 1
    for first in (box.last, 100):
        box.acknowledge(read_one(box, first))
    box.flush()
    box.expire()
    assert box.count == 19_998
    assert sum(map(len, seen)) < 2000


def read_one(box: Outbox, first: int):
    return box.read(LOCAL, first, box.last, 1)[0]


@given(st.lists(st.tuples(st.sampled_from(["add", "acknowledge", "flush", "reopen"]), st.integers(0, 5)), max_size=25))
def test_counters_agree_with_the_disk_whatever_happens(tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("outbox") / "o"
    disk, box = outbox(path, max_bytes=2000, when_full="oldest")
    for step, number in steps:
        if step == "add":
            add(disk, box, *[b"x" * 50 * number] * number)
        elif step == "acknowledge":
            for stored in box.read(LOCAL, 0, box.last, number):
                box.acknowledge(stored)
        elif step == "flush":
            box.flush()
        else:
            disk.close()
            disk, box = outbox(path, max_bytes=2000, when_full="oldest")
    box.flush()
    found = disk.read("select count(*), coalesce(sum(length(topic) + length(payload) + 100), 0) from answers")
    assert found == [(box.count, box.bytes)]
    assert box.bytes <= 2000 or box.count <= 5
    disk.close()


def test_a_kill_between_commits_loses_none_of_them(tmp_path):
    program = textwrap.dedent("""
        import sys
        from pathlib import Path
        from appliance.mqtt.disk import Disk, is_full
        from appliance.mqtt.outbox import Answer, Outbox
        disk = Disk(Path(sys.argv[1]))
        box = Outbox(disk, max_bytes=10**9)
        for number in range(10**6):
            addition = box.prepare([Answer("t", b"%d" % (number * 10 + place)) for place in range(10)])
            disk.commit(addition.writes)
            box.added(addition)
            print(number, flush=True)
    """)
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "o")], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if int(line) >= 30:
            break
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read().split()
    process.wait(20)
    committed = (int(rest[-1]) if rest else int(line)) + 1
    _, box = outbox(tmp_path / "o")
    found = payloads(box)
    assert len(found) % 10 == 0  # batches are whole
    assert len(found) >= min(committed * 10, 1000)
    assert found == [b"%d" % number for number in range(len(found))]


def test_a_disk_without_room_takes_nothing_and_goes_on_when_there_is_some(tmp_path, monkeypatch):
    disk, box = outbox(tmp_path / "o")
    add(disk, box, b"before")
    pages = disk.read("pragma page_count")[0][0]
    disk.read(f"pragma max_page_count = {pages + 1}")
    with pytest.raises(StoreError, match="full") as raised:
        add(disk, box, b"x" * 100_000)
    assert raised.value.next_step == "free some space; the flow goes on by itself"
    assert payloads(box) == [b"before"]
    assert box.count == 1
    disk.read("pragma max_page_count = 1000000")
    add(disk, box, b"x" * 100_000)
    assert box.count == 2


def coded(code: int, text: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (coded(sqlite3.SQLITE_FULL, "no words"), True),
        (coded(sqlite3.SQLITE_FULL | 1 << 8, "an extended code"), True),
        (coded(sqlite3.SQLITE_CANTOPEN, "unable to open the full file"), False),
        (sqlite3.ProgrammingError("full: Python's module gives no code"), False),
        (OSError(errno.ENOSPC, "no words"), True),
        (OSError(errno.EDQUOT, "no words"), True),
        (OSError(errno.EACCES, "full", "/full/path"), False),
        (ValueError("full"), False),
        (None, False),
    ],
)
def test_a_full_disk_is_told_by_its_code_and_not_by_words(error, full):
    assert is_full(error) is full


def test_a_damaged_file_is_set_aside_and_the_flow_goes_on(tmp_path):
    path = tmp_path / "o"
    path.write_bytes(b"this is no database, but long enough to be looked at" * 100)
    disk, box = outbox(path)
    assert disk.set_aside is not None
    assert disk.set_aside.read_bytes().startswith(b"this is no")
    add(disk, box, b"x")
    assert payloads(box) == [b"x"]


@pytest.mark.parametrize("rights", ["folder is a file", "file is a folder"])
def test_a_file_that_cannot_be_had_is_a_store_error(tmp_path, rights):
    path = tmp_path / "o"
    if rights == "file is a folder":
        path.mkdir()
    else:
        (tmp_path / "f").write_text("")
        path = tmp_path / "f" / "o"
    with pytest.raises(StoreError, match="open"):
        Disk(path)


def test_only_the_owner_can_read_the_file(tmp_path):
    disk, box = outbox(tmp_path / "o")
    add(disk, box, b"x")
    for file in tmp_path.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file


def test_every_commit_is_flushed_to_the_disk(tmp_path):
    disk = Disk(tmp_path / "o")
    assert disk.read("pragma synchronous") == [(2,)]
    assert disk.read("pragma journal_mode") == [("wal",)]


def test_freed_pages_go_back_to_the_file_system(tmp_path):
    disk, box = outbox(tmp_path / "o", max_bytes=10**8)
    for _ in range(20):
        for stored in add(disk, box, *[b"x" * 10_000] * 10):
            box.acknowledge(stored)
    box.flush()
    disk.read("pragma wal_checkpoint(truncate)")
    before = (tmp_path / "o").stat().st_size
    disk.shrink()
    disk.read("pragma wal_checkpoint(truncate)")
    assert (tmp_path / "o").stat().st_size < before
    disk.close()
    with sqlite3.connect(tmp_path / "o") as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)


def test_a_fault_while_writing_leaves_nothing_begun(tmp_path):
    disk, box = outbox(tmp_path / "o")
    with pytest.raises(OverflowError):
        disk.commit(box.prepare([Answer("t", b"1"), Answer("t", b"2", expiry=2**64)]).writes)
    add(disk, box, b"3")
    assert payloads(box) == [b"3"]


def test_what_was_begun_counts_only_when_it_has_ended(tmp_path):
    disk, box = outbox(tmp_path / "o")
    disk.begin(box.prepare([Answer("t", b"1")]).writes)
    disk.close()
    disk, box = outbox(tmp_path / "o")
    assert payloads(box) == []
    disk.begin((addition := box.prepare([Answer("t", b"2")])).writes)
    thread = threading.Thread(target=disk.end)
    thread.start()
    thread.join()
    box.added(addition)
    disk.close()
    assert payloads(outbox(tmp_path / "o")[1]) == [b"2"]
