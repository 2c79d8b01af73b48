"""docs/http.md: what it shows is what is answered, and no route or status is left out."""

import json
import re
import shlex
from pathlib import Path

import pytest

from appliance.rest import examples
from appliance.rest.openapi import ALL_ROUTES
from appliance.rest.problems import REASONS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/http.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"^\$ curl http://127\.0\.0\.1:8080(\S+) (.*)\n(.*)$", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def iris(iris_bundle):
    """Return the bundle that `make run` makes."""
    return iris_bundle.read_bytes()


def near(value):
    """Return a JSON value with room for what processors differ by: the model is trained on this one."""
    if isinstance(value, dict):
        return {key: near(one) for key, one in value.items()}
    if isinstance(value, list):
        return [near(one) for one in value]
    return pytest.approx(value, rel=1e-4) if isinstance(value, float) else value


def cells(line):
    """Return the cells of a line of CSV, numbers as numbers."""
    return [cell if cell.isalpha() else float(cell) for cell in line.strip().split(",")]


def test_each_request_shown_is_answered_as_shown(make_api, iris, tmp_path):
    api = make_api()
    api.install(iris, tmp_path)
    assert len(SHOWN) >= 5
    for path, options, answer in SHOWN:
        words = shlex.split(options)
        given = list(zip(words[::2], words[1::2], strict=True))
        headers = {"CONTENT_TYPE": "application/x-www-form-urlencoded"}
        for name, value in (value.split(": ") for option, value in given if option == "-H"):
            headers[name.upper().replace("-", "_")] = value
        (body,) = [value for option, value in given if option == "-d"]
        got = api.post(path, body.encode(), **headers)
        if answer.startswith("{"):
            assert got.json == near(json.loads(answer)), path
        else:
            assert cells(got.body.decode()) == near(cells(answer)), path


def test_examples_of_openapi_are_answered_as_they_say(make_api, iris, tmp_path):
    api = make_api()
    api.install(iris, tmp_path)
    for route in (route for route in ALL_ROUTES if route.hot):
        path = route.path.format(name="iris", version="1.0.0")
        assert api.post(path, examples.request(route)).json == near(examples.answer(route)), path
        for media, body in examples.LINES.items() if route.lines else ():
            got = api.post(path, body.encode(), CONTENT_TYPE=media, ACCEPT=media)
            assert got.body.decode() == examples.ANSWERED_LINES[media]


def test_every_route_is_listed_with_its_scope():
    listed = re.findall(r"^\| `((?:GET|POST|DELETE) \S+)` \| (\w+) \| (.+) \|$", PAGE, re.MULTILINE)
    served = [(f"{route.method} {route.path}", route.scope, route.summary) for route in ALL_ROUTES]
    assert listed == [route for route in served if route[2] != "An extension that is not served"]


def test_every_status_of_an_error_is_explained():
    explained = [int(status) for status in re.findall(r"^\| (\d{3}) \| .+ \|$", PAGE, re.MULTILINE)]
    assert explained == sorted(status for status in REASONS if status >= 400)
