"""Telling others what became of a table: a web address that takes JSON, or a command that gets it on its standard input.

Neither the address nor the command's arguments are ever shown: both may hold a secret.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any
from urllib.parse import urlsplit

from profiler.schedule.config import Telling

WEB_S, COMMAND_S = 10.0, 60.0


def tell(telling: Telling, news: Mapping[str, Any]) -> list[str]:
    """What went wrong with it, in words; nothing of that is worth losing a table for."""
    return [*_told_web(telling, json.dumps(news).encode()), *_told_command(telling, json.dumps(news))]


def _told_web(telling: Telling, data: bytes) -> Iterator[str]:
    if telling.webhook is None:
        return
    request = urllib.request.Request(
        telling.webhook, data, {"Content-Type": "application/json", "User-Agent": "netadapt-profiler"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=WEB_S):
            return
    except urllib.error.HTTPError as exc:
        why = f"it answered {exc.code}"
        exc.close()
    except urllib.error.URLError as exc:
        why = getattr(exc.reason, "strerror", None) or type(exc.reason).__name__
    except (OSError, ValueError, http.client.HTTPException) as exc:
        why = type(exc).__name__  # its text may repeat the address
    yield f"the webhook at {urlsplit(telling.webhook).hostname} could not be told: {why}"


def _told_command(telling: Telling, text: str) -> Iterator[str]:
    if not telling.command:
        return
    name = PurePath(telling.command[0]).name
    try:
        nowhere = subprocess.DEVNULL
        ended = subprocess.run(
            telling.command, input=text, text=True, stdout=nowhere, stderr=nowhere, timeout=COMMAND_S, check=False
        )
    except subprocess.TimeoutExpired:
        yield f"the command {name} took longer than {COMMAND_S:.0f} s and was killed"
    except OSError as exc:
        yield f"the command {name} could not be run: {exc.strerror}"
    else:
        if ended.returncode:
            yield f"the command {name} ended with code {ended.returncode}"
