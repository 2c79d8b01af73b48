"""/docs in a real Chromium: it shows openapi.json, tries a call, and loads nothing from anywhere else."""

import os
import re
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from appliance import extras
from appliance.rest import docs

ARGUMENTS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
IRIS = ("iris", "1.0.0", "labels")
TOKEN = "reader-0123456789abcdef"
FILES = ("/docs", "/docs/start.js", "/docs/style.css", "/docs/swagger-ui.js", "/docs/swagger-ui.css")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or os.environ.get("CHROMIUM")
    with sync_playwright() as playwright:
        expect.set_options(timeout=60_000)  # of a busy machine
        browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1440, "height": 1000}, color_scheme="light")
    page.set_default_timeout(60_000)
    page.urls, page.complaints = [], []
    page.on("request", lambda request: page.urls.append(request.url))
    page.on("console", lambda message: page.complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    yield page
    page.close()


def open_docs(page: Page, url: str) -> None:
    page.goto(f"{url}/docs")
    page.wait_for_selector(".opblock")  # 2 MB of script, on a machine that may be busy


def operation(page: Page, path: str):
    return page.locator(".opblock").filter(has=page.locator(f'[data-path="{path}"]'))


def test_it_shows_every_route_and_tries_one_without_leaving_its_origin(start_service, page):
    service = start_service(IRIS)
    open_docs(page, service.url)
    predict = operation(page, "/models/{name}/predict")
    expect(predict).to_be_visible()
    shown = {element.get_attribute("data-path") for element in page.locator(".opblock-summary-path").all()}
    assert shown == set(service.ask("GET", "/openapi.json")[1]["paths"])
    predict.locator(".opblock-summary-control").click()
    predict.get_by_placeholder("name").fill("iris")
    predict.locator("textarea.body-param__text").fill('{"features": [[9, 1, 1.5, 0]]}')
    predict.get_by_role("button", name="Execute").click()
    expect(predict.locator(".live-responses-table tbody .response-col_status").first).to_contain_text("200")
    expect(predict.locator(".live-responses-table")).to_contain_text('"setosa"')
    expect(predict.locator(".request-snippets")).to_contain_text("curl")
    assert page.complaints == []
    assert len(page.urls) > 5
    assert all(url.startswith((f"{service.url}/", "data:")) for url in page.urls)


def test_with_tokens_the_tabs_token_goes_along(start_service, page, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text(f"predict {TOKEN}\n")
    tokens.chmod(0o600)
    service = start_service(IRIS, tokens_file=str(tokens))
    open_docs(page, service.url)
    page.evaluate("(token) => sessionStorage.setItem('appliance-token', token)", TOKEN)
    page.reload()
    page.wait_for_selector(".opblock")
    expect(page.locator("#document option")).to_have_text(["the whole service", "model iris"])
    status = operation(page, "/status")
    status.locator(".opblock-summary-control").click()
    status.get_by_role("button", name="Execute").click()
    expect(status.locator(".live-responses-table tbody .response-col_status").first).to_contain_text("200")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_is_readable_in_the_dark(start_service, browser, scheme):
    service = start_service(IRIS)
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    page.set_default_timeout(60_000)
    open_docs(page, service.url)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    summary = operation(page, "/models/{name}/predict").locator(".opblock-summary-path")
    ink = summary.evaluate("(one) => getComputedStyle(one).color")
    background = page.locator("body").evaluate("(one) => getComputedStyle(one).backgroundColor")
    light, dark = (sum(map(int, re.findall(r"\d+", text)[:3])) for text in (ink, background))
    assert (light < 250 and dark > 600) if scheme == "light" else (light > 450 and dark < 200)
    page.close()


def test_without_the_extra_it_says_which_one_brings_it(start_service, page, monkeypatch):
    service = start_service(IRIS)
    docs._viewer.cache_clear()
    monkeypatch.setitem(extras.MODULES, "docs", ("no_such_module",))
    try:
        page.goto(f"{service.url}/docs")
        expect(page.locator("pre")).to_have_text("pip install 'edge-inference-appliance[docs]'")
        page.get_by_role("link", name="openapi.json").click()
        expect(page.locator("body")).to_contain_text('"openapi":"3.1.0"')
        status, answer = service.ask("GET", "/docs/swagger-ui.js")
        assert (status, answer["next"]) == (404, "pip install 'edge-inference-appliance[docs]'")
    finally:
        docs._viewer.cache_clear()


def test_its_files_need_no_token_allow_nothing_foreign_and_are_all_there_is(start_service):
    service = start_service()
    for path in FILES:
        status, headers, content = service.send("GET", path, headers={"Accept-Encoding": "gzip"})
        assert status == 200, path
        assert headers["Content-Security-Policy"].startswith("default-src 'self'; img-src 'self' data:;")
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert len(content) < 700_000, path
    for path in ("/docs/__init__.py", "/docs/index.html", "/docs/swagger-ui-bundle.js", "/docs/..%2fauth.py"):
        assert service.send("GET", path)[0] == 404, path
