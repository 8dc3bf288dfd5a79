"""What MkDocs is told about this project: pages that lie outside docs/, and the commands, which are read off the code.

Links between pages are written as paths in the repository, so that they lead somewhere without building, too. A link to a file
outside docs/ that is a page of the site becomes a link to that page; any other one stays, and the strict build refuses it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from netadapt.cli.app import app as netadapt
from profiler.cli.app import app as profile

DOCS = Path(__file__).resolve().parent
PAGES = {
    DOCS.parent / path: f"project/{name}"
    for path, name in {
        "README.md": "readme.md",
        "ARCHITECTURE.md": "architecture.md",
        "CONTRIBUTING.md": "contributing.md",
        "CHANGELOG.md": "changelog.md",
        "tables/README.md": "tables.md",
        "benchmarks/README.md": "benchmarks.md",
        "benchmarks/cifar10-onnxruntime.png": "cifar10-onnxruntime.png",
        "device_agents/on_device/PROTOCOL.md": "protocol.md",
    }.items()
}
"""The path in the site of each file that lies outside docs/."""
PROGRAMS = {"profile": profile, "netadapt": netadapt}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Take the pages from outside docs/ into the site."""
    for path, uri in PAGES.items():
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put the commands in, and turn links between files of the repository into links between pages."""
    here = Path(page.file.abs_src_path or DOCS).parent

    def linked(match: re.Match[str]) -> str:
        target, mark, anchor = match[1].partition("#")
        path = (here / target).resolve()
        uri = PAGES.get(path) or (path.relative_to(DOCS).as_posix() if path.is_relative_to(DOCS) else None)
        if uri is None:
            return match[0]
        return f"]({posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or '.')}{mark}{anchor})"

    markdown = re.sub(r"<!-- commands: (\w+) -->", lambda match: "\n".join(commands(match[1])), markdown)
    return re.sub(r"\]\((?!\w+:|#)([^)\s]+)\)", linked, markdown)


def commands(program: str) -> Iterator[str]:
    """A section for each command of a program, with a row for each of its arguments and options."""
    group: Any = typer.main.get_command(PROGRAMS[program])  # typer does not say of which class its commands are
    yield from _section(group, group.make_context(program, [], resilient_parsing=True), 2)


def _section(command: Any, context: Any, level: int) -> Iterator[str]:
    yield f"{'#' * level} {context.command_path}\n\n{command.help}\n"
    yield f"```text\n{context.command_path} {' '.join(command.collect_usage_pieces(context))}\n```\n"
    rows = [record for parameter in command.get_params(context) if (record := parameter.get_help_record(context))]
    if rows:
        yield "| argument or option | |\n|---|---|"
        yield from (f"| `{name}` | {_plain(text)} |" for name, text in rows)
        yield ""
    if command.epilog:
        heading, *lines = command.epilog.split("\n\n")
        yield "\n".join((f"{heading}\n", *(["```sh", *lines, "```\n"] if lines else [])))
    for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
        inner = command.get_command(context, name)
        yield from _section(inner, inner.make_context(name, [], parent=context, resilient_parsing=True), level + 1)


def _plain(text: str) -> str:
    """The text of a cell, of which nothing is taken for the table's own bars or for HTML."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
