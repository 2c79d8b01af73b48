"""Writes docs/coverage.md: which estimators and options convert exactly, beside plain skl2onnx.

    python -m benchmarks.coverage [-o FILE] [--workers N] [NAME ...]     NAMEs: only these, printed and not written

Every case is trained, converted and asked in a process of its own with a limit of processor time.
"""

import argparse
import datetime
import multiprocessing
import os
import platform
import re
import resource
import signal
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec

from benchmarks import coverage_measure, fresh_rows
from benchmarks.coverage_cases import Case, cases, is_scikit_learn
from benchmarks.coverage_measure import Outcome, Route

DOCS = Path(__file__).parent.parent / "docs" / "coverage.md"
TIME_LIMIT = 300  # processor seconds for each case and route
PATIENCE = 20  # a busy machine may take so many times as long
BASE = ("scikit-learn", "skl2onnx", "onnx", "onnxruntime", "numpy")
BOOSTERS = ("lightgbm", "xgboost", "xgboost-cpu", "catboost")
OPTIONS = "## Options that change the answer"
_MADE = "Made by `make coverage`"
_KEPT = " (the last column was taken over from an earlier run with the same versions)"
_WORDS = {"exact": "exact", "refused": "refused", "wrong": "**wrong**", "fails": "refused"}
_PLAIN_WORDS = {"exact": "exact", "refused": "none", "wrong": "**wrong**", "fails": "error"}
_UNSERVED = """
## Exact, and not served

The graph answers the fresh rows exactly, and `appliance convert` refuses the model, trained as it is here: the proof
found other rows that it answers otherwise (docs/proof.md).
"""
_FRESH = """
## Fresh rows

Each model that is served was asked up to {rows:,} fresh rows near its training rows (benchmarks/fresh_rows.py): {asked}
models, {total:,} rows. {beyond} rows were beyond the tolerance, {flips} labels differed, and {ties} more at near-ties.
"""
_HEAD = "| | options | data | verdict | largest difference | plain skl2onnx |\n|---|---|---|---|---|---|"


class Line(msgspec.Struct, frozen=True):
    """One case with what our route came to, and in words what plain skl2onnx's did."""

    case: Case
    ours: Outcome
    plain: str


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description="Which estimators convert exactly, beside plain skl2onnx.")
    parser.add_argument("names", nargs="*", help="only these estimators; prints and writes nothing")
    parser.add_argument("-o", dest="file", type=Path, default=DOCS)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="cases at a time (default: cores)")
    parser.add_argument(
        "--keep-plain", action="store_true", help="take plain skl2onnx's column from FILE, if made with these versions"
    )
    parser.add_argument("--resume", type=Path, help="file of outcomes: those of the same code in it are not made again")
    given = parser.parse_args()
    started = time.monotonic()
    chosen = [case for case in cases() if not given.names or case.estimator in given.names]
    plain = _plain_words(given.file) if given.keep_plain else {}
    lines = measured(chosen, given.workers, plain, given.resume)
    if given.names:
        print("\n".join(_row(line) for line in lines))
        return
    text = document(lines, time.monotonic() - started)
    given.file.write_text(text.replace(_MADE, _MADE + _KEPT, 1) if given.keep_plain else text, encoding="utf-8")
    print(f"{given.file}: {counts(lines)}")


def measured(
    chosen: list[Case], workers: int, known: dict[tuple[str, ...], str], resume: Path | None = None
) -> list[Line]:
    """Return a line for each case; cases go by position, since some hold functions that cannot cross processes."""
    _shared[:] = chosen
    jobs: list[tuple[int, Route]] = [(position, "ours") for position in range(len(chosen))]
    jobs += [(position, "plain") for position, case in enumerate(chosen) if cells_of(case) not in known]
    earlier = _earlier(resume)
    found = {job: earlier[key] for job in jobs if (key := _key_of(job)) in earlier}
    waiting = [job for job in jobs if job not in found]
    with ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) as pool:
        for job, content in zip(waiting, pool.map(_job, waiting), strict=True):
            found[job] = msgspec.json.decode(content, type=Outcome)
            if resume is not None:
                with resume.open("ab") as file:
                    file.write(msgspec.json.encode((_key_of(job), found[job])) + b"\n")
            print(f"\r{len(found)} of {len(jobs)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    plain = [known.get(cells_of(case)) or _plain_cell(found[i, "plain"]) for i, case in enumerate(chosen)]
    return [Line(case, found[i, "ours"], plain[i]) for i, case in enumerate(chosen)]


def _earlier(resume: Path | None) -> dict[str, Outcome]:
    """Return {key of a job: its outcome} as a run before this one wrote them down."""
    if resume is None or not resume.exists():
        return {}
    return dict(msgspec.json.decode(line, type=tuple[str, Outcome]) for line in resume.read_bytes().splitlines())


def _key_of(job: tuple[int, Route]) -> str:
    return " | ".join([*cells_of(_shared[job[0]]), job[1]])


def _plain_words(file: Path) -> dict[tuple[str, ...], str]:
    """Return {cells of a case: plain skl2onnx's cell} of a document that was made with these versions."""
    if not made_here(file):
        raise SystemExit(f"{file} was made with other versions: leave out --keep-plain")
    return {named: row[-1] for named, row in table(file.read_text(encoding="utf-8")).items()}


def made_here(file: Path = DOCS) -> bool:
    """Return whether a document was made with the versions that are installed."""
    return f" with {_versions()}." in file.read_text(encoding="utf-8")


def table(text: str | None = None) -> dict[tuple[str, ...], list[str]]:
    """Return {cells that name a case: verdict, largest difference, plain skl2onnx's verdict} of a document's text."""
    text = DOCS.read_text(encoding="utf-8") if text is None else text
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)] for line in lines]
    return {(*row[1:4],): row[4:7] for row in rows if len(row) == 8 and row[1]}


def _plain_cell(outcome: Outcome) -> str:
    word = _PLAIN_WORDS[outcome.verdict]
    return word + (f" ({_difference(outcome)})" if outcome.verdict == "wrong" else "")


def cells_of(case: Case) -> tuple[str, ...]:
    """Return the cells that name a case."""
    options = case.options.replace("|", r"\|")
    return case.estimator, f"`{options}`" if options else "", case.data


_shared: list[Case] = []


def _job(job: tuple[int, Route]) -> bytes:
    """Return the outcome of a case, measured in a forked child that may have children itself."""
    position, route = job
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_measure, args=(_shared[position], route, sender))
    child.start()
    sender.close()
    try:
        if not receiver.poll(TIME_LIMIT * PATIENCE):
            return msgspec.json.encode(Outcome("fails", reason=f"it did not end within {TIME_LIMIT:g} s"))
        return receiver.recv_bytes()
    except EOFError:
        child.join()
        late = child.exitcode == -signal.SIGXCPU
        reason = f"it did not end within {TIME_LIMIT} s" if late else "its process died"
        return msgspec.json.encode(Outcome("fails", reason=reason))
    finally:
        child.kill()
        child.join()


def _measure(case: Case, route: Route, sender: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (TIME_LIMIT, TIME_LIMIT))
    try:
        outcome = coverage_measure.measure(case, route, proved=route == "ours")
    except Exception as error:  # noqa: BLE001 - a case that cannot be trained must not end the others
        outcome = Outcome("fails", reason=f"not measured: {type(error).__name__}: {error}")
    sender.send_bytes(msgspec.json.encode(outcome))


def counts(lines: list[Line]) -> str:
    """Return the sentence of counts over the default options of scikit-learn's estimators."""
    default = [line for line in lines if line.case.default]
    ours = Counter(word_of(line.ours).strip("*") for line in default)
    unserved = sum(bool(line.ours.unserved) for line in default)
    kept_out = f" ({unserved} of them are not served)" if unserved else ""
    plain = Counter(line.plain.partition(" (")[0].strip("*") for line in default)
    return (
        f"Of {len(default)} estimators {ours['exact']} are exact{kept_out}, {ours['refused']} refused "
        f"and {ours['wrong']} wrong; "
        f"with plain skl2onnx {plain['exact']} are exact, {plain['none'] + plain['error']} not converted "
        f"and {plain['wrong']} wrong."
    )


def document(lines: list[Line], seconds: float) -> str:
    """Return docs/coverage.md."""
    parts = [_preface(lines, seconds), "## Estimators\n"]
    parts += _tables([line for line in lines if line.case.default])
    parts.append(f"{OPTIONS}\n")
    parts += _tables([line for line in lines if not line.case.default])
    parts.append("## Refusals\n")
    parts += sorted({_refusal(line) for line in lines if word_of(line.ours) == "refused"})
    if unserved := [line for line in lines if line.ours.unserved]:
        parts.append(_UNSERVED)
        parts += sorted({_refusal(line) for line in unserved})
    parts += _fresh(lines)
    return "\n".join(parts) + "\n"


def _fresh(lines: list[Line]) -> list[str]:
    """Return what the fresh rows of all models came to, and a line for each model with one that is off."""
    asked = [line for line in lines if line.ours.asked is not None]
    found = [line.ours.asked for line in asked if line.ours.asked is not None]
    if not found:
        return []
    sums = {name: sum(getattr(one, name) for one in found) for name in ("rows", "beyond", "flips", "near_ties")}
    head = _FRESH.format(
        rows=fresh_rows.ROWS,
        asked=len(found),
        total=sums["rows"],
        beyond=sums["beyond"],
        flips=sums["flips"],
        ties=sums["near_ties"],
    )
    off = [
        f"- **{line.case.estimator}** (`{line.case.options}`): {one.beyond} of {one.rows} rows, {one.flips} labels"
        for line, one in zip(asked, found, strict=True)
        if one.beyond or one.flips
    ]
    return [head, *off]


def _preface(lines: list[Line], seconds: float) -> str:
    others = [line for line in lines if not line.case.default]
    exact, refused = (sum(word_of(line.ours) == word for line in others) for word in ("exact", "refused"))
    return f"""# What converts

{counts(lines)}
Of {len(others)} further sets of options {exact} are exact, {refused} refused \
and {len(others) - exact - refused} wrong.

{_MADE} on {datetime.datetime.now(datetime.UTC):%Y-%m-%d} in {seconds:.0f} s with {_versions()}.

A model is trained on 90 rows measured to two decimals, converted, and asked 120 fresh rows around them, half of them
rounded to two decimals. *Exact*: labels all equal, and numbers within 1e-5 + 1e-5 of their size of scikit-learn's
float64 answer, with the better of float64 and float32 inputs. *Refused*: `appliance convert` refuses the model
and names the step; the reasons, and what to use instead, are at the end. *Not served*: the graph is exact, but
`appliance convert` refuses the model as it was trained here; the reasons are at the end. *Wrong*: the graph gives
another answer; the proof exists to stop such graphs. *None*: skl2onnx has no converter. *Error*: its converter fails,
or onnxruntime does not load its graph. The difference is the largest absolute difference of any number, or the number
of labels that differ.
"""


def _versions() -> str:
    named = [f"Python {platform.python_version()}"]
    for library in (*BASE, *BOOSTERS):
        try:
            named.append(f"{library} {version(library)}")
        except PackageNotFoundError:  # xgboost is installed under one of two names
            continue
    return ", ".join(named)


def _tables(lines: list[Line]) -> list[str]:
    ordered = sorted(lines, key=lambda line: (not is_scikit_learn(line.case.model), *_key(line)))
    parts = []
    for module, group in groupby(ordered, key=lambda line: line.case.module):
        parts.append(f"### {module}\n\n{_HEAD}\n" + "\n".join(_row(line) for line in group) + "\n")
    return parts


def _key(line: Line) -> tuple[str, str, str, str]:
    return line.case.module, line.case.estimator, line.case.options, line.case.data


def word_of(outcome: Outcome) -> str:
    """Return the table's verdict, but for whether it is served."""
    return _WORDS[outcome.verdict]


def _row(line: Line) -> str:
    verdict = word_of(line.ours) + (", not served" if line.ours.unserved else "")
    return "| " + " | ".join([*cells_of(line.case), verdict, _difference(line.ours), line.plain]) + " |"


def _difference(outcome: Outcome) -> str:
    if outcome.verdict in ("refused", "fails"):
        return ""
    if outcome.flips:
        return f"{outcome.flips} labels"
    return outcome.reason or ("" if outcome.largest is None else f"{outcome.largest:.1g}")


def _refusal(line: Line) -> str:
    options = f" (`{line.case.options}`)" if line.case.options and not line.case.default else ""
    why = line.ours.unserved or line.ours.reason
    reason = " ".join(why.removeprefix(f"{line.case.estimator}: ").split())
    return f"- **{line.case.estimator}**{options}: {reason}"


if __name__ == "__main__":
    main()
