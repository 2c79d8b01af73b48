"""The only way from a command to a terminal: control characters are escaped before printing."""

import traceback

import click
import msgspec

from appliance.errors import ApplianceError
from appliance.plain_text import plain, plain_json


def echo(*lines: object, err: bool = False) -> None:
    """Print lines on standard output, or standard error; the text of a line cannot begin another line."""
    for line in lines:
        click.echo(plain(line), err=err)


def print_json(document: object) -> None:
    """Print the command's one JSON document on standard output; an error after it goes to standard error alone."""
    echo_json(msgspec.json.encode(document))


def echo_json(document: bytes, indent: int = 2) -> None:
    """Print an encoded JSON document, indented, as print_json does."""
    context = click.get_current_context(silent=True)
    if context is not None and hasattr(context.find_root().obj, "json"):
        context.find_root().obj.json = False  # what report() looks at
    click.echo(plain_json(msgspec.json.format(document, indent=indent).decode("utf-8", "backslashreplace")))


def echo_error_json(error: ApplianceError, code: int) -> None:
    """Print an error as one JSON document on standard output: its three parts and the command's exit code."""
    parts = {"tried": error.tried, "found": error.found, "next": error.next_step}
    print_json({"error": parts, "exit_code": code})


def echo_json_line(document: object, *, err: bool = False) -> None:
    """Print a JSON document on one line."""
    click.echo(plain_json(msgspec.json.encode(document).decode()), err=err)


def show(line: str) -> None:
    """Show a line on the terminal behind standard error, in the place of the one that was shown last."""
    click.echo(f"\r\x1b[K{plain(line)}", err=True, nl=False)


def echo_error(error: ApplianceError, *, trace: bool = False) -> None:
    """Write an error to standard error: what was tried, what was found, what to do next.

    A part of several lines is indented, so that quoted text does not look like another part.
    """
    if trace:
        echo(*traceback.format_exc().splitlines(), err=True)
    for label, part in (("error", error.tried), ("found", error.found), ("next", error.next_step)):
        if part:
            first, *rest = part.split("\n")
            echo(f"{label + ':':<7}{first}", *(f"{'':<7}{line}" for line in rest), err=True)
