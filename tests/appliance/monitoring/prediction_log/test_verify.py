"""Whatever is done to a sealed log is found: each flipped byte, each line or segment taken away, added or moved."""

import gzip
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.monitoring.prediction_log import lines, sealing, segments, tree
from appliance.monitoring.prediction_log.segments import Writer
from appliance.monitoring.prediction_log.verify import verify
from appliance.monitoring.prediction_log.writer import SegmentWriter

from .conftest import Clock, encoded, header

SEALED = (1, 2, 3)


def made(folder: Path, first: int = 0) -> str:
    """Make a log of three packed segments and an open one, sealed to its end; return its sealing key."""
    folder.mkdir(exist_ok=True)
    key = sealing.init(folder, "iris")
    writer = SegmentWriter.open(Writer(folder, "iris", "1.0.0", 0), header, Clock())
    for segment in range(4):
        writer.append(encoded(range(first + segment * 10, first + segment * 10 + 5)))
        writer.seal()
        gap = lines.line_of(lines.Gap(7, 1.0, "queue full"))
        writer.append([*encoded(range(segment * 10 + 5, segment * 10 + 8)), gap])
        if segment < 3:
            writer.rotate()
    writer.seal()
    writer.abandon()
    return key


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("log")
    return folder, made(folder)


@pytest.fixture
def copy(whole, tmp_path) -> Writer:
    """Return the place of a copy that a test may spoil."""
    shutil.copytree(whole[0], tmp_path / "copy")
    return Writer(tmp_path / "copy", "iris", "1.0.0", 0)


def problems(place: Writer, key: str) -> list[str]:
    return verify(place, key=bytes.fromhex(key)).problems


def rewritten(place: Writer, number: int, content: bytes) -> None:
    """Put other content in the place of a segment's, packed where it was."""
    packed = place.folder / f"{number:08d}.jsonl.gz"
    if packed.exists():
        packed.write_bytes(gzip.compress(content))
    else:
        packed.with_suffix("").write_bytes(content)


def content_of(place: Writer, number: int) -> bytes:
    return next(one for one in segments.of_writer(place) if one.number == number).read()


def test_a_whole_log_is_sound_and_tells_what_it_holds(whole):
    folder, key = whole
    checked = verify(Writer(folder, "iris", "1.0.0", 0), key=bytes.fromhex(key))
    assert checked.problems == []
    assert (checked.segments, checked.lines, checked.unsealed, checked.gaps) == (4, 4 + 4 * 9, 0, 28)
    assert checked.head == segments.heads(folder)[0]["chain"]


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_each_flipped_bit_is_found(whole, copy, data):
    number = data.draw(st.sampled_from((1, 2, 3, 4)), "segment")
    content = content_of(copy, number)
    place, bit = data.draw(st.integers(0, len(content) - 1), "place"), data.draw(st.integers(0, 7), "bit")
    spoiled = bytearray(content)
    spoiled[place] ^= 1 << bit
    rewritten(copy, number, bytes(spoiled))
    checked = verify(copy, key=bytes.fromhex(whole[1]))
    rewritten(copy, number, content)
    # An open segment that ends without a newline is what a power cut leaves: told, and no fault.
    assert checked.problems or (number == 4 and place == len(content) - 1 and checked.torn)
    assert problems(copy, whole[1]) == []


def test_a_capital_letter_in_a_seal_is_found(whole, copy):
    content = content_of(copy, 1)
    start = content.index(b'"chain":"') + len(b'"chain":"')
    chain = content[start : start + 64]
    assert chain.upper() != chain
    rewritten(copy, 1, content[:start] + chain.upper() + content[start + 64 :])
    assert problems(copy, whole[1]) != []


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_each_line_that_is_taken_away_doubled_or_moved_is_found(whole, copy, data):
    number = data.draw(st.sampled_from(SEALED), "segment")
    content = content_of(copy, number)
    found = content.split(b"\n")[:-1]
    one, other = (data.draw(st.integers(0, len(found) - 1)) for _ in range(2))
    changed = list(found)
    what = data.draw(st.sampled_from(("away", "twice", "swapped")), "what")
    if what == "away":
        del changed[one]
    elif what == "twice":
        changed.insert(other, changed[one])
    else:
        changed[one], changed[other] = changed[other], changed[one]
    rewritten(copy, number, lines.joined(changed))
    assert bool(problems(copy, whole[1])) == (changed != found)
    rewritten(copy, number, content)


@pytest.mark.parametrize("number", SEALED)
def test_a_missing_segment_is_found(whole, copy, number):
    (copy.folder / f"{number:08d}.jsonl.gz").unlink()
    assert f"segment{'s 1 to' if number == 1 else ''} {number}" in problems(copy, whole[1])[0]


def test_the_last_packed_segments_missing_with_the_open_one_are_found(whole, copy):
    (copy.folder / "00000004.jsonl").unlink()
    (copy.folder / "00000003.jsonl.gz").unlink()
    assert "it is missing, and was the last one" in problems(copy, whole[1])[0]


def test_exchanged_segments_are_found(whole, copy):
    two, three = content_of(copy, 2), content_of(copy, 3)
    rewritten(copy, 2, three)
    rewritten(copy, 3, two)
    assert len(problems(copy, whole[1])) >= 2


def test_a_flipped_byte_of_a_packed_file_changes_nothing_or_is_found(whole, copy):
    path = copy.folder / "00000002.jsonl.gz"
    packed = path.read_bytes()
    plain = gzip.decompress(packed)
    silent = 0
    for place in range(0, len(packed), 7):
        spoiled = bytearray(packed)
        spoiled[place] ^= 0x10
        path.write_bytes(spoiled)
        if not problems(copy, whole[1]):
            assert content_of(copy, 2) == plain  # the header's date and system mean nothing
            silent += 1
    assert silent <= 2


def test_a_torn_packed_file_is_found(whole, copy):
    path = copy.folder / "00000002.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-20])
    assert "cut off" in problems(copy, whole[1])[0]


def test_a_log_that_was_written_anew_is_found_by_a_kept_head_and_by_the_sealing_key(whole, tmp_path):
    kept = segments.heads(whole[0])[0]["chain"]
    forged = tmp_path / "forged"
    made(forged, 1)  # sound in itself: who can rewrite everything makes new chains, but has not the destroyed key
    place = Writer(forged, "iris", "1.0.0", 0)
    assert verify(place).problems == []
    assert kept not in verify(place).chains
    assert kept in verify(Writer(whole[0], "iris", "1.0.0", 0)).chains
    assert any("its code is not of the sealing key" in one for one in problems(place, whole[1]))


def test_a_log_whose_codes_were_left_out_is_found_by_the_sealing_key(whole, copy):
    content = content_of(copy, 3).split(b"\n")
    seal = lines.read_seal(content[-2])
    bare = lines.line_of(lines.Seal(seal.seal, seal.rows, seal.root, seal.chain, t=seal.t))
    rewritten(copy, 3, b"\n".join([*content[:-2], bare, b""]))
    assert any("it has no code" in one for one in problems(copy, whole[1]))


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=40), st.data())
def test_a_proof_leads_to_the_root_and_no_other_leaf_does(found, data):
    leaves = [tree.leaf(one) for one in found]
    place = data.draw(st.integers(0, len(leaves) - 1))
    assert tree.root_by(leaves[place], tree.path(leaves, place)) == tree.root(leaves)
    assert tree.root_by(tree.leaf(b"another line"), tree.path(leaves, place)) != tree.root(leaves)


@pytest.mark.parametrize(
    ("count", "root"),
    [
        (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
        (2, "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
        (3, "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
        (7, "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"),
        (8, "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
    ],
)
def test_roots_are_those_of_certificate_transparency(count, root):
    # The known answers of certificate-transparency's own tests (merkletree/merkle_tree_test.cc).
    hexed = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    assert tree.root([tree.leaf(bytes.fromhex(one)) for one in hexed[:count]]).hex() == root
