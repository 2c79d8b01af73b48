"""Prints the manual page appliance(1) from the commands' own help: `man.py VERSION [--binary]`.

`make man` and deb.sh run it; --binary leaves out what the binary lacks.
"""

import re
import sys
from collections.abc import Iterator

import click

from appliance.cli import EXIT_CODES, appliance

CODES = {
    0: "Done.",
    1: "Failed.",
    2: "Misuse: an option, a setting or a file with which nothing can be done.",
    3: "Refused, and nothing was changed: a signature, a proof, a self\\-test, other inputs.",
    4: "Not found: no such model, version or file.",
}
BUILD_MACHINE = ("convert", "lint")
COMMON = ("config", "state_dir", "debug", "help")
"""The options of every command, which are told once."""


def main() -> None:
    """Print the page."""
    version, *more = sys.argv[1:]
    root = click.Context(appliance, info_name="appliance")
    if {0, 1, *(code for _, code in EXIT_CODES)} != set(CODES):
        sys.exit("error: CODES does not tell every exit code")
    lines = [
        f'.TH APPLIANCE 1 "" "appliance {escaped(version)}" "User Commands"',
        *(".SH NAME", "appliance \\- serve trained models on an edge host"),
        *(".SH SYNOPSIS", ".B appliance", "\\fICOMMAND\\fR [\\fIOPTION\\fR]... [\\fIARGUMENT\\fR]..."),
        *(".SH DESCRIPTION", *paragraphs(appliance.help or "")),
        *(".SH OPTIONS", "Every command takes these.", *options(appliance, root, common=True)),
        ".SH COMMANDS",
    ]
    for name in appliance.list_commands(root):
        if not (name in BUILD_MACHINE and "--binary" in more):
            lines += section(name, appliance.get_command(root, name), root)
    lines += [".SH EXIT STATUS", *(line for code, text in CODES.items() for line in (".TP", f".B {code}", text))]
    lines += [".SH FILES", ".TP", ".I /etc/appliance/appliance.toml", "The configuration of the service."]
    lines += [".TP", ".I /var/lib/appliance", "The state folder: installed models, receipts, logs."]
    print("\n".join(lines))


def section(name: str, command: click.Command | None, above: click.Context) -> Iterator[str]:
    """Yield a command's part of the page, and those of its own commands."""
    if command is None:
        raise KeyError(name)
    context = click.Context(command, info_name=name, parent=above)
    usage = " ".join(part for part in command.collect_usage_pieces(context) if part != "[OPTIONS]")
    yield f'.SS "{escaped(f"{context.command_path} {usage}".strip())}"'
    yield from paragraphs(command.help or "")
    yield from options(command, context, common=False)
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            yield from section(inner, command.get_command(context, inner), context)


def options(command: click.Command, context: click.Context, *, common: bool) -> Iterator[str]:
    """Yield the options of a command: those of every command, or its own."""
    for parameter in command.get_params(context):
        told = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if told and (parameter.name in COMMON) is common:
            yield from (".TP", f"\\fB{escaped(told[0])}\\fR", escaped(told[1]) or "\\&")


def paragraphs(text: str) -> Iterator[str]:
    """Yield a help text; what click keeps as it is (\\b) is not filled here either."""
    for paragraph in text.split("\n\n"):
        as_it_is = paragraph.startswith("\b")
        lines = [escaped(line) for line in paragraph.lstrip("\b\n").split("\n")]
        yield from (".PP", *([".nf", *lines, ".fi"] if as_it_is else lines))


def escaped(text: str) -> str:
    """Return text that troff shows as it is."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    return re.sub(r"^([.'])", r"\\&\1", text.strip())


main()
