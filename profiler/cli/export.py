"""`profile export`: a table in a form that other programs read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from profiler.cli.options import TableFile
from profiler.console import Json, plain_errors, print_json
from profiler.exchange.exporting import Exported, export_file
from profiler.exchange.formats import writable


def export(
    table: TableFile,
    table_format: Annotated[str, typer.Option("--format", help=f"The form to write the table in: {', '.join(writable())}.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write. One that exists is replaced.")],
    as_json: Json = False,
) -> None:
    """Write a table in a form that other programs read, and say what that form cannot hold."""
    with plain_errors():
        exported = export_file(table, table_format, out)
        if as_json:
            print_json(exported_data(exported))
        else:
            print_exported(exported)


def exported_data(exported: Exported) -> dict[str, Any]:
    table, imported = exported.table, exported.table.info.imported or {}
    return {
        "table": str(exported.path),
        "file": str(exported.out),
        "format": exported.form,
        "layers": len(table.rows),
        "written": exported.writing.written,
        "left_out": dict(exported.writing.left_out),
        "notes": list(exported.writing.notes),
        "verified": table.verified,
        "imported_from": imported.get("from"),
        "licence": imported.get("licence"),
    }


def print_exported(exported: Exported) -> None:
    table, writing, imported = exported.table, exported.writing, exported.table.info.imported
    print(f"{exported.out}: {writing.written} of {len(table.rows)} layers as {exported.form}")
    for note in writing.notes:
        print(f"  {note}")
    for reason, many in writing.left_out.items():
        print(f"  left out: {many} {reason}")
    if imported:
        licence = imported.get("licence") or "not known"
        print(f"  the table was imported from {imported.get('from')}, licence {licence}: mind that")
    if not table.verified:
        print("  the table is unverified, which the file does not say")
