"""`appliance serve`: binds the port, then answers on it from one process or several, and on MQTT from the first."""

import logging
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from appliance import signals, systemd
from appliance.cli import common_options, exit_code, no_effect, options, owner, report
from appliance.config import Config
from appliance.errors import ApplianceError, Misuse

if TYPE_CHECKING:
    from appliance.rest.server.connection_balance import Share

log = logging.getLogger(__name__)


@click.command()
@click.option("--host", help="Address to listen on [env: APPLIANCE_HTTP_HOST].", metavar="H")
@click.option("--port", type=int, help="Port to listen on; 0 is any free one [env: APPLIANCE_HTTP_PORT].", metavar="P")
@click.option("--no-http", is_flag=True, help="Open no port: answer over MQTT alone.")
@common_options
def serve(host: str | None, port: int | None, no_http: bool) -> None:
    """Answer predictions over HTTP, and over MQTT where [mqtt] names a broker, until SIGTERM or SIGINT (Ctrl-C).

    Follows the store: what is activated or rolled back while it runs is served within a second.
    """
    said = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
    click.get_current_context().exit(run(options().config_only(http=said), http=not no_http))


def run(config: Config, *, http: bool = True) -> int:
    """Serve and return the exit code. Raises ConfigError and Misuse before anything is served."""
    no_effect.refuse(config)
    if not http and not config.mqtt.host:
        raise Misuse("serve without HTTP", "no other listener is configured", "set [mqtt] host, or leave out --no-http")
    from appliance.monitoring import logs
    from appliance.rest.server.listener import bind

    logs.configure(config.log.level)
    for sentence in no_effect.found(config):
        log.warning("setting without effect", extra={"found": sentence})
    signals.postpone()
    listener = bind(config.http.host, config.http.port) if http else None
    # After the port, which may be root's to open; bundles that wait to be installed may be root's to read.
    owner.become(config, sorted(Path(config.store.preload_dir).glob("*.bundle")))
    if listener is None or config.http.processes == 1:
        return _run_alone(config, listener)
    return _run_several(config, listener)


def _run_alone(config: Config, listener: socket.socket | None) -> int:
    """Serve in this process alone, which tells the service manager how it is."""
    return _run(config, listener, ready=_tell_alive, stopping=_tell_stopping)


def _run(
    config: Config,
    listener: socket.socket | None,
    slot: int = 0,
    runtime: Path | None = None,
    share: "Share | None" = None,
    ready: Callable[[], None] = lambda: None,
    stopping: Callable[[], object] = lambda: None,
) -> int:
    """Serve in this process."""
    from appliance.service import Service  # here: a forked process imports onnxruntime for itself, its parent never

    service = Service(config, listener, slot=slot, runtime=runtime, share=share)
    service.handle_signals(stopping)
    signals.catch_up()
    service.run(ready)
    return 0


def _run_several(config: Config, listener: socket.socket) -> int:
    """Serve in several processes that this one watches."""
    from appliance.processes import Supervisor
    from appliance.rest.server import connection_balance

    held = connection_balance.counts(config.http.processes)

    # In memory where the system has such a folder: the counters in it are written at every prediction.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108  # the name below cannot be guessed
    with tempfile.TemporaryDirectory(prefix="appliance-", dir=memory) as runtime:

        def work(slot: int, ready: Callable[[], None]) -> int:
            signals.postpone()
            try:
                return _run(config, listener, slot, Path(runtime), connection_balance.Share(held, slot), ready)
            except ApplianceError as error:  # this process has no caller that would report it
                report(error)
                return exit_code(error)

        def stopping() -> None:
            listener.close()
            _tell_stopping()

        return Supervisor(config.http.processes, work, stopping=stopping, alive=_tell_alive).run()


def _tell_alive() -> None:
    """Tell the service manager that requests are answered."""
    systemd.notify(systemd.ALIVE)


def _tell_stopping() -> None:
    """Tell the service manager that the service ends."""
    systemd.notify(systemd.STOPPING)
