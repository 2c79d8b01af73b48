"""The one way from `convert` and `lint` to a terminal: control characters are taken out before printing."""

import click

from appliance.plain_text import plain, plain_json


def echo(line: object, *, err: bool = False) -> None:
    """Print one line on standard output, or standard error."""
    click.echo(plain(line), err=err)


def overwrite(text: str) -> None:
    """Write a part of a line on standard error, which may begin the line again."""
    begin = "\r" if text.startswith("\r") else ""
    end = "\n" if text.endswith("\n") else ""
    click.echo(begin + plain(text.strip("\r\n")) + end, err=True, nl=False)


def print_json(document: object) -> None:
    """Print the command's one JSON document; an error after it is written to standard error alone."""
    import msgspec

    context = click.get_current_context(silent=True)
    if context is not None and hasattr(context.find_root().obj, "json"):
        context.find_root().obj.json = False
    click.echo(plain_json(msgspec.json.format(msgspec.json.encode(document), indent=1).decode()))


def notice(message: str) -> None:
    """Print a notice for a person on standard error, also where a program reads the output."""
    echo(f"notice: {message}", err=True)
