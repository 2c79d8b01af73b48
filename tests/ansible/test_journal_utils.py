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


def test_settings_are_kept_beside_and_all_of_it_is_for_its_owner_alone(tmp_path):
    (tmp_path / "appliance.toml").write_text("[http]\nport = 8080\n")
    journal.write(tmp_path / "rollout", READINGS, tmp_path / "appliance.toml")
    made = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "rollout").iterdir()}
    assert made == {"before.json": 0o600, "appliance.toml": 0o600}
    assert (tmp_path / "rollout").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "rollout/appliance.toml").read_text() == "[http]\nport = 8080\n"


def test_a_journal_that_was_cut_off_is_none(tmp_path):
    # Without its readings nothing was changed yet: the settings come first, the readings last and whole.
    with pytest.raises(FileNotFoundError):
        journal.write(tmp_path / "rollout", READINGS, tmp_path / "absent.toml")
    assert not journal.is_there(tmp_path / "rollout")
    (tmp_path / "rollout/before.json.new").write_text('{"instal')
    assert journal.read(tmp_path / "rollout") is None
    journal.write(tmp_path / "rollout", READINGS)
    assert journal.read(tmp_path / "rollout") == READINGS


def test_without_a_folder_there_is_no_journal():
    assert not journal.is_there("")
    assert not journal.is_there(None)
