"""The documents: every path and every link in them leads somewhere, and so does every version of a format."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from test_profile_help import ALL_COMMANDS

from profiler.protocol import events, journal
from profiler.schedule import state
from profiler.schedule.config import read_schedule
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


def commands(text: str) -> list[list[str]]:
    """The words of each command of ours in a page's blocks for a shell, with continued lines joined."""
    blocks = "".join(re.findall(r"^```(?:sh|console)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)).replace("\\\n", " ")
    lines = (shlex.split(line, comments=True) for line in re.findall(r"^(?:\$ )?((?:profile|netadapt) .*)$", blocks, re.MULTILINE))
    return [words[: words.index("|")] if "|" in words else words for words in lines]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_on_a_page_exists_and_has_the_options_that_it_is_given(page: str) -> None:
    for words in commands((ROOT / page).read_text()):
        length = next((length for length in (3, 2) if " ".join(words[:length]) in ALL_COMMANDS), None)
        assert length, words
        parameters = ALL_COMMANDS[" ".join(words[:length])].params
        known = {text for parameter in parameters for text in (*parameter.opts, *parameter.secondary_opts)}
        assert not [word for word in words if word.startswith("-") and word not in known], words


def test_pages_have_commands_that_are_looked_at() -> None:
    assert sum(len(commands((ROOT / page).read_text())) for page in PAGES) > 50


def test_the_schedule_on_its_page_is_one_that_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/how-to/schedules.md").read_text(), re.DOTALL)
    (tmp_path / "profile.toml").write_text(block)
    monkeypatch.setenv("PROFILE_CONFIG", str(tmp_path / "profile.toml"))
    (table,) = read_schedule().tables
    assert (table.name, table.target.device) == ("mobilenet", "pixel")


def test_every_benchmark_stands_in_their_readme() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text()
    assert not [path.name for path in (ROOT / "benchmarks").glob("*.py") if f"{path.name}" not in text]
