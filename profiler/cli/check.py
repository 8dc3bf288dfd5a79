"""`profile check`: what to distrust in a table."""

from __future__ import annotations

from dataclasses import asdict

from profiler.cli.options import TableFile
from profiler.cli.table_summary import print_summary, table_data
from profiler.console import Json, plain_errors, print_findings, print_json
from profiler.tables.check import check_table
from profiler.tables.table import load_table


def check(table: TableFile, as_json: Json = False) -> None:
    """List what to distrust in a table, and what to do about each finding."""
    with plain_errors():
        loaded = load_table(table)
        findings = check_table(loaded)
        if as_json:
            print_json(table_data(table, loaded) | {"findings": [asdict(finding) for finding in findings]})
        else:
            print_summary(table, loaded)
            print_findings(findings, "nothing to distrust was found")
