"""What `make demo` takes out of this project's own files is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_each_line_the_demo_fills_stands_in_one_place():
    lines = re.findall(r"^fill '([^']+)'", (ROOT / "scripts/demo.sh").read_text(), re.MULTILINE)
    assert len(lines) == 2
    sources = [file.read_text(encoding="utf-8") for file in (ROOT / "engine").rglob("*.py")]
    assert [sum(source.count(line) for source in sources) for line in lines] == [1, 1]
