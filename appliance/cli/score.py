"""`appliance score`: answers every row of whole files, without a service."""

import hashlib
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from appliance import cgroup, memory, signals
from appliance.batch.formats import FORMATS, format_of, keep_pandas_out, needs_pyarrow, of_name
from appliance.cli import as_json, common_options, options, version_option
from appliance.cli.score_told import Progress, tell
from appliance.config import Config
from appliance.errors import BadRows, Misuse
from appliance.store import durable

if TYPE_CHECKING:
    from appliance.batch.local import Order
    from appliance.batch.pool import Engine
    from appliance.batch.work import Spec
    from appliance.cli.chosen_version import Chosen
    from appliance.cli.observing import Observing
    from appliance.fallback import QualityPolicy

NICE = 10
_STDIN = "-"


@click.command()
@click.argument("model", metavar="NAME|BUNDLE")
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@click.option("-o", "output", metavar="OUTPUT", required=True, help="The file to write; - is standard output.")
@version_option
@click.option(
    "--format",
    "said",
    type=click.Choice(FORMATS),
    default=None,
    help="The input's format, if the file's name does not tell it.",
)
@click.option(
    "--keep", multiple=True, metavar="COLUMN", help="A column of the input to keep; several times; all (default), none."
)
@click.option("--provenance", is_flag=True, help="Add the columns model, version and id to each row.")
@click.option("--bad-rows", type=click.Choice(["stop", "quarantine"]), default="stop", help="What bad rows do.")
@click.option("--max-bad", default="0", metavar="N|P%", help="Bad rows in quarantine that still end with exit code 0.")
@click.option("--processes", type=click.IntRange(1), help="How many score (default: as many as there are processors).")
@click.option("--shard", metavar="I/N", help="Score only the I-th of N parts.")
@click.option("--cluster", metavar="ray://HOST:PORT|local", help="Score on the nodes of a Ray cluster (extra [ray]).")
@click.option("--resume/--no-resume", default=None, help="Continue where a run stopped (default), or start again.")
@click.option("--quality/--no-quality", default=None, help="Say how far to trust each row ([quality] enabled).")
@click.option("--observe", is_flag=True, help="Count the rows for drift; write a sample of them to the prediction log.")
@as_json
@common_options
def score(model: str, inputs: tuple[str, ...], output: str, as_json: bool, **said: Any) -> None:
    """Score every row of the files INPUT with the model NAME, or with a BUNDLE that is not installed.

    The format follows from the file's name: .csv and .jsonl, also with .gz. A folder stands for the files in it. Row k
    of the output is row k of the input. An interrupted run goes on when the command is repeated.
    """
    most_bad = _allowance(said["max_bad"])
    shard = _shard(said["shard"])
    lower_priority()
    # Arrow's own pools keep what they freed; memory.give_back() reaches that of the C library alone.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    from appliance.cli.chosen_version import choose
    from appliance.cli.observing import observing

    files = [Path(name) for name in (model, *inputs) if name != _STDIN]
    config = options().config(files=files)
    chosen = choose(config, model, said["version"])
    order = _order(chosen, inputs, output, said, shard, config.models.overflow == "refuse")
    order = replace(order, digests=as_json, quality=_quality(config, said["quality"], chosen.name))
    if order.output.startswith("s3://"):
        order = replace(order, scratch=_scratch(config, order))
    if not all(form.is_text for form in (order.output_format, *(one.format for one in order.sources))):
        with needs_pyarrow():
            keep_pandas_out()
    processes = said["processes"] or _processors()
    observed = observing(config, chosen, said["observe"])
    engine = _cluster(chosen, said) if said["cluster"] else partial(_engine, chosen, processes, observed)
    progress = Progress(as_json)
    stop = _Stop()
    from appliance.batch import local

    outcome = local.run(order, engine, progress.told, stop.asked, observed.counts)
    progress.end()
    tell(chosen, order, outcome, observed.drift, as_json)
    if outcome.bad > most_bad(outcome.rows):
        first = outcome.first_bad
        where = f"the first is row {first.row} of {first.file}: {first.reason}" if first else "see its quarantine"
        found = f"{outcome.bad} of {outcome.rows} rows are bad; {where}"
        step = f"see {order.output}.rejected.jsonl; --max-bad says how many may be"
        raise BadRows(f"score {order.output}", found, step)


class _Stop:
    """Whether a signal asked to stop: the block that runs is finished, and a checkpoint is written."""

    def __init__(self) -> None:
        self._asked = False
        for number in signals.STOPPING:
            signal.signal(number, self._ask)

    def asked(self) -> bool:
        """Return whether it was asked."""
        return self._asked

    def _ask(self, number: int, frame: object) -> None:
        if self._asked:  # a second signal means: do not wait
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._asked = True


def lower_priority() -> None:
    """Give the host's other programs priority, unless the caller has lowered ours already."""
    current = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, max(current, NICE))


def _engine(chosen: "Chosen", processes: int, observed: "Observing", spec: "Spec") -> "Engine":
    """Return the scorer of blocks."""
    from appliance.batch.pool import Inline, Pool
    from appliance.batch.scoring import Scorer
    from appliance.batch.work import Work

    def load() -> Work:
        memory.keep_little()
        loaded = chosen.load()
        recorder, counter = observed.recorder_of(loaded), observed.counter()
        scorer = Scorer(
            loaded,
            refuse_overflow=spec.refuse_overflow,
            observers=[counter] if counter else [],
            recorder=recorder,
            quality=spec.quality,
        )
        return Work(scorer, spec, recorder.stop if recorder else lambda: None, counter)

    return Inline(load) if processes == 1 else Pool(load, processes)


def _quality(config: Config, said: bool | None, model: str) -> "QualityPolicy":
    """Return whether the rows of a model are judged, and its fallback.

    No row is `drifted`: the drift is that of other rows, and the output must not depend on when it is written.
    """
    from appliance.fallback import QualityPolicy

    fallback = {name: value for name, value in config.quality.fallback.items() if name == model}
    return QualityPolicy(config.quality.enabled if said is None else said, fallback)


def _cluster(chosen: "Chosen", said: dict[str, Any]) -> "Callable[[Spec], Engine]":
    """Return what makes the engine that scores on a cluster. Raises Misuse."""
    from appliance.batch.cluster import LOCAL, RayCluster, Shipped, check_address

    address = said["cluster"]
    check_address(address)
    if said["observe"]:
        found = "the nodes of a cluster have neither the prediction log nor the drift of this host"
        raise Misuse(f"score with --observe and --cluster {address}", found, "leave one of them out")
    shipped = Shipped(chosen.members(), chosen.digest)
    actors = said["processes"] or (_processors() if address == LOCAL else None)
    return lambda spec: RayCluster(address, shipped, spec, actors)


def _order(
    chosen: "Chosen",
    inputs: tuple[str, ...],
    output: str,
    said: dict[str, Any],
    shard: tuple[int, int] | None,
    refuse: bool,
) -> "Order":
    """Return the options of a run."""
    from appliance.batch.inputs import sources
    from appliance.batch.local import Order

    found = sources(inputs, said["said"] or "")
    for name in inputs:
        if Path(name).is_dir() and Path(output).absolute().parent == Path(name).absolute():
            raise Misuse(f"write {output}", f"it lies in {name}, which is scored", "write it to another folder")
    keep = _kept(said["keep"])
    output, form, folder = _output(output, said["said"] or "", found[0].format, shard)
    return Order(
        sources=found,
        output=output,
        output_format=form,
        bundle=chosen.digest,
        schema=chosen.schema,
        keep=keep,
        provenance=said["provenance"],
        refuse_overflow=refuse,
        quarantine=said["bad_rows"] == "quarantine",
        shard=shard or (1, 1),
        folder=folder,
        resume=said["resume"],
    )


def _scratch(config: Config, order: "Order") -> Path:
    """Return the folder in the state folder for an output that is an object, until it is whole."""
    folder = config.state_dir / "score" / hashlib.sha256(order.output.encode()).hexdigest()[:16]
    with durable.reported(f"score {order.output}"):
        durable.make_folder(folder, within=config.state_dir if config.state_dir.exists() else None)
    return folder


def _output(output: str, said: str, first: Any, shard: tuple[int, int] | None) -> tuple[str, Any, bool]:
    """Return what is written, its format, and whether it is a folder; of a part the file in the folder that was named.

    Raises Misuse.
    """
    form = format_of(output, said or first.suffix.removeprefix("."))
    tried = f"write {output}"
    if output == _STDIN:
        if form.kind == "parquet":
            raise Misuse(tried, "a Parquet file is not written to a pipe", "say --format arrow")
        return output, form, False
    if output.startswith("s3://"):
        if of_name(output) is None:
            step = "name an object" if shard is None else "name one for each part, as s3://BUCKET/scored/part-1.csv"
            raise Misuse(tried, "its name ends in no known format", step)
        return output, form, False
    path = Path(output)
    if shard and of_name(path.name) is None:
        path.mkdir(parents=True, exist_ok=True)
        return str(path / f"part-{shard[0]}-of-{shard[1]}{form.suffix}"), form, False
    folder = form.kind == "parquet" and of_name(path.name) is None
    if path.is_dir() and (not folder or any(path.iterdir())):
        step = "name one that is not there" if folder else "name a file, or score one part: --shard I/N"
        raise Misuse(tried, "it is a folder" + (" that is not empty" if folder else ""), step)
    if not path.absolute().parent.is_dir():
        raise Misuse(tried, f"there is no folder {path.parent}", f"mkdir -p {path.parent}")
    return str(path.absolute().parent / path.name) if output.endswith("/") else output, form, folder


def _kept(names: tuple[str, ...]) -> list[str] | None:
    """Return the columns to keep, None for all."""
    if not names or names == ("all",):
        return None
    return [] if names == ("none",) else list(dict.fromkeys(names))


def _allowance(text: str) -> Callable[[int], float]:
    """Return how many of so many rows may be bad."""
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf") or (text.endswith("%") and number > 100):
        raise Misuse(f"--max-bad {text}", "it is neither a number nor a percentage", "say as in --max-bad 0.1%")
    return (lambda rows: rows * number / 100) if text.endswith("%") else (lambda rows: number)


def _shard(text: str | None) -> tuple[int, int] | None:
    """Return (I, N)."""
    if text is None:
        return None
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise Misuse(f"--shard {text}", "it is no part of so many", "say as in --shard 2/4")
    return int(part), int(parts)


def _processors() -> int:
    """Return how many processors this process may use."""
    most = cgroup.limits().processors
    here = len(os.sched_getaffinity(0))
    return max(1, min(here, int(most) if most else here))
