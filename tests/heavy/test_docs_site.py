"""The documentation site, as `make docs` leaves it in dist/docs: opened from a file it is whole and asks nobody."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

SITE = Path(__file__).parents[2] / "dist" / "docs"
ARGUMENTS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture
def page() -> Iterator[Page]:
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or os.environ.get("CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        page = browser.new_page(locale="en-GB")
        page.set_default_timeout(20_000)
        yield page
        browser.close()


def test_it_opens_from_a_file_finds_a_setting_and_asks_no_host(page):
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    page.goto((SITE / "index.html").as_uri())
    page.get_by_role("textbox", name="Search").click()
    page.keyboard.type("APPLIANCE_MQTT_OUTBOX_FULL")
    found = page.locator(".md-search-result__link").first
    expect(found).to_have_attribute("href", re.compile(r"configuration\.html"))
    found.click()
    expect(page).to_have_url(re.compile(r"^file:.*/configuration\.html"))
    assert urls
    assert [url for url in urls if not url.startswith(("file:", "data:", "blob:"))] == []


def test_no_page_names_a_script_a_style_or_a_picture_elsewhere():
    pages = list(SITE.rglob("*.html"))
    assert len(pages) > 20
    loaded = re.compile(r"<(?:script|img|link|iframe)\b[^>]*?(?:src|href)=[\"']?((?:https?:)?//[^\"' >]+)")
    assert [(one.name, url) for one in pages for url in loaded.findall(one.read_text())] == []


def test_the_pictures_of_the_dashboard_are_shown(page):
    page.goto((SITE / "how-to" / "watch.html").as_uri())
    pictures = page.locator("article img")
    expect(pictures).to_have_count(2)
    assert all(pictures.nth(number).evaluate("(image) => image.naturalWidth") > 300 for number in range(2))
