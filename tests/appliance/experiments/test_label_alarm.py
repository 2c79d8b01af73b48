"""The alarm of labels: errors that are more than in a version's own past, told soon, and hardly ever by chance."""

from datetime import date, timedelta

import numpy as np
import pytest

from appliance.experiments import label_alarm
from appliance.monitoring.quality import sums
from appliance.monitoring.quality.standing import Past

CLASSES = ["a", "b"]
FIRST = date(2026, 3, 1)
UNSEEN = Past(1000, 50, 50)
"""5 % of 1,000 rows were wrong at conversion."""


def day(number: int) -> str:
    return (FIRST + timedelta(days=number)).isoformat()


def of_classes(rows: int, wrong: int, unlabelled: int = 0) -> sums.Sums:
    """Return a day's sums; half of the answers are of each class."""
    total: sums.Sums = {}
    for number in range(rows):
        answer = CLASSES[number % 2]
        truth = answer if number >= wrong else CLASSES[1 - number % 2]
        sums.add(total, sums.predicted(answer, CLASSES))
        sums.add(total, sums.labelled_class(answer, None, truth, CLASSES, 60.0))
    for _ in range(unlabelled):
        sums.add(total, sums.predicted("a", CLASSES))
    return total


def of_numbers(errors) -> sums.Sums:
    total: sums.Sums = {}
    for error in errors:
        sums.add(total, sums.predicted(1.0, []))
        sums.add(total, sums.labelled_number(1.0 + float(error), 1.0, None, 60.0))
    return total


def test_a_version_that_is_wrong_more_often_than_at_conversion_is_told_and_why():
    state, because = label_alarm.judged({day(0): of_classes(200, 40)}, CLASSES, UNSEEN, None, 1.0)
    assert state == "worse"
    assert because == "wrong on 20.0% of 200 labelled rows of 2026-03-01; 5.0% in unseen rows at conversion"
    assert label_alarm.judged({day(0): of_classes(200, 10)}, CLASSES, UNSEEN, None, 1.0) == ("fine", "")
    assert label_alarm.judged({day(0): of_classes(0, 0, 5)}, CLASSES, UNSEEN, None, 1.0)[0] == "too few labels"


def test_seven_days_find_what_one_day_has_too_few_labels_for():
    days = {day(number): of_classes(40, 8) for number in range(7)}
    state, because = label_alarm.judged(days, CLASSES, UNSEEN, None, 1.0)
    assert state == "worse"
    assert "280 labelled rows of the 7 days to 2026-03-07" in because
    assert label_alarm.judged({day(6): days[day(6)]}, CLASSES, UNSEEN, None, 1.0)[0] == "fine"


def test_the_first_whole_days_are_the_past_where_conversion_tells_none():
    days = {day(0): of_classes(150, 7), day(1): of_classes(150, 8), day(2): of_classes(150, 75)}
    assert label_alarm.past_of({day(0): days[day(0)]}, CLASSES, day(9)) is None
    past = label_alarm.past_of(days, CLASSES, day(2))
    assert past == Past(300, 15, 15, day(1))
    assert label_alarm.judged(days, CLASSES, None, None, 1.0)[0] == "too few labels"
    state, because = label_alarm.judged(days, CLASSES, None, past, 1.0)
    assert (state, because.endswith("5.0% in its days to 2026-03-02")) == ("worse", True)
    calm = {**days, day(2): of_classes(150, 8)}
    assert label_alarm.judged(calm, CLASSES, None, past, 1.0) == ("fine", "")


def test_labels_of_alarms_alone_are_not_compared_with_all_rows_of_conversion():
    total = of_classes(100, 40)
    for _ in range(900):
        sums.add(total, sums.predicted("a", CLASSES))
    assert label_alarm.judged({day(0): total}, CLASSES, UNSEEN, None, 1.0) == ("too few labels", "")
    own = Past(500, 200, 200, "2026-02-01")
    assert label_alarm.judged({day(0): total}, CLASSES, UNSEEN, own, 1.0) == ("fine", "")


def test_numbers_are_compared_by_their_errors():
    random = np.random.default_rng(0)
    days = {day(number): of_numbers(random.normal(0, 1, 300)) for number in range(2)}
    past = label_alarm.past_of(days, [], day(1))
    assert past is not None
    assert label_alarm.judged(days, [], None, past, 1.0) == ("fine", "")
    days[day(2)] = of_numbers(random.normal(0, 2, 300))
    state, because = label_alarm.judged(days, [], None, past, 1.0)
    assert state == "worse"
    assert because.startswith("off by 1.")


@pytest.mark.parametrize("wrong", [0.05, 0.3])
def test_a_year_of_the_same_quality_looked_at_all_the_time_tells_nothing(wrong):
    random = np.random.default_rng(1)
    past = Past(2000, 2000 * wrong, 2000 * wrong)
    told = 0
    for number in range(365):
        errors = np.cumsum(random.random(200) < wrong)
        looks = [
            {day(number): {"labelled": float(seen), "right": float(seen - errors[seen - 1])}} for seen in (20, 60, 200)
        ]
        told += any(label_alarm.judged(one, CLASSES, past, None, 1.0)[0] == "worse" for one in looks)
    assert told <= 1
