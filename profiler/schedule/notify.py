"""Notifications of what became of a table: JSON to a web address, or to the standard input of a command.

Neither the address nor the command's arguments are ever printed: both may hold a secret.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import urlsplit

from profiler.schedule.config import NotificationSettings

WEB_S, COMMAND_S = 10.0, 60.0


def notify(settings: NotificationSettings, notification: Mapping[str, Any]) -> list[str]:
    """Send a notification to all recipients, and return a sentence for each that could not be reached.

    Nothing is raised: a table that was measured must not be lost because a recipient is away.
    """
    # Both recipients are tried, whatever happens with the first.
    text = json.dumps(notification)
    failures = []
    if settings.webhook is not None:
        failures.append(_post(settings.webhook, text))
    if settings.command:
        failures.append(_run(settings.command, text))
    return [failure for failure in failures if failure is not None]


def _post(address: str, text: str) -> str | None:
    """Post JSON to a web address; return what failed, without the address itself."""
    headers = {"Content-Type": "application/json", "User-Agent": "netadapt-profiler"}
    request = urllib.request.Request(address, text.encode(), headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=WEB_S):
            return None
    except urllib.error.HTTPError as exc:
        why = f"it answered with status {exc.code}"
        exc.close()
    except urllib.error.URLError as exc:
        why = getattr(exc.reason, "strerror", None) or type(exc.reason).__name__
    except (OSError, ValueError, http.client.HTTPException) as exc:
        why = type(exc).__name__  # the text of the exception may repeat the address
    return f"the webhook at {urlsplit(address).hostname} was not notified: {why}; check [schedule] in profile.toml"


def _run(command: Sequence[str], text: str) -> str | None:
    """Run a command with JSON on its standard input; return what failed, without the command's arguments."""
    name = PurePath(command[0]).name
    try:
        ended = subprocess.run(
            command, input=text, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=COMMAND_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"the notification command {name} took longer than {COMMAND_S:.0f} s and was killed"
    except OSError as exc:
        return f"the notification command {name} could not be run: {exc.strerror}; check [schedule] in profile.toml"
    if ended.returncode:
        return f"the notification command {name} ended with exit code {ended.returncode}"
    return None
