"""What the C library keeps of freed memory."""

from __future__ import annotations

import ctypes
import sys

_ARENA_MAX = -8  # M_ARENA_MAX of glibc's malloc.h


def one_heap() -> None:
    """Has all threads share one heap, before they start: each would keep free room of its own.

    They wait for the interpreter's lock anyway. Where the library is not glibc nothing happens.
    """
    if sys.platform == "linux":
        choose = getattr(ctypes.CDLL(None), "mallopt", None)
        if choose is not None:
            choose(_ARENA_MAX, 1)
