"""The documents: every path and every link in them leads somewhere, and so does every version of a format."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from profiler.protocol import events, journal
from profiler.schedule import state
from profiler.tables import plan, table

ROOT = Path(__file__).parent.parent
DOCUMENTS = ("ARCHITECTURE.md", "CONTRIBUTING.md")
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "tables/*.md", "benchmarks/*.md", "device_agents/on_device/*.md")
    for path in ROOT.glob(pattern)
)
ROOTS = ("profiler", "device_agents", "netadapt", "tests", "tables", "benchmarks")


def named_paths(text: str) -> set[str]:
    return set(re.findall(rf"(?<![\w/.])((?:{'|'.join(ROOTS)})/[\w./-]*)", text))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_that_is_named_exists(document: str) -> None:
    paths = named_paths((ROOT / document).read_text())
    assert len(paths) > 10
    assert not [path for path in paths if not (ROOT / path).exists()]


def test_every_folder_of_the_packages_is_on_the_map() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    folders = {path.parent for package in ROOTS[:3] for path in (ROOT / package).glob("*/*.py")}
    assert not [folder.name for folder in folders if f"{folder.relative_to(ROOT)}/" not in text]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_function_and_registry_is_where_it_is_said_to_be(document: str) -> None:
    pairs = re.findall(r"`(\w+)`\s+in\s+`([\w/]+\.py)`", (ROOT / document).read_text())
    assert len(pairs) > 5
    for name, module in pairs:
        defined = rf"^ *(?:def|class) {name}\b|^{name}\b.*="
        assert re.search(defined, (ROOT / module).read_text(), re.MULTILINE), f"{name} in {module}"


@pytest.mark.parametrize(
    ("module", "version"),
    [
        ("device_agents/on_device/PROTOCOL.md", events.PROTOCOL), ("profiler/protocol/journal.py", journal.FORMAT),
        ("profiler/tables/table.py", table.FORMAT), ("profiler/tables/plan.py", plan.FORMAT),
        ("profiler/schedule/state.py", state.FORMAT),
    ],
)  # fmt: skip
def test_the_versions_of_formats_are_those_of_the_code(module: str, version: int) -> None:
    assert f"| `{module}` | {version} |" in (ROOT / "ARCHITECTURE.md").read_text()


def anchors(text: str) -> set[str]:
    """The anchors that a page has: its headings, in the form in which they are linked."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_page_and_a_heading_that_exist(page: str) -> None:
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        target, _, anchor = link.partition("#")
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), link
        assert not anchor or anchor in anchors(path.read_text()), link


def test_every_benchmark_stands_in_their_readme() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text()
    assert not [path.name for path in (ROOT / "benchmarks").glob("*.py") if f"{path.name}" not in text]
