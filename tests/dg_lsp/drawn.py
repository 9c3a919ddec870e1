"""Documents drawn with their cursor (║), and engines' texts (├ ┤), for the tests of what is shown."""

from dg_lsp import ghost_text
from dg_lsp.document import Snapshot


def at(drawn, language=""):
    left, _, right = drawn.partition("║")
    return Snapshot(text=left + right, offset=len(left), language=language)


def shown(drawn, completion, language=""):
    """The line or lines as they stand once the ghost text is accepted; ├ ┤ marks what is new."""
    left, _, right = drawn.partition("║")
    snapshot = at(drawn, language)
    assert completion[0] + completion[-1] == "├┤"
    text = ghost_text.apply(completion[1:-1], snapshot)
    return f"{left}├{text}┤{right[ghost_text.covered(text, snapshot) :]}"


def check(drawn, completion, expected, language=""):
    assert shown(drawn, completion, language) == expected
