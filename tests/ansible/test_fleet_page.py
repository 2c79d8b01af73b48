"""The fleet on one page, opened from a file in a real Chromium: sorted, filtered, quick, and safe with any name."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.ansible.plugins import plugin

fleet, fleet_page = plugin("filter", "fleet"), plugin("filter", "fleet_page")

HOSTILE = "</script><img src=x onerror=alert(1)>\u202e<!--<script>"
RUNNING = {
    "id": "00aa11bb", "kind": "canary", "step": 1, "steps": 3, "verdict": "too early to tell",
    "arms": [{"version": "1.0.0", "share": 0.95}, {"version": "1.1.0", "share": 0.05}], "shadow": None,
}  # fmt: skip


def status(host: str, version: str = "1.0.0", **more: object) -> dict[str, object]:
    model = {
        "name": "iris", "active": version, "previous": None, "state": "good", "since": "2026-01-01T00:00:00+00:00",
        "versions": [version], "why": "", "self_test": {"when": "2026-01-01T00:00:01+00:00", "rows": 59}, "problem": "",
        "experiment": None, "probation": None, "drift": {"state": "fine", "since": "", "columns": []}, "quality": None,
    }  # fmt: skip
    head = {"model": "iris", "version": version, "slot": 0, "segment": 3, "seal": 17, "chain": "ab" * 32, "t": 1.0}
    return {
        "host": host, "time": "2026-02-03T04:05:06+00:00", "appliance": "1.0.0", "disk_free_bytes": 5 * 2**30,
        "log": [head], "models": [model | more],
    }  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or os.environ.get("CHROMIUM")
    with sync_playwright() as playwright:
        expect.set_options(timeout=60_000)  # of a busy machine
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def look(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Return look(entries, width=1440, scheme="light") -> the page of a fleet, opened from a file."""
    pages: list[Page] = []

    def open_page(entries: list, width: int = 1440, scheme: str = "light") -> Page:
        file = tmp_path / "fleet.html"
        file.write_text(fleet_page.page(entries, "2026-02-03T04:06:00+00:00"), encoding="utf-8")
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.set_default_timeout(60_000)
        page.asked, page.complaints = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("dialog", lambda dialog: page.complaints.append("dialog"))
        page.goto(file.as_uri())
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()


@pytest.fixture
def small() -> list:
    """A fleet of five: fine, drifting, trying a version, known by a receipt, silent."""
    asked = {
        "h1": {"status": status("h1"), "ready": True},
        "h2": {"status": status("h2", "1.1.0", drift={"state": "drift", "since": "", "columns": ["petal width"]}),
               "ready": True},
        "h10": {"status": status("h10", experiment=RUNNING, state="probation", quality={"accuracy": 0.97123,
                "coverage": 0.5}), "ready": False},
        "h3": None,
    }  # fmt: skip
    receipt = {
        **fleet._of_status("mine", status("mine")),
        "reachable": "receipt",
        "ready": True,
        "receipt": "mine.json",
    }
    return fleet.merged(fleet.entries(asked), [receipt])


def column(page: Page, name: str) -> list[str]:
    place = page.locator("thead th").all_inner_texts()
    place = [text.rstrip(" ▲▼") for text in place].index(name)
    return page.eval_on_selector_all("tbody tr", f"(all) => all.map((one) => one.children[{place}].textContent)")


def test_it_tells_of_every_host_and_asks_nobody(look, small):
    page = look(small)
    assert column(page, "host") == ["h1", "h2", "h3", "h10", "mine"]
    assert column(page, "answers") == ["yes", "yes", "no", "yes", "receipt"]
    assert column(page, "version") == ["1.0.0", "1.1.0", "–", "1.0.0", "1.0.0"]
    assert column(page, "last seen")[0] == "2026-02-03 04:05:06"
    assert column(page, "drift")[1] == "drift: petal width"
    assert column(page, "quality")[3] == "coverage 0.5, accuracy 0.9712"
    told = "canary step 1/3: 1.0.0 95 %, 1.1.0 5 %; too early to tell"
    assert column(page, "experiment, probation")[3] == told
    assert column(page, "log heads")[0] == f"1.0.0/0: {'ab' * 8}"
    assert column(page, "disk free")[0] == "5120 MiB"
    assert page.locator("#summary li").all_inner_texts()[:5] == [
        "hosts: 5", "ready: 3", "not ready: 1", "known by receipt: 1", "no answer: 1",
    ]  # fmt: skip
    assert "2026-02-03 04:06:00" in page.locator("#made").inner_text()
    assert page.complaints == []
    assert [url for url in page.asked if not url.startswith(("file:", "data:"))] == []


def test_it_is_sorted_by_a_click_and_filtered_by_words_and_kind(look, small):
    page = look(small)
    expect(page.locator("thead th").first).to_have_attribute("aria-sort", "ascending")
    page.get_by_role("button", name="version").click()
    assert column(page, "version")[-1] == "1.1.0"
    page.get_by_role("button", name="version").click()
    assert column(page, "version")[0] == "1.1.0"
    expect(page.locator("thead th").nth(6)).to_have_attribute("aria-sort", "descending")
    for which, hosts in (("drift", {"h2"}), ("away", {"h3", "mine"}), ("experiment", {"h10"}),
                         ("attention", {"h2", "h3", "h10"})):  # fmt: skip
        page.get_by_label("Show").select_option(which)
        assert set(column(page, "host")) == hosts, which
    page.get_by_label("Show").select_option("all")
    page.get_by_label("Find").fill("IRIS petal")
    expect(page.locator("#count")).to_have_text("1 of 5 rows")
    assert column(page, "host") == ["h2"]


def test_a_thousand_hosts_are_sorted_and_filtered_quickly(look):
    asked = {
        f"press-{number}": {"status": status(f"press-{number}", f"1.0.{number % 7}"), "ready": number % 9 != 0}
        for number in range(1000)
    }
    page = look(fleet.entries(asked))
    expect(page.locator("#count")).to_have_text("1000 of 1000 rows")
    page.get_by_label("Find").fill("press-99")
    expect(page.locator("#count")).to_have_text("11 of 1000 rows")
    page.get_by_label("Find").fill("")
    expect(page.locator("#count")).to_have_text("1000 of 1000 rows")
    page.get_by_role("button", name="host").click()
    assert column(page, "host")[:3] == ["press-999", "press-998", "press-997"]
    assert len(Path(page.url.removeprefix("file://")).read_bytes()) < 1_500_000
    assert page.complaints == []


def test_what_hosts_say_is_text_and_never_markup(look):
    evil = status(HOSTILE, HOSTILE, name=HOSTILE, state=HOSTILE, problem=HOSTILE, since=HOSTILE,
                  drift={"state": HOSTILE, "columns": [HOSTILE]}, quality={HOSTILE: 0.5, "coverage": HOSTILE},
                  probation={"verdict": HOSTILE}, self_test={"when": HOSTILE},
                  experiment=RUNNING | {"kind": HOSTILE, "arms": [{"version": HOSTILE, "share": HOSTILE}]})  # fmt: skip
    evil["log"] = [{"model": HOSTILE, "version": HOSTILE, "slot": HOSTILE, "chain": HOSTILE}]
    strange = status("strange") | {"log": "x", "disk_free_bytes": "much"}
    entries = fleet.entries({HOSTILE: {"status": evil, "ready": True}, "strange": {"status": strange, "ready": True}})
    page = look(entries)
    expect(page.locator("tbody tr")).to_have_count(2)
    assert page.locator("tbody th").first.inner_text() == HOSTILE.replace("\u202e", "\\u202e")
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 2
    assert page.complaints == []


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1440, "light"), (1440, "dark")])
def test_it_is_accessible_and_fits(look, small, width, scheme):
    page = look(small, width, scheme)
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if folder := os.environ.get("PICTURES"):
        name = "fleet" if (width, scheme) == (1440, "light") else f"fleet-{width}-{scheme}"
        page.screenshot(path=Path(folder) / f"{name}.png", clip={"x": 0, "y": 0, "width": width, "height": 400})


def test_the_data_in_it_is_what_the_file_has(small):
    text = fleet_page.page(small)
    data = text.partition('id="data">')[2].partition("</script>")[0]
    assert json.loads(data)["hosts"] == json.loads(json.dumps(small))
    assert "unsafe" not in text.partition("<style>")[0]
