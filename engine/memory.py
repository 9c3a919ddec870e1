"""An engine's process takes as little memory as it can.

glibc keeps what is freed for the next request. After a load, or after a long prompt was encoded,
that is more than 100 MB which typing does not need again. And torch imports what only some of its users need.
"""

from __future__ import annotations

import ctypes
import sys
import warnings

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h


def save() -> None:
    """For a process of its own, before torch is imported: what is freed goes back sooner.

    Without a word glibc raises both bounds to twice the largest block that was freed. Blocks of 4 MiB
    and more, which are a long prompt's, are the system's own; a lower bound costs page faults in
    every prompt (LOG.md).
    """
    sys.modules.setdefault("numpy", None)  # type: ignore[arg-type]  # torch can do without its 11 MB
    warnings.filterwarnings("ignore", "Failed to initialize NumPy")
    if mallopt := _of_glibc("mallopt"):
        mallopt(_MMAP_THRESHOLD, 4 << 20)
        mallopt(_TRIM_THRESHOLD, 128 << 10)


def give_back() -> None:
    """Returns freed memory to the system; costs the next long prompt a few per cent."""
    if trim := _of_glibc("malloc_trim"):
        trim(0)


def _of_glibc(name: str) -> ctypes._NamedFuncPointer | None:
    """One of glibc's functions, where it is the C library."""
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None), name, None)
