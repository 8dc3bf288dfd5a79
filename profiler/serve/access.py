"""Access control: whoever reaches the loopback interface under a name of this machine, and elsewhere whoever has the token.

A browser sends the token once, as `?token=` in the address, and from then on a cookie. Programs send it as `Authorization: Bearer`.
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
MIN_TOKEN_LENGTH = 16
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The Content-Security-Policy of the dashboard's own pages."""
DOCUMENT_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; frame-ancestors 'none'"
"""The Content-Security-Policy of reports and plots. Their figures are embedded, and they need neither scripts nor forms."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
GO_TO_FRONT_PAGE = '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="0;url=/">'
REFUSAL = "Open the address with ?token=… that `profile serve` printed, or append the token that it was started with.\n"


@dataclass(frozen=True, slots=True)
class Access:
    """The address on which the dashboard listens, and the token that it asks for."""

    host: str
    port: int
    token: str | None = field(default=None, repr=False)
    """None if no token is asked for."""

    @property
    def hosts(self) -> list[str]:
        """Host names that requests may carry.

        On the loopback interface, only this machine's names: another site may point its own name at 127.0.0.1 (DNS rebinding).
        """
        return [*LOOPBACK_NAMES, self.host] if is_loopback(self.host) else ["*"]

    @property
    def cookie(self) -> str:
        """The name of the cookie; it holds the port because browsers share cookies between the ports of a host."""
        return f"profile_serve_{self.port}"

    def admits(self, token: str | None) -> bool:
        """True if this is the right token, or none is asked for. The comparison takes constant time."""
        if self.token is None:
            return True
        return token is not None and secrets.compare_digest(token.encode(), self.token.encode())


def is_loopback(host: str) -> bool:
    """True if the host is `localhost` or a loopback address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def choose_token(host: str, file: Path | None) -> tuple[str | None, bool]:
    """Return the token to ask for, None for none, and True if it was generated here.

    It comes from the file or else from the environment. Without either, one is generated unless the host is a loopback address.
    Raises `ServeError` if the file cannot be read or the token is too short.
    """
    token = os.environ.get(TOKEN_VARIABLE)
    if file is not None:
        try:
            token = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as exc:
            raise ServeError(f"{file} cannot be read: {getattr(exc, 'strerror', None) or 'it is not text'}") from exc
    if token is None:
        return (None, False) if is_loopback(host) else (secrets.token_urlsafe(32), True)
    # The token has to fit into a cookie, a header and an address without being escaped.
    if len(token) < MIN_TOKEN_LENGTH or not all("!" <= letter <= "~" for letter in token):
        raise ServeError(f"a token needs at least {MIN_TOKEN_LENGTH} ASCII characters and no blank; omit it to have one generated")
    return token, False


class Guard(BaseHTTPMiddleware):
    """Middleware that refuses requests without the token and sets the security headers of every response."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        super().__init__(app)
        self._access = access

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Answer a request: with the cookie if it carries the token, with the page if it may see it, else with status 401."""
        access = self._access
        query_token = request.query_params.get("token")
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        if access.token is not None and query_token is not None and access.admits(query_token):
            # A page that leads on, not a redirection: browsers do not send a SameSite=strict cookie after a redirection
            # that began at another site's link. It also removes the token from the address.
            response: Response = HTMLResponse(GO_TO_FRONT_PAGE)
            response.set_cookie(access.cookie, access.token, httponly=True, samesite="strict", path="/")
        elif access.admits(request.cookies.get(access.cookie)) or (scheme.lower() == "bearer" and access.admits(bearer)):
            response = await call_next(request)
        else:
            response = PlainTextResponse(REFUSAL, 401, {"WWW-Authenticate": "Bearer"})
        for name, value in HEADERS.items():
            response.headers[name] = value
        response.headers.setdefault("Content-Security-Policy", PAGE_POLICY)
        return response
