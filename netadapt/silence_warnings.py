"""Silence for libraries that talk while they work."""

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
    """Drop warnings, log lines and all that is written to standard error, by C++ too; standard output stays as it is.

    It holds for the whole process: use it around one call, never around work of ours that may have something to say.
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
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with tempfile.TemporaryFile() as sink:  # a file rather than the null device, which not every system calls the same
            os.dup2(sink.fileno(), 2)
            yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
