"""Writes what is generated from dg_lsp/settings.py: the editors' schema and the README's table."""

import json
import re
from pathlib import Path

from dg_lsp import schema

ROOT = Path(__file__).parents[1]
TABLE = re.compile(r"(?<=<!-- settings -->\n).*(?=<!-- end of settings -->)", re.S)


def main() -> None:
    """Replaces both in place."""
    text = json.dumps(schema.schema(), indent=2) + "\n"
    (ROOT / "dg_lsp/settings.schema.json").write_text(text)
    readme = ROOT / "README.md"
    readme.write_text(TABLE.sub(lambda _: schema.table(), readme.read_text()))


if __name__ == "__main__":
    main()
