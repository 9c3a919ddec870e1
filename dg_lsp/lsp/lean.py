"""Imports lsprotocol's classes without the methods that no server calls.

attrs compiles comparison, representation and more for each of 569 classes: nearly half of the
time that a server takes to start, and 4 MB for as long as it runs. Where somebody has imported
lsprotocol before, it stays as it is.
"""

from __future__ import annotations

from functools import partial

import attrs

_define = attrs.define
attrs.define = partial(_define, eq=False, repr=False, match_args=False, getstate_setstate=False)
try:
    import lsprotocol.types  # noqa: F401 - for those who import it after this
finally:
    attrs.define = _define
