"""Rows in, answers out: picks the version that answers, runs it, tells the observers. Knows no transport."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from appliance.arms import Arms
from appliance.arrays import Array
from appliance.correlation import request_id as request_id
from appliance.errors import ApplianceError, InvalidInput
from appliance.fallback import QualityPolicy, with_fallback
from appliance.inference.overflow import check_overflow
from appliance.inference.quality import RowQuality
from appliance.inference.values import quoted
from appliance.inference.version import LoadedVersion


class Prediction(msgspec.Struct, frozen=True):  # a frozen dataclass takes ten times as long to make
    """What one version answered to some rows: plain data, which keeps no session alive.

    `inputs` and `outputs` are {name: array of shape [rows, ...]}, as the graph took and gave them; nobody changes these
    arrays. Times are in seconds.
    """

    model: str
    version: str
    inputs: Mapping[str, Array]
    outputs: dict[str, Array]
    rows: int
    request_id: str
    """The caller's id of the request, else ours; of several requests that share the run, the first one's."""
    listener: str
    """Through which the rows came: http, mqtt; "" for none."""
    time: float
    """When it was answered (Unix time)."""
    prepare_seconds: float
    """From the request's arrival to the feeds: decoding and checking."""
    run_seconds: float
    """Of the graph alone."""
    shared_by: Sequence[tuple[str, int]] = ()
    """(request id, rows) of each request, in the order of the rows, where one run may answer several; else empty."""
    arm: str = ""
    """ID/VERSION of the experiment by which this version was chosen; "" where none runs or the request named one."""
    keys: Sequence[str] = ()
    """The key of each request by which it was chosen, "" for one that has none; empty outside of an experiment."""
    logged: bool = False
    """Whether there is a log, so that its ids may be asked for later."""
    places: Sequence[int] = ()
    """The place of each row in its request, where they are not 0, 1, 2 and so on: of a block of a file."""
    finite: bool = False
    """Whether it is known that every number of the outputs is finite."""
    quality: Sequence[RowQuality] | None = None
    """How far to trust each row, where that is asked for."""
    of_graph: Mapping[str, Array] | None = None
    """The graph's own outputs, where `outputs` have a fallback in their place; else None."""

    @property
    def requests(self) -> int:
        """How many requests were answered by this one run."""
        return len(self.shared_by) or 1

    def ids(self) -> Iterator[str]:
        """Yield the id of each row's prediction, REQUEST.ROW, ROW being the place in its request, from 0."""
        for place in self.places:
            yield f"{self.request_id}.{place}"
        for request, rows in () if self.places else self.shared_by or ((self.request_id, self.rows),):
            for row in range(rows):
                yield f"{request}.{row}"


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
    caller_failures: int = 0
    """Of the failures, those by the caller's fault (4xx); the others are this host's (5xx)."""
    service_failures: int = 0
    buckets: Sequence[float] = ()
    """Answered requests by their time, see monitoring.counters.BOUNDS; empty where it is not known."""


class Models(Protocol):
    """Where the predictor finds the version that answers."""

    def get(self, model: str | None = None, version: str | None = None) -> LoadedVersion:
        """Return the named version, else the model's active one, else the default model's. Raises as route() does."""

    def arms(self, model: str | None = None) -> Arms | None:
        """Return who answers requests to a model that name no version; None where no experiment runs on it."""


class Observer(Protocol):
    """Somebody who is told of every prediction, on the thread that answers: metrics.

    Must cost next to nothing and must not raise; a slow one puts what it is told aside, within bounds.
    """

    def predicted(self, prediction: Prediction) -> None:
        """Take note of a prediction."""

    def failed(
        self, model: str, version: str, error: ApplianceError, seconds: float, arm: str = "", key: str = ""
    ) -> None:
        """Take note of a request that `model` ("" when unknown) did not answer, and of the time that it took.

        `arm` and `key` as a Prediction has them: by which arm of an experiment it was not answered, and whose it was.
        """


class Recorder(Protocol):
    """The prediction log, which is told of a prediction before its answer is given."""

    @property
    def required(self) -> bool:
        """Whether an answer waits for the log."""

    def record(self, version: LoadedVersion, prediction: Prediction) -> None:
        """Take a prediction. Raises NotLogged where it must be in the log and cannot."""


class Predictor:
    """The one way to a prediction, through whatever listener the rows come. Safe in any thread."""

    def __init__(
        self,
        models: Models,
        observers: Sequence[Observer] = (),
        *,
        refuse_overflow: bool = True,
        listener: str = "",
        recorder: Recorder | None = None,
        quality: QualityPolicy | None = None,
    ) -> None:
        """`refuse_overflow` says whether answers that are infinite for finite rows are refused, see overflow.py.

        `listener` is what its predictions have as theirs, see of(); `recorder` keeps a log of them; `quality` says
        whether each row's quality is judged unasked, and what stands in for a row that is not good.
        """
        self._quality = quality or QualityPolicy()
        self._judges = self._quality.enabled or bool(self._quality.fallback)
        self._recorder = recorder
        self._models = models
        self._observers = tuple(observers)
        self._refuse_overflow = refuse_overflow
        self._listener = listener

    def of(self, listener: str) -> "Predictor":
        """Return the same predictor for a listener: its predictions bear the name."""
        return Predictor(
            self._models,
            self._observers,
            refuse_overflow=self._refuse_overflow,
            listener=listener,
            recorder=self._recorder,
            quality=self._quality,
        )

    @property
    def logs(self) -> bool:
        """Whether there is a log, so that answers bear their ids."""
        return self._recorder is not None

    @property
    def waits(self) -> bool:
        """Whether an answer waits for the disk."""
        return self._recorder is not None and self._recorder.required

    def judges(self, model: str) -> bool:
        """Return whether the quality of a model's rows is told unasked."""
        return self._quality.judges(model)

    def route(self, model: str | None = None, version: str | None = None, key: str = "") -> LoadedVersion:
        """Return the version that answers: the named one, else the model's active one, else the default model's.

        Where an experiment runs, a request that names no version is answered by one of its arms: always the same one
        for the same `key`, and for a request without one ("") by chance. Ask once for each request: one request has
        one version. Raises NotFound for an unknown model or version, NotReady for a model without an active version.
        """
        if version is None and (arms := self._models.arms(model)) is not None:
            return arms.pick(key)
        return self._models.get(model, version)

    def arms(self, model: str | None = None) -> Arms | None:
        """Return the arms of a model's experiment, which say where a key is from; None where none runs."""
        return self._models.arms(model)

    def run(
        self,
        version: LoadedVersion,
        feeds: Mapping[str, Array],
        outputs: Sequence[str] | None = None,
        *,
        started: float | None = None,
        request: str = "",
        shared_by: Sequence[tuple[str, int]] = (),
        keys: Sequence[str] = (),
        places: Sequence[int] = (),
        quality: bool = False,
    ) -> Prediction:
        """Return the prediction of `version` for checked `feeds` (see InputSchema), all outputs unless named.

        `started` is time.perf_counter() at the request's arrival; `request` its id, by default that of the context
        (correlation.py); `shared_by` the (id, rows) of each request, where the rows are of several; `keys` what each
        was routed by; `places` as in Prediction; `quality` says whether the quality of each row is asked for. The feeds
        become part of the prediction, so they must not be changed any more.

        Raises InvalidInput for an unknown output, for what the graph itself refuses, for an overflow, and for a row
        that is not good where the fallback is a refusal; NotLogged where it must be in the log and cannot.
        """
        wanted = version.output_names if outputs is None else outputs
        if not version.known_outputs.issuperset(wanted):
            raise _unknown_output(version, wanted)
        judged = quality or (self._judges and self._quality.judges(version.name))
        names = version.quality.needed(wanted) if judged else wanted
        begun = time.perf_counter()
        answers = version.session.run(feeds, names)
        ended = time.perf_counter()
        finite = self._refuse_overflow and check_overflow(version.manifest.outputs, names, answers, feeds)
        rows = len(next(iter(feeds.values())))
        prediction = Prediction(
            version.name,
            version.version,
            feeds,
            dict(zip(names, answers, strict=True)),
            rows,
            request or (shared_by[0][0] if shared_by else request_id.get()),
            self._listener,
            time.time(),
            begun - (started or begun),
            ended - begun,
            shared_by,
            version.arm,
            keys if version.arm else (),
            self._recorder is not None,
            places,
            finite,
        )
        if judged:
            prediction = judge(self._quality, version, prediction, wanted)
        if self._recorder is not None:
            self._recorder.record(version, prediction)
        for observer in self._observers:
            observer.predicted(prediction)
        return prediction

    def failed(
        self, model: str, version: str, error: ApplianceError, seconds: float = 0.0, arm: str = "", key: str = ""
    ) -> None:
        """Tell the observers of a request that was not answered."""
        for observer in self._observers:
            observer.failed(model, version, error, seconds, arm, key)


def _unknown_output(version: LoadedVersion, outputs: Sequence[str]) -> InvalidInput:
    """Return the error for outputs of which one is none of `version`."""
    unknown = next(name for name in outputs if name not in version.known_outputs)
    expected = ", ".join(version.output_names)
    return InvalidInput("choose the outputs", f"there is no output {quoted(unknown)}", f"ask for {expected}")


def judge(policy: QualityPolicy, version: LoadedVersion, prediction: Prediction, wanted: Sequence[str]) -> Prediction:
    """Return a prediction with the quality of each row, its outputs being those wanted, and the fallback where due.

    Raises InvalidInput where the fallback is a refusal, NotReady where it does not fit the model.
    """
    judge, outputs = version.quality, prediction.outputs
    drifted = policy.drifted(version.name, version.version)
    quality: Sequence[RowQuality] = judge.judged(prediction.inputs, outputs, prediction.rows, drifted)
    answered = {name: outputs[name] for name in wanted}
    rows = policy.stands_in(version.name, quality)
    if rows and judge.prediction in answered:
        answered[judge.prediction] = policy.replaced(version.name, answered[judge.prediction], rows)
        quality = with_fallback(quality, rows)
    of_graph, finite = outputs if rows else None, prediction.finite and not rows
    return msgspec.structs.replace(prediction, outputs=answered, quality=quality, of_graph=of_graph, finite=finite)
