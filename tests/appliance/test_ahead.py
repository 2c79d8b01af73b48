"""Files that a command or a configuration names: a regular file is read, and nothing is waited for."""

import os
import subprocess
import sys

import pytest

from appliance import ahead
from appliance.bundle import keys
from appliance.errors import NotFound


def test_a_fifo_or_a_device_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", ahead.Path("/dev/zero")):
        with pytest.raises(OSError, match="no regular file"):
            ahead.open_file(path)
    with pytest.raises(NotFound, match="no regular file"):
        keys.read_file(tmp_path / "fifo")


def test_a_folder_and_an_absent_file_are_told_as_that(tmp_path):
    with pytest.raises(IsADirectoryError):
        ahead.open_file(tmp_path)
    with pytest.raises(FileNotFoundError):
        ahead.open_file(tmp_path / "absent")


def test_a_link_to_a_regular_file_is_read(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert ahead.read(tmp_path / "link") == b"content"


def test_what_the_shell_opened_is_read():
    code = "import sys; from pathlib import Path; from appliance import ahead; print(ahead.read(Path(sys.argv[1])))"
    line = '"$0" -c "$1" <(printf content)'
    shown = subprocess.run(["bash", "-c", line, sys.executable, code], capture_output=True, text=True, timeout=60)
    assert shown.stdout == "b'content'\n"
    fed = subprocess.run([sys.executable, "-c", code, "/dev/stdin"], input=b"fed", capture_output=True, timeout=60)
    assert fed.stdout == b"b'fed'\n"
