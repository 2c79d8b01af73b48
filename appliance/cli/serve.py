"""`appliance serve`: binds the port, then answers on it from one process or several."""

import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import click

from appliance.cli import common_options, exit_code, options, report
from appliance.config import Config
from appliance.errors import ApplianceError


@click.command()
@click.option("--host", help="Address to listen on [env: APPLIANCE_HTTP_HOST].", metavar="H")
@click.option("--port", type=int, help="Port to listen on; 0 is any free one [env: APPLIANCE_HTTP_PORT].", metavar="P")
@common_options
def serve(host: str | None, port: int | None) -> None:
    """Answer predictions over HTTP until SIGTERM or SIGINT (Ctrl-C).

    Follows the store: what is activated or rolled back while it runs is served within a second.
    """
    said = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
    click.get_current_context().exit(run(options().config(http=said)))


def run(config: Config) -> int:
    """Serve and return the exit code. Raises ConfigError and Misuse before anything is served."""
    from appliance.monitoring import logs
    from appliance.rest.listener import bind

    logs.configure(config.log.level)
    listener = bind(config.http.host, config.http.port)
    return _run(config, listener) if config.http.processes == 1 else _run_several(config, listener)


def _run(
    config: Config,
    listener: socket.socket,
    slot: int = 0,
    runtime: Path | None = None,
    ready: Callable[[], None] = lambda: None,
) -> int:
    """Serve in this process."""
    from appliance.service import Service  # here: a forked process imports onnxruntime for itself, its parent never

    service = Service(config, listener, slot=slot, runtime=runtime)
    service.stop_on_signals()
    service.run(ready)
    return 0


def _run_several(config: Config, listener: socket.socket) -> int:
    """Serve in several processes that this one watches."""
    from appliance.processes import Supervisor

    # In memory where the system has such a folder: the counters in it are written at every prediction.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108  # the name below cannot be guessed
    with tempfile.TemporaryDirectory(prefix="appliance-", dir=memory) as runtime:

        def work(slot: int, ready: Callable[[], None]) -> int:
            try:
                return _run(config, listener, slot, Path(runtime), ready)
            except ApplianceError as error:  # this process has no caller that would report it
                report(error)
                return exit_code(error)

        return Supervisor(config.http.processes, work).run()
