"""Labels find their predictions, whatever the order, once each; and a kill or a restart counts none twice."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from appliance.monitoring.prediction_log import find, lines
from appliance.monitoring.prediction_log.lines import Header, Label, Row
from appliance.monitoring.prediction_log.segments import Writer
from appliance.monitoring.prediction_log.writer import SegmentWriter
from appliance.monitoring.quality import join, report, state
from appliance.monitoring.quality.join import Joiner

T = 1_760_000_000.0
CLASSES = ["a", "b"]


def header(version: str):
    def make(slot, segment, prev, key):
        return Header(1, "iris", version, ["x"], ["float64"], ["y"], CLASSES, "host", slot, segment, prev, "", key=key)

    return make


class Heard:
    """A feed that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple] = []

    def labelled(self, *what) -> None:
        self.told.append(what)


class Log:
    """Two processes' logs, and who joins."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now, self.heard = folder, T, Heard()
        self.good: list[str] = []
        self.judged: list[dict[str, float]] = []
        self.verdict = "fine"
        self.writers = [self.open("1.0.0", 0), self.open("1.0.0", 1)]
        self.joiner = self.joining()

    def open(self, version: str, slot: int) -> SegmentWriter:
        return SegmentWriter.open(Writer(self.folder, "iris", version, slot), header(version), lambda: self.now)

    def joining(self) -> Joiner:
        return Joiner(
            self.folder,
            feeds=[self.heard],
            clock=lambda: self.now,
            good_since=lambda model, version: self.good,
            judge=self.judge,
        )

    def judge(self, model, version, days, classes, own):
        self.judged.append({day: sums["labelled"] for day, sums in days.items() if "labelled" in sums})
        return self.verdict, "why", own

    def predict(self, name: str, answer: str = "a", t: float = T, by: int = 0, **more) -> None:
        line = lines.line_of(Row(f"{name}.0", t, x=[1.0], y=answer, p=[0.75, 0.25], n="0", **more))
        assert self.writers[by].append([line]) == 1

    def label(self, name: str, label: str, t: float = T + 60, by: int = 0) -> None:
        assert self.writers[by].append([lines.line_of(Label(label=label, id=name, t=t, n="0"))]) == 1

    def step(self, seconds: float = 1.0) -> dict[str, int]:
        self.now += seconds
        self.joiner.step(save=True)
        return {key: count for key, count in self.report()["labels"].items() if count}

    def report(self) -> dict:
        return report.of_model(self.folder, "iris", now=T)

    def accuracy(self) -> tuple:
        (found,) = [one for one in self.report()["windows"] if one["window"] == "all" and one["arm"] is None]
        return found["coverage"]["rows"], found["coverage"]["labelled"], found["accuracy"]


@pytest.fixture
def log(tmp_path):
    made = Log(tmp_path)
    yield made
    for writer in made.writers:
        writer.abandon()


def test_labels_are_joined_over_processes_and_told_to_feeds(log):
    log.predict("one", "a", by=0)
    log.predict("two", "b", by=1, arm="exp/1.0.0")
    log.label("one.0", "a", by=1)
    log.label("two", "a", by=0)  # the request's id alone is its first row
    assert log.step() == {"matched": 2}
    assert log.accuracy() == (2, 2, 0.5)
    assert sorted(log.heard.told) == [
        ("iris", "1.0.0", "one.0", "a", "a", ""), ("iris", "1.0.0", "two.0", "b", "a", "exp/1.0.0"),
    ]  # fmt: skip
    arms = {one["arm"]: one["accuracy"] for one in log.report()["windows"] if one["window"] == "all"}
    assert arms == {None: 0.5, "exp/1.0.0": 0.0}


def test_old_predictions_are_found_in_packed_segments(log):
    for number in range(5):
        log.predict(f"r{number}")
        log.writers[0].rotate()
    log.step()
    for number in range(5):
        log.label(f"r{number}.0", "b", by=1)
    assert log.step() == {"matched": 5}
    assert log.accuracy() == (5, 5, 0.0)


def test_repeated_changed_late_and_unknown_labels_are_counted_as_such(log):
    log.predict("one", "a")
    log.label("one.0", "b", T + 10)
    assert log.step() == {"matched": 1}
    log.label("one.0", "b", T + 20, by=1)
    assert log.step() == {"matched": 1, "repeated": 1}
    assert log.accuracy() == (1, 1, 0.0)
    log.label("one.0", "a", T + 30)
    log.label("one.0", "b", T + 40, by=1)
    log.label("one.0", "a", T + 50)
    assert log.step() == {"matched": 1, "repeated": 1, "changed": 3}
    assert log.accuracy() == (1, 1, 1.0)
    log.label("one.0", "b", T + 31 * 86_400)
    log.label("never.0", "a")
    assert log.step() == {"matched": 1, "repeated": 1, "changed": 3, "late": 1, "waiting": 1}
    assert log.step(join.PATIENCE) == {"matched": 1, "repeated": 1, "changed": 3, "late": 1, "unknown": 1}
    assert log.accuracy() == (1, 1, 1.0)
    assert len(log.heard.told) == 1


def test_a_label_that_comes_before_its_prediction_is_in_the_log_waits_for_it(log):
    log.label("soon.0", "a", T + 1)
    assert log.step() == {"waiting": 1}
    log.predict("soon", "a")
    assert log.step() == {"matched": 1}


def test_an_id_that_repeats_means_the_last_prediction_before_the_label(log):
    log.predict("same", "a", T)
    log.predict("same", "b", T + 100, by=1)
    log.label("same.0", "a", T + 50)
    log.label("same.0", "b", T + 150)
    assert log.step() == {"matched": 2}
    assert log.accuracy() == (2, 2, 1.0)


def test_a_label_of_an_erased_row_is_unknown_and_one_of_a_refused_request_too(log):
    log.predict("gone")
    log.writers[0].append([lines.line_of(Row("refused.0", T, error="missing", n="0"))])
    log.writers[0].rotate()
    log.step()
    find.erase(log.folder, "iris", ["gone.0"], "")
    log.label("gone.0", "a")
    log.label("refused.0", "a")
    log.step()
    assert log.step(join.PATIENCE) == {"unknown": 2}


@pytest.mark.parametrize("restart_after", range(6))
def test_a_restart_at_any_moment_counts_each_label_once(log, restart_after):
    """The joiner is killed behind a step; what it did not save, it does again from where it had saved."""
    for step in range(6):
        log.predict(f"r{step}", "a")
        log.label(f"r{step}.0", "a" if step % 2 else "b", by=step % 2)
        if step == 3:
            log.writers[0].rotate()
        log.step()
        if step == restart_after:
            log.joiner = log.joining()
    assert log.step() == {"matched": 6}
    assert log.accuracy() == (6, 6, 0.5)


def test_all_is_computed_anew_from_the_log_where_the_file_is_lost(log):
    for number in range(4):
        log.predict(f"r{number}", "a", by=number % 2)
        log.label(f"r{number}.0", "a")
    log.label("r1.0", "b", T + 70)
    before = log.step(), log.accuracy()
    (log.folder / "log" / "iris" / state.FILE).unlink()
    log.joiner = log.joining()
    after = log.step(), log.accuracy()
    assert after == before


def test_since_mark_good_is_from_that_moment_on_though_the_day_had_rows_before(log):
    log.good = [at(T - 500), at(T + 100)]
    log.predict("before", "a", t=T + 99)
    log.predict("first", "a", t=T + 100)
    log.predict("after", "b", t=T + 101, arm="exp/1.0.0")
    log.label("before", "b", t=T + 200)
    log.label("first", "a", t=T + 200)
    assert log.step(300) == {"matched": 2}
    found = report.of_model(log.folder, "iris", now=T, good_since={"1.0.0": log.good[-1]})["windows"]
    windows = {one["window"]: one for one in found if one["arm"] is None}
    assert windows["all"]["coverage"]["rows"] == 3
    good = windows["since mark good"]
    assert (good["from"], good["coverage"]["rows"], good["coverage"]["labelled"]) == (log.good[-1], 2, 1)
    assert good["accuracy"] == 1.0
    (log.folder / "log" / "iris" / state.FILE).unlink()
    log.joiner = log.joining()
    log.step()
    assert report.of_model(log.folder, "iris", now=T, good_since={"1.0.0": log.good[-1]})["windows"] == found


def test_how_labels_stand_is_kept_and_told_once(log, caplog):
    log.predict("one", "a")
    log.label("one", "a")
    log.step()
    assert log.judged == [{"2025-10-09": 1.0}]
    log.verdict = "worse"
    for number in range(3):
        log.predict(f"next-{number}", "a")
        log.label(f"next-{number}", "b")
        log.step()
    (standing,) = log.report()["standings"]
    assert (standing["version"], standing["state"], standing["because"]) == ("1.0.0", "worse", "why")
    assert [(one.levelname, one.state) for one in caplog.records if one.message == "quality"] == [("WARNING", "worse")]
    log.joiner = log.joining()  # after a restart it is not told again
    log.predict("last", "a")
    log.label("last", "b")
    log.step()
    assert log.report()["standings"] == [standing]
    assert len([one for one in caplog.records if one.message == "quality"]) == 1


def at(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")
