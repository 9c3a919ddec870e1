"""What the plugin costs while one types into a file of 10,000 lines: `python -m tests.neovim.latency`.

Prints one JSON line: per key, from its input until Neovim answers again, screen drawn; in ms.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.neovim.driver import running

LINES, KEYS, GAP_S = 10_000, 150, 0.06
TEXT = "".join(f"value_{number} = compute({number}, other={number})\n" for number in range(LINES))


def typing(nvim, name):
    """Milliseconds per key in the middle of the file."""
    (nvim.files / name).write_text(TEXT)
    nvim.command(f"edit {nvim.files / name}")
    nvim.type(f"{LINES // 2}Go")
    spent = []
    for number in range(KEYS):
        begun = time.perf_counter()
        nvim.type("say word "[number % 9])
        nvim.command("redraw")
        spent.append(1000 * (time.perf_counter() - begun))
        time.sleep(GAP_S)
    return spent


def main():
    with tempfile.TemporaryDirectory(prefix="dg") as name, running(Path(name)) as nvim:
        alone = typing(nvim, "alone.txt")
        nvim.type("<Esc>")
        nvim.setup(backend="own", debounce_ms=50)
        with_plugin = typing(nvim, "plugin.txt")
        nvim.until_attached()
        asked = sum(event.startswith("infill plugin.txt") for event in nvim.events)
    figures = {"lines": LINES, "keys": KEYS, "asked": asked}
    for label, spent in (("alone", alone), ("with_plugin", with_plugin)):
        cuts = statistics.quantiles(spent, n=20)
        figures[label] = {"p50_ms": round(cuts[9], 2), "p95_ms": round(cuts[18], 2)}
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
