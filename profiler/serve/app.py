"""The pages and their addresses. Everything that is shown was found by `Lookout`; a request only names one of these things."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import jinja2
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from device_agents.support.errors import ToolError
from profiler.console import age_text
from profiler.latency.validation import Checked
from profiler.serve import chart
from profiler.serve.access import WRITTEN, Access, Guard
from profiler.serve.dashboard import BuildView, Farm, Lookout
from profiler.serve.finding import Remembered
from profiler.serve.metrics import metrics
from profiler.serve.runs import RunView, report_of
from profiler.serve.tables import TableView, safely_loaded

STATIC = Path(__file__).with_name("static")
PLOTS_KEPT = 8
Thing = TypeVar("Thing", TableView, RunView)


def make_app(lookout: Lookout, access: Access) -> Starlette:
    pages = Pages(lookout)
    routes = [
        Route("/", pages.front),
        Route("/live", pages.live),
        Route("/status.json", pages.status),
        Route("/metrics", pages.metrics),
        Route("/tables/{id}", pages.table),
        Route("/tables/{id}/plot", pages.plot),
        Route("/tables/{id}/held_out.png", pages.held_out),
        Route("/runs/{id}/report", pages.report),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    guards = [Middleware(TrustedHostMiddleware, allowed_hosts=access.hosts, www_redirect=False), Middleware(Guard, access=access)]
    return Starlette(routes=routes, middleware=guards, exception_handlers={HTTPException: pages.refused})


class Pages:
    """What each address answers. Functions without `async` run in a thread, so that a slow figure holds nobody up."""

    def __init__(self, lookout: Lookout) -> None:
        self._lookout = lookout
        self._templates = _templates()
        self._plots: Remembered[str] = Remembered(PLOTS_KEPT)
        self._held_outs: Remembered[bytes | None] = Remembered(PLOTS_KEPT)
        self._drawing = threading.Lock()

    def front(self, request: Request) -> Response:
        return self._page("farm.html", farm=self._lookout.farm(), folders=self._lookout.folders)

    def live(self, request: Request) -> Response:
        """The part of the front page that changes."""
        return self._page("live.html", farm=self._lookout.farm(), folders=self._lookout.folders)

    def status(self, request: Request) -> Response:
        return Response(json.dumps(plain(self._lookout.farm()), indent=1), media_type="application/json")

    def metrics(self, request: Request) -> Response:
        return Response(metrics(self._lookout.farm(watched=False)), media_type=CONTENT_TYPE_LATEST)

    def table(self, request: Request) -> Response:
        view = self._table(request)
        checked: Sequence[Checked] = ()
        fault = view.broken
        if view.exists and not view.broken:
            try:
                checked = safely_loaded(Path(view.file)).info.held_out.checked
            except ToolError as exc:  # it was whole a moment ago
                fault = str(exc)
        return self._page("table.html", table=view, checked=checked, fault=fault)

    def plot(self, request: Request) -> Response:
        """The page that `profile plot` writes."""
        path = Path(self._readable(request).file)
        with self._drawing:  # matplotlib has one style for all threads
            page = self._plots.get(path, _plot)
        return Response(page.encode("utf-8", "replace"), media_type="text/html", headers={"Content-Security-Policy": WRITTEN})

    def held_out(self, request: Request) -> Response:
        path = Path(self._readable(request).file)
        with self._drawing:
            figure = self._held_outs.get(path, _held_out)
        if figure is None:
            raise HTTPException(404, "No whole network was measured that took no part in fitting, so there is nothing to draw.")
        return Response(figure, media_type="image/png")

    def report(self, request: Request) -> Response:
        """As NetAdapt wrote it."""
        run = _named(self._lookout.farm(watched=False).runs, request, "run")
        path = report_of(Path(run.folder))
        if path is None:
            raise HTTPException(404, f"There is no report; `netadapt report {run.folder}` writes one.")
        return Response(path.read_bytes(), media_type="text/html", headers={"Content-Security-Policy": WRITTEN})

    def refused(self, request: Request, error: Exception) -> Response:
        """In a sentence, and never with what was asked for in it."""
        assert isinstance(error, HTTPException)
        said = "There is nothing at this address." if error.detail == HTTPStatus(error.status_code).phrase else error.detail
        return self._page("said.html", error.status_code, said=said)

    def _table(self, request: Request) -> TableView:
        return _named(self._lookout.farm(watched=False).tables, request, "table")

    def _readable(self, request: Request) -> TableView:
        view = self._table(request)
        if view.broken or not view.exists:
            raise HTTPException(404, view.broken or f"There is no table {view.file} yet.")
        return view

    def _page(self, template: str, status: int = 200, **values: Any) -> Response:
        text = self._templates.get_template(template).render(values)
        return Response(text.encode("utf-8", "replace"), status, media_type="text/html")  # a file's name need not be text


def plain(farm: Farm) -> dict[str, Any]:
    """JSON-ready, with what the page makes of it."""
    tables = [asdict(view) | {"state": view.state} for view in farm.tables]
    devices = [asdict(view) | {"busy": view.busy} for view in farm.devices]
    return asdict(farm) | {"tables": tables, "devices": devices}


def _named(things: Sequence[Thing], request: Request, what: str) -> Thing:
    found = next((thing for thing in things if thing.id == request.path_params["id"]), None)
    if found is None:
        raise HTTPException(404, f"There is no such {what}, or no more.")
    return found


def _plot(path: Path) -> str:
    from profiler.plotting.plot import page  # matplotlib takes a second to start, which only figures need
    from profiler.tables.families import panels

    try:
        table = safely_loaded(path)
        return page(table, panels(table))
    except ToolError as exc:
        raise HTTPException(404, str(exc)) from exc


def _held_out(path: Path) -> bytes | None:
    from profiler.plotting.drawing import png
    from profiler.plotting.figures import held_out_figure

    try:
        held_out = safely_loaded(path).info.held_out
    except ToolError as exc:
        raise HTTPException(404, str(exc)) from exc
    return png(held_out_figure(held_out)) if held_out.checked else None


# -------------------------------------------------------------------------------------------------------------- templates


def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("profiler.serve"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"days": _days, "duration": chart.duration, "local": _local, "percent": _percent, "ms": _ms}
    environment.globals["chart_of"] = _chart
    return environment


def _chart(build: BuildView) -> chart.Chart | None:
    progress = build.progress
    return None if progress is None else chart.draw(build.errors, progress.estimates, build.limit_percent, progress.measuring_s)


def _days(days: float | None) -> str:
    return "–" if days is None else age_text(days)


def _percent(percent: float | None) -> str:
    return "–" if percent is None else f"{percent:.1f} %"


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.4g}"


def _local(utc: str | None) -> str:
    """In this machine's time."""
    if utc is None:
        return "–"
    try:
        return datetime.fromisoformat(utc).astimezone().strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError):
        return utc
