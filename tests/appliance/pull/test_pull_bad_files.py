"""One bad file in a folder, an index or an artefact: it is told, and the others come."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from appliance.cli import appliance as command
from appliance.errors import NotFound
from appliance.pull.oci import BUNDLE_TYPE


def junk(path: Path) -> None:
    path.write_bytes(b"no zip at all")


def empty(path: Path) -> None:
    path.touch()


def folder(path: Path) -> None:
    path.mkdir()


def fifo(path: Path) -> None:
    os.mkfifo(path)


def dangling(path: Path) -> None:
    path.symlink_to("/nowhere/at/all")


def loop(path: Path) -> None:
    path.symlink_to(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def sparse(path: Path) -> None:
    """8 GiB of nothing: it is no zip, and nobody reads it for that."""
    with path.open("wb") as file:
        file.truncate(8 * 1024**3)


KINDS = [junk, empty, folder, fifo, dangling, loop, endless, sparse]


@pytest.mark.parametrize("make", KINDS)
def test_a_bad_file_in_a_folder_is_told_and_the_others_come(host, signed, make: Callable[[Path], None]):
    bundles = signed("1.0.0", name="b").parent
    make(bundles / "a-9.0.0.bundle")
    make(bundles / "b-9.0.0.bundle")
    found = host.pull(bundles)
    assert [what for *_, what in found][:2] != ["activated"] * 2
    assert found[-1] == ("b", "1.0.0", "activated")
    assert [one.label for one in host.outcomes[:-1]] == ["a-9.0.0.bundle", "b-9.0.0.bundle"]
    assert all(one.error for one in host.outcomes[:-1])


@pytest.mark.parametrize("make", [folder, fifo, dangling, loop, endless])
def test_a_bad_index_of_a_folder_is_told_and_blocks_nobody(host, signed, make):
    bundles = signed("1.0.0").parent
    make(bundles / "index.json")
    with pytest.raises(NotFound, match=r"index\.json"):
        host.pull(bundles)


def test_a_link_to_a_bundle_is_as_good_as_the_bundle(host, signed, tmp_path):
    (tmp_path / "share").mkdir()
    (tmp_path / "share" / "latest.bundle").symlink_to(signed("1.0.0"))
    assert host.pull(tmp_path / "share") == [("iris", "1.0.0", "activated")]


def test_a_great_number_that_nobody_signed_does_not_keep_a_signed_one_away(host, signed, make_bundle):
    bundles = signed("1.0.0").parent
    host.pull(bundles)
    signed("2.0.0")
    make_bundle(bundles, version="999.0.0")
    assert host.pull(bundles) == [("iris", "999.0.0", "refused"), ("iris", "2.0.0", "activated")]
    assert host.pull(bundles) == [("iris", "999.0.0", "refused")]
    assert host.store.mark("iris").version == "2.0.0"


def test_older_bundles_beside_the_newest_are_no_error(host, signed):
    bundles = signed("1.0.0").parent
    signed("2.0.0")
    assert host.pull(bundles) == [("iris", "2.0.0", "activated")]
    assert host.pull(bundles) == [("iris", "2.0.0", "unchanged")]


def test_a_broken_entry_of_an_index_is_told_and_the_others_come(host, site, signed):
    site.publish(signed("1.0.0", name="a"), signed("1.0.0", name="b"), size=0)
    found = host.pull(f"{site.base}/index.json")
    assert found == [("", "", "refused"), ("b", "1.0.0", "activated")]
    assert "bundle 1" in host.error


def test_a_broken_layer_is_told_and_the_others_come(host, registry, signed):
    registry.push("stable", [(BUNDLE_TYPE, b"no zip"), (BUNDLE_TYPE, signed("1.0.0").read_bytes())])
    found = host.pull(f"oci+http://{registry.address}/plant/models:stable")
    assert sorted(found) == [("", "", "refused"), ("iris", "1.0.0", "activated")]


def test_the_exit_code_says_that_something_was_bad(host, signed):
    bundles = signed("1.0.0").parent
    junk(bundles / "z\x1b[2J.bundle")
    known = {
        "APPLIANCE_STATE_DIR": str(host.state),
        "APPLIANCE_STORE_TRUSTED_KEYS": str(host.key),
        "APPLIANCE_PULL_SOURCE": str(bundles),
        "APPLIANCE_PULL_MODELS": "iris",
    }
    result = CliRunner().invoke(command, ["pull"], env=known)
    assert result.exit_code == 3
    assert "iris 1.0.0 activated" in result.stdout
    assert r"z\x1b[2J.bundle refused" in result.stdout
    assert "\x1b" not in result.stdout + result.stderr
    said = json.loads(CliRunner().invoke(command, ["pull", "--json"], env=known).stdout)
    assert {one["what"] for one in said["bundles"]} == {"refused", "unchanged"}
