"""Searches for the row on which graph and original differ most, by moving one column of a row at a time.

Two searches share each call of the two sides. *Climbers* are rows that keep each move that enlarges their share of the
tolerance (a random coordinate search: Rastrigin 1963; a step that paid is made again twice as far: Hooke and Jeeves
1961), and begin again elsewhere when none does.
*Stretches* narrow down where an answer of the original jumps along a column: a graph that compares a little otherwise
shows it only there, and no share leads to such a place.

All is drawn with the proof's seed, and the number of rows is the limit: the same model and sample give the same rows.
"""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from convert.model.arrays import Array, Mask
from convert.proof.certificate import Search
from convert.proof.moves import ColumnMoves
from convert.proof.rows import SEED

MOST_ROWS = 4_000
MOST_SECONDS = 120.0
"""Of processor time, after which a search ends: a model that takes so long for MOST_ROWS rows is a rare one."""
CLIMBERS = 32
_MOVES = 4  # of each climber in each round
_PATIENCE = 4  # rounds without a gain, after which a climber begins elsewhere
_STRETCHES = 8
_SECTIONS = 8  # of a stretch, in each round
_NARROW = 2.0**-27  # of a number's size: nearer than one float32 to the next
_SMOOTH = 1 / 30  # a part in which the answer changes so much less than in the whole holds no jump
_JUMP = 1e-6  # of an answer's size, or absolute: less may be rounding
_REFUSALS = 2  # after so many, and no row taken, a move is not made again

Floats = NDArray[np.float64]
Table: TypeAlias = dict[str, Array]


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of rows: which of them both sides answered, and of those alone the rest.

    `share` [rows] is how much of the tolerance each took, beyond 1 where it is off; `answer` [rows, numbers] is what
    the original answers, as numbers.
    """

    taken: Mask
    share: Floats
    answer: Floats


class Ask(Protocol):
    """Asks both sides a table of rows, and counts what they answer for the certificate."""

    def __call__(self, rows: pd.DataFrame) -> Asked:
        """Return what came of the rows."""


def search(
    ask: Ask,
    moves: Mapping[str, ColumnMoves],
    sample: pd.DataFrame,
    costly: pd.DataFrame,
    most_rows: int = MOST_ROWS,
    enough: float = 1.0,
) -> Search:
    """Return what a search came to that asks about `most_rows` rows.

    It begins with `costly` rows and rows of the sample, and ends where a row takes more than `enough` of the tolerance;
    `moves` are {column: the moves of its values}.
    """
    return _Search(ask, moves, sample, costly, most_rows, enough).run()


@dataclass(slots=True)
class _Stretch:
    """A row and two numbers of one of its columns, between which the original's answer jumps, it seems."""

    row: dict[str, Any]
    column: str
    low: float
    high: float
    answers: tuple[Floats, Floats]
    first: float

    def inner(self) -> Floats:
        """Return the numbers at which the stretch is cut."""
        return np.asarray(self.low + (self.high - self.low) * np.arange(1, _SECTIONS) / _SECTIONS)

    def narrowed(self, answers: Floats) -> bool:
        """Keep the section in which the answer changes most; return whether the answer still jumps there."""
        ends = [self.low, *self.inner(), self.high]
        own = np.vstack([self.answers[0], answers, self.answers[1]])
        changes = _apart(own[:-1], own[1:])
        most = int(np.argmax(changes))
        self.low, self.high, self.answers = ends[most], ends[most + 1], (own[most], own[most + 1])
        return bool(changes[most] > _SMOOTH * self.first)

    @property
    def is_narrow(self) -> bool:
        """Whether both ends are the same number to float32."""
        return abs(self.high - self.low) <= _NARROW * max(abs(self.low), abs(self.high))


class _Search:
    """One search under way; tables are {column: values [rows]}."""

    def __init__(
        self,
        ask: Ask,
        moves: Mapping[str, ColumnMoves],
        sample: pd.DataFrame,
        costly: pd.DataFrame,
        most_rows: int,
        enough: float,
    ) -> None:
        self.ask, self.moves, self.enough = ask, moves, enough
        self.names = list(moves)
        self.sample: Table = {str(name): values.to_numpy() for name, values in sample.items()}
        self.rng = np.random.default_rng((SEED, 20))
        self.left = self.most_rows = most_rows
        self.rounds = self.restarts = self.jumps = self.tried = 0
        self.share = 0.0
        self.order: list[int] = []
        self.refused: Counter[tuple[str, str]] = Counter()
        self.answered: Counter[tuple[str, str]] = Counter()
        self.stretches: list[_Stretch] = []
        fresh = self._of_sample(CLIMBERS - len(costly))
        self.climbers: Table = {n: np.concatenate([costly[n].to_numpy(), own]) for n, own in fresh.items()}
        self.own = np.full(CLIMBERS, -1.0)  # nothing yet
        self.answers: Floats = np.zeros((CLIMBERS, 1))
        self.waited = np.zeros(CLIMBERS, dtype=int)
        self.paid: dict[int, tuple[str, float]] = {}  # {climber: the column whose step paid last, and that step}

    def run(self) -> Search:
        end = time.process_time() + MOST_SECONDS
        is_late = False
        if self.moves:
            self._begin()
            while self.left > 0 and self.share <= self.enough and not is_late:
                self._round()
                is_late = time.process_time() > end
        stopped: Literal["rows", "found", "seconds"] = "rows"
        if self.share > self.enough:
            stopped = "found"
        elif self.left > 0 and is_late:
            stopped = "seconds"
        return Search(
            rows=self.tried,
            most_rows=self.most_rows,
            rounds=self.rounds,
            restarts=self.restarts,
            jumps=self.jumps,
            largest_share=self.share if np.isfinite(self.share) else None,
            stopped=stopped,
        )

    def _of_sample(self, count: int) -> Table:
        """Return rows of the sample, each once before any comes again."""
        rows = len(next(iter(self.sample.values())))
        while len(self.order) < count:
            self.order += self.rng.permutation(rows).tolist()
        picked, self.order = self.order[:count], self.order[count:]
        return {name: values[picked] for name, values in self.sample.items()}

    def _asked(self, *tables: Table) -> tuple[Asked, Array]:
        """Return what came of the rows of some tables, and of each row its place among those that were taken, or -1."""
        kept = [table for table in tables if table]
        columns = {name: np.concatenate([table[name] for table in kept]) for name in self.sample}
        # The dtype is given, since pandas would turn objects into its own text type, in which None becomes NaN.
        asked = self.ask(pd.DataFrame({n: pd.Series(own, dtype=own.dtype) for n, own in columns.items()}))
        self.left -= len(asked.taken)
        self.tried += int(asked.taken.sum())
        self.share = max(self.share, float(asked.share.max(initial=0.0)))
        return asked, np.where(asked.taken, np.cumsum(asked.taken) - 1, -1)

    def _begin(self) -> None:
        """Ask the rows that the climbers begin with, and with them what is worth a row in each column."""
        values = [(name, value) for name, own in self.moves.items() for value in own.swept]
        chosen = self.rng.permutation(len(values))[: self.left // 3]
        table = {name: own[np.arange(len(chosen)) % CLIMBERS] for name, own in self.climbers.items()}
        for place, index in enumerate(chosen):
            name, value = values[index]
            table[name][place] = value
        asked, places = self._asked(self.climbers, table)
        self._settle(np.arange(CLIMBERS), asked, places[:CLIMBERS])

    def _settle(self, which: Array, asked: Asked, places: Array) -> None:
        """Take note of what came of climbers at the rows where they begin; one that was refused begins elsewhere."""
        if asked.answer.shape[1] != self.answers.shape[1]:
            self.answers = np.zeros((CLIMBERS, asked.answer.shape[1]))
        taken, own = which[places >= 0], places[places >= 0]
        self.own[taken], self.answers[taken], self.waited[taken] = asked.share[own], asked.answer[own], 0
        self.own[which[places < 0]], self.waited[which[places < 0]] = -1.0, _PATIENCE

    def _round(self) -> None:
        """Move each climber or let it begin elsewhere, cut each stretch, and ask all of that at once."""
        self.rounds += 1
        waiting = np.flatnonzero(self.waited >= _PATIENCE)
        self.restarts += len(waiting)
        for name, own in self._of_sample(len(waiting)).items():
            self.climbers[name][waiting] = own
        parents = np.tile(np.flatnonzero(self.waited < _PATIENCE), _MOVES)
        columns = [self.names[index] for index in self.rng.integers(0, len(self.names), len(parents))]
        kinds = [self._kind(name) for name in columns]
        children = self._moved(parents, columns, kinds)
        self._repeat(children, parents, columns, kinds)
        fresh = {name: own[waiting] for name, own in self.climbers.items()}
        asked, places = self._asked(children, fresh, self._cut())
        for column, kind, place in zip(columns, kinds, places, strict=False):
            (self.answered if place >= 0 else self.refused)[column, kind] += 1
        first, second = len(parents), len(parents) + len(waiting)
        self._narrow(asked, places[second:])
        self._stretch(children, parents, columns, asked, places[:first])
        self._climb(children, parents, columns, asked, places[:first])
        self._settle(waiting, asked, places[first:second])

    def _kind(self, name: str) -> str:
        """Return a move of a column by chance, of those that are not always refused."""
        kinds = [k for k in self.moves[name].moves if self.answered[name, k] or self.refused[name, k] < _REFUSALS]
        return kinds[int(self.rng.integers(len(kinds)))] if kinds else ""

    def _moved(self, parents: Array, columns: list[str], kinds: list[str]) -> Table:
        """Return a child for each of `parents`, with one of its columns moved."""
        children = {name: own[parents] for name, own in self.climbers.items()}
        places: dict[tuple[str, str], list[int]] = {}
        for place, key in enumerate(zip(columns, kinds, strict=True)):
            places.setdefault(key, []).append(place)
        for (name, kind), rows in places.items():
            if kind:
                children[name][rows] = self.moves[name].moves[kind](children[name][rows], self.rng)
        return children

    def _repeat(self, children: Table, parents: Array, columns: list[str], kinds: list[str]) -> None:
        """Move the first child of each climber whose last step paid twice as far along the same column."""
        for place, parent in enumerate(parents[: len(parents) // _MOVES].tolist()):
            if parent not in self.paid:
                continue
            children[columns[place]][place] = self.climbers[columns[place]][parent]
            columns[place], step = self.paid[parent]
            kinds[place] = "step"
            values = self.climbers[columns[place]][[parent]].astype("float64") + 2 * step
            children[columns[place]][place] = self.moves[columns[place]].within(values)[0]

    def _cut(self) -> Table:
        """Return the rows at which the stretches are cut."""
        if not self.stretches:
            return {}
        table = {}
        for name, own in self.sample.items():
            values = np.empty(len(self.stretches), dtype=own.dtype)
            values[:] = [stretch.row[name] for stretch in self.stretches]
            table[name] = np.repeat(values, _SECTIONS - 1)
        for index, stretch in enumerate(self.stretches):
            start = index * (_SECTIONS - 1)
            table[stretch.column][start : start + _SECTIONS - 1] = stretch.inner()
        return table

    def _narrow(self, asked: Asked, places: Array) -> None:
        """Narrow each stretch by what its sections came to; those that are done make room for others."""
        kept = []
        for stretch, own in zip(self.stretches, places.reshape(-1, _SECTIONS - 1), strict=True):
            if (own < 0).any() or not stretch.narrowed(asked.answer[own]):
                continue
            if stretch.is_narrow:
                self.jumps += 1
            else:
                kept.append(stretch)
        self.stretches = kept

    def _stretch(self, children: Table, parents: Array, columns: list[str], asked: Asked, places: Array) -> None:
        """Begin stretches between climbers and their children where their answers differ, as long as there is room."""
        known = np.flatnonzero((places >= 0) & (self.own[parents] >= 0))
        before, after = self.answers[parents[known]], asked.answer[places[known]]
        differ = ~np.isclose(before, after, rtol=_JUMP, atol=_JUMP, equal_nan=True).all(axis=1)
        changes = _apart(before, after)
        for place in np.flatnonzero(differ):
            child, column = int(known[place]), columns[known[place]]
            if len(self.stretches) >= _STRETCHES:
                return
            if self.sample[column].dtype.kind != "f" or not self.moves[column].is_number:
                continue  # between two categories there is nothing
            low, high = float(self.climbers[column][parents[child]]), float(children[column][child])
            row = {name: own[child] for name, own in children.items()}
            answers = before[place], after[place]
            stretch = _Stretch(row, column, low, high, answers, float(changes[place]))
            if np.isfinite(low) and np.isfinite(high) and not stretch.is_narrow:
                self.stretches.append(stretch)

    def _climb(self, children: Table, parents: Array, columns: list[str], asked: Asked, places: Array) -> None:
        """Let each climber go to its best child, unless that is worse."""
        shares = np.where(places >= 0, asked.share[places] if len(asked.share) else -1.0, -1.0)
        self.waited += 1
        self.paid = {}
        for child in np.lexsort((np.arange(len(parents)), -shares)):
            parent = parents[child]
            if shares[child] < max(self.own[parent], 0.0):
                continue
            if shares[child] == self.own[parent] and self.waited[parent] == 0:
                continue  # it went to a better one, or to another that is as good, just now
            if shares[child] > self.own[parent]:
                self.waited[parent] = 0
                column = columns[child]
                if self.moves[column].is_number:
                    step = float(children[column][child]) - float(self.climbers[column][parent])
                    self.paid |= {int(parent): (column, step)} if np.isfinite(step) else {}
            self.own[parent], self.answers[parent] = shares[child], asked.answer[places[child]]
            for name, own in children.items():
                self.climbers[name][parent] = own[child]


def _apart(one: Floats, other: Floats) -> Floats:
    """Return for each row [rows, numbers] the largest difference; NaN differs from a number infinitely."""
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore"):
        change = np.where(same, 0.0, np.abs(one - other))
    return np.asarray(np.nan_to_num(change, nan=np.inf, posinf=np.inf).max(axis=1, initial=0.0))
