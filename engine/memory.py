"""Freed memory goes back to the system where it would lie idle for long.

glibc keeps what is freed for the next request. After a load, or after a long prompt was encoded,
that is more than 100 MB which typing does not need again.
"""

from __future__ import annotations

import ctypes
import sys


def give_back() -> None:
    """Returns freed memory to the system; costs the next long prompt a few per cent."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
        if trim is not None:
            trim(0)
