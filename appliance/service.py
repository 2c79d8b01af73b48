"""Builds and joins the parts of one process, starts and stops them."""

import contextlib
import ctypes
import logging
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from appliance.config import Config
from appliance.errors import ApplianceError
from appliance.inference import selftest
from appliance.live import LiveModels, Served
from appliance.monitoring.metrics import Metrics
from appliance.predictor import Predictor
from appliance.rest import admin, auth, dashboard, health, invocations, openapi, openinference, predict
from appliance.rest.app import App, create_app
from appliance.rest.exchange import Context
from appliance.rest.server import Server, make_server
from appliance.store import activation
from appliance.store.versions import Store

log = logging.getLogger(__name__)

ROUTES = (
    *predict.ROUTES,
    *openinference.ROUTES,
    *invocations.ROUTES,
    *health.ROUTES,
    *admin.ROUTES,
    *openapi.ROUTES,
    *dashboard.ROUTES,
)


class Service:
    """One process: the loaded models, the predictor and the HTTP door."""

    def __init__(self, config: Config, listener: socket.socket, *, slot: int = 0, runtime: Path | None = None) -> None:
        """Join the parts. `runtime` is a folder that the processes of one service share; None when there is but one."""
        auth.refuse_open_port(config.http)
        self.config = config
        self.store = Store(config.state_dir, trusted_keys=config.store.trusted_keys)
        self.models = LiveModels(
            self.store,
            threads=config.models.threads,
            pinned_versions=config.models.pinned_versions,
            default=config.models.default,
        )
        self.metrics = Metrics(runtime, slot)
        self.models.switched = self._switched
        self.predictor = Predictor(self.models, [self.metrics])
        self.app = self._app()
        self.server: Server = make_server(self.app, listener, config.http, self.app.is_small)
        self._first = slot == 0
        self._stop = threading.Event()

    def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until stop() is called or SIGTERM or SIGINT arrives; `ready` is called once requests are answered."""
        if self._first:
            self.store.sweep()
            self._preload(Path(self.config.store.preload_dir))
        self.models.refresh()
        _give_back_memory()
        follower = threading.Thread(
            target=self.models.follow,
            args=(self._stop, self.config.models.poll_seconds),
            name="follow-store",
            daemon=True,
        )
        follower.start()
        host, port = self.server.effective_host, self.server.effective_port
        log.info("listening", extra={"url": f"http://{f'[{host}]' if ':' in host else host}:{port}"})
        ready()
        self.server.run()
        self._stop.set()
        follower.join(timeout=5)
        log.info("stopped")

    def stop(self) -> None:
        """Let run() finish what runs and return."""
        self._stop.set()
        self.server.stop()

    def stop_on_signals(self) -> None:
        """Stop on SIGTERM and SIGINT; for the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop())

    def _app(self) -> App:
        """Return the HTTP application."""
        http = self.config.http
        context = Context(
            predictor=self.predictor,
            store=self.store,
            config=http,
            metrics=self.metrics.exposition,
            counts=self.metrics.counts,
            stopping=self._stop_is_set,
        )
        authorize = auth.authorizer(http)
        return create_app(context, ROUTES, authorize, log_requests=self.config.log.requests)

    def _stop_is_set(self) -> bool:
        """Return whether the service is finishing."""
        return self._stop.is_set()

    def _switched(self, served: Served) -> None:
        """Tell log and metrics what a model serves now."""
        extra = {"model": served.name, "wanted": served.wanted, "serving": served.loaded and served.loaded.version}
        if served.problem:
            log.error("version cannot be served", extra=extra | {"error": str(served.problem)})
        else:
            log.info("serving", extra=extra)
        self.metrics.switched(served)

    def _preload(self, folder: Path) -> None:
        """Install and activate the bundles in `folder`; one that is refused is logged and the others go on."""
        for path in sorted(folder.glob("*.bundle")):
            try:
                installed = self.store.install(path, why=f"found in {folder}")
                name, version = installed.name, installed.version
                if activation.read(self.store, name).active != version:
                    activation.activate(self.store, name, version, selftest.self_test, why=f"found in {folder}")
            except (ApplianceError, OSError) as error:
                log.error("bundle cannot be preloaded", extra={"bundle": path.name, "error": str(error)})


def _give_back_memory() -> None:
    """Return what loading needed and freed to the system: glibc keeps it otherwise (16 MiB for a forest)."""
    with contextlib.suppress(OSError, AttributeError):  # another C library has no malloc_trim
        ctypes.CDLL(None).malloc_trim(0)
