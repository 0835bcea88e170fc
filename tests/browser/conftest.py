"""A real ComfyUI in a real browser for the tests of this folder; without them they are skipped."""

from __future__ import annotations

import pytest
from browser.comfy_page import ComfyPage, launch, why_not
from host.comfy_host import Http, find_comfyui


def _missing() -> str | None:
    return why_not() or (None if find_comfyui() else "no ComfyUI: set COMFYUI_PATH to a checkout of it")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent.name == "browser":
            item.add_marker(pytest.mark.browser)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    reason = _missing() if report.skipped else None
    if reason:
        # From one place, so that pytest's summary has one line about all of them.
        report.longrepr = (__file__, 1, reason)
    return report


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if reason := _missing():
        pytest.skip(reason)
    server = Http(find_comfyui(), tmp_path_factory.mktemp("browser"))
    yield server
    server.close()


@pytest.fixture(scope="module")  # its event loop must not outlive this folder: ComfyUI's tests start their own
def browser(server):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="module", params=["en", "zh"])
def page(request, browser, server):
    """The editor, in English and in Chinese."""
    page = ComfyPage(browser, server.url, request.param)
    yield page
    page.close()
