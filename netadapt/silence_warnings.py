"""Suppression of the warnings and log lines of other libraries."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Drop warnings, log lines and everything that is written to standard error, by C++ code too. Standard output is unchanged.

    It affects the whole process, so it belongs around a single call of a library, and not around code that prints warnings of ours.
    """
    logged = logging.root.manager.disable
    with warnings.catch_warnings(), _standard_error_dropped():
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(logged)


@contextmanager
def _standard_error_dropped() -> Iterator[None]:
    """Redirect the file descriptor of standard error, which C++ code writes to directly."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with tempfile.TemporaryFile() as sink:  # the null device has not the same name on every system
            os.dup2(sink.fileno(), 2)
            yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
