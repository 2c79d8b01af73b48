import os
import resource
import shutil
import stat
import threading

import pytest

from appliance.bundle import archive
from appliance.errors import ActiveVersion, BundleRefused, NotFound, StoreError
from appliance.inference.selftest import self_test
from appliance.store import activation
from appliance.store.versions import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "state")


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_an_installed_version_is_the_bundle_unpacked(tmp_path, store, make_bundle):
    path = make_bundle(tmp_path, baseline=b"{}", signature=b"sig")
    done = store.install(path, why="first")
    assert (done.name, done.version, done.fresh) == ("iris", "1.0.0", True)
    assert done.folder == store.folder("iris", "1.0.0") == tmp_path / "state/models/iris/1.0.0"
    assert archive.read_folder(done.folder) == archive.open_bundle(path)
    assert store.manifest("iris", "1.0.0").name == "iris"
    assert [(r.what, r.model, r.version, r.outcome, r.why) for r in store.receipts()] == [
        ("install", "iris", "1.0.0", "done", "first")
    ]


def test_the_state_folder_is_closed_to_others(tmp_path, store, make_bundle):
    store.install(make_bundle(tmp_path))
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in store.state_dir.rglob("*")}
    assert all(mode & 0o027 == 0 for mode in modes.values())
    assert stat.S_IMODE(store.state_dir.stat().st_mode) & 0o027 == 0


def test_what_is_installed_belongs_to_the_owner_of_the_state_folder(tmp_path, store, make_bundle):
    store.state_dir.mkdir()
    if os.geteuid() == 0:  # the service's user; anyone else can only have what is theirs already
        os.chown(store.state_dir, 12345, 12345)
    store.install(make_bundle(tmp_path))
    activation.activate(store, "iris", "1.0.0", self_test)
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in store.state_dir.rglob("*")}
    assert owners == {(store.state_dir.stat().st_uid, store.state_dir.stat().st_gid)}


def test_the_same_bundle_twice_is_fine_and_changes_nothing(tmp_path, store, make_bundle):
    path = make_bundle(tmp_path)
    store.install(path)
    before = files(store.state_dir)
    assert store.install(path).fresh is False
    assert files(store.state_dir) == before
    assert len(store.receipts()) == 1


def test_the_same_version_with_other_content_is_refused(tmp_path, store, make_bundle):
    store.install(make_bundle(tmp_path))
    with pytest.raises(BundleRefused, match="with other content"):
        store.install(make_bundle(tmp_path, baseline=b"{}"))
    assert "baseline.json" not in files(store.folder("iris", "1.0.0"))


def test_a_damaged_installed_version_is_said_to_be_damaged(tmp_path, store, make_bundle):
    path = make_bundle(tmp_path)
    model = store.install(path).folder / "model.onnx"
    model.write_bytes(bytes(model.stat().st_size))
    with pytest.raises(BundleRefused, match="damaged"):
        store.install(path)


def test_a_damaged_bundle_leaves_no_trace(tmp_path, store):
    (tmp_path / "bad.bundle").write_bytes(b"PK")
    with pytest.raises(BundleRefused):
        store.install(tmp_path / "bad.bundle")
    assert not store.state_dir.exists()


def test_versions_are_listed_in_semver_order(tmp_path, store, make_bundle):
    for version in ("1.10.0", "1.2.0", "1.2.0-rc.1", "1.2.0-rc.10", "1.2.0-rc.2"):
        store.install(make_bundle(tmp_path, version=version))
    assert store.versions("iris") == ["1.2.0-rc.1", "1.2.0-rc.2", "1.2.0-rc.10", "1.2.0", "1.10.0"]


def test_models_are_listed_by_name_and_strange_entries_passed_over(tmp_path, store, make_bundle):
    assert store.names() == []
    store.install(make_bundle(tmp_path, name="zebra"))
    store.install(make_bundle(tmp_path, name="ant"))
    (store.models_dir / "Not A Name").mkdir()
    (store.models_dir / "file").write_text("x")
    (store.models_dir / "ant" / "latest").symlink_to("1.0.0")
    assert store.names() == ["ant", "zebra"]
    assert store.versions("ant") == ["1.0.0"]


@pytest.mark.parametrize(
    ("name", "version", "hint"),
    [
        ("irs", "1.0.0", "did you mean iris?"),
        ("iris", "1.0.1", "did you mean 1.0.0?"),
        ("wine", "1.0.0", "installed: iris"),
        ("../models/iris", "1.0.0", "installed: iris"),
        ("iris", "../iris/1.0.0", "installed: 1.0.0"),
    ],
)
def test_what_is_not_installed_is_not_found_and_what_comes_close_is_named(
    tmp_path, store, make_bundle, name, version, hint
):
    store.install(make_bundle(tmp_path))
    with pytest.raises(NotFound) as caught:
        store.folder(name, version)
    assert caught.value.next_step == hint


def test_an_empty_store_says_how_to_begin(store):
    with pytest.raises(NotFound, match="appliance install BUNDLE"):
        store.folder("iris", "1.0.0")


def test_the_active_version_cannot_be_removed(tmp_path, store, make_bundle):
    store.install(make_bundle(tmp_path))
    activation.activate(store, "iris", "1.0.0", self_test)
    with pytest.raises(ActiveVersion):
        store.remove("iris", "1.0.0")
    assert store.versions("iris") == ["1.0.0"]


def test_a_removed_version_is_gone_and_the_last_one_takes_its_model_with_it(tmp_path, store, make_bundle):
    for version in ("1.0.0", "2.0.0"):
        store.install(make_bundle(tmp_path, version=version))
    store.remove("iris", "1.0.0", why="old")
    assert store.versions("iris") == ["2.0.0"]
    store.remove("iris", "2.0.0")
    assert store.names() == []
    assert files(store.models_dir) == []
    assert [(r.what, r.version, r.why) for r in store.receipts()][2:] == [
        ("remove", "1.0.0", "old"),
        ("remove", "2.0.0", ""),
    ]
    with pytest.raises(NotFound):
        store.remove("iris", "2.0.0")


def test_sweep_takes_leftovers_and_nothing_else(tmp_path, store, make_bundle):
    assert store.sweep() == []
    store.install(make_bundle(tmp_path))
    activation.activate(store, "iris", "1.0.0", self_test)
    before = files(store.state_dir)
    partial = store.models_dir / "iris" / ".2.0.0.partial-00000000"
    shutil.copytree(store.folder("iris", "1.0.0"), partial)
    (partial / "link").symlink_to("/etc/hostname")
    (store.models_dir / "empty").mkdir()
    assert store.sweep() == [partial, store.models_dir / "empty"]
    assert files(store.state_dir) == before


def test_a_full_disk_is_seen_before_anything_is_written(monkeypatch, tmp_path, store, make_bundle):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(StoreError) as caught:
        store.install(make_bundle(tmp_path))
    assert "has 1000 bytes free" in caught.value.found
    assert not store.models_dir.exists()


def test_a_write_that_fails_halfway_leaves_nothing_behind(tmp_path, store, make_bundle):
    """The system's limit on file size stands for the full disk: the write fails in the middle of a member."""
    path = make_bundle(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
    try:
        with pytest.raises(StoreError) as caught:
            store.install(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.tried == "install iris 1.0.0"
    assert "disk space" in caught.value.next_step
    assert files(store.models_dir) == ["iris"]
    assert store.mark("iris") is None
    assert store.names() == []
    assert store.install(path).fresh


def test_a_state_folder_that_cannot_be_made_is_a_store_error(tmp_path, make_bundle):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError):
        Store(tmp_path / "file" / "state").install(make_bundle(tmp_path))


def test_commands_at_the_same_time_wait_for_each_other(tmp_path, store, make_bundle):
    paths = [make_bundle(tmp_path, version=f"1.0.{patch}") for patch in range(6)] * 2
    done = []
    threads = [
        threading.Thread(target=lambda path=path: done.append(Store(store.state_dir).install(path))) for path in paths
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.fresh for one in done) == [False] * 6 + [True] * 6
    assert store.versions("iris") == [f"1.0.{patch}" for patch in range(6)]
    assert len(store.receipts()) == 6


def test_a_command_does_not_wait_forever(tmp_path, store, make_bundle):
    with store.writing("hold the lock"), pytest.raises(StoreError, match="another command"):
        Store(store.state_dir, lock_seconds=0.1).install(make_bundle(tmp_path))
