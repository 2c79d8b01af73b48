"""Whether `appliance score` gives the answers of `/predict`, for a model of the coverage table and 100 of its rows."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from appliance.batch import local
from appliance.batch.formats import Format
from appliance.batch.inputs import sources
from appliance.batch.pool import Inline
from appliance.batch.scoring import OneVersion, Scorer
from appliance.batch.work import Spec, Work
from appliance.bundle import archive
from appliance.errors import InvalidInput
from appliance.inference.version import LoadedVersion
from appliance.predictor import Predictor
from appliance.response import response_format
from benchmarks.coverage_cases import Case
from benchmarks.coverage_data import draw
from benchmarks.coverage_measure import fitted
from convert import convert_model

ROWS = 100


def served(case: Case, folder: Path) -> LoadedVersion:
    """Return the model of a case, trained, converted and loaded.

    Raises what `appliance convert` refuses it with: ConversionRefused, InvalidInput.
    """
    data = draw(case.data)
    texts = isinstance(data.rows, list)
    if texts and not isinstance(data.rows[0], str):
        raise InvalidInput("convert the model", "its rows are no table that could be given")
    sample = pd.DataFrame({"texts": data.rows}) if texts else data.rows
    content = convert_model(fitted(case.model, data), sample).bundle()
    path = folder / "model-0.1.0.bundle"
    path.write_bytes(content)
    with archive.opened(path, most_bytes=10**9) as opened:
        return LoadedVersion(path, opened=opened)


def rows_of(case: Case, version: LoadedVersion) -> list[dict[str, Any]]:
    """Return fresh rows of a case by column name, as JSON has them."""
    fresh = draw(case.data).fresh
    columns = version.schema.columns
    if isinstance(fresh, pd.DataFrame):
        rows = fresh.head(ROWS).to_dict("records")
    elif isinstance(fresh, list):
        rows = [{columns[0]: text} for text in fresh[:ROWS]]
    else:
        rows = [dict(zip(columns, row, strict=True)) for row in np.asarray(fresh)[:ROWS].tolist()]
    return [{name: _plain(value) for name, value in row.items()} for row in rows]


def differences(version: LoadedVersion, rows: Sequence[dict[str, Any]], folder: Path) -> list[str]:
    """Return what score answers otherwise than /predict, in both formats; [] for nothing."""
    good = [row for row in rows if _is_taken(version, row)]
    expected = _predicted(version, good) if good else []
    found = []
    for kind, write in (("jsonl", _write_json), ("csv", _write_csv)):
        source = folder / f"rows.{kind}"
        write(source, rows, version.schema.columns)
        answers = [
            one
            for one in _scored(version, source, folder)
            if one["prediction" if "prediction" in one else next(iter(one))] is not None
        ]
        if len(answers) != len(good):
            found.append(f"{kind}: {len(answers)} rows answered, {len(good)} by /predict")
        found += [
            f"{kind} row {place}: {ours} instead of {theirs}"
            for place, (ours, theirs) in enumerate(zip(answers, expected, strict=False))
            if ours != theirs
        ]
    return found


def _predicted(version: LoadedVersion, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return /predict's answers by column, as its JSON has them."""
    form = response_format(version)
    prediction = Predictor(OneVersion(version)).run(version, version.schema.from_rows(rows), form.outputs)
    answer = msgspec.json.decode(form.to_json(prediction))
    found: list[dict[str, Any]] = []
    for place in range(len(rows)):
        one = _named("prediction", answer["prediction"][place])
        if form.probability:
            one |= _named("probability", answer["probability"][place])
        if form.score:
            one |= _named("score", answer["score"][place])
        found.append(one)
    return found


def _named(name: str, value: Any) -> dict[str, Any]:
    """Return a value of an answer by column."""
    if isinstance(value, dict):
        return {f"{name}_{label}": number for label, number in value.items()}
    if not isinstance(value, list):
        return {name: value}
    flat = np.array(value).reshape(-1).tolist()
    return {name: flat[0]} if len(flat) == 1 else {f"{name}_{index}": one for index, one in enumerate(flat)}


def _scored(version: LoadedVersion, source: Path, folder: Path) -> list[dict[str, Any]]:
    """Return the answers of a run."""
    output = folder / "scored.jsonl"
    order = local.Order(
        sources([str(source)]), str(output), Format("jsonl"), version.digest, version.schema, keep=[], quarantine=True
    )

    def engine(spec: Spec) -> Inline:
        return Inline(lambda: Work(Scorer(version), spec))

    local.run(order, engine)
    return [msgspec.json.decode(line) for line in output.read_bytes().splitlines()]


def _is_taken(version: LoadedVersion, row: dict[str, Any]) -> bool:
    """Return whether /predict takes a row."""
    try:
        _predicted(version, [row])
    except InvalidInput:
        return False
    return True


def _write_json(path: Path, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))


def _write_csv(path: Path, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_MINIMAL)
        writer.writerow(columns)
        writer.writerows([[_cell(row.get(name)) for name in columns] for row in rows])


def _cell(value: Any) -> Any:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else value


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return None if value is None or (isinstance(value, float) and math.isnan(value)) else value
