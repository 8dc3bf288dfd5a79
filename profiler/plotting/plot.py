"""Figures of a latency table, made from the table alone: a PNG with the essentials, or an HTML page with everything."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from device_agents.support.atomic import write_whole
from profiler.console import sizes
from profiler.errors import TableError
from profiler.latency.validation import HeldOutError
from profiler.tables.families import Panel, panels, undrawn
from profiler.tables.table import Table, TableInfo
from profiler.tables.trust import trust_sentence

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_PANELS = 6
"""The number of panels on the PNG, one of them of the layers inside networks; the page has all families."""

STYLE = """
:root { --ink: #222; --grey: #6b6f73; --rule: #dfe2e5; color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 3rem; }
h1 { font-size: 1.7rem; line-height: 1.2; font-weight: 650; margin: 0 0 .6rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; font-weight: 650; margin: 2.6rem 0 .6rem; }
.lead { font-size: 1.08rem; margin: 0; }
.grey, figcaption { color: var(--grey); font-size: .86rem; }
.unverified { border-left: 3px solid #d55e00; padding-left: 1rem; }
img { display: block; width: 100%; height: auto; }
figure { margin: 0; }
.held_out { max-width: 36rem; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); gap: 1.4rem 1.2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .86rem; line-height: 1.35; font-variant-numeric: tabular-nums; }
th { color: var(--grey); font-weight: 500; font-size: .78rem; vertical-align: bottom; }
th, td { padding: .45rem .45rem; border-bottom: 1px solid var(--rule); text-align: right; vertical-align: top; }
th:first-child, td:first-child { text-align: left; padding-left: 0; overflow-wrap: anywhere; min-width: 7rem; }
td small { display: block; color: var(--grey); white-space: nowrap; }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: .3rem 1.25rem; font-size: .9rem; margin: 0; }
dt { color: var(--grey); }
dd { margin: 0; overflow-wrap: anywhere; }
@media screen and (max-width: 40rem) {
  main { padding-top: 1.5rem; }
  h1 { font-size: 1.4rem; }
  /* what goes on to the right fades out there */
  .scroll { padding-right: 1.5rem; mask-image: linear-gradient(to right, #000 calc(100% - 1.5rem), transparent); }
}
"""


def write_plot(table: Table, out: Path) -> None:
    """Write the table's figures to `out`, a .png or .html file, atomically.

    Raises `TableError` if there is nothing to draw or the file cannot be written.
    """
    if out.suffix not in (".png", ".html") or not out.parent.is_dir():
        raise TableError(f"{out} cannot be written as a figure; give a name ending in .png or .html in a folder that exists")
    if not table.rows:
        raise TableError("the table has no layers, so there is nothing to draw; build it again with `profile build`")
    found = panels(table)
    if not found and not table.info.held_out.checked:
        raise TableError(
            "the table has one width of each layer and no held-out network, so there is nothing to draw; plan more widths"
        )
    data = page(table, found).encode() if out.suffix == ".html" else sheet(table, found)
    write_whole(out, data, TableError, "; choose another --out")


def sheet(table: Table, found: Sequence[Panel]) -> bytes:
    """Return the PNG: the held-out networks and the families with the highest latency."""
    from profiler.plotting.drawing import png
    from profiler.plotting.figures import overview

    info = table.info
    panels_shown = found[: MAX_PANELS - bool(info.held_out.layers)]
    return png(overview(info.held_out, panels_shown, heading(info), capitalised(trust_sentence(table))))


def page(table: Table, found: Sequence[Panel]) -> str:
    """Return the HTML page: held-out networks, all families, and the table's origin. It loads nothing from elsewhere."""
    title = escape(heading(table.info))
    kind = "lead" if table.verified else "lead unverified"
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    trust = re.sub("`(.*?)`", r"<code>\1</code>", escape(capitalised(trust_sentence(table))))  # commands stand in backticks
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>",
            f"<h1>{title}</h1>",
            f'<p class="{kind}">{trust}.</p>',
            *_networks(table.info.held_out),
            *_staircases(table, found),
            *_about(table),
            f'<p class="grey">Written {written}.</p>\n</main>\n</body>\n</html>\n',
        ]
    )


def heading(info: TableInfo) -> str:
    """Return a title for the table: runtime, device and date, or the source of an imported table."""
    if info.modelled:
        return f"{info.target.device}, modelled on {info.created_utc[:10]}, not measured"
    if info.imported:
        return f"{info.target.device}, imported from {info.imported.get('from')} on {info.created_utc[:10]}, not measured here"
    cpu = info.device.get("device", {}).get("cpu", "unknown processor")
    threads = f"{info.target.threads} thread{'s' if info.target.threads > 1 else ''}"
    return (
        f"{info.target.runtime} {info.device.get('version', '')} on {info.target.device}: {cpu}, {threads}, {info.created_utc[:10]}"
    )


def capitalised(sentence: str) -> str:
    """Return the sentence with a capital first letter."""
    return sentence[:1].upper() + sentence[1:]


def _networks(held_out: HeldOutError) -> Iterator[str]:
    """Yield the HTML of the held-out networks: the figure and the numbers."""
    if not held_out.checked:
        return
    from profiler.plotting.figures import layers_figure

    yield "<h2>Predicted and measured latency</h2>"
    yield held_out_html(held_out)
    if held_out.layers:
        yield "<h2>Layers inside networks</h2>"
        yield _figure(
            _data_uri(layers_figure(held_out)),
            "Predicted latency of layers against their latency inside the held-out networks",
            "Each layer of a held-out network with at least 2 % of its latency: measured alone and calibrated, against its latency "
            "inside the running network by the runtime's own profiler.",
            "held_out",
        )
    # so many decimals that the fastest network has three significant digits
    fastest_ms = min(item.measured_ms for item in held_out.checked)
    digits = next((digits for digits in range(6) if fastest_ms >= 10 ** (2 - digits)), 6)
    yield "<h2>Held-out networks</h2>"
    yield '<div class="scroll"><table>\n<thead><tr><th>network</th><th>predicted<br>(ms)</th><th>measured<br>(ms)</th>'
    yield "<th>error</th><th>sum of layers<br>(ms)</th></tr></thead>\n<tbody>"
    for item in held_out.checked:
        between = f"<small>{item.predicted_ms.low:.{digits}f} … {item.predicted_ms.high:.{digits}f}</small>"
        yield (
            f"<tr><td>{escape(item.name)}</td><td>{item.predicted_ms.value:.{digits}f}{between}</td>"
            f"<td>{item.measured_ms:.{digits}f}</td><td>{item.error_percent:+.1f}&nbsp;%</td><td>{item.naive_ms:.{digits}f}</td></tr>"
        )
    yield "</tbody>\n</table></div>"


def held_out_html(held_out: HeldOutError) -> str:
    """Return the figure of predicted against measured latencies as HTML that loads nothing from elsewhere."""
    from profiler.plotting.figures import held_out_figure

    return _figure(
        _data_uri(held_out_figure(held_out)),
        "Predicted against measured latency of the held-out networks",
        "The latency of each held-out network as the table predicts it, with its 95 % interval, against the measured one.",
        "held_out",
    )


def _staircases(table: Table, found: Sequence[Panel]) -> Iterator[str]:
    """Yield the HTML of the families: a panel each, and a list of the layers that are not drawn."""
    yield "<h2>Latency against channels</h2>"
    if found:
        from profiler.plotting.figures import panel_figure

        yield (
            '<p class="grey">Points are measurements with their 95 % intervals. Lines are predictions for every width in '
            "between. The families with the highest latency come first.</p>"
        )
        yield '<div class="panels">'
        yield from (_figure(_data_uri(panel_figure(panel)), f"{panel.title}, {panel.detail}", "", "") for panel in found)
        yield "</div>"
    else:
        yield '<p class="grey">No layer was measured at more than one width.</p>'
    single = undrawn(table)
    if single:
        named = [f"{layer.op} {' + '.join(map(sizes, layer.inputs))} → {sizes(layer.output)}" for layer in single]
        yield f'<p class="grey">Not drawn, because they were measured at one width only: {escape("; ".join(named))}.</p>'


def _about(table: Table) -> Iterator[str]:
    """Yield the HTML of the table's origin."""
    info = table.info
    if info.imported or info.modelled:
        yield f"<p>{escape(heading(info))}.</p>"
        return
    facts = info.device.get("device", {})
    pairs = [
        ("device", f"{info.target.device}: {facts.get('cpu')}, {facts.get('cores')} cores, governor {facts.get('governor')}"),
        ("system", f"{facts.get('system')} {facts.get('kernel')}, {facts.get('machine')}"),
        ("runtime", f"{info.target.runtime} {info.device.get('version', '')}, threads {info.target.threads}"),
        (
            "measured",
            f"{info.created_utc[:16].replace('T', ' ')} UTC, {info.measuring_s:.0f} s of measuring in {info.wall_s:.0f} s",
        ),
        ("layers", f"{len(table.rows)} measured" + (f", {len(info.failed)} failed" if info.failed else "")),
        ("calibrated on", f"{info.calibration.networks} networks of random widths"),
    ]
    if info.progress:
        steps = (
            f"{step['wall_s']:.0f} s, {step['layers']} layers: "
            + ("not known yet" if step["error_percent"] is None else f"{step['error_percent']:.1f} %")
            for step in info.progress
        )
        pairs.append(("estimated error during the build", "; ".join(steps)))
    yield "<h2>About this table</h2>\n<dl>"
    yield from (f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in pairs)
    yield "</dl>"


def _figure(source: str, alternative: str, caption: str, kind: str) -> str:
    """Return the HTML of a figure with its alternative text, its caption if any, and its class in the style sheet."""
    under = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure class="{kind}"><img src="{source}" alt="{escape(alternative)}">{under}</figure>'


def _data_uri(figure: Figure) -> str:
    from profiler.plotting.drawing import svg

    # embedded, so that the page is one file that can be copied and sent
    return "data:image/svg+xml;base64," + base64.b64encode(svg(figure)).decode()
