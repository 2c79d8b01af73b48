"""The page, in a real Chromium: what it shows of a model, its form, what it lets administrators do, and its manners."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.appliance.rest.plant import COLUMNS, LOG, lively, write_day, write_drift

IRIS = ("iris", "1.0.0", "labels")
OVEN = ("oven", "1.0.0", "table")
TOKEN, MASTER = "reader-0123456789abcdef", "master-0123456789abcdef"
NAMES = {
    (1440, "light"): "dashboard",
    (1440, "dark"): "dashboard-dark",
    (390, "light"): "dashboard-phone",
    (390, "dark"): "dashboard-phone-dark",
}
MARKUP = "<img src=x onerror=alert(1)>"


expect.set_options(timeout=30_000)  # of a busy machine


class Visit:
    """One look at the page, with everything that it asked for and complained of."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.urls: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.urls.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    page = browser.new_page(locale="en-GB")
    page.set_default_timeout(30_000)
    yield Visit(page)
    page.close()


def card(page: Page, name: str):
    return page.get_by_role("article", name=name, exact=True)


def part(page: Page, name: str, title: str):
    """Return a part of a model's details by its heading."""
    return card(page, name).locator("section.part").filter(has=page.get_by_role("heading", name=title, exact=True))


def field(page: Page, label: str):
    return page.locator("form.try").get_by_label(label, exact=True)


def fact(page: Page, name: str, title: str):
    """Return a number of a model by its name."""
    facts = card(page, name).locator("dl.numbers > div:visible")
    return facts.filter(has=page.get_by_text(title, exact=True)).locator("dd").first


def picture(page: Page, name: str) -> None:
    """Keep what the page looks like, where `make pictures` asks for it."""
    if folder := os.environ.get("PICTURES"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def answered(page: Page, path: re.Pattern[str], told: object) -> None:
    """Let the page be answered so when it asks for a path."""
    page.route(path, lambda route: route.fulfill(json=told))


def tokens_file(folder: Path) -> str:
    path = folder / "tokens"
    path.write_text(f"predict {TOKEN}\nadmin {MASTER}\n")
    path.chmod(0o600)
    return str(path)


def test_a_model_that_is_alone_is_open_and_predicts_without_leaving_the_host(start_service, visit):
    service = start_service(IRIS)
    page = visit.page
    page.goto(service.url)
    expect(page.locator("#level")).to_have_text(re.compile("all is well|thing"))
    expect(card(page, "iris").locator(".version")).to_have_text("1.0.0")
    expect(card(page, "iris").locator(".states")).to_have_text("on probation")
    expect(field(page, "sepal_length")).to_have_value("0.0")  # of the bundle's first example
    page.get_by_role("button", name="Another example").click()
    expect(field(page, "sepal_length")).to_have_value("1.0")
    for label, value in {"sepal_length": "9", "sepal_width": "-1e2", "petal_length": "1.5"}.items():
        field(page, label).fill(value)
    page.get_by_role("button", name="Predict", exact=True).click()
    expect(page.locator(".answer .prediction")).to_have_text("setosa")
    expect(page.locator(".answer")).to_contain_text("iris 1.0.0")
    expect(page.get_by_role("meter")).to_have_count(3)
    expect(fact(page, "iris", "Requests")).to_have_text("1")
    assert visit.complaints == []
    assert visit.urls
    assert all(url.startswith(service.url + "/") for url in visit.urls)


def test_failures_stand_apart_with_the_last_reason(start_service, visit):
    service = start_service(IRIS)
    service.ask("POST", "/predict", {"features": [1, 2, 3, 4]})
    service.ask("POST", "/predict", {"features": [1, 2, None, 4]})
    visit.page.goto(service.url)
    expect(fact(visit.page, "iris", "Refused (caller)")).to_have_text("1")
    expect(fact(visit.page, "iris", "Failed (this host)")).to_have_text("0")
    expect(card(visit.page, "iris")).to_contain_text("petal_length: a missing value, ")


def test_it_follows_a_switch_and_keeps_what_was_typed(start_service, visit, tmp_path, make_bundle):
    service = start_service(OVEN, IRIS)
    page = visit.page
    page.goto(service.url)
    expect(card(page, "iris").locator(".details")).to_be_hidden()
    page.get_by_role("button", name="iris", exact=True).click()
    field(page, "sepal_length").fill("7")
    service.ask("POST", "/models/iris/mark-good")
    expect(card(page, "iris").locator(".states")).to_have_text("good")
    expect(field(page, "sepal_length")).to_have_value("7")
    service.install(make_bundle(tmp_path, version="1.1.0", kind="labels"))
    service.ask("POST", "/models/iris/versions/1.1.0/activate")
    expect(card(page, "iris").locator(".version")).to_have_text("1.1.0")
    expect(part(page, "iris", "Versions").locator("tbody tr").first).to_contain_text("± 0.00001")
    expect(part(page, "iris", "What was done").locator("li").first).to_contain_text("activated 1.1.0")
    page.reload()  # the address says what is open
    expect(field(page, "sepal_length")).to_be_visible()
    expect(card(page, "oven").locator(".details")).to_be_hidden()


def test_a_day_of_a_plant_is_shown_and_passes_the_rules_of_accessibility(
    start_service, browser, iris_bundle, tmp_path, until
):
    service = start_service(log=LOG)
    lively(service, iris_bundle, tmp_path)
    until(lambda: len(service.ask("GET", "/models/iris/answers?limit=100")[1]["answers"]) == 61, "all in the log")
    told = service.ask("GET", "/models/iris/answers?limit=100")[1]["answers"]
    labels = [{"id": one["id"], "label": one["prediction"]} for one in told if not one["error"]]
    assert service.ask("POST", "/models/iris/feedback", {"labels": labels})[0] == 202
    quality = "/models/iris/quality"
    until(lambda: service.ask("GET", quality)[1]["labels"].get("matched") == len(labels), "labels joined")
    for width, scheme in ((1440, "light"), (1440, "dark"), (390, "light"), (390, "dark")):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, locale="en-GB")
        visit = Visit(page)
        page.goto(f"{service.url}/#iris")
        expect(part(page, "iris", "Quality by labels")).to_contain_text("100%")
        expect(part(page, "iris", "Experiment")).to_contain_text("step 0 of 2: 1.0.0 answers 100%, 1.1.0 answers 0%")
        expect(part(page, "iris", "Experiment").get_by_role("button", name="Promote")).to_be_visible()
        expect(part(page, "iris", "Answers").locator(".shares li")).to_have_count(3)
        expect(part(page, "iris", "Last answers").locator("tbody tr")).to_have_count(12)
        expect(part(page, "iris", "Last answers")).to_contain_text(f"{COLUMNS[3]}: hashed")
        expect(part(page, "iris", "Inputs, furthest from training first").locator("svg")).to_have_count(4)
        expect(part(page, "iris", "Requests and times").locator("svg")).to_have_count(6)
        expect(page.locator("#alarms")).to_contain_text(
            f"no longer look as in training or as they did on this host ({COLUMNS[3]})"
        )
        expect(page.locator("#alarms")).to_contain_text("by this host's fault")
        expect(card(page, "press").locator(".drift")).to_have_text(f"drift: {COLUMNS[3]}")
        expect(field(page, COLUMNS[0])).to_be_visible()
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert visit.complaints == []
        assert all(url.startswith(service.url + "/") for url in visit.urls)
        picture(
            page,
            {(1440, "light"): "dashboard", (390, "light"): "dashboard-phone"}.get((width, scheme), f"dark-{width}"),
        )
        if (width, scheme) == (1440, "dark"):
            page.get_by_role("button", name="Abort").click()
            assert Axe().run(page).violations_count == 0
            page.get_by_role("button", name="Cancel").click()
        page.close()


def test_the_same_request_is_copied_as_curl_and_as_python(start_service, visit):
    service = start_service(OVEN)
    page = visit.page
    page.goto(service.url)
    field(page, "site").fill('it\'s "north" $HOME \\ ü')
    field(page, "count").fill("9007199254740993")  # which no double holds
    field(page, "on").select_option("true")
    page.get_by_role("button", name="Predict", exact=True).click()
    expect(page.locator(".answer .prediction")).to_be_visible()
    page.get_by_role("button", name="Copy as curl").click()
    words = shlex.split(page.locator(".snippet pre").inner_text())
    assert words[:2] == ["curl", f"{service.url}/models/oven/predict"]
    body = words[words.index("-d") + 1]
    assert json.loads(body)["features"][0]["site"] == 'it\'s "north" $HOME \\ ü'
    assert json.loads(body)["features"][0]["count"] == 9007199254740993
    assert service.ask("POST", "/models/oven/predict", body.encode())[0] == 200
    page.get_by_role("button", name="Copy as Python").click()
    expect(page.locator(".snippet pre")).to_contain_text("urlopen")
    code = page.locator(".snippet pre").inner_text()
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={})
    assert "'model': 'oven'" in ran.stdout
    assert visit.complaints == []


def test_a_refusal_is_shown_in_words(start_service, visit):
    service = start_service(OVEN)
    page = visit.page
    page.goto(service.url)
    field(page, "count").fill("99999999999999999999")
    page.get_by_role("button", name="Predict", exact=True).click()
    expect(page.locator(".answer .problem")).to_contain_text("count")
    field(page, "count").fill("three")
    page.get_by_role("button", name="Predict", exact=True).click()
    expect(page.locator(".answer .problem")).to_contain_text("'three'")


def test_what_is_changed_is_confirmed_in_words_first(start_service, visit, tmp_path, make_bundle):
    service = start_service(IRIS)
    service.install(make_bundle(tmp_path, version="1.1.0", kind="labels"))
    page = visit.page
    page.goto(service.url)
    page.get_by_role("button", name="Activate 1.1.0 (iris)").click()
    dialog = page.get_by_role("dialog", name="Activate iris 1.1.0?")
    expect(dialog).to_contain_text("is first tested on this host")
    expect(dialog.get_by_label("Administrator's token")).to_be_hidden()  # this service asks nobody for one
    dialog.get_by_role("button", name="Cancel").click()
    assert service.ask("GET", "/models/iris")[1]["active"] == "1.0.0"
    page.get_by_role("button", name="Activate 1.1.0 (iris)").click()
    dialog.get_by_role("button", name="Activate").click()
    expect(card(page, "iris").locator(".version")).to_have_text("1.1.0")
    page.get_by_role("button", name="Mark 1.1.0 good (iris)").click()
    page.get_by_role("dialog").get_by_role("button", name="Mark good").click()
    expect(card(page, "iris").locator(".states")).to_have_text("good")
    page.get_by_role("button", name="Roll back to 1.0.0 (iris)").click()
    page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    expect(card(page, "iris").locator(".version")).to_have_text("1.0.0")
    assert visit.complaints == []


def test_an_experiment_is_promoted_and_ended_from_the_page(start_service, visit, tmp_path, make_bundle):
    service = start_service(IRIS)
    service.install(make_bundle(tmp_path, version="1.1.0", kind="labels"))
    wish = {"kind": "canary", "version": "1.1.0", "steps": [5, 50], "hold": True}
    assert service.ask("POST", "/models/iris/experiment", wish)[0] == 200
    page = visit.page
    page.goto(service.url)
    told = card(page, "iris").locator(".notes .experiment")
    expect(told).to_have_text("canary, step 0 of 2: 1.0.0 answers 100%, 1.1.0 answers 0%, 1.1.0 is asked beside")
    page.get_by_role("button", name="Promote").click()
    expect(page.get_by_role("dialog")).to_contain_text("begins its next step instead")
    page.get_by_role("dialog").get_by_role("button", name="Promote").click()
    expect(told).to_have_text("canary, step 1 of 2: 1.0.0 answers 95%, 1.1.0 answers 5%, 1.1.0 is asked beside")
    expect(part(page, "iris", "Versions").locator("tbody tr").first).to_contain_text("canary 5%")
    for number in range(120):
        row = {"features": [1, 2, number % 5, 4]}
        service.send("POST", "/predict", row, {"X-Routing-Key": f"device-{number}"})
    page.reload()
    expect(part(page, "iris", "Experiment")).to_contain_text(re.compile(r"1\.1\.0 has [1-9]\d* of 300 requests"))
    picture(page, "dashboard-experiment")
    page.get_by_role("button", name="Abort").click()
    page.get_by_role("dialog").get_by_role("button", name="Abort").click()
    expect(told).to_have_count(0)
    expect(part(page, "iris", "Experiment")).to_contain_text("taken back")
    picture(page, "dashboard-taken-back")


def test_tokens_are_asked_for_and_the_administrators_is_kept_in_memory_alone(start_service, visit, tmp_path):
    service = start_service(IRIS, tokens_file=tokens_file(tmp_path))
    page = visit.page
    page.goto(service.url)
    expect(page.locator("#level")).to_have_text("token needed")
    page.get_by_label("This service needs a token").fill("wrong")
    page.get_by_role("button", name="Use it").click()
    expect(page.locator("#token-problem")).to_contain_text("unknown")
    page.get_by_label("This service needs a token").fill(TOKEN)
    page.get_by_role("button", name="Use it").click()
    expect(card(page, "iris").locator(".version")).to_have_text("1.0.0")
    expect(page.locator("#token-form")).to_be_hidden()
    expect(field(page, "sepal_length")).to_have_value("0")  # a typical row: rows of the bundle are not for this token
    page.get_by_role("button", name="Copy as curl").click()
    assert TOKEN not in page.locator(".snippet pre").inner_text()
    page.get_by_role("button", name="Mark 1.0.0 good (iris)").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Administrator's token").fill(TOKEN)
    dialog.get_by_role("button", name="Mark good").click()
    expect(dialog.locator("#confirm-problem")).to_contain_text("scope")
    dialog.get_by_label("Administrator's token").fill(MASTER)
    dialog.get_by_role("button", name="Mark good").click()
    expect(card(page, "iris").locator(".states")).to_have_text("good")
    stored = page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])")
    assert MASTER not in stored
    assert page.evaluate("localStorage.length") == 0
    page.reload()
    expect(card(page, "iris").locator(".version")).to_have_text("1.0.0")  # the other one lasts as long as the tab


def test_a_service_without_models_says_what_to_do(start_service, visit):
    service = start_service()
    visit.page.goto(service.url)
    expect(visit.page.locator("#alarms")).to_contain_text("appliance activate NAME VERSION")
    expect(visit.page.locator("#no-models")).to_be_visible()
    expect(visit.page).to_have_title(re.compile(r"^\(\d\) Edge"))


def test_a_service_that_is_gone_is_told(start_service, visit):
    service = start_service(IRIS)
    visit.page.goto(service.url)
    expect(card(visit.page, "iris")).to_be_visible()
    service.close()
    expect(visit.page.locator("#level")).to_have_text("not reachable")


def test_the_browsers_language_is_spoken_and_can_be_switched(start_service, browser):
    service = start_service(IRIS)
    write_drift(service.store, "iris", "1.0.0", "petal_width")
    context = browser.new_context(locale="de-AT")
    page = context.new_page()
    page.goto(service.url)
    expect(card(page, "iris").locator(".states")).to_have_text("auf Probe")
    expect(page.get_by_role("button", name="Vorhersagen", exact=True)).to_be_visible()
    assert page.locator("html").get_attribute("lang") == "de"
    page.get_by_role("button", name="English").click()
    expect(card(page, "iris").locator(".states")).to_have_text("on probation")
    page.reload()
    expect(page.locator("html")).to_have_attribute("lang", "en")
    context.close()


def hostile() -> dict[str, object]:
    """Return a status whose every text is markup."""
    model = {
        "name": MARKUP, "active": MARKUP, "serving": MARKUP, "state": "good", "previous": MARKUP, "since": MARKUP,
        "why": MARKUP, "problem": MARKUP, "probation": None,
        "experiment": {"kind": MARKUP, "step": 1, "steps": 2, "shadow": None,
                       "arms": [{"version": MARKUP, "share": 1}]},
        "drift": {"state": MARKUP, "since": MARKUP, "columns": [MARKUP]},
    }  # fmt: skip
    alarm = {
        "level": "red",
        "kind": MARKUP,
        "model": MARKUP,
        "values": {"reason": MARKUP},
        "found": MARKUP,
        "next": MARKUP,
    }
    failure = {"model": MARKUP, "fault": "caller", "time": 1, "reason": MARKUP, "column": MARKUP}
    return {
        "program": MARKUP, "host": MARKUP, "platform": MARKUP, "uptime_seconds": 1, "ready": False, "reasons": [],
        "level": "red", "alarms": [alarm], "tokens": False, "logged": True, "models": [model], "counts": [],
        "last_failures": [failure],
    }  # fmt: skip


def test_names_columns_and_categories_are_text_and_never_markup(start_service, visit):
    service = start_service(IRIS)
    page = visit.page
    column = {"column": MARKUP, "state": MARKUP, "because": [MARKUP], "psi": 1, "missing": 0, "missing_in_training": 0}
    answers = {
        "status": hostile(),
        "columns": {"columns": [{"name": MARKUP, "type": "string", "missing": False, "required": True, "closed": closed,
                                 "categories": [MARKUP], "low": None, "high": None, "typical": json.dumps(MARKUP)}
                                for closed in (True, False)]},
        "examples": {"rows": [[json.dumps(MARKUP)] * 2], "version": MARKUP},
        "distribution": {"rows": 1, "until": MARKUP, "left_out": 0, "columns": [
            {**column, "role": role, "edges": [], "labels": [MARKUP, ""], "training": [1, 0], "now": [0.5, 0.5]}
            for role in ("input", "output")]},
        "experiment": {"model": MARKUP, "running": False, "problem": MARKUP, "last":
                       {"kind": MARKUP, "version": MARKUP, "outcome": MARKUP, "when": MARKUP, "why": MARKUP}},
        "receipts": {"receipts": [{"what": MARKUP, "when": MARKUP, "version": MARKUP, "why": MARKUP}]},
        "answers": {"policy": {MARKUP: MARKUP}, "answers": [{"id": MARKUP, "time": 1, "version": MARKUP, "error": "",
                    "row": {MARKUP: MARKUP}, "prediction": MARKUP, "probability": None, "milliseconds": 1}]},
        "quality": {"labels": dict.fromkeys(("matched", "late", "unknown", "waiting"), 0), "windows": []},
        "history": service.ask("GET", "/models/iris/history")[1],
        "models/[^/]+": hostile()["models"][0]
        | {"versions": [{"version": MARKUP, "problem": MARKUP, "active": False}]},
        "predict": {"prediction": [MARKUP], "probability": [{MARKUP: 1}], "model": MARKUP, "version": MARKUP},
    }  # fmt: skip
    for path, told in answers.items():
        answered(page, re.compile(rf"/{path}(\?.*)?$"), told)
    page.goto(service.url)
    shown = page.get_by_role("article")
    expect(shown.locator(".receipts strong")).to_contain_text(MARKUP)
    expect(shown.locator(".shares .label").first).to_have_text(MARKUP)
    expect(shown.locator("label").first).to_have_text(MARKUP)
    expect(shown.get_by_role("cell", name=MARKUP).first).to_be_visible()
    page.get_by_role("button", name="Predict", exact=True).click()
    expect(page.locator(".answer .prediction")).to_have_text(MARKUP)
    page.get_by_role("button", name="Copy as curl").click()
    expect(page.locator(".snippet pre")).to_contain_text("<img")
    expect(page.locator("img, article script")).to_have_count(0)
    assert visit.complaints == []


def many(count: int) -> dict[str, object]:
    """Return a status of many models."""
    told = hostile() | {
        "alarms": [],
        "level": "green",
        "last_failures": [],
        "program": "1",
        "host": "h",
        "platform": "p",
    }
    (model,) = told["models"]
    calm = {"why": "", "problem": "", "experiment": None, "drift": None, "since": "2026-01-01T00:00:00+00:00"}
    told["models"] = [model | calm | {"name": f"model-{number}"} for number in range(count)]
    return told


def test_thirty_models_are_shown_by_one_question_and_nothing_is_drawn_twice(start_service, visit):
    service = start_service(IRIS)
    write_day(service.store, "iris")
    hour, day = (service.ask("GET", f"/history?span={span}")[1]["models"][0] for span in ("hour", "day"))
    page = visit.page
    answered(page, re.compile("/status$"), many(30))
    for span, told in (("hour", hour), ("day", day)):
        series = {"models": [told | {"model": f"model-{number}"} for number in range(30)]}
        answered(page, re.compile(rf"/history\?span={span}$"), series)
    page.goto(service.url)
    expect(page.get_by_role("article")).to_have_count(30)
    expect(page.locator("article svg")).to_have_count(60)
    assert page.locator("article *").count() < 30 * 60
    page.evaluate("""() => {
        window.changes = [];
        const told = (one) => one.target.outerHTML ?? one.target.data;
        const watch = new MutationObserver((all) => window.changes.push(...all.map(told)));
        const all = { subtree: true, childList: true, characterData: true, attributes: true };
        watch.observe(document.querySelector("#models"), all);
    }""")
    with page.expect_response("**/status"):
        pass
    with page.expect_response("**/status"):
        pass
    changes = [one for one in page.evaluate("window.changes") if "Per second" not in one]
    assert changes == []
    asked = [url.removeprefix(service.url) for url in visit.urls if "/dashboard/" not in url]
    assert sorted(set(asked)) == ["/", "/history?span=day", "/history?span=hour", "/status"]
    assert asked.count("/history?span=hour") == 1


def test_nothing_is_asked_while_nobody_looks(start_service, visit):
    service = start_service(IRIS)
    page = visit.page
    page.clock.install()
    page.add_init_script("Object.defineProperty(document, 'hidden', { get: () => window.away === true });")
    page.goto(service.url)
    expect(card(page, "iris").locator(".receipts li")).to_have_count(2)
    turn = "window.away = {}; document.dispatchEvent(new Event('visibilitychange'))"
    page.evaluate(turn.format("true"))
    page.clock.run_for(3_000)  # what was under way ends
    before = len(visit.urls)
    page.clock.run_for(600_000)
    assert visit.urls[before:] == []
    with page.expect_response("**/status"):
        page.evaluate(turn.format("false"))


def test_it_fits_a_small_phone(start_service, browser):
    service = start_service(IRIS, OVEN)
    page = browser.new_page(viewport={"width": 360, "height": 740})
    page.goto(f"{service.url}/#iris,oven")
    expect(page.get_by_role("article")).to_have_count(2)
    expect(page.locator(".receipts li")).to_have_count(4)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.close()


def test_the_files_are_small_need_no_token_and_forbid_everything_foreign(start_service):
    from appliance.rest import dashboard

    service = start_service()
    assert {"index.html", "app.js", "style.css", "icon.svg", "en.json", "de.json"} <= dashboard.names()
    for path in ("/", *(f"/dashboard/{name}" for name in sorted(dashboard.names()))):
        status, headers, content = service.send("GET", path, headers={"Accept": "text/html,*/*"})
        assert status == 200, path
        assert headers["Content-Security-Policy"].startswith("default-src 'self';"), path
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert len(content) < 16 * 1024
        assert content.count(b"\n") < 400
        elsewhere = re.findall(rb"(?:https?:)?//[a-z][^\s\"']+", content.replace(b"http://www.w3.org/2000/svg", b""))
        assert elsewhere == [], path
    for name in ("__init__.py", "none.js", "..%2Fadmin.py", "%2e%2e", ""):
        assert service.send("GET", f"/dashboard/{name}")[0] == 404, name
