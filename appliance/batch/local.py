"""Scores files on this host, from the first row or from where another run stopped.

A run looks at the files, loads the version, reads blocks in order, scores them (in this process or in several), appends
them to the partial output, and writes a checkpoint every few seconds. See checkpoint.py.
"""

import hashlib
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec

from appliance import memory
from appliance.batch import checkpoint
from appliance.batch.blocks import Block, Position
from appliance.batch.checkpoint import Job, Progress
from appliance.batch.formats import Format, needs_pyarrow
from appliance.batch.inputs import Source, is_remote
from appliance.batch.pool import Engine
from appliance.batch.reading import Inputs
from appliance.batch.sinks import FileSink, PipeSink
from appliance.batch.work import Rejected, Result, Spec
from appliance.errors import BadRows, InvalidInput, Misuse, StoreError, Unfinished
from appliance.fallback import QualityPolicy
from appliance.inference.tensors import InputSchema

STDOUT = "-"
REJECTED = ".rejected.jsonl"
PROGRESS = ".progress.json"


@dataclass(frozen=True, slots=True)
class Order:
    """What a run is asked for; see `appliance score --help`."""

    sources: list[Source]
    output: str
    """A path; `-` is standard output."""
    output_format: Format
    bundle: str
    """Digest of the version's manifest."""
    schema: InputSchema
    keep: list[str] | None = None
    provenance: bool = False
    refuse_overflow: bool = True
    quality: QualityPolicy = field(default_factory=QualityPolicy)
    quarantine: bool = False
    shard: tuple[int, int] = (1, 1)
    """(I, N): of N parts the I-th, from 1."""
    scratch: Path = Path()
    """The folder on this host for an output that is an object, until it is whole."""
    digests: bool = False
    """Whether to tell the SHA-256 of the inputs, for which they are read once more."""
    folder: bool = False
    """Whether the output is a folder of Parquet files."""
    resume: bool | None = None
    """False starts again; None and True continue if there is a checkpoint."""


@dataclass(slots=True)
class Tally:
    """How far a run is."""

    rows: int = 0
    bad: int = 0
    resumed: int = 0
    """Rows that were scored by runs before this one."""
    share: float | None = None
    """Of the input's bytes, 0 to 1; None where their number is not known."""
    first_row_seconds: float | None = None
    """From the start to the first rows written."""
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self.started


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did."""

    rows: int
    bad: int
    resumed: int
    output: checkpoint.Written
    block_rows: int
    seconds: float
    first_row_seconds: float | None
    inputs: list[tuple[str, str, str | None]]
    """(name, id, SHA-256 where it was asked for) of each file; of a pipe there is none."""
    first_bad: Rejected | None


class Counts(Protocol):
    """Adds up what the blocks of a run count, in order, for drift."""

    def add(self, data: bytes) -> None:
        """Add the counts of the next block."""

    def checkpoint(self) -> bytes:
        """Return all so far, for resume()."""

    def resume(self, data: bytes) -> None:
        """Go on with what checkpoint() returned; b"" is nothing."""

    def keep(self, run: str, seconds: float) -> object:
        """Keep all that was counted, unless what a `run` of this name counted is kept already."""


class Run:
    """One run; its files are open."""

    def __init__(self, order: Order, stack: ExitStack, counts: Counts | None = None) -> None:
        """Look at the files. Raises Misuse, InvalidInput where a file lacks a required column."""
        self.order = order
        self._counts = counts
        self.tally = Tally()
        names_columns = order.output_format.kind != "jsonl" and order.keep is None
        self.inputs = Inputs(order.sources, order.schema, stack, names_columns=names_columns)
        self.opened = self.inputs.opened
        self.spec = Spec(
            self.inputs.files, order.output_format, order.keep, order.provenance, order.refuse_overflow, order.quality
        )
        self.is_remote = is_remote(order.output)
        self.path = order.scratch / order.output.rpartition("/")[2] if self.is_remote else Path(order.output)
        self.is_pipe = order.output == STDOUT or self.path.is_fifo() or str(self.path).startswith("/dev/")
        self.can_resume = not self.is_pipe and not any(one.is_pipe for one in self.opened)
        self._progress_path = self.path.with_name(self.path.name + PROGRESS)
        self._stack = stack
        self._first_bad: Rejected | None = None
        self._refuse_own_input()

    def score(
        self,
        engine: Engine,
        report: Callable[[Tally], None] = lambda tally: None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> Outcome:
        """Score all rows; `report` is told of each block, `stopping` asked after it.

        Raises BadRows at a bad row unless they go to quarantine, Unfinished when told to stop, InvalidInput where a
        file as a whole is wrong, StoreError where the output cannot be written.
        """
        try:
            return self._score(engine, report, stopping)
        except BrokenPipeError:
            raise
        except OSError as error:
            step = "make room, and repeat the command" + (": it goes on there" if self.can_resume else "")
            raise StoreError(f"write {self.order.output}", error.strerror or str(error), step) from error

    def _score(self, engine: Engine, report: Callable[[Tally], None], stopping: Callable[[], bool]) -> Outcome:
        """Score all rows."""
        before = self._before()
        if before and self.is_remote and self.path.exists():  # only the upload failed
            self.tally.rows = self.tally.resumed = before.rows
            self.tally.bad = before.bad
            return self._told(checkpoint.Written(*_size_and_digest(self.path)), before.block_rows)
        facts = engine.start(before is None)
        sink = self._sink(self.path, before.output if before else None)
        refuge = Path(f"{self.path}{REJECTED}")
        rejected = None if self.is_pipe else self._sink(refuge, before.rejected if before else None)
        state = before or Progress(
            checkpoint.FORMAT, self._job(), facts.block_rows, Position(), sink.written, checkpoint.Written()
        )
        self.tally.rows = self.tally.resumed = state.rows
        self.tally.bad = state.bad
        if before is None:
            sink.append(facts.header)
            state = msgspec.structs.replace(state, output=sink.written)
        if self._counts:
            self._counts.resume(state.counts)
        keeper = _Keeper(self._progress_path if self.can_resume else None, state, sink, rejected, self._counts)
        try:
            for block, result in engine.results(self.inputs.blocks(state.position, state.block_rows, self.order.shard)):
                self._written(block, result, sink, rejected)
                keeper.advance(block.end, self.tally)
                report(self.tally)
                if stopping():
                    raise Unfinished(f"score {self.order.output}", "it was told to stop", self._how_to_go_on())
        except OSError:
            keeper.keep_what_fits()
            raise
        except (Unfinished, InvalidInput):
            if self.tally.rows:
                keeper.keep()
            else:  # nothing is lost
                sink.discard()
                if rejected:
                    rejected.discard()
            raise
        self.inputs.check_unchanged()
        if self.is_remote or self._counts:
            keeper.keep()
        if self._counts:  # before the output has its name: a run that is killed in between comes here once more
            self._counts.keep(self._name(), self.tally.seconds)
        return self._finished(sink, rejected, state.block_rows)

    def _written(self, block: Block, result: Result, sink: Any, rejected: Any) -> None:
        """Append what became of a block. Raises BadRows."""
        if result.first and not self.order.quarantine:
            raise _bad_row(result.first, self._how_to_go_on())
        self._first_bad = self._first_bad or result.first
        sink.append(result.output)
        if result.rejected and rejected:
            rejected.append(result.rejected)
        if self._counts:
            self._counts.add(result.counts)
        self.tally.rows += result.rows
        self.tally.bad += result.bad
        self.tally.share = self.inputs.share(block)
        if self.tally.first_row_seconds is None:
            self.tally.first_row_seconds = self.tally.seconds

    def _finished(self, sink: Any, rejected: Any, rows: int) -> Outcome:
        """Give the output its name, and return what was done."""
        if rejected:
            if rejected.size:
                rejected.publish()
            else:
                rejected.discard()
                rejected.path.unlink(missing_ok=True)  # left by an earlier run, whose output is replaced now
        return self._told(sink.publish(), rows)

    def _told(self, written: checkpoint.Written, rows: int) -> Outcome:
        """Delete everything but the output, and return what was done."""
        if self.is_remote:
            self._uploaded()
        checkpoint.remove(self._progress_path)
        digests = self.order.digests
        inputs = [(one.source.name, one.mark.id, one.sha256() if digests else None) for one in self.opened]
        tally = self.tally
        return Outcome(
            tally.rows, tally.bad, tally.resumed, written, rows, tally.seconds, tally.first_row_seconds, inputs,
            self._first_bad,
        )  # fmt: skip

    def _uploaded(self) -> None:
        """Write the output, and the rows in quarantine, as objects. Raises Unfinished."""
        from appliance.batch import remote

        for end in (REJECTED, ""):
            file = Path(f"{self.path}{end}")
            if file.exists():
                remote.upload(file, self.order.output + end)
        for end in (REJECTED, ""):
            Path(f"{self.path}{end}").unlink(missing_ok=True)

    def _before(self) -> Progress | None:
        """Return where another run stopped, None where there is none. Raises StoreError where it was another job's."""
        if not self.can_resume or self.order.resume is False:
            return None
        found = checkpoint.read(self._progress_path)
        whole = self.is_remote and self.path.exists()
        if found is None or not (whole or self.path.with_name(f"{self.path.name}.partial").exists()):
            return None
        reason = checkpoint.differs(found.job, self._job())
        if reason:
            step = f"start again with --no-resume, or delete {self._progress_path}"
            raise StoreError(f"go on with {self.path}", reason, step)
        return found

    def _job(self) -> Job:
        """Return what this run is asked to do."""
        order = self.order
        options = {
            "--keep": "all" if order.keep is None else "\n".join(order.keep),
            "--provenance": str(order.provenance),
            "--shard": "/".join(map(str, order.shard)),
            "--format": str(order.output_format.suffix),
            "overflow": str(order.refuse_overflow),
            "quality": str(order.quality.enabled),
            "fallback": repr(dict(order.quality.fallback)),
        }
        inputs = [(one.source.name, one.mark.size, one.mark.mtime_ns, one.mark.id) for one in self.opened]
        return Job(order.bundle, inputs, options)

    def _name(self) -> str:
        """Return what stands for the rows of this run and the version, whatever becomes of them."""
        parts = [self.order.bundle, "/".join(map(str, self.order.shard)), *(one.mark.id for one in self.opened)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

    def _refuse_own_input(self) -> None:
        """Raise Misuse where the output is one of the inputs, or lies in a folder that is scored."""
        for one in self.opened:
            if self.is_remote or one.is_remote:
                same = one.source.name == self.order.output
                if same:
                    raise Misuse(f"write {self.order.output}", "it is one of the inputs", "name another output")
            elif not one.is_pipe and self.path.exists() and self.path.samefile(one.source.name):
                raise Misuse(f"write {self.path}", "it is one of the inputs", "name another output")

    def _sink(self, path: Path, written: checkpoint.Written | None) -> Any:
        """Return where a file's bytes go."""
        if self.is_pipe:
            sink: Any = PipeSink(None if self.order.output == STDOUT else path)
        elif path == self.path and not self.order.output_format.is_text:
            with needs_pyarrow():
                from appliance.batch import arrow_files
            sink = arrow_files.ArrowSink(path, written, self.order.output_format.kind, self.order.folder)
        else:
            sink = FileSink(path, written)
        self._stack.callback(sink.close)
        return sink

    def _how_to_go_on(self) -> str:
        """Return what to do after a run that stopped."""
        if not self.can_resume:
            return "a run from a pipe cannot continue: start again"
        return "repeat the command: it goes on there"


class _Keeper:
    """Notes how far a run is, every few seconds."""

    def __init__(self, path: Path | None, state: Progress, sink: Any, rejected: Any, counts: Counts | None) -> None:
        self._counts = counts
        self._path = path
        self._state = state
        self._sink = sink
        self._rejected = rejected
        self._kept = time.monotonic()
        self._kept_bytes = sink.size

    def advance(self, position: Position, tally: Tally) -> None:
        """Take note that all before `position` is written. Raises OSError."""
        self._state = msgspec.structs.replace(
            self._state,
            position=position,
            rows=tally.rows,
            bad=tally.bad,
            output=self._sink.written,
            rejected=self._rejected.written if self._rejected else checkpoint.Written(),
        )
        late = time.monotonic() - self._kept >= checkpoint.SECONDS
        if late or self._sink.size - self._kept_bytes >= checkpoint.BYTES:
            self.keep()

    def keep(self) -> None:
        """Note it now: first what is written, then the note. Raises OSError."""
        if self._path is None:
            return
        self._sink.sync()
        self._rejected.sync()
        counts = self._counts.checkpoint() if self._counts else b""
        self._state = msgspec.structs.replace(self._state, counts=counts)
        checkpoint.write(self._path, self._state)
        self._kept, self._kept_bytes = time.monotonic(), self._sink.size
        memory.give_back()

    def keep_what_fits(self) -> None:
        """Note the last whole block after a write that failed: what is behind it makes room for the note."""
        if self._path is None or not self._state.rows:
            return
        with suppress(OSError, StoreError):
            self._sink.cut(self._state.output.bytes)
            self._rejected.cut(self._state.rejected.bytes)
            self.keep()


def _size_and_digest(path: Path) -> tuple[int, str]:
    """Return a file's size and SHA-256."""
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()


def _bad_row(bad: Rejected, step: str) -> BadRows:
    """Return the error for the first bad row."""
    where = f"row {bad.row}" + (f" (line {bad.line_number})" if bad.line_number else "")
    column = f", column {bad.column!r}" if bad.column else ""
    step = f"mend it, or set bad rows apart with --bad-rows quarantine; {step}"
    return BadRows(f"score {bad.file}, {where}{column}", bad.reason, step)


def run(
    order: Order,
    engine: Callable[[Spec], Engine],
    report: Callable[[Tally], None] = lambda tally: None,
    stopping: Callable[[], bool] = lambda: False,
    counts: Counts | None = None,
) -> Outcome:
    """Score the files of an order; `engine` makes the scorer of blocks, which gives `counts`. Raises as Run.score()."""
    with ExitStack() as stack:
        current = Run(order, stack, counts)
        made = engine(current.spec)
        stack.callback(made.close)
        return current.score(made, report, stopping)
