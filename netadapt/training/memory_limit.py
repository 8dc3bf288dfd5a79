"""Settings of the memory of this process: reuse of freed memory, and a limit to its growth."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

# parameters of mallopt, from glibc's <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_INT_MAX = 2**31 - 1
_SIZE = Path("/proc/self/statm")
"""The sizes of this process in pages; the first is its address space."""


@lru_cache(maxsize=1)
def keep_freed_memory() -> bool:
    """Keep freed memory in this process instead of returning it to the system, from now on; True if the C library can do so.

    Every training step allocates the same large tensors. glibc returns each of them to the system when it is freed, so the next
    step has to fetch and zero all its pages again; without this, MobileNetV1 trains 1.25 times and FastDepth 1.4 times as fast on
    a processor. Results are the same. In exchange the process keeps its largest amount of memory until it ends.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    # large blocks come from the heap instead of mappings of their own, and the heap is never trimmed
    return bool(libc.mallopt(_M_MMAP_MAX, 0)) and bool(libc.mallopt(_M_TRIM_THRESHOLD, _INT_MAX))


@contextmanager
def growing_at_most(more_bytes: int) -> Iterator[None]:
    """Limit the growth of this process, all its threads together, inside the with statement; a larger allocation fails.

    For libraries that allocate whatever size a damaged file names. There is no limit where the size of the process cannot be read.
    """
    if not _SIZE.exists():
        yield
        return
    import resource  # which Windows lacks

    size_bytes = int(_SIZE.read_text().split()[0]) * resource.getpagesize()
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    limits = (size_bytes + more_bytes, *(limit for limit in (before, hard) if limit != resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))
