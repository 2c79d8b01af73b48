"""Waits for what the running service decides, no longer than one runs, nor than `--timeout` allows."""

import time
from collections.abc import Callable
from typing import TypeVar

import click

from appliance.cli import options
from appliance.cli.address import ask, find
from appliance.errors import NotReady
from appliance.store import running

LOOK_SECONDS = 1.0
"""Between two looks at what is waited for."""
SILENT_SECONDS = 30.0
"""For which no service may be found: one that starts again is waited for."""

T = TypeVar("T")

timeout = click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
    help="With --wait: end with exit code 1 when nothing is decided by then.",
)  # fmt: skip


def wait_for(look: Callable[[], T | None], tried: str, then: str, timeout: float | None = None) -> T:
    """Return what `look` gives, once it is not None.

    Raises NotReady where no service runs that could decide it, or `timeout` seconds have passed; `then` says what
    to do.
    """
    begun = seen = time.monotonic()
    while (found := look()) is None:
        now = time.monotonic()
        if timeout is not None and now - begun >= timeout:
            raise NotReady(tried, f"nothing was decided within {timeout:g} s", then)
        if _service_runs():
            seen = now
        elif now - seen >= SILENT_SECONDS:
            raise NotReady(tried, "no service runs here, and only a service decides it", f"appliance serve; {then}")
        time.sleep(LOOK_SECONDS)
    return found


def _service_runs() -> bool:
    """Return whether a service uses the state folder, or one answers at its configured address."""
    config = options().config()
    return running.lives(config.state_dir) or bool(ask(find(config), "/health/live")["running"])
