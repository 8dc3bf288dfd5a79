"""The pages of the dashboard and their addresses. A request names one of the things that `Dashboard` has found, never a path."""

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
from profiler.latency.validation import HeldOutNetwork
from profiler.serve import chart
from profiler.serve.access import DOCUMENT_POLICY, Access, Guard
from profiler.serve.dashboard import BuildView, Dashboard, DashboardState
from profiler.serve.finding import FileCache
from profiler.serve.metrics import metrics
from profiler.serve.runs import RunView, report_of
from profiler.serve.tables import TableView, load_checked

STATIC = Path(__file__).with_name("static")
MAX_PLOTS = 8
"""The number of plots and figures kept in memory."""
View = TypeVar("View", TableView, RunView)


def make_app(dashboard: Dashboard, access: Access) -> Starlette:
    """Return the web application, which answers GET requests only."""
    pages = Pages(dashboard)
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
    # The first guard is the outermost: requests under a foreign host name do not even reach the check of the token.
    guards = [Middleware(TrustedHostMiddleware, allowed_hosts=access.hosts, www_redirect=False), Middleware(Guard, access=access)]
    return Starlette(routes=routes, middleware=guards, exception_handlers={HTTPException: pages.error})


class Pages:
    """Responses to requests. Methods without `async` run in a thread, so that a slow figure does not delay other pages."""

    def __init__(self, dashboard: Dashboard) -> None:
        self._dashboard = dashboard
        self._templates = _templates()
        self._plots: FileCache[str] = FileCache(MAX_PLOTS)
        self._held_outs: FileCache[bytes | None] = FileCache(MAX_PLOTS)
        self._drawing = threading.Lock()
        """Held while a figure is drawn, because matplotlib has one style for all threads."""

    def front(self, request: Request) -> Response:
        """The front page."""
        return self._page("front.html", state=self._dashboard.state(), folders=self._dashboard.folders)

    def live(self, request: Request) -> Response:
        """The part of the front page that changes; a script replaces it every few seconds."""
        return self._page("live.html", state=self._dashboard.state(), folders=self._dashboard.folders)

    def status(self, request: Request) -> Response:
        """The content of the front page as JSON."""
        return Response(json.dumps(state_as_json(self._dashboard.state()), indent=1), media_type="application/json")

    def metrics(self, request: Request) -> Response:
        """Metrics for Prometheus."""
        return Response(metrics(self._dashboard.state(watched=False)), media_type=CONTENT_TYPE_LATEST)

    def table(self, request: Request) -> Response:
        """The page of one table."""
        view = self._table(request)
        checked: Sequence[HeldOutNetwork] = ()
        fault = view.broken
        if view.exists and not view.broken:
            try:
                checked = load_checked(Path(view.file)).info.held_out.checked
            except ToolError as exc:  # it has changed since the view was made
                fault = str(exc)
        return self._page("table.html", table=view, checked=checked, fault=fault)

    def plot(self, request: Request) -> Response:
        """The page that `profile plot` writes."""
        path = self._readable_table(request)
        with self._drawing:
            page = self._plots.get(path, _plot)
        return Response(
            page.encode("utf-8", "replace"), media_type="text/html", headers={"Content-Security-Policy": DOCUMENT_POLICY}
        )

    def held_out(self, request: Request) -> Response:
        """The figure of predicted against measured latency."""
        path = self._readable_table(request)
        with self._drawing:
            figure = self._held_outs.get(path, _held_out)
        if figure is None:
            raise HTTPException(404, "This table was not checked against held-out networks, so there is no figure.")
        return Response(figure, media_type="image/png")

    def report(self, request: Request) -> Response:
        """The report of a NetAdapt run, as NetAdapt wrote it."""
        run = _by_id(self._dashboard.state(watched=False).runs, request, "run")
        path = report_of(Path(run.folder))
        if path is None:
            raise HTTPException(404, f"This run has no report yet. `netadapt report {run.folder}` writes one.")
        return Response(path.read_bytes(), media_type="text/html", headers={"Content-Security-Policy": DOCUMENT_POLICY})

    def error(self, request: Request, error: Exception) -> Response:
        """The page for an error. It never repeats the request, which may hold anything."""
        assert isinstance(error, HTTPException)
        message = error.detail
        if message == HTTPStatus(error.status_code).phrase:  # Starlette's default, which is no sentence
            message = "There is no page at this address."
        return self._page("error.html", error.status_code, message=message)

    def _table(self, request: Request) -> TableView:
        return _by_id(self._dashboard.state(watched=False).tables, request, "table")

    def _readable_table(self, request: Request) -> Path:
        """Return the file of the table that a request names. Raises `HTTPException` 404 if it is missing or broken."""
        view = self._table(request)
        if view.broken or not view.exists:
            raise HTTPException(404, view.broken or f"The table {view.file} does not exist yet.")
        return Path(view.file)

    def _page(self, template: str, status: int = 200, **values: Any) -> Response:
        text = self._templates.get_template(template).render(values)
        # a file's name need not be valid UTF-8
        return Response(text.encode("utf-8", "replace"), status, media_type="text/html")


def state_as_json(state: DashboardState) -> dict[str, Any]:
    """Return a state ready for JSON, with those properties that the page shows."""
    tables = [asdict(view) | {"state": view.state, "needs_care": view.needs_care} for view in state.tables]
    devices = [asdict(view) | {"busy": view.busy} for view in state.devices]
    return asdict(state) | {"tables": tables, "devices": devices}


def _by_id(views: Sequence[View], request: Request, kind: str) -> View:
    """Return the view that a request names. Raises `HTTPException` 404 if there is none."""
    for view in views:
        if view.id == request.path_params["id"]:
            return view
    raise HTTPException(404, f"There is no such {kind}; it may have been moved or deleted.")


def _plot(path: Path) -> str:
    from profiler.plotting.plot import page  # imported late: matplotlib takes a second to start
    from profiler.tables.families import panels

    try:
        table = load_checked(path)
        return page(table, panels(table))
    except ToolError as exc:
        raise HTTPException(404, str(exc)) from exc


def _held_out(path: Path) -> bytes | None:
    from profiler.plotting.drawing import png
    from profiler.plotting.figures import held_out_figure

    try:
        held_out = load_checked(path).info.held_out
    except ToolError as exc:
        raise HTTPException(404, str(exc)) from exc
    return png(held_out_figure(held_out)) if held_out.checked else None


# -------------------------------------------------------------------------------------------------------------- templates


def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("profiler.serve"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
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
    """Format an ISO 8601 time in this machine's zone; text that is no time is shown as it is."""
    if utc is None:
        return "–"
    try:
        return datetime.fromisoformat(utc).astimezone().strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError):
        return utc
