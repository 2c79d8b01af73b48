"""Rows in, answers out: picks the version that answers, runs it, tells the observers. Knows no transport."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from appliance.correlation import request_id as request_id
from appliance.errors import ApplianceError, InvalidInput
from appliance.inference.overflow import check_overflow
from appliance.inference.session import Array
from appliance.inference.values import quoted
from appliance.inference.version import LoadedVersion
from appliance.repository import ModelRepository


class Prediction(msgspec.Struct, frozen=True):  # a frozen dataclass takes ten times as long to make
    """What one version answered to some rows.

    `outputs` is {output name: array of shape [rows, ...]}; times are in seconds.
    """

    version: LoadedVersion
    outputs: dict[str, Array]
    rows: int
    prepare_seconds: float
    """From the request's arrival to the feeds: decoding and checking."""
    run_seconds: float
    """Of the graph alone."""
    requests: int = 1
    """How many requests were answered by this one run."""


@dataclass(slots=True)
class Counts:
    """What was asked of one version so far; times in seconds."""

    successes: int = 0
    failures: int = 0
    rows: int = 0
    request_seconds: float = 0.0
    prepare_seconds: float = 0.0
    run_seconds: float = 0.0
    failure_seconds: float = 0.0
    last: float = 0.0
    """Unix time of the last prediction."""


class Observer(Protocol):
    """Somebody who is told of every prediction: metrics, logs, drift. Must be quick and must not raise."""

    def predicted(self, prediction: Prediction) -> None:
        """Take note of a prediction."""

    def failed(self, model: str, version: str, error: ApplianceError, seconds: float) -> None:
        """Take note of a request that `model` ("" when unknown) did not answer, and of the time that it took."""


class Predictor:
    """The one way to a prediction, whatever the door."""

    def __init__(
        self, models: ModelRepository, observers: Sequence[Observer] = (), *, refuse_overflow: bool = True
    ) -> None:
        """`refuse_overflow` says whether answers that are infinite for finite rows are refused, see overflow.py."""
        self.models = models
        self._observers = tuple(observers)
        self._refuse_overflow = refuse_overflow

    def route(self, model: str | None = None, version: str | None = None) -> LoadedVersion:
        """Return the version that answers: the named one, else the model's active one, else the default model's.

        Raises NotFound for an unknown model or version, NotReady for a model without an active version.
        """
        return self.models.get(model, version)

    def run(
        self,
        version: LoadedVersion,
        feeds: Mapping[str, Array],
        outputs: Sequence[str] | None = None,
        *,
        started: float | None = None,
        requests: int = 1,
    ) -> Prediction:
        """Return the prediction of `version` for checked `feeds` (see InputSchema), all outputs unless named.

        `started` is time.perf_counter() at the request's arrival; `requests` says how many requests the rows are of.
        Raises InvalidInput for an unknown output, for what the graph itself refuses, and for an overflow.
        """
        names = version.output_names if outputs is None else self._known(version, outputs)
        begun = time.perf_counter()
        answers = version.session.run(feeds, names)
        ended = time.perf_counter()
        if self._refuse_overflow:
            check_overflow(version.manifest.outputs, names, answers, feeds)
        rows = len(next(iter(feeds.values())))
        prediction = Prediction(
            version, dict(zip(names, answers, strict=True)), rows, begun - (started or begun), ended - begun, requests
        )
        for observer in self._observers:
            observer.predicted(prediction)
        return prediction

    def failed(self, model: str, version: str, error: ApplianceError, seconds: float = 0.0) -> None:
        """Tell the observers of a request that was not answered."""
        for observer in self._observers:
            observer.failed(model, version, error, seconds)

    @staticmethod
    def _known(version: LoadedVersion, outputs: Sequence[str]) -> Sequence[str]:
        """Return `outputs`, or raise InvalidInput when one is no output of `version`."""
        unknown = [name for name in outputs if name not in version.output_names]
        if unknown:
            expected = ", ".join(version.output_names)
            raise InvalidInput("choose the outputs", f"there is no output {quoted(unknown[0])}", f"ask for {expected}")
        return outputs
