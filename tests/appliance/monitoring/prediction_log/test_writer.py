"""The writer loses nothing that it said was written, whatever ends it, and leaves a log that can be verified."""

import errno
import gzip
import os
import shutil

import pytest

from appliance.monitoring.prediction_log import find, index, lines, segments
from appliance.monitoring.prediction_log.segments import Writer
from appliance.monitoring.prediction_log.verify import verify
from appliance.monitoring.prediction_log.writer import SegmentWriter

from .conftest import encoded, header

CALLS = ("write", "open", "fsync", "fdatasync", "replace", "unlink", "ftruncate")


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours may catch it."""


def kept(place: Writer) -> list[bytes]:
    """Return the rows of a log, in their order."""
    return [
        line for segment in segments.of_writer(place) for line in find.lines_of(segment) if line.startswith(lines.ROW)
    ]


def gaps(place: Writer) -> list[lines.Gap]:
    found = [line for one in segments.of_writer(place) for line in find.lines_of(one) if line.startswith(lines.GAP)]
    return [lines.read_gap(line) for line in found]


def work(place: Writer, clock, acknowledged: list[bytes], opened: list[SegmentWriter]) -> None:
    """Write, seal and rotate as the keeper does; `acknowledged` has what append() said is there."""
    writer = SegmentWriter.open(place, header, clock)
    opened.append(writer)
    for start in range(0, 12, 3):
        part = encoded(range(start, start + 3))
        assert writer.append(part) == 3
        acknowledged += part
        writer.seal()
        writer.sync()
        if start == 3:
            writer.rotate()
    writer.close()


def test_a_kill_at_any_system_call_loses_no_written_row_and_breaks_no_chain(tmp_path, clock, monkeypatch):
    real = {name: getattr(os, name) for name in CALLS}
    left = [0]

    def counted(name):
        def call(*given, **named):
            left[0] -= 1
            if left[0] == 0:
                if name == "write":  # torn in its middle
                    real[name](given[0], bytes(given[1])[: len(given[1]) // 2])
                raise Killed
            # Nothing here loses power, and a disk takes 10 ms for each.
            return None if name in ("fsync", "fdatasync") else real[name](*given, **named)

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, counted(name))
    steps = 0
    while True:
        steps += 1
        state = tmp_path / str(steps)
        state.mkdir()
        place = Writer(state, "iris", "1.0.0", 0)
        acknowledged, opened = [], []
        left[0] = steps
        try:
            work(place, clock, acknowledged, opened)
        except Killed:
            ended = False
        else:
            ended = True
        left[0] = 0
        for writer in opened:
            writer.abandon()
        if not opened and not place.folder.exists():
            continue
        _release(place)
        again = SegmentWriter.open(place, header, clock)
        again.append(encoded(range(90, 91)))
        again.close()
        checked = verify(again.writer)
        assert checked.problems == [], f"killed at call {steps}"
        rows = kept(again.writer)
        assert [row for row in rows if row in acknowledged] == acknowledged, f"killed at call {steps}"
        assert rows[-1:] == encoded(range(90, 91))
        if ended:
            break
    assert steps > 40


def _release(place: Writer) -> None:
    """Do what the end of a process does: its locks are gone (a kill within open() left one to this process)."""
    (place.folder / segments.LOCK).unlink(missing_ok=True)


@pytest.mark.parametrize(
    "torn", [b'{"id":"r5.0","t":1', b"\0" * 500, b'{"id":"r5.0"}\n\xff\xfe broken\n{"id":"r6.0"}\n']
)
def test_what_a_power_cut_tore_is_cut_off_and_told_as_a_gap(place, open_writer, torn):
    writer = open_writer()
    writer.append(encoded(range(5)))
    path = writer.segment.path
    writer.abandon()
    path.write_bytes(path.read_bytes() + torn)
    open_writer()
    assert verify(place).problems == []
    assert kept(place)[:5] == encoded(range(5))
    assert [(gap.gap, gap.reason) for gap in gaps(place)] == [(None, "the process ended without warning")]


def test_a_clean_end_leaves_no_gap(place, open_writer):
    for _ in range(3):
        writer = open_writer()
        writer.append(encoded(range(5)))
        writer.close()
    assert gaps(place) == []
    assert [one.packed for one in segments.of_writer(place)] == [True] * 3
    assert verify(place).problems == []


def test_a_torn_packed_file_beside_its_plain_one_is_packed_again(place, open_writer):
    writer = open_writer()
    writer.append(encoded(range(5)))
    writer.seal()
    content = writer.segment.path.read_bytes()
    writer.rotate()
    writer.close()
    packed = place.folder / "00000001.jsonl.gz"
    packed.write_bytes(packed.read_bytes()[:-9])
    (place.folder / "00000001.jsonl").write_bytes(content)
    open_writer()
    assert gzip.decompress(packed.read_bytes()) == content
    assert not (place.folder / "00000001.jsonl").exists()
    assert verify(place).problems == []


def test_a_full_disk_takes_no_half_line_and_what_follows_is_chained(place, open_writer, monkeypatch):
    writer = open_writer()
    writer.append(encoded(range(5)))
    real = os.write

    def full(descriptor, content):
        real(descriptor, bytes(content)[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    assert writer.append(encoded(range(5, 8))) == 0
    assert isinstance(writer.fault, OSError)
    with pytest.raises(OSError, match="No space"):
        writer.seal()
    monkeypatch.setattr(os, "write", real)
    assert writer.append(encoded(range(8, 10))) == 2
    writer.close()
    assert kept(place) == encoded(range(5)) + encoded(range(8, 10))
    assert verify(place).problems == []


def test_a_disk_that_is_full_while_a_segment_is_packed_delays_the_packing(place, open_writer, monkeypatch):
    writer = open_writer()
    writer.append(encoded(range(5)))
    real = os.replace
    monkeypatch.setattr(os, "replace", lambda *a, **b: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(OSError, match="full"):
        writer.rotate()
    assert writer.append(encoded(range(5, 7))) == 2
    monkeypatch.setattr(os, "replace", real)
    writer.rotate()
    writer.close()
    assert kept(place) == encoded(range(7))
    assert verify(place).problems == []


def test_a_clock_that_is_set_back_changes_nothing(place, open_writer, clock):
    writer = open_writer()
    writer.append(encoded(range(3)))
    writer.seal()
    clock.now = -5.0  # before 1970, as a host without a clock may begin
    writer.append(encoded(range(3, 6)))
    writer.rotate()
    writer.close()
    assert kept(place) == encoded(range(6))
    assert verify(place).problems == []


def test_a_second_process_on_a_slot_takes_the_next(place, open_writer):
    first, second = open_writer(), open_writer()
    assert (first.writer.slot, second.writer.slot) == (0, 1)
    first.close()
    third = open_writer()
    assert third.writer.slot == 0
    assert third.number == 2


def test_blocks_are_sealed_at_256_lines_and_at_the_seal(place, open_writer):
    writer = open_writer()
    writer.append(encoded(range(600)))
    assert writer.unsealed() < 256
    writer.close()
    checked = verify(place)
    assert (checked.problems, checked.lines) == ([], 601)


def test_the_index_finds_each_id_of_a_packed_segment_and_is_made_anew_where_it_is_lost(place, open_writer):
    writer = open_writer()
    writer.append(encoded(range(300)))
    writer.close()
    ids = [f"r{number}.0" for number in range(300)]
    for spoil in (lambda path: None, lambda path: path.unlink(), lambda path: path.write_bytes(b"1234567")):
        spoil(place.folder / "00000001.idx")
        found = find.by_ids(place.state_dir, "iris", [*ids, "unknown.0"])
        assert {name: [one.line for one in ones] for name, ones in found.items()} == {
            name: [line] for name, line in zip(ids, encoded(range(300)), strict=True)
        }
    assert len(index.read(segments.of_writer(place)[0]).hashes) == 300


def test_an_erased_row_is_gone_and_all_the_others_are_still_proved(place, open_writer):
    writer = open_writer()
    writer.append([*encoded(range(10)), lines.line_of(lines.Label(label="setosa", id="r3.0", t=1.0, n="ff"))])
    writer.close()
    assert find.erase(place.state_dir, "iris", ["r3.0"], "asked for by letter") == 2
    checked = verify(place)
    assert (checked.problems, checked.erased) == ([], 2)
    content = segments.of_writer(place)[0].read()
    assert b"setosa" not in content
    assert encoded(range(3, 4))[0] not in content
    for number in (0, 2, 4, 9):
        proof = find.prove(place.state_dir, "iris", f"r{number}.0")
        assert find.check_proof(proof) == ""
        assert proof["line"].encode() == encoded(range(number, number + 1))[0]
        assert find.check_proof({**proof, "line": proof["line"].replace("north", "south")})
        assert find.check_proof({**proof, "t": proof["t"] + 1})
    assert find.erase(place.state_dir, "iris", ["r3.0"], "") == 0


def test_an_open_segment_that_nobody_has_is_sealed_to_erase_in_it(place, open_writer):
    writer = open_writer()
    writer.append(encoded(range(4)))
    writer.abandon()
    assert find.erase(place.state_dir, "iris", ["r1.0"], "") == 1
    checked = verify(place)
    assert (checked.problems, checked.erased, checked.segments) == ([], 1, 1)


def test_the_log_of_a_removed_version_is_read_as_before(place, open_writer):
    writer = open_writer()
    writer.append(encoded(range(4)))
    writer.close()
    assert not (place.state_dir / "models").exists()
    assert segments.models(place.state_dir) == ["iris"]
    assert len(kept(place)) == 4
    shutil.rmtree(place.folder)
    assert segments.heads(place.state_dir) == []
