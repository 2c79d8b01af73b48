"""The dashboard's texts: both languages say everything, with the same values, and nothing is left over."""

import json
import re
import typing
from pathlib import Path

import pytest

from appliance import errors
from appliance.alarms import KINDS
from appliance.drift_report import STATES
from appliance.experiments.info import Outcome
from appliance.store.receipts import What

FOLDER = Path(__file__).parents[3] / "appliance" / "rest" / "dashboard"
TEXTS = {name: json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")) for name in ("en", "de")}
CODE = "\n".join(path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.js")))
PAGE = (FOLDER / "index.html").read_text(encoding="utf-8")
LITERAL = {*re.findall(r'\b(?:t|either)\("([^"]+)"', CODE), *re.findall(r'data-text="([^"]+)"', PAGE)}
PATTERNS = [re.sub(r"\$\{[^}]+\}", ".+", one) for one in re.findall(r"\b(?:t|either)\(`([^`]+)`", CODE)]
TITLES = set(re.findall(r'new Section\("([^"]+)"', CODE))
UNITS = set(re.findall(r'"(unit\.\w+)"', CODE))
WHATS = typing.get_args(What)


def values(text: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", text))


def of_alarms(name: str) -> set[str]:
    return {key for key in TEXTS[name] if re.fullmatch(r"alarm\..+\.(found|next)", key)}


def test_both_languages_have_the_same_texts_but_for_alarms_which_the_service_says_in_english():
    assert TEXTS["en"].keys() - of_alarms("en") == TEXTS["de"].keys() - of_alarms("de")
    assert of_alarms("en") == set()
    assert of_alarms("de") == {f"alarm.{kind}.{part}" for kind in KINDS for part in ("found", "next")}


@pytest.mark.parametrize("key", TEXTS["en"])
def test_a_text_names_the_same_values_in_both_languages(key):
    assert values(TEXTS["en"][key]) == values(TEXTS["de"][key])
    assert TEXTS["en"][key].strip() or key == ""
    assert TEXTS["de"][key].strip()


@pytest.mark.parametrize("kind", KINDS)
def test_an_alarm_names_the_same_values_in_both_languages(kind):
    told = KINDS[kind]
    assert values(told.found) == values(TEXTS["de"][f"alarm.{kind}.found"])
    assert values(told.next) == values(TEXTS["de"][f"alarm.{kind}.next"])


@pytest.mark.parametrize("name", TEXTS)
def test_no_text_is_missing(name):
    wanted = LITERAL | TITLES | UNITS
    wanted |= {f"what.{one}" for one in WHATS} | {f"outcome.{one}" for one in typing.get_args(Outcome)}
    wanted |= {f"state.{one}" for one in STATES if one != "too few rows"}
    wanted |= {
        f"reason.{one}" for one in (*errors.REFUSAL_REASONS, "InvalidInput", "NotReady", "NotFound", "Overloaded")
    }
    wanted |= {f"{part}.{span}" for part in ("title", "span", "step") for span in ("hour", "day", "month")}
    wanted |= {f"{part}.{one}{end}" for one in ("activate", "rollback", "good", "promote", "abort")
               for part, end in (("action", ""), ("confirm", ""), ("confirm", ".title"))}  # fmt: skip
    wanted |= {f"level.{one}" for one in ("green", "amber", "red")} | {f"word.{one}" for one in ("amber", "red")}
    assert wanted - TEXTS[name].keys() == set()


def test_no_text_is_left_over():
    left = {
        key
        for key in TEXTS["en"].keys() - LITERAL - TITLES - UNITS
        if not any(re.fullmatch(one, key) for one in PATTERNS) and key.removesuffix(".one") not in LITERAL
    }
    assert left == set()
