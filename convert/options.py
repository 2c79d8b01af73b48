"""The options that `appliance convert` and `appliance lint` share, written once."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])
TIME_LIMIT = 120.0  # seconds

model = click.argument("model")
trust = click.option(
    "--trust",
    multiple=True,
    metavar="PREFIX",
    help="Registry URLs that begin so may hold pickles, whose code is run (may be repeated).",
)

item = click.option(
    "--item",
    default="",
    metavar="KEY",
    help="Part of a pickled object that is the model: a key, a position or an attribute (a.b: b in a).",
)


def time_limit(of: str) -> Callable[[Command], Command]:
    """Return the option --time-limit; `of` says what may take so many seconds."""
    meaning = f"Seconds that {of} may take."
    return click.option("--time-limit", type=float, default=TIME_LIMIT, show_default=True, help=meaning)


def as_json(what: str) -> Callable[[Command], Command]:
    """Return the option --json; `what` is printed."""
    return click.option("--json", "as_json", is_flag=True, help=f"Print {what} as one JSON document.")
