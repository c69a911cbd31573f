"""The operator pages in a browser: live, without a fault on the console, and usable by anyone."""

import asyncio
import json
import os
from pathlib import Path

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, expect

from tests.browser.stage import Stage
from tests.support.waiting import eventually

IMAGES = Path(__file__).resolve().parent.parent.parent / "docs" / "images"

PAGES = {
    "cluster": "",
    "nodes": "nodes",
    "node": "nodes/gpu-dc-1",
    "pools": "pools",
    "pool": "pools/zh-en",
    "tasks": "tasks",
    "sessions": "sessions",
    "queues": "queues",
    "dead-letters": "dead-letters",
    "simulate": "simulate?src=zh&tgt=en&n=2",
    "alerts": "alerts",
    "audit": "audit",
    "act": "nodes/gpu-dc-1/drain",
}


LOOKS = {
    "cluster": ("light", "dark", "phone"),
    "nodes": ("light", "dark", "phone"),
    "task": ("light", "phone"),
    "dead-letters": ("light", "dark", "phone"),
    "queues": ("light", "phone"),
}
"""Which pictures are taken of a page; of others one is enough."""


async def visit(page: Page, stage: Stage, path: str) -> None:
    await page.goto(stage.one.url(f"/ops/{path}"))
    await page.wait_for_selector("#live[data-state=live]")


async def test_a_page_follows_a_node_drain_without_a_reload(page: Page, stage: Stage) -> None:
    await visit(page, stage, "nodes")
    await page.evaluate("window.neverReloaded = true")
    row = page.locator("tr[data-id=gpu-dc-2]")
    await expect(row).to_contain_text("ready")
    other = await page.context.new_page()
    await visit(other, stage, "nodes/gpu-dc-2")
    await other.click("text=Drain")
    await other.fill("[name=reason]", "new cooling")
    await other.click("button.primary")
    await expect(other.locator(".message")).to_contain_text("gets nothing new")
    await expect(row).to_contain_text("draining")
    await expect(other.locator("[data-part=node]")).to_contain_text("It takes no job")
    await expect(other.locator("text=Resume")).to_be_visible()
    await expect(other.locator("main")).to_contain_text("new cooling")
    assert await page.evaluate("window.neverReloaded")


async def test_a_page_follows_a_leader_change_without_a_reload(page: Page, stage: Stage) -> None:
    await visit(page, stage, "")
    await page.evaluate("window.neverReloaded = true")
    card = page.locator("section[aria-labelledby=card-leader]")
    before = await card.locator(".big").inner_text()
    # In a thread: the nodes' heartbeats go on meanwhile.
    done = await asyncio.to_thread(stage.cluster.run, "leader", "step-down")
    assert done.returncode == 0, done.stderr
    await expect(card.locator(".big")).not_to_have_text(before, timeout=15_000)
    await expect(card.locator(".big")).to_have_text("two" if before == "one" else "one")
    assert await page.evaluate("window.neverReloaded")


async def worked_on(page: Page, stage: Stage) -> dict[str, str]:
    """More pages, once there is waiting work, and dead letters."""
    retried = await stage.work()
    await stage.bury(3)
    await stage.bury(1, tenant="globex")
    await visit(page, stage, "dead-letters")
    link = await page.locator("[data-part=letters] tbody th a").first.get_attribute("href")
    assert link is not None
    path = link.removeprefix("/ops/")
    letter_id = path.rpartition("/")[2]
    return {
        "task": f"tasks/{retried}",
        "letter": path,
        "letter-act": f"dead-letters/do/replay?id={letter_id}",
        "letters-act": "dead-letters/do/drop?all=1",
    }


async def test_a_dead_letters_replay_is_followed_without_a_reload(page: Page, stage: Stage) -> None:
    await stage.bury(3)
    await visit(page, stage, "dead-letters")
    await page.evaluate("window.neverReloaded = true")
    rows = page.locator("[data-part=letters] tbody tr")
    await expect(rows).to_have_count(3)
    await rows.last.locator("input").check()
    await stage.repair()
    other = await page.context.new_page()
    await visit(other, stage, "dead-letters")
    await other.locator("[data-part=letters] tbody th a").first.click()
    await expect(other.locator("[data-part=letter]")).to_contain_text("GPU_OOM")
    await other.click("text=Replay")
    await other.click("button.primary")
    await expect(other.locator("[data-part=task]")).to_contain_text("Ended as succeeded")
    await expect(rows).to_have_count(2)
    await expect(page.locator("#letter-list")).to_contain_text("2 dead letters")
    await expect(rows.last.locator("input")).to_be_checked()
    assert await page.evaluate("window.neverReloaded")
    await other.goto(stage.one.url("/ops/audit"))
    await expect(other.locator("main")).to_contain_text("replay dead letter")


async def test_selected_letters_are_dropped_after_a_question(page: Page, stage: Stage) -> None:
    await stage.bury(3)
    await visit(page, stage, "dead-letters")
    rows = page.locator("[data-part=letters] tbody tr")
    await page.check("[data-pick-all]")
    await rows.last.locator("input").uncheck()
    await page.click("text=Drop selected")
    await expect(page.locator("main")).to_contain_text("cannot be undone")
    await page.click("button.primary")
    await expect(page.locator(".message")).to_contain_text("Dropped: 2.")
    await expect(rows).to_have_count(1)
    await page.click("text=Drop all")
    await page.click("button.primary")
    await expect(page.locator("main")).to_contain_text("No dead letters")


async def test_a_page_comes_back_by_itself_when_its_socket_is_lost(
    page: Page, stage: Stage
) -> None:
    await visit(page, stage, "nodes/gpu-home-2")
    await page.context.set_offline(True)
    await stage.nodes["gpu-home-2"].close()
    await page.context.set_offline(False)
    await expect(page.locator("[data-part=node]")).to_contain_text("No node of this id")


async def test_a_viewer_sees_no_button_and_gets_403(browser: Browser, stage: Stage) -> None:
    context = await browser.new_context()
    page = await context.new_page()
    await stage.log_in(page, "vera")
    await visit(page, stage, "nodes/gpu-dc-1")
    await expect(page.locator("h1")).to_contain_text("gpu-dc-1")
    assert await page.locator(".actions").count() == 0
    await stage.bury(1)
    await visit(page, stage, "dead-letters")
    await expect(page.locator("[data-part=letters] tbody tr")).to_have_count(1)
    await expect(page.locator("[data-part=letters] input").first).to_be_hidden()
    assert await page.locator(".bulk").count() == 0
    for path in ("nodes/gpu-dc-1/drain", "dead-letters/do/drop?all=1"):
        answer = await page.goto(stage.one.url(f"/ops/{path}"))
        assert answer is not None
        assert answer.status == 403
    await context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_no_serious_fault(page: Page, stage: Stage, scheme: str) -> None:
    await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    faults = []
    for name, path in (PAGES | await worked_on(page, stage)).items():
        await visit(page, stage, path)
        found = await Axe().run(page)
        faults += [
            (name, fault["id"], fault["nodes"][0]["html"][:120], fault["nodes"][0].get("any"))
            for fault in found.response["violations"]
            if fault["impact"] in ("serious", "critical")
        ]
    assert not faults, json.dumps(faults, indent=1)[:6000]


async def test_no_page_is_wider_than_a_phone(page: Page, stage: Stage) -> None:
    await page.set_viewport_size({"width": 390, "height": 844})
    for path in (PAGES | await worked_on(page, stage)).values():
        await visit(page, stage, path)
        width = await page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390, path


async def test_nothing_jumps_while_a_page_lives(page: Page, stage: Stage) -> None:
    await page.add_init_script(
        "window.shifts = 0; new PerformanceObserver(list => {"
        " for (const e of list.getEntries()) if (!e.hadRecentInput) window.shifts += e.value;"
        "}).observe({type: 'layout-shift', buffered: true});"
    )
    frames = 0

    def count(_: object) -> None:
        nonlocal frames
        frames += 1

    page.on("websocket", lambda socket: socket.on("framereceived", count))
    await visit(page, stage, "")
    await eventually(lambda: frames >= 12, within_ms=30_000, what="a dozen frames")
    assert await page.evaluate("window.shifts") < 0.05


@pytest.mark.skipif("SCREENSHOTS" not in os.environ, reason="only where SCREENSHOTS is set")
async def test_pictures_are_taken(page: Page, stage: Stage) -> None:
    IMAGES.mkdir(exist_ok=True)
    pages = PAGES | await worked_on(page, stage)
    for index in range(1, 40):
        await stage.session.say(index)
        await stage.session.translated(index)
    await page.wait_for_timeout(int(os.environ["SCREENSHOTS"]) * 1000)
    for name, path in pages.items():
        for look in LOOKS.get(name, ("light",)):
            await page.emulate_media(color_scheme="dark" if look == "dark" else "light")
            size = (390, 844) if look == "phone" else (1360, 900)
            await page.set_viewport_size({"width": size[0], "height": size[1]})
            await visit(page, stage, path)
            await page.wait_for_timeout(1_200)
            await page.screenshot(path=IMAGES / f"{name}-{look}.png", full_page=look == "phone")
