"""What a rollout notes on a host before its first change."""

import pytest

from tests.ansible.plugins import plugin

journal = plugin("module_utils", "journal")
READINGS = {"installed": True, "models": {"iris": {"active": "1.0.0"}}}


def test_what_was_noted_is_read_again(tmp_path):
    folder = tmp_path / "rollout"
    assert (journal.is_there(folder), journal.read(folder)) == (False, None)
    journal.write(folder, READINGS)
    assert (journal.is_there(folder), journal.read(folder)) == (True, READINGS)


@pytest.fixture
def settings(tmp_path):
    """A folder of settings with a secret."""
    folder = tmp_path / "etc"
    (folder / "keys").mkdir(parents=True)
    for name, text, mode in (
        ("appliance.toml", "[http]\n", 0o644),
        ("tokens", "all abc\n", 0o640),
        ("keys/k", "k", 0o644),
    ):
        (folder / name).write_text(text)
        (folder / name).chmod(mode)
    return folder


def test_settings_and_secrets_are_kept_beside_for_root_alone(tmp_path, settings):
    folder = tmp_path / "rollout"
    (settings / "image").write_text("IMAGE=one\n")  # which image runs is no setting
    journal.write(folder, READINGS, settings)
    kept = folder / "settings"
    made = {str(path.relative_to(kept)): path.stat().st_mode & 0o777 for path in kept.rglob("*") if path.is_file()}
    assert made == {"appliance.toml": 0o644, "tokens": 0o640, "keys/k": 0o644}
    assert (kept / "tokens").read_text() == "all abc\n"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "before.json").stat().st_mode & 0o777 == 0o600


def test_a_journal_that_was_cut_off_is_none(tmp_path, settings):
    # Without its readings nothing was changed yet: the settings come first, the readings last and whole.
    with pytest.raises(FileNotFoundError):
        journal.write(tmp_path / "rollout", READINGS, tmp_path / "absent")
    assert not journal.is_there(tmp_path / "rollout")
    (tmp_path / "rollout/before.json.new").write_text('{"instal')
    (tmp_path / "rollout/settings").mkdir(exist_ok=True)
    (tmp_path / "rollout/settings/stale").touch()
    assert journal.read(tmp_path / "rollout") is None
    journal.write(tmp_path / "rollout", READINGS, settings)
    assert journal.read(tmp_path / "rollout") == READINGS
    assert not (tmp_path / "rollout/settings/stale").exists()


def test_without_a_folder_there_is_no_journal():
    assert not journal.is_there("")
    assert not journal.is_there(None)
