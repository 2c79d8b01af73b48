"""The manual page, made from the commands' own help: complete, and without a warning of the program that shows it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from appliance.cli import appliance

ROOT = Path(__file__).parents[2]


def made(*words: str) -> str:
    line = [sys.executable, str(ROOT / "packaging/debian/man.py"), "1.2.3", *words]
    done = subprocess.run(line, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def page() -> str:
    return made()


def shown(page: str, tmp_path: Path) -> str:
    """Return the page as text; any warning of groff fails."""
    (tmp_path / "appliance.1").write_text(page)
    line = ["man", "--warnings", "-E", "UTF-8", "-P", "cat", "-l", str(tmp_path / "appliance.1")]
    done = subprocess.run(
        line, env=os.environ | {"MANWIDTH": "100", "MAN_KEEP_FORMATTING": ""}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    return re.sub(r"\x1b\[[0-9;]*m|.\x08", "", done.stdout)


def every_command(command: click.Group, above: click.Context):
    """Yield (path, command, context) of each command, and those of groups."""
    for name in command.list_commands(above):
        one = command.get_command(above, name)
        context = click.Context(one, info_name=name, parent=above)
        yield context.command_path, one, context
        if isinstance(one, click.Group):
            yield from every_command(one, context)


def test_it_is_shown_without_a_warning_and_tells_every_command_and_option(page, tmp_path):
    text = " ".join(shown(page, tmp_path).replace("\u2010\n", "").split())
    for path, command, context in every_command(appliance, click.Context(appliance, info_name="appliance")):
        assert f"{path} " in text
        for parameter in command.get_params(context):
            for name in parameter.opts if isinstance(parameter, click.Option) else ():
                assert name in text, f"{path} {name}"
    for code in ("0 Done.", "3 Refused", "4 Not found"):
        assert code in text


def test_the_binarys_page_leaves_out_what_it_lacks():
    page = made("--binary")
    assert "appliance activate" in page
    assert not re.search(r'^\.SS "appliance (convert|lint)', page, re.MULTILINE)


def test_no_line_of_a_help_text_becomes_a_command_of_troff(page):
    known = {"TH", "SH", "SS", "PP", "TP", "B", "I", "nf", "fi"}
    assert {line[1:].split()[0] for line in page.splitlines() if line.startswith(".")} <= known
    assert not [line for line in page.splitlines() if line.startswith("'")]
