"""The one way from `convert` and `lint` to a terminal: control characters are taken out before printing."""

import click

from appliance.plain_text import plain, plain_json


def echo(line: object, *, err: bool = False) -> None:
    """Print one line on standard output, or standard error."""
    click.echo(plain(line), err=err)


def print_json(document: object) -> None:
    """Print one JSON document on standard output."""
    import msgspec

    click.echo(plain_json(msgspec.json.format(msgspec.json.encode(document), indent=1).decode()))


def notice(message: str) -> None:
    """Print a notice for a person on standard error, also where a program reads the output."""
    echo(f"notice: {message}", err=True)
