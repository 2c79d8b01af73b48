"""Runs of a few files with small real bundles, in this process; the command has tests of its own."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.batch import local
from appliance.batch.formats import format_of
from appliance.batch.inputs import sources
from appliance.batch.pool import Inline, Pool
from appliance.batch.scoring import Scorer
from appliance.batch.work import Facts, Spec, Work
from appliance.bundle import archive
from appliance.inference.version import LoadedVersion

Load = Callable[..., LoadedVersion]


class FixedWork(Work):
    """Work on blocks of a fixed number of rows, so that small files have many."""

    rows = 64

    def facts(self, choose: bool) -> Facts:
        return Facts(super().facts(False).header, self.rows if choose else 0)


@pytest.fixture(scope="session")
def load(tmp_path_factory, make_bundle) -> Load:
    """Return a function that loads a bundle of a kind, once a session: load("labels")."""
    folder, loaded = tmp_path_factory.mktemp("bundles"), {}

    def once(kind: str = "labels", version: str = "1.0.0") -> LoadedVersion:
        if (kind, version) not in loaded:
            path = make_bundle(folder, kind, version, kind=kind)
            with archive.opened(path, most_bytes=10**9) as opened:
                loaded[kind, version] = LoadedVersion(path, opened=opened)
        return loaded[kind, version]

    return once


class Scored:
    """What a run left behind."""

    def __init__(self, path: Path, outcome: local.Outcome) -> None:
        self.path = path
        self.outcome = outcome
        self.bytes = path.read_bytes() if path.is_file() else b""

    @property
    def lines(self) -> list[str]:
        return self.bytes.decode().splitlines()

    @property
    def documents(self) -> list[Any]:
        return [json.loads(line) for line in self.lines]

    @property
    def rejected(self) -> list[Any]:
        path = Path(f"{self.path}.rejected.jsonl")
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def order(version: LoadedVersion, inputs: list[Path], output: Path, said: str = "", **rest: Any) -> local.Order:
    """Return the order of a run."""
    return local.Order(
        sources=sources([str(path) for path in inputs], said),
        output=str(output),
        output_format=format_of(output.name, said),
        bundle=version.digest,
        schema=version.schema,
        **rest,
    )


def run(
    version: LoadedVersion,
    inputs: list[Path] | Path,
    output: Path,
    *,
    rows: int = 64,
    processes: int = 1,
    observers: Any = (),
    report: Any = lambda tally: None,
    stopping: Any = lambda: False,
    said: str = "",
    **rest: Any,
) -> Scored:
    """Score files in blocks of so many rows."""

    def engine(spec: Spec) -> Inline | Pool:
        def work() -> Work:
            made = FixedWork(Scorer(version, refuse_overflow=spec.refuse_overflow, observers=observers), spec)
            made.rows = rows
            return made

        return Inline(work) if processes == 1 else Pool(work, processes)

    inputs = inputs if isinstance(inputs, list) else [inputs]
    return Scored(output, local.run(order(version, inputs, output, said, **rest), engine, report, stopping))


@pytest.fixture(scope="session")
def score() -> Callable[..., Scored]:
    """Return run, see there."""
    return run
