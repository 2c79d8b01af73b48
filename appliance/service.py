"""Builds and joins the parts of one process, starts and stops them."""

import gc
import logging
import signal
import socket
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from appliance import memory, served_models, signals, systemd
from appliance.budget import Budget, default_bytes
from appliance.config import Config
from appliance.errors import StoreError
from appliance.experiment_roles import ExperimentRoles
from appliance.experiments import control, probation_record
from appliance.experiments.parts import Experiments
from appliance.fallback import QualityPolicy, no_drift
from appliance.listener import Listener
from appliance.log_parts import LogParts
from appliance.monitoring.metrics import Metrics
from appliance.monitoring.overview import Overview
from appliance.monitoring.watch import DriftWatch
from appliance.predictor import Observer, Predictor
from appliance.preload import preload
from appliance.readiness import Readiness
from appliance.repository import ModelRepository, Served
from appliance.rest import auth
from appliance.rest.app import App, create_app
from appliance.rest.http_listener import HttpListener
from appliance.rest.http_types import Authorize, Context
from appliance.rest.openapi import ALL_ROUTES
from appliance.rest.server.connection_balance import Share
from appliance.rest.server.server import make_server
from appliance.store import condition, running
from appliance.store.versions import Store
from appliance.trials import Trials

if TYPE_CHECKING:
    from appliance.mqtt.deferred_listener import DeferredListener

log = logging.getLogger(__name__)


class Service:
    """One process: the loaded models, the predictor and the listeners, HTTP and MQTT."""

    def __init__(
        self,
        config: Config,
        listener: socket.socket | None,
        *,
        slot: int = 0,
        runtime: Path | None = None,
        share: Share | None = None,
    ) -> None:
        """Join the parts. Without a `listener` nothing listens for HTTP; MQTT is in the first process alone.

        `runtime` is a folder that the processes of one service have in common, and `share` this one's share of the
        connections; None when there is but one.
        """
        memory.share_heaps()  # before the parts' threads start
        self.config = config
        self.store = Store.of(config)
        self.trials = Trials(self.store, config.models)
        self.models = ModelRepository(
            self.store,
            threads=config.models.threads,
            run_seconds=config.models.run_seconds,
            pinned_versions=config.models.pinned_versions,
            default=config.models.default,
            revoke=config.store.revoke,
            trials=self.trials,
            roles=ExperimentRoles(keep_previous=config.probation.enabled and config.probation.keep_loaded),
            keeps_rows=config.log.predictions.enabled and config.log.predictions.inputs,
            batching=config.models.batching == "auto",
        )
        self.metrics = Metrics(runtime, slot, state_dir=config.state_dir)
        self.models.switched = self._switched
        refuse = config.models.overflow == "refuse"
        self.log = LogParts(config, self.store, self.models, self.metrics.log, slot)
        self.drift = DriftWatch.of(config.drift, self.store, self.metrics, runtime, slot)
        self._drift_of = self.drift.report if self.drift else _no_drift
        sums, test = self.metrics.counters.sums, self.trials.self_test
        self.experiments = Experiments(config, self.store, self.models, sums, test, slot=slot)
        self.log.feeds.append(self.experiments)
        self.metrics.experiments = self.experiments.figures
        observers: list[Observer] = [self.metrics.counters, *self.log.observers, self.experiments]
        observers += [self.drift] if self.drift else []
        quality = QualityPolicy.of(config, self.drift.drifted if self.drift else no_drift)
        self.predictor = Predictor(
            self.models, observers, refuse_overflow=refuse, recorder=self.log.recorder, quality=quality
        )
        self._first = slot == 0
        of_models = self._drift_of, partial(probation_record.failing, self.store)
        self.overview = Overview(self.store, self.models, self.metrics.counters, *of_models, first=self._first)
        self._stop = threading.Event()
        self.readiness = Readiness(self.models, self.store, stopping=self._stop.is_set, mqtt=self.metrics.mqtt.read)
        self.http = self._http_listener(listener, share) if listener else None
        self.experiments.busy = self.http.half_full if self.http else self.experiments.busy
        self._listeners: list[Listener] = [self.http] if self.http else []
        if config.mqtt.host and self._first:
            self._listeners.append(self._mqtt_listener())

    def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until stop() is called or SIGTERM or SIGINT arrives; `ready` is called once requests are answered.

        Where a service manager watches, it is called again and again while they are answered rightly.
        """
        watch = condition.Watch(self.config.state_dir)
        if self._first:
            watch.look()
            self._sweep()
            settings = self.config.store
            changed = settings.preload_inputs_changed
            preload(self.store, Path(settings.preload_dir), self.trials.self_test, inputs_changed=changed)
        self.models.refresh()
        self.log.start(self._stop)
        _give_back_memory()
        follower = threading.Thread(
            target=self.models.follow,
            args=(self._stop, self.config.models.poll_seconds, partial(self._beside, watch)),
            name="follow-store",
            daemon=True,
        )
        follower.start()
        if self._first:
            running.write(self.config.state_dir, self.http.running() if self.http else running.here("", 0))
        if self.drift:
            self.drift.start()
        ready()
        systemd.watch(self._alive, ready, self._stop)
        self._serve()
        self._stop.set()
        if self._first:
            running.remove(self.config.state_dir)
        self.experiments.stop()
        follower.join(timeout=5)
        self.overview.stop()
        self.log.stop()
        if self.drift:
            self.drift.stop()
        log.info("stopped")

    def _beside(self, watch: condition.Watch) -> None:
        """Do what is due besides, each time that the store is followed; on that thread."""
        if self._first:
            watch.look()
        self.experiments.look(self._stop)
        self.overview.look()

    def stop(self) -> None:
        """Let run() finish what runs and return."""
        self._stop.set()
        self.trials.stop()
        if self._listeners:
            self._listeners[0].stop()  # the others are stopped once it has ended, see _serve()

    def handle_signals(self, stopping: Callable[[], object] = lambda: None) -> None:
        """Stop on SIGTERM, SIGINT and SIGQUIT, after `stopping`; read the tokens again on SIGHUP; for the main thread.

        A handler may interrupt itself, so it takes no lock twice. SIGUSR1 and SIGUSR2 mean nothing and end nothing.
        """
        told = False

        def stop(number: int, frame: object) -> None:
            nonlocal told
            if not told:  # a service manager tells every process, and their parent tells them again
                told = True
                stopping()
                self.stop()

        def reload(number: int, frame: object) -> None:
            if self.http:
                self.http.reload()

        for number in signals.STOPPING:
            signal.signal(number, stop)
        signal.signal(signals.RELOADING, reload)

    def _alive(self) -> str:
        """Return what keeps this process from answering rightly: a failing self-test, a loop that hangs; else ""."""
        return self.readiness.failure() or next(filter(None, (one.alive() for one in self._listeners)), "")

    def _serve(self) -> None:
        """Run the listeners until stop() is called: the first one on this thread, each other one on its own.

        The others go on while the first one ends what it has begun.
        """
        if not self._listeners:
            return
        first, *others = self._listeners
        threads = [threading.Thread(target=one.run, name=one.name, daemon=True) for one in others]
        for thread in threads:
            thread.start()
        first.run()
        for one in others:
            one.stop()
        for thread in threads:
            thread.join(timeout=10)

    def _http_listener(self, listener: socket.socket, share: Share | None) -> HttpListener:
        """Return the HTTP listener on a bound socket."""
        http = self.config.http
        auth.refuse_open_port(http)
        guard = auth.guard(http)
        app = self._app(guard.check)
        budget, direct, together = app.context.budget, app.direct, app.together
        server = make_server(app, listener, http, app.is_small, share, budget, app.admit, direct, together)
        return HttpListener(server, guard)

    def _mqtt_listener(self) -> "DeferredListener":
        """Return the MQTT listener."""
        # Imported here, since paho takes memory and 40 ms: only where a broker is named.
        from appliance.mqtt.deferred_listener import DeferredListener
        from appliance.mqtt.listener import MqttListener

        told, folder = self.metrics.mqtt.write, self.config.state_dir / "mqtt"
        predictor = self.predictor.of("mqtt")
        taken = self.log.take_labels
        told_of = partial(served_models.described, self.store, self.models, self.log, self._drift_of)
        make = partial(
            MqttListener, self.config.mqtt, predictor, folder, models=told_of, report=told, take_labels=taken
        )
        return DeferredListener(make, folder, told)

    def _app(self, authorize: Authorize) -> App:
        """Return the HTTP application."""
        http = self.config.http
        context = Context(
            predictor=self.predictor.of("http"),
            models=self.models,
            store=self.store,
            readiness=self.readiness,
            config=http,
            budget=Budget(
                http.max_decoded_bytes or default_bytes(memory.limit_bytes(), http.processes), idle=memory.GiveBack()
            ),
            metrics=self.metrics.exposition,
            counts=self.metrics.counters.counts,
            log_heads=self.log.heads,
            take_labels=self.log.take_labels,
            quality=self.log.quality,
            standing=self.log.standing,
            drift=self._drift_of,
            distribution=self.drift.distribution if self.drift else _no_drift,
            alarms=self.overview.alarms,
            history=self.overview.series,
            last_failures=self.metrics.counters.last.all,
            recent=self.log.recent,
            self_test=self.trials.self_test,
            experiment_bytes=control.memory_bytes(self.config),
            experiments=self.config.experiments,
        )
        return create_app(context, ALL_ROUTES, authorize, log_requests=self.config.log.requests)

    def _switched(self, served: Served) -> None:
        """Tell log and metrics what a model serves now."""
        serving = served.loaded and served.loaded.version
        extra = {"model": served.name, "role": served.role, "wanted": served.wanted, "serving": serving}
        if served.problem and served.loaded and served.loaded.version == served.wanted:
            log.error("the version that serves is not trusted", extra=extra | {"error": str(served.problem)})
        elif served.problem:
            log.error("version cannot be served", extra=extra | {"error": str(served.problem)})
        else:
            log.info("serving", extra=extra)
        self.metrics.switched(served)
        if self.drift:
            self.drift.switched(served)

    def _sweep(self) -> None:
        """Delete what a power cut left; a store that cannot be written is served as it is, and swept another time."""
        try:
            self.store.sweep()
        except StoreError as error:
            log.warning("store is not swept", extra={"error": str(error)})


def _no_drift(model: str, version: str) -> None:
    """Return nothing: drift is not watched."""


def _give_back_memory() -> None:
    """Return what loading needed and freed to the system: glibc keeps it otherwise (16 MiB for a forest).

    What is left lives as long as the process: out of the garbage collector's sight, or each of its rare full runs looks
    at all of it, some 20 ms in which nobody is answered.
    """
    gc.collect()
    gc.freeze()
    memory.give_back()
    memory.keep_little()
