"""Completion in the real shells, and output that is plain text on a terminal as well."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from appliance.cli import EXIT_CODES
from appliance.cli import appliance as command

ROOT = Path(__file__).parents[3]
SECONDS = 120  # of a busy machine: each key asks a new process


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """An environment with `appliance` on the PATH and a home of its own."""
    script = tmp_path / "bin" / "appliance"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m appliance "$@"\n')
    script.chmod(0o755)
    path = f"{script.parent}:{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "TERM": "xterm"}


def typed(line: list[str], keys: list[tuple[str, str]], environment: dict[str, str]) -> str:
    """Run a program on a terminal; send each text once the text before it is answered with its pattern."""
    child, terminal = pty.fork()
    if child == 0:
        os.execvpe(line[0], line, environment)
    shown, end = "", time.monotonic() + SECONDS
    try:
        for text, answer in keys:
            os.write(terminal, text.encode())
            begin = len(shown)
            while not re.search(answer, shown[begin:]):
                assert time.monotonic() < end, f"no {answer!r} in {shown!r}"
                if select.select([terminal], [], [], 1)[0]:
                    shown += os.read(terminal, 65536).decode(errors="replace")
    finally:
        os.close(terminal)  # hangs up
        os.waitpid(child, 0)
    return shown


def scripted(shell: str, tmp_path: Path) -> Path:
    """Return a file with the script for a shell."""
    done = CliRunner().invoke(command, ["completion", shell])
    assert done.exit_code == 0
    file = tmp_path / f"complete.{shell}"
    file.write_text(done.stdout)
    return file


def test_bash_completes_commands_and_options(tmp_path, environment):
    file = scripted("bash", tmp_path)
    keys = [
        (f"PS1='ready> '; source {file}\n", r"ready> $"),
        ("appliance mark-g\t", r"mark-good "),
        ("\x15", ""),
        ("appliance activate --inputs-c\t", r"--inputs-changed "),
    ]
    typed(["bash", "--norc", "--noprofile", "-i"], keys, environment)


def test_zsh_completes_commands_and_options(tmp_path, environment):
    file = scripted("zsh", tmp_path)
    keys = [
        (f"PS1='ready> '; autoload -U compinit; compinit -u; source {file}\n", r"ready> [^;]*$"),
        ("appliance mark-g\t", r"mark-good"),
        ("\x15", ""),
        ("appliance activate --inputs-c\t", r"--inputs-changed"),
    ]
    typed(["zsh", "-f", "-i"], keys, environment)


def test_fish_completes_commands_and_options(tmp_path, environment):
    file = scripted("fish", tmp_path)
    for begun, wanted in (("appliance mark-g", "mark-good"), ("appliance activate --inputs-c", "--inputs-changed")):
        line = ["fish", "--no-config", "-c", f"source {file}; complete -C '{begun}'"]
        done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=SECONDS)
        assert wanted in done.stdout.split(), done.stderr


def test_an_unknown_shell_is_misuse():
    assert CliRunner().invoke(command, ["completion", "tcsh"]).exit_code == 2


@pytest.mark.parametrize("words", [["--help"], ["activate", "--help"], ["models"], ["activate", "absent", "1.0.0"]])
@pytest.mark.parametrize("no_color", [{}, {"NO_COLOR": "1"}])
def test_nothing_is_coloured_on_a_terminal(environment, words, no_color, tmp_path):
    environment |= {"APPLIANCE_STATE_DIR": str(tmp_path / "state")} | no_color
    line = ["sh", "-c", 'appliance "$@"; echo the end', "sh", *words]
    assert "\x1b" not in typed(line, [("", "the end")], environment)


def test_the_page_of_commands_names_each_one_and_every_exit_code():
    page = (ROOT / "docs/commands.md").read_text()
    listed = set(re.findall(r"^\| `appliance ([a-z-]+)", page, re.MULTILINE))
    assert listed == set(command.list_commands(None))
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    assert codes == {0, 1, *(code for _, code in EXIT_CODES)}
