"""Who may look: on the loopback interface whoever calls this machine by its own name, elsewhere whoever has the token.

The token comes once, as `?token=` in the address, and then from a cookie; programs send it as `Authorization: Bearer`.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp

from profiler.errors import ServeError

TOKEN_VARIABLE = "PROFILE_SERVE_TOKEN"
LEAST_LETTERS = 16
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
OURS = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
WRITTEN = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; frame-ancestors 'none'"
"""For pages that lie on the disk as they are: they have their figures inside them, and need neither a script nor a form."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
ADMITTED = '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="0;url=/">'


@dataclass(frozen=True, slots=True)
class Access:
    """Where the page can be reached and what has to be shown for it."""

    host: str
    port: int
    token: str | None = field(default=None, repr=False)

    @property
    def loopback(self) -> bool:
        return is_loopback(self.host)

    @property
    def hosts(self) -> list[str]:
        """By which names it may be called: another page's name that has been pointed at this machine is none of them."""
        return [*LOOPBACK_NAMES, self.host] if self.loopback else ["*"]

    @property
    def cookie(self) -> str:
        """Its name; cookies do not tell ports apart."""
        return f"profile_serve_{self.port}"

    def admits(self, shown: str | None) -> bool:
        if self.token is None:
            return True
        return shown is not None and secrets.compare_digest(shown.encode(), self.token.encode())


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def choose_token(host: str, file: Path | None) -> tuple[str | None, bool]:
    """From the file or the environment, or else, where one is needed, a new one; and whether it is new. `ServeError`."""
    told = _from_file(file) if file is not None else os.environ.get(TOKEN_VARIABLE)
    if told is not None:
        if len(told) < LEAST_LETTERS or not all("!" <= letter <= "~" for letter in told):
            raise ServeError(
                f"a token needs at least {LEAST_LETTERS} letters, digits or signs and no blank; leave it out to have one made"
            )
        return told, False
    return (None, False) if is_loopback(host) else (secrets.token_urlsafe(32), True)


def _from_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ServeError(f"{path} cannot be read: {getattr(exc, 'strerror', None) or 'it is not text'}") from exc


class Guard(BaseHTTPMiddleware):
    """Lets nobody in without the token, and tells browsers how little a page of ours may do."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        super().__init__(app)
        self._access = access

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await self._answer(request, call_next)
        for name, value in HEADERS.items():
            response.headers[name] = value
        response.headers.setdefault("Content-Security-Policy", OURS)
        return response

    async def _answer(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        access, shown = self._access, request.query_params.get("token")
        if access.token is not None and shown is not None and access.admits(shown):
            # a page of our own leads on: the cookie would not be sent after a redirection that another page's link began
            response = HTMLResponse(ADMITTED)
            response.set_cookie(access.cookie, access.token, httponly=True, samesite="strict", path="/")
            return response
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        if access.admits(request.cookies.get(access.cookie)) or (scheme.lower() == "bearer" and access.admits(bearer)):
            return await call_next(request)
        said = "Open the address with ?token=… that `profile serve` has printed, or add the token that it was started with.\n"
        return PlainTextResponse(said, 401, {"WWW-Authenticate": "Bearer"})
