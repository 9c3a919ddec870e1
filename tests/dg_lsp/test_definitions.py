import pytest

from dg_lsp.definitions import MAX_CHARS, definitions, imports

SOURCES = {
    "python": (
        """
import os
from a import (
    bb,
)

LIMIT: int = 3


@frozen
class Point(Base):
    '''A place.

    With more.
    '''

    left: int = 3

    @property
    def size(self, unit: str = "m") -> float:
        '''How large.'''
        return 1.0


async def move(
    point: Point,
) -> None:
    pass
""",
        "import os\nfrom a import (\n    bb,\n)",
        {
            "LIMIT": "LIMIT: int = 3",
            "Point": (
                "@frozen\nclass Point(Base):\n    '''A place.'''\n    left: int = 3\n    @property\n"
                "    def size(self, unit: str = \"m\") -> float:\n        '''How large.'''"
            ),
            "size": (
                "class Point(Base):\n    @property\n"
                "    def size(self, unit: str = \"m\") -> float:\n        '''How large.'''"
            ),
            "move": "async def move(\n    point: Point,\n) -> None:",
        },
    ),
    "javascript": (
        """import a from "b";
const fs = require("fs");

// Adds.
// Both.
// All.
export const add = (one, other) => {
  return one + other;
};

export default class Shape extends Base {
  static sides = 1;
  area(scale) {
    return 1;
  }
}

function* walk(tree) {}
""",
        'import a from "b";\nconst fs = require("fs");',
        {
            "fs": 'const fs = require("fs")',
            "add": "// Adds.\n// Both.\nexport const add = (one, other) =>",
            "Shape": "export default class Shape extends Base\n  static sides = 1\n  area(scale)",
            "area": "class Shape extends Base\n  area(scale)",
            "walk": "function* walk(tree)",
        },
    ),
    "typescript": (
        """import { a } from "b";

export interface Point {
  left: number;
}

type Pair = [number, number];

namespace Inner {
  export function swap(pair: Pair): Pair {
    return pair;
  }
}
""",
        'import { a } from "b";',
        {
            "Point": "export interface Point\n  left: number",
            "Pair": "type Pair = [number, number];",
            "swap": "  export function swap(pair: Pair): Pair",
        },
    ),
    "go": (
        """package shapes

import (
	"fmt"
)

// Area says how large it is.
func (s *Square) Area(unit string) (float64, error) {
	return 1, nil
}

type Square struct {
	Side float64
}

const Most = 3
""",
        'package shapes\nimport (\n\t"fmt"\n)',
        {
            "Area": (
                "// Area says how large it is.\nfunc (s *Square) Area(unit string) (float64, error)"
            ),
            "Square": "type Square struct {\n\tSide float64\n}",
            "Most": "const Most = 3",
        },
    ),
    "rust": (
        """use std::io;

/// A place.
pub struct Point {
    left: u8,
}

impl Point {
    pub fn size(&self) -> u8 {
        1
    }
}

pub fn make<T: Into<u8>>(left: T) -> Point {
    Point { left: left.into() }
}
""",
        "use std::io;",
        {
            "Point": "/// A place.\npub struct Point {\n    left: u8,\n}",
            "size": "impl Point\n    pub fn size(&self) -> u8",
            "make": "pub fn make<T: Into<u8>>(left: T) -> Point",
        },
    ),
    "c": (
        """#ifndef SHAPE_H
#define SHAPE_H
#include <stdio.h>

/* How large. */
double area(const struct shape *s);

static char *name(int kind)
{
    return 0;
}
struct shape { int kind; };
#endif
""",
        "#include <stdio.h>",
        {
            "SHAPE_H": "#define SHAPE_H",
            "area": "/* How large. */\ndouble area(const struct shape *s);",
            "name": "static char *name(int kind)",
            "shape": "struct shape { int kind; }",
        },
    ),
    "cpp": (
        """#include <vector>
namespace shapes {
class Square : public Shape {
 public:
  double area() const;
};
template <class T>
T twice(T value) {
  return value + value;
}
}
double Square::area() const { return 1; }
""",
        "#include <vector>",
        {
            "Square": "class Square : public Shape\n  double area() const;",
            "twice": "template <class T>\nT twice(T value)",
            "area": "double Square::area() const",
        },
    ),
    "java": (
        """package a;
import b.C;

/** A place. */
public class Point extends Base {
    private int left;

    public int size(String unit) {
        return 1;
    }
}
""",
        "package a;\nimport b.C;",
        {
            "Point": (
                "/** A place. */\npublic class Point extends Base\n    private int left;\n"
                "    public int size(String unit)"
            ),
            "size": "public class Point extends Base\n    public int size(String unit)",
        },
    ),
    "ruby": (
        """require 'set'

module Shapes
  # A place.
  class Point < Base
    def size(unit)
      1
    end
  end
end
""",
        "require 'set'",
        {
            "Point": "  class Point < Base\n    def size(unit)",
            "size": "  class Point < Base\n    def size(unit)",
        },
    ),
    "lua": (
        """local json = require("json")
local Shape = {}

--- How large.
function Shape.area(unit)
  return 1
end

local function twice(value)
  return value
end
""",
        'local json = require("json")',
        {
            "json": 'local json = require("json")',
            "Shape": "local Shape = {}",
            "area": "--- How large.\nfunction Shape.area(unit)",
            "twice": "local function twice(value)",
        },
    ),
    "shellscript": (
        "source lib.sh\n\n# Says it.\nsay() {\n  echo $1\n}\n",
        "source lib.sh",
        {"say": "# Says it.\nsay()"},
    ),
}


@pytest.mark.parametrize("language", SOURCES)
def test_definitions_are_given_by_their_heads(language):
    source, _, expected = SOURCES[language]
    found: dict[str, str] = {}
    for definition in definitions(source, language):
        found.setdefault(definition.name, definition.text)
    assert found == expected


@pytest.mark.parametrize("language", SOURCES)
def test_imports_are_given_as_they_are(language):
    source, expected, _ = SOURCES[language]
    assert imports(source, language) == expected


def test_a_definition_knows_its_lines():
    found = definitions("\n\n@decorated\ndef name():\n    pass\n", "python")
    assert [(d.line, d.end_line, d.member) for d in found] == [(2, 4, False)]


def test_a_long_definition_is_cut_at_a_line():
    source = "class Long:\n" + "".join(f"    field_{i}: int = {i}\n" for i in range(100))
    (found,) = definitions(source, "python")
    assert len(found.text) <= MAX_CHARS and found.text.endswith(": int = 11")
    (found,) = definitions(
        "x = [" + "1, " * 1000 + "]\nlong_name = '" + "a" * 5000 + "'\n", "python"
    )
    assert len(found.text) == MAX_CHARS


@pytest.mark.parametrize("source", ["", "def (:\n", "\0", "é = 'ü'\ndef größe(é):\n    pass\n"])
def test_what_is_broken_or_not_ascii_does_no_harm(source):
    for definition in definitions(source, "python"):
        assert definition.text in source


def test_plain_text_defines_nothing():
    assert definitions("def f():\n    pass\n", "plaintext") == ()
    assert imports("import a\n", "plaintext") == ""
