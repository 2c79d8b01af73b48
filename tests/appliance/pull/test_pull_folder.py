"""Pulling from a folder: what comes, what is refused, and that what serves keeps serving."""

import json
import shutil
from pathlib import Path

import pytest

from appliance.bundle import archive
from appliance.errors import ConfigError, NotFound, NotReady, Refused
from appliance.pull import sources
from appliance.store import durable


def write_index(folder: Path) -> None:
    (folder / "index.json").write_bytes(sources.index_of(folder))


def test_the_newest_version_of_each_model_is_installed_and_activated(host, signed):
    folder = signed("1.0.0").parent
    signed("1.10.0")
    signed("1.9.0")
    signed("2.0.0", name="pump")
    assert host.pull(folder) == [("iris", "1.10.0", "activated"), ("pump", "2.0.0", "activated")]
    assert host.store.versions("iris") == ["1.10.0"]
    assert (host.active("iris"), host.active("pump")) == ("1.10.0", "2.0.0")
    receipts = host.store.receipts()
    assert [(one.what, one.version) for one in receipts][:2] == [("install", "1.10.0"), ("activate", "1.10.0")]
    assert all(one.why == f"pulled from {folder}" for one in receipts)
    assert receipts[0].signer
    assert receipts[1].self_test is not None


def test_a_second_pull_changes_nothing(host, signed):
    folder = signed("1.0.0").parent
    host.pull(folder)
    before = host.receipts()
    assert host.pull(folder) == [("iris", "1.0.0", "unchanged")]
    assert host.receipts() == before


def test_without_trusted_keys_nothing_is_pulled(host, signed):
    with pytest.raises(ConfigError, match="trusted_keys"):
        host.pull(signed("1.0.0").parent, trusted_keys=())
    assert not host.state.exists()


def test_without_a_source_nothing_is_pulled(host):
    with pytest.raises(ConfigError, match="source is not set"):
        host.pull("")


@pytest.mark.parametrize(
    "source", ["bundles", "./bundles", "ftp://host/index.json", "file://host/x", "s3://bucket/key"]
)
def test_a_source_that_cannot_be_meant_is_an_error(host, source):
    with pytest.raises((ConfigError, NotFound)):
        host.pull(source)


def test_a_folder_that_is_not_mounted_is_said(host, tmp_path):
    with pytest.raises(NotFound, match="no such folder"):
        host.pull(tmp_path / "stick")


def test_an_empty_folder_offers_nothing(host, tmp_path):
    assert host.pull(tmp_path) == []


def test_what_another_key_signed_is_refused_and_the_old_version_stays(host, signed, other_key):
    folder = signed("1.0.0").parent
    host.pull(folder)
    signed("2.0.0", key=other_key)
    assert host.pull(folder) == [("iris", "2.0.0", "refused")]
    assert "trusted" in host.error or "key" in host.error
    assert (host.active(), host.store.versions("iris")) == ("1.0.0", ["1.0.0"])
    assert host.receipts()[-1] == ("install", "2.0.0", "refused")
    assert host.leftovers() == []


def test_what_nobody_signed_is_refused(host, tmp_path, make_bundle):
    (tmp_path / "plain").mkdir()
    make_bundle(tmp_path / "plain")
    assert host.pull(tmp_path / "plain") == [("iris", "1.0.0", "refused")]
    assert "unsigned" in host.error


def test_a_signature_over_other_members_is_refused(host, signed):
    path = signed("1.0.0")
    other = archive.open_bundle(signed("2.0.0"))
    taken = archive.open_bundle(path).members[archive.SIGNATURE]
    (path.parent / "iris-2.0.0.bundle").write_bytes(archive.with_signature(other, taken))
    path.unlink()
    assert host.pull(path.parent) == [("iris", "2.0.0", "refused")]
    assert host.active() is None


def test_a_bundle_that_fails_its_self_test_is_refused_and_the_old_version_stays(host, signed):
    folder = signed("1.0.0").parent
    host.pull(folder)
    signed("2.0.0", error=1.0)
    assert host.pull(folder) == [("iris", "2.0.0", "refused")]
    assert host.active() == "1.0.0"
    assert host.receipts()[-1] == ("activate", "2.0.0", "refused")


def test_what_was_refused_is_tried_again_when_asked_or_when_a_key_was_added(host, signed, other_key):
    folder = signed("1.0.0", key=other_key).parent
    host.pull(folder)
    receipts = len(host.receipts())
    assert host.pull(folder) == [("iris", "1.0.0", "refused")]
    assert "refused on" in host.error
    assert len(host.receipts()) == receipts
    assert host.pull(folder, again=True) == [("iris", "1.0.0", "refused")]
    assert len(host.receipts()) == receipts + 1
    from appliance.bundle import keys

    added = host.state.parent / "other.pub"
    added.write_bytes(keys.public_pem(keys.load_private_key(other_key).public_key()))
    both = (str(host.key), str(added))
    assert host.pull(folder, trusted_keys=both) == [("iris", "1.0.0", "activated")]


def test_a_smaller_version_is_refused_unless_it_is_allowed(host, signed):
    folder = signed("2.0.0").parent
    host.pull(folder)
    (folder / "iris-2.0.0.bundle").unlink()
    signed("1.0.0")
    assert host.pull(folder) == [("iris", "1.0.0", "refused")]
    assert "not newer than 2.0.0" in host.error
    assert (host.active(), host.store.versions("iris")) == ("2.0.0", ["2.0.0"])
    assert host.pull(folder, allow_older=True) == [("iris", "1.0.0", "activated")]
    signed("2.0.0")
    assert host.pull(folder) == [("iris", "2.0.0", "activated")]


def test_the_same_version_with_other_content_is_refused(host, signed):
    folder = signed("1.0.0").parent
    host.pull(folder)
    signed("1.0.0", kind="classifier")
    assert host.pull(folder) == [("iris", "1.0.0", "refused")]
    assert "another bundle than the 1.0.0 that came before" in host.error
    assert host.pull(folder, allow_older=True) == [("iris", "1.0.0", "refused")]


def test_a_version_with_other_inputs_is_activated_once_the_settings_say_so(host, signed):
    folder = signed("1.0.0").parent
    host.pull(folder)
    (folder / "iris-1.0.0.bundle").unlink()
    signed("2.0.0", kind="table")
    assert host.pull(folder) == [("iris", "2.0.0", "refused")]
    assert "2.0.0 differs from 1.0.0: it has no input 'features'" in host.error
    assert host.active() == "1.0.0"
    assert host.pull(folder, inputs_changed=True) == [("iris", "2.0.0", "activated")]


def test_installing_alone_waits_for_a_person_and_activates_once_it_may(host, signed):
    folder = signed("1.0.0").parent
    assert host.pull(folder, activate=False) == [("iris", "1.0.0", "installed")]
    assert host.active() is None
    assert host.pull(folder, activate=False) == [("iris", "1.0.0", "unchanged")]
    assert host.pull(folder) == [("iris", "1.0.0", "activated")]


def test_an_index_in_the_folder_decides(host, signed):
    folder = signed("1.0.0").parent
    write_index(folder)
    signed("2.0.0")
    assert host.pull(folder) == [("iris", "1.0.0", "activated")]


def test_a_file_that_is_not_as_its_index_says_is_refused(host, signed):
    path = signed("1.0.0")
    write_index(path.parent)
    damaged = bytearray(path.read_bytes())
    damaged[200] ^= 1
    path.write_bytes(damaged)
    assert host.pull(path.parent) == [("iris", "1.0.0", "refused")]
    assert "SHA-256" in host.error


def test_an_index_that_names_another_model_than_the_file_holds_is_refused(host, signed):
    path = signed("1.0.0")
    said = json.loads(sources.index_of(path.parent))
    said["bundles"][0]["name"] = "pump"
    (path.parent / "index.json").write_text(json.dumps(said))
    assert host.pull(path.parent) == [("pump", "1.0.0", "refused")]
    assert "the file holds iris 1.0.0" in host.error


def test_a_broken_index_is_refused(host, tmp_path):
    (tmp_path / "index.json").write_text("<html>")
    with pytest.raises(Refused, match=r"index\.json"):
        host.pull(tmp_path)


def test_one_bad_bundle_does_not_keep_the_others_from_coming(host, signed, other_key):
    folder = signed("1.0.0", name="a", key=other_key).parent
    signed("1.0.0", name="b")
    assert host.pull(folder) == [("a", "1.0.0", "refused"), ("b", "1.0.0", "activated")]


def test_a_bundle_above_the_limit_is_refused(host, signed):
    folder = signed("1.0.0").parent
    assert host.pull(folder, max_bytes=100) == [("iris", "1.0.0", "refused")]
    assert "more than 100" in host.error
    assert host.pull(folder) == [("iris", "1.0.0", "activated")]


def test_a_bundle_that_grew_after_its_index_is_refused_before_it_is_read(host, signed):
    path = signed("1.0.0")
    write_index(path.parent)
    with path.open("ab") as file:
        file.truncate(8 * 1024**3)
    assert host.pull(path.parent) == [("iris", "1.0.0", "refused")]
    assert "8589934592 bytes, more than" in host.error


def test_a_full_disk_is_said_and_another_time_it_goes_on(host, signed, monkeypatch):
    folder = signed("1.0.0").parent
    with monkeypatch.context() as patched:
        patched.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
        assert host.pull(folder) == [("iris", "1.0.0", "failed")]
        assert "1000 bytes free" in host.error
    assert host.pull(folder) == [("iris", "1.0.0", "activated")]


def test_a_dry_run_says_what_would_come_and_changes_nothing(host, signed):
    folder = signed("1.0.0").parent
    assert host.pull(folder, dry_run=True) == [("iris", "1.0.0", "wanted")]
    assert (host.active(), host.receipts()) == (None, [])
    assert not (host.state / "pull" / "record.json").exists()


def test_only_one_pull_runs_at_a_time(host, signed):
    folder = signed("1.0.0").parent
    (host.state / "pull").mkdir(parents=True)
    with durable.locked(host.state / "pull" / ".lock", 0) as held:
        assert held
        with pytest.raises(NotReady, match="another pull"):
            host.pull(folder)
    assert host.pull(folder) == [("iris", "1.0.0", "activated")]


@pytest.mark.parametrize("content", [b"", b"{", b'{"source": 3}', b"\xff\xfe"])
def test_a_damaged_record_costs_nothing(host, signed, content):
    folder = signed("1.0.0").parent
    host.pull(folder)
    (host.state / "pull" / "record.json").write_bytes(content)
    assert host.pull(folder) == [("iris", "1.0.0", "unchanged")]
    assert [one.what for one in host.store.receipts()] == ["install", "activate"]


def test_what_a_power_cut_left_is_swept(host, signed):
    folder = signed("1.0.0").parent
    (host.state / "pull").mkdir(parents=True)
    (host.state / "pull" / ".record.json.partial-00aa11bb").write_bytes(b"half")
    (host.state / "pull" / f"{'0' * 64}.partial").write_bytes(b"half")
    host.pull(folder)
    assert host.leftovers() == []


def test_the_power_may_go_at_any_call_and_the_next_pull_brings_the_new_version(host, signed, dies):
    folder = signed("1.0.0").parent
    host.pull(folder)
    signed("2.0.0")
    begun = host.state.with_name("begun")
    host.state.rename(begun)
    cuts = 0
    while True:
        shutil.copytree(begun, host.state)
        if not dies(lambda: host.pull(folder), cuts):
            break
        cuts += 1
        assert host.active() in ("1.0.0", "2.0.0")
        assert host.pull(folder) == [("iris", "2.0.0", "activated")] or host.active() == "2.0.0"
        assert host.active() == "2.0.0"
        assert host.leftovers() == []
        shutil.rmtree(host.state)
    assert cuts > 30
