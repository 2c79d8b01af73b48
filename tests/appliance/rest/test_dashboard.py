"""The page, in a real Chromium: it shows what serves, predicts, and loads nothing from anywhere else."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from appliance.bundle import baseline
from appliance.bundle.baseline import PROBABILITIES, Baseline, Numbers
from appliance.drift_report import ColumnReport, DriftReport
from appliance.monitoring import drift_state

ARGUMENTS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
IRIS = ("iris", "1.0.0", "labels")
TOKEN = "reader-0123456789abcdef"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or os.environ.get("CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield browser
        browser.close()


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
    page.set_default_timeout(20_000)
    yield Visit(page)
    page.close()


def card(page: Page, name: str):
    return page.locator("article").filter(has=page.get_by_role("heading", name=name, exact=True))


def field(page: Page, label: str):
    return page.locator("form#predict").get_by_label(label, exact=True)


def fill(page: Page, **values: str) -> None:
    for label, value in values.items():
        field(page, label).fill(value)


def picture(page: Page, name: str) -> None:
    """Keep what the page looks like, where `make docs` asks for it."""
    if folder := os.environ.get("PICTURES"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def test_it_shows_the_active_version_and_predicts_without_leaving_its_origin(start_service, visit):
    service = start_service(IRIS)
    page = visit.page
    page.goto(service.url)
    expect(page.locator("#ready")).to_have_text("ready")
    iris = card(page, "iris")
    expect(iris.locator(".version")).to_have_text("1.0.0")
    expect(iris.locator(".state")).to_have_text("on probation")
    fill(page, sepal_length="9", sepal_width="1", petal_length="1.5", petal_width="-2e-1")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#answer .prediction")).to_have_text("setosa")
    expect(page.locator("#answer")).to_contain_text("iris 1.0.0")
    expect(page.get_by_role("meter")).to_have_count(3)
    expect(iris.locator("[data-number=requests]")).to_have_text("1")
    picture(page, "dashboard")
    assert visit.complaints == []
    assert visit.urls
    assert all(url.startswith(service.url + "/") for url in visit.urls)


def test_it_follows_a_switch_without_being_loaded_again(start_service, visit, tmp_path, make_bundle):
    service = start_service(IRIS)
    page = visit.page
    page.goto(service.url)
    expect(card(page, "iris").locator(".version")).to_have_text("1.0.0")
    fill(page, sepal_length="7")
    service.ask("POST", "/models/iris/mark-good")
    expect(card(page, "iris").locator(".state")).to_have_text("good")
    service.install(make_bundle(tmp_path, version="1.1.0", kind="labels"))
    service.ask("POST", "/models/iris/versions/1.1.0/activate")
    expect(card(page, "iris").locator(".version")).to_have_text("1.1.0")
    expect(field(page, "sepal_length")).to_have_value("7")  # what was typed stays
    expect(card(page, "iris").locator("summary")).to_have_text("2 installed versions")
    card(page, "iris").locator("summary").click()
    expect(card(page, "iris").locator("tbody tr").first).to_contain_text("± 0.00001")


def test_it_shows_the_experiment_and_each_versions_part(start_service, visit, tmp_path, make_bundle):
    service = start_service(IRIS)
    service.install(make_bundle(tmp_path, version="1.1.0", kind="labels"))
    wish = {"kind": "canary", "version": "1.1.0", "steps": [5, 50], "hold": True}
    assert service.ask("POST", "/models/iris/experiment", wish)[0] == 200
    page = visit.page
    page.goto(service.url)
    told = card(page, "iris").locator(".experiment")
    expect(told).to_have_text("canary, step 0 of 2: 1.0.0 answers 100 %, 1.1.0 answers 0 %, 1.1.0 is asked beside")
    service.ask("POST", "/models/iris/experiment/promote")
    expect(told).to_have_text("canary, step 1 of 2: 1.0.0 answers 95 %, 1.1.0 answers 5 %, 1.1.0 is asked beside")
    card(page, "iris").locator("summary").click()
    expect(card(page, "iris").locator("tbody tr").first).to_contain_text("canary 5 %")
    picture(page, "dashboard-experiment")
    service.ask("POST", "/models/iris/experiment/abort")
    expect(told).to_be_hidden()


def test_it_shows_the_columns_that_have_drifted(start_service, visit, tmp_path, make_bundle):
    numbers = Numbers(0.0, [0.0] * 13, 0.0, 1.0, [0.0, 1.0], [0, 100, 0])
    content = baseline.write(Baseline(2, 100, PROBABILITIES, {"petal_width": numbers}, {}))
    service = start_service(IRIS)
    service.install(make_bundle(tmp_path, version="1.1.0", kind="labels", baseline=content))
    assert service.ask("POST", "/models/iris/versions/1.1.0/activate")[0] == 200
    page = visit.page
    page.goto(service.url)
    drift = card(page, "iris").locator(".drift")
    expect(card(page, "iris").locator(".version")).to_have_text("1.1.0")
    expect(drift).to_be_hidden()
    column = ColumnReport(column="petal_width", role="input", state="drift", because=["..."])
    report = DriftReport(
        model="iris", version="1.1.0", state="drift", since="2026-01-01T00:00:00+00:00", columns=[column]
    )
    store = service.store
    with store.writing("test"):
        drift_state.write(store, ("iris", "1.1.0"), drift_state.DriftState(drift_state.FORMAT, [], report=report))
    expect(drift).to_have_text(re.compile("^drift since .*: petal_width$"))


def test_a_table_model_has_one_field_of_the_right_kind_for_each_column(start_service, visit):
    service = start_service(("oven", "1.0.0", "table"))
    page = visit.page
    page.goto(service.url)
    fill(page, **{"temp-C": "20.5", "count": "3", "site": "north"})
    field(page, "on").select_option("true")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#answer .prediction")).to_have_text("233.5")
    assert visit.complaints == []


def test_a_model_is_chosen_where_there_are_several(start_service, visit):
    service = start_service(IRIS, ("oven", "1.0.0", "table"))
    page = visit.page
    page.goto(service.url)
    expect(field(page, "sepal_length")).to_be_visible()
    field(page, "Model").select_option("oven")
    expect(field(page, "temp-C")).to_be_visible()
    expect(field(page, "sepal_length")).to_have_count(0)


def test_a_refusal_is_shown_in_words(start_service, visit):
    service = start_service(("oven", "1.0.0", "table"))
    page = visit.page
    page.goto(service.url)
    fill(page, **{"temp-C": "1", "count": "99999999999999999999"})
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#answer .problem")).to_contain_text("count")


def test_with_tokens_it_asks_for_one_and_keeps_it_for_the_tab(start_service, visit, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text(f"predict {TOKEN}\n")
    tokens.chmod(0o600)
    service = start_service(IRIS, tokens_file=str(tokens))
    page = visit.page
    page.goto(service.url)
    expect(page.locator("#ready")).to_have_text("token needed")
    page.get_by_label("This service wants a token").fill("wrong")
    page.get_by_role("button", name="Use it").click()
    expect(page.locator("#token-problem")).to_contain_text("unknown")
    page.get_by_label("This service wants a token").fill(TOKEN)
    page.get_by_role("button", name="Use it").click()
    expect(card(page, "iris").locator(".version")).to_have_text("1.0.0")
    expect(page.locator("#token-form")).to_be_hidden()
    page.reload()
    expect(card(page, "iris").locator(".version")).to_have_text("1.0.0")
    assert page.evaluate("localStorage.length") == 0


def test_a_service_without_models_says_what_to_do(start_service, visit):
    service = start_service()
    visit.page.goto(service.url)
    expect(visit.page.locator("#ready")).to_have_text("not ready")
    expect(visit.page.locator("#reasons")).to_contain_text("appliance activate")
    expect(visit.page.locator("#no-models")).to_be_visible()
    expect(visit.page.locator("#predict")).to_be_hidden()


def test_a_service_that_is_gone_is_told(start_service, visit):
    service = start_service(IRIS)
    visit.page.goto(service.url)
    expect(visit.page.locator("#ready")).to_have_text("ready")
    service.close()
    expect(visit.page.locator("#ready")).to_have_text("not reachable")


def test_names_of_models_and_columns_are_text_and_never_markup(start_service, visit):
    service = start_service(IRIS)
    page = visit.page
    page.route("**/models", lambda route: route.fulfill(json={"models": [_hostile()]}))
    page.goto(service.url)
    expect(page.locator("article h3")).to_have_text("<img src=x onerror=alert(1)>")
    expect(page.locator("article img, form img")).to_have_count(0)


def _hostile() -> dict[str, object]:
    text = "<img src=x onerror=alert(1)>"
    tensor = {"name": text, "type": "string", "shape": [-1, 1], "columns": [text], "categories": [text]}
    version = {"version": text, "active": True, "task": None, "inputs": [tensor], "outputs": [], "problem": text}
    return {
        "name": text, "active": text, "serving": text, "state": "good", "previous": text, "since": text, "why": text,
        "problem": text, "versions": [version],
    }  # fmt: skip


def test_every_control_has_a_label_and_what_changes_is_announced(start_service, visit):
    service = start_service(IRIS)
    page = visit.page
    page.goto(service.url)
    expect(field(page, "sepal_length")).to_be_visible()
    unlabelled = page.eval_on_selector_all(
        "input, select, textarea", "(all) => all.filter((one) => one.labels.length === 0).map((one) => one.outerHTML)"
    )
    assert unlabelled == []
    assert page.locator("#answer").get_attribute("aria-live") == "polite"
    assert page.locator("#ready").get_attribute("role") == "status"
    assert page.locator("html").get_attribute("lang") == "en"


def test_it_fits_a_phone(start_service, browser):
    service = start_service(IRIS, ("oven", "1.0.0", "table"))
    page = browser.new_page(viewport={"width": 360, "height": 740})
    page.goto(service.url)
    expect(page.locator("article")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    picture(page, "dashboard-phone")
    page.close()


def test_the_files_are_small_need_no_token_and_forbid_everything_foreign(start_service):
    service = start_service()
    for path in ("/", "/dashboard/app.js", "/dashboard/style.css", "/dashboard/icon.svg"):
        status, headers, content = service.send("GET", path, headers={"Accept": "text/html,*/*"})
        assert status == 200, path
        assert headers["Content-Security-Policy"].startswith("default-src 'self';"), path
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert len(content) < 16 * 1024
        elsewhere = re.findall(rb"(?:https?:)?//[a-z][^\s\"']+", content.replace(b"http://www.w3.org/2000/svg", b""))
        assert elsewhere == [], path
    assert service.send("GET", "/dashboard/__init__.py")[0] == 404
