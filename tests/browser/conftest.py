"""A real browser before a real cluster. `make test-browser`, and not part of `make test`.

The browser is Debian's chromium (`apt-get install chromium`), or the one that CHROMIUM names.
"""

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, async_playwright

from tests.browser.stage import PATIENT, Stage
from tests.support.agents import close_peers
from tests.support.cluster import Cluster

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    if not CHROMIUM:
        pytest.fail("no chromium: apt-get install chromium, or name one in CHROMIUM")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        await browser.close()


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """Two instances, and nodes that work."""
    cluster = Cluster(tmp_path, DEBUG="false", ALLOWED_HOSTS="127.0.0.1", **PATIENT)
    cluster.start_server()
    try:
        yield await Stage.set_up(cluster)
    finally:
        await close_peers()
        cluster.end()
    cluster.check_logs()


@pytest.fixture
async def page(browser: Browser, stage: Stage) -> AsyncIterator[Page]:
    """A page of someone who may act, logged in; whatever it says on its console is a fault."""
    context = await browser.new_context(viewport={"width": 1360, "height": 900})
    page = await context.new_page()
    await stage.log_in(page, "olga")
    said: list[str] = []
    page.on("console", lambda m: said.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    yield page
    await context.close()
    assert said == []
