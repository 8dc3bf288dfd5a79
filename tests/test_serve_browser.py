"""`profile serve` as it is used: a process of its own, looked at with a real browser while a journal grows."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dashboard_folder import journal_lines, make_dashboard_folder, round_ends

pytest.importorskip("playwright", reason="pip install playwright, which drives the browser")
CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("there is no browser: apt-get install chromium", allow_module_level=True)

from playwright.sync_api import Browser, Page, expect, sync_playwright  # noqa: E402

pytestmark = pytest.mark.slow

PROFILE = [sys.executable, "-c", "from profiler.cli.app import app; app()"]
WAIT_MS = 30_000
expect.set_options(timeout=WAIT_MS)
TOKEN = "a-token-of-24-letters-ok"


@dataclass(frozen=True)
class Served:
    process: subprocess.Popen[str]
    url: str


@contextmanager
def serve(folder: Path, *arguments: str, token: str = "") -> Iterator[Served]:
    environment = {name: value for name, value in os.environ.items() if name != "PROFILE_SERVE_TOKEN"}
    environment |= {"PROFILE_SERVE_TOKEN": token} if token else {}
    process = subprocess.Popen(
        [*PROFILE, "serve", str(folder), "--port", "0", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=folder, env=environment,
    )  # fmt: skip
    watch = threading.Timer(WAIT_MS / 1000, process.kill)
    watch.start()
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        watch.cancel()
        assert url.startswith("http://"), process.communicate()
        yield Served(process, url)
    finally:
        watch.cancel()
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        # what runs as root in a container has no sandbox of its own; the pages are ours
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dashboard_folder(tmp_path_factory.mktemp("browser") / "lab")


@pytest.fixture(scope="module")
def served(lab: Path) -> Iterator[Served]:
    with serve(lab) as found:
        yield found


@contextmanager
def looking(browser: Browser, **options: Any) -> Iterator[tuple[Page, list[str]]]:
    """A page of its own, and what the browser complains of.

    A request that the browser itself gives up, as a click leads to another page before an icon has come, is no complaint.
    """
    context = browser.new_context(**options)
    complaints: list[str] = []
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "requestfailed",
        lambda request: complaints.append(f"{request.url}: {request.failure}") if request.failure != "net::ERR_ABORTED" else None,
    )
    yield page, complaints
    context.close()


@pytest.fixture
def growing(lab: Path) -> Iterator[tuple[Path, Sequence[str], Sequence[int]]]:
    """A journal that a build has just begun, its lines to come, and where its rounds end."""
    lines = journal_lines(lab)
    path = lab / "growing.journal.jsonl"
    ends = round_ends(lines)
    path.write_text("".join(lines[: ends[0]]))
    yield path, lines, ends
    path.unlink(missing_ok=True)


def screenshot(page: Page, name: str) -> None:
    """Only where somebody has asked for it."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=str(Path(folder, f"{name}.png")), full_page=True)


def test_the_table_is_there_and_leads_to_its_held_out_plot(browser: Browser, served: Served) -> None:
    with looking(browser) as (page, complaints):
        page.goto(served.url)
        page.get_by_role("link", name="table.parquet").click()
        figure = page.get_by_role("img", name=re.compile("Predicted against measured"))
        expect(figure).to_be_visible()
        expect(figure).not_to_have_js_property("naturalWidth", 0)
        screenshot(page, "table")
        page.get_by_role("link", name="Plots of latency against channels").click()
        expect(page.get_by_role("heading", name="Latency against channels")).to_be_visible()
        assert complaints == []


def test_a_run_leads_to_its_report(browser: Browser, served: Served) -> None:
    with looking(browser) as (page, complaints):
        page.goto(served.url)
        page.get_by_role("link", name="report of run").click()
        heading = page.get_by_role("heading", name="What the run brought")
        expect(heading).to_be_visible()
        assert heading.evaluate("node => getComputedStyle(node).color") == "rgb(34, 34, 34)"  # its own style is let through
        assert complaints == []


def test_the_chart_changes_while_the_journal_grows(
    browser: Browser, served: Served, growing: tuple[Path, Sequence[str], Sequence[int]]
) -> None:
    path, lines, ends = growing
    with looking(browser) as (page, complaints):
        page.goto(served.url)
        build = page.locator("article.build")
        expect(build).to_contain_text("running")
        with path.open("a") as file:
            file.writelines(lines[ends[0] : ends[-2]])
        expect(build.locator("circle.error").first).to_be_visible()
        before = build.locator("svg").get_attribute("aria-label") or ""
        assert "error on held-out networks" in before
        with path.open("a") as file:
            file.writelines(lines[ends[-2] : ends[-1]])
        expect(build.locator("svg")).not_to_have_attribute("aria-label", before)
        screenshot(page, "running")
        with path.open("a") as file:
            file.write('{"event":"spent","wall_s":1.0}\n')
        expect(build).to_contain_text("interrupted")
        assert complaints == []


def test_a_table_is_opened_by_the_keyboard_alone(browser: Browser, served: Served) -> None:
    with looking(browser) as (page, complaints):
        page.goto(served.url)
        link = page.get_by_role("link", name="table.parquet")
        for _ in range(20):
            page.keyboard.press("Tab")
            if link.evaluate("node => node === document.activeElement"):
                break
        assert link.evaluate("node => getComputedStyle(node).outlineStyle") == "solid"
        page.keyboard.press("Enter")
        expect(page.get_by_role("img", name=re.compile("Predicted against measured"))).to_be_visible()
        assert complaints == []


def test_without_scripts_everything_is_there(
    browser: Browser, served: Served, growing: tuple[Path, Sequence[str], Sequence[int]]
) -> None:
    with looking(browser, java_script_enabled=False) as (page, complaints):
        page.goto(served.url)
        expect(page.locator("article.build")).to_contain_text("running")
        expect(page.get_by_role("link", name="table.parquet")).to_be_visible()
        assert "refresh" in page.locator("noscript").first.inner_html()
        assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width_px", [1200, 390])
def test_nothing_stands_out_of_the_window(
    browser: Browser, served: Served, growing: tuple[Path, Sequence[str], Sequence[int]], scheme: Any, width_px: int
) -> None:
    path, lines, ends = growing
    path.write_text("".join(lines[: ends[-1]]))
    with looking(browser, color_scheme=scheme, viewport={"width": width_px, "height": 900}) as (page, complaints):
        page.goto(served.url)
        expect(page.locator("circle.error").first).to_be_visible()
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width_px
        shades = page.evaluate("() => [document.body, document.querySelector('h1')].map(e => getComputedStyle(e))"
                               ".map((style, i) => i ? style.color : style.backgroundColor)")  # fmt: skip
        back, ink = (sum(map(int, re.findall(r"\d+", shade)[:3])) for shade in shades)
        assert (back > 600 and ink < 200) if scheme == "light" else (back < 100 and ink > 600)
        screenshot(page, f"front-{scheme}-{width_px}")
        assert complaints == []


def test_with_a_token_the_address_opens_the_page_and_then_the_cookie_does(browser: Browser, lab: Path) -> None:
    with serve(lab, token=TOKEN) as served, looking(browser) as (page, _):
        bare = served.url.split("?")[0]
        answer = page.goto(bare)
        assert answer is not None and answer.status == 401
        page.goto(f"{bare}?token={TOKEN}")
        expect(page.get_by_role("link", name="table.parquet")).to_be_visible()
        assert "token" not in page.url
        assert page.evaluate("() => document.cookie") == ""


def test_elsewhere_than_on_this_machine_a_token_is_made_and_told_once(lab: Path) -> None:
    with serve(lab, "--host", "0.0.0.0") as served:
        found = re.fullmatch(r"http://[^/]+:\d+/\?token=([\w-]{32,})", served.url)
        assert found is not None
        served.process.send_signal(signal.SIGINT)
        rest, errors = served.process.communicate(timeout=60)
        assert found[1] not in rest + errors


def test_a_page_left_open_says_when_the_server_is_gone(browser: Browser, lab: Path) -> None:
    with serve(lab) as served, looking(browser) as (page, _):
        page.goto(served.url)
        served.process.send_signal(signal.SIGINT)
        served.process.wait(timeout=60)
        page.evaluate("() => refresh()")
        expect(page.get_by_text("The server does not answer")).to_be_visible()


def test_ctrl_c_ends_it_cleanly(lab: Path) -> None:
    with serve(lab) as served:
        served.process.send_signal(signal.SIGINT)
        _, errors = served.process.communicate(timeout=60)
        assert served.process.returncode == 130
        assert errors.strip() == "interrupted; the page is closed; nothing that measures was stopped"
