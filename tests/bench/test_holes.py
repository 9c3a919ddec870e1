import gzip
import json

import pytest

from bench import holes, metrics, syntax
from bench.holes import HolesError

SOURCE = '''"""A module."""

import os
import sys

LIMIT = 10


def first(values, flag):
    """Says what it does,
    on two lines: with = code(in it)."""
    total = sum(values) + len(values)
    if flag:
        total = total * LIMIT
        values = [value + 1 for value in values]
        print(values)
    text = """
    x = not_code(1)
    """
    return total  # the sum


class Second:
    def run(self, path):
        for name in os.listdir(path):
            if name.startswith("."):
                continue
            yield name, sys.getsizeof(name)

    def stop(self):
        self.running = False
        self.names = []
        self.path = None
'''


@pytest.fixture
def tree(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "module.py").write_text(SOURCE)
    return package


SCRIPT = """'use strict';

const fs = require('fs');

function size(names, flag) {
  let total = 0;
  for (const name of names) {
    total += fs.statSync(name).size;
  }
  if (flag) {
    total = Math.round(total / 1024);
    console.log(total);
  }
  return total;
}

exports.last = function (names) {
  const [name] = names.slice(-1);
  return name;
};
"""


def test_the_holes_in_python_stay_the_same_ones(tree):
    """Figures from years ago are compared with today's: these keys were drawn in November 2026."""
    assert [hole.key.replace("package/module.py:", "") for hole in holes.from_trees([tree], 2)] == [
        *("rest of line:621-625", "rest of line:394-407"),
        *("1 line:387-407", "1 line:52-76"),
        *("2-3 lines:233-295", "2-3 lines:610-650"),
        *("4-8 lines:148-295", "4-8 lines:416-551"),
        *("block:581-650", "block:203-295"),
    ]


@pytest.mark.parametrize("split", syntax.SPLITS)
def test_a_hole_is_cut_out_of_its_file(tree, split):
    (hole, *_) = [hole for hole in holes.from_trees([tree], 5) if hole.split == split]
    assert hole.original == SOURCE
    assert hole.middle.strip()
    assert metrics.parses(hole.prefix + hole.middle + hole.suffix, SOURCE, "python")
    assert hole.path == "package/module.py"


def test_there_is_one_hole_per_function_and_split(tree):
    found = holes.from_trees([tree], 100)
    pairs = [(hole.split, hole.cluster) for hole in found]
    assert len(pairs) == len(set(pairs))
    in_run = [h for h in found if h.split == syntax.ONE_LINE and h.cluster.endswith(":24")]
    assert len(in_run) == 1


def test_the_seed_decides_and_more_holes_only_add(tree):
    some, more = holes.from_trees([tree], 2), holes.from_trees([tree], 4)
    assert [hole.key for hole in some] == [h.key for h in holes.from_trees([tree], 2)]
    for split in syntax.SPLITS:
        first = [hole for hole in some if hole.split == split]
        assert [hole for hole in more if hole.split == split][: len(first)] == first
    other = holes.from_trees([tree], 2, seed=1)
    assert {hole.key for hole in other} != {hole.key for hole in some}


def test_trees_take_turns(tree, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "module.py").write_text(SOURCE)
    found = holes.from_trees([tree, other], 2)
    ones = [hole.path for hole in found if hole.split == syntax.ONE_LINE]
    assert ones == ["package/module.py", "other/module.py"]


def test_languages_take_turns_and_leave_each_other_alone(tree):
    alone = [hole.key for hole in holes.from_trees([tree], 2)]
    (tree / "size.js").write_text(SCRIPT)
    (tree / "copy.ts").write_text(SCRIPT)
    found = holes.from_trees([tree], 2)
    ones = [hole.language for hole in found if hole.split == syntax.ONE_LINE]
    assert ones == ["python", "javascript", "typescript"] * 2
    assert [hole.key for hole in found if hole.language == "python"] == alone
    assert {hole.original for hole in found if hole.language != "python"} == {SCRIPT}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("generated.js", "// Code generated from a grammar. DO NOT EDIT.\n" + SCRIPT),
        ("compiled.js", 'Object.defineProperty(exports, "__esModule", { value: 1 });\n' + SCRIPT),
        ("bundled.js", SCRIPT + "//# sourceMappingURL=bundled.js.map\n"),
        ("size.min.js", SCRIPT),
        ("minified.js", SCRIPT + "x = [" + "1, " * 200 + "];\n"),
        ("broken.js", SCRIPT + "function (\n"),
        ("dist/size.js", SCRIPT),
        ("third_party/size.js", SCRIPT),
        ("node_modules/other/size.js", SCRIPT),
        ("types.d.ts", "export declare function size(a: string[]): number;\n"),
        ("stub.pyi", SOURCE),
        ("classes.h", "class A {\n public:\n  int size() const;\n};\n"),
        ("readme.md", SOURCE),
    ],
)
def test_files_of_other_languages_that_nobody_writes_by_hand_are_left_out(tree, name, text):
    file = tree / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    assert {hole.path for hole in holes.from_trees([tree], 100)} == {"package/module.py"}


def test_a_header_counts_as_c_if_it_is_c(tree):
    (tree / "sum.h").write_text("static int sum(int a, int b) {\n  return a + b;\n}\n")
    found = {hole.language for hole in holes.from_trees([tree], 100) if hole.path.endswith(".h")}
    assert found == {"c"}


def test_a_folder_that_is_called_like_a_source_is_no_source(tree):
    (tree / "highlight.js").mkdir()
    assert {hole.language for hole in holes.from_trees([tree], 100)} == {"python"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("generated.py", "# Generated by a tool, DO NOT EDIT\n" + SOURCE),
        ("minified.py", SOURCE + "x = [" + "1, " * 200 + "]\n"),
        ("broken.py", SOURCE + "def (:\n"),
        ("dos.py", SOURCE.replace("\n", "\r\n")),
        ("huge.py", SOURCE + "x = 1\n" * 40_000),
        ("_vendor/module.py", SOURCE),
        (".hidden/module.py", SOURCE),
    ],
)
def test_files_that_nobody_writes_by_hand_are_left_out(tree, name, text):
    file = tree / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(text.encode())
    assert {hole.path for hole in holes.from_trees([tree], 100)} == {"package/module.py"}


def test_a_file_that_is_not_utf8_is_left_out(tree):
    (tree / "latin.py").write_bytes(("# é\n" + SOURCE).encode("latin-1"))
    assert {hole.path for hole in holes.from_trees([tree], 100)} == {"package/module.py"}


def test_places_count_bytes_and_texts_characters(tree):
    (tree / "module.py").write_text(SOURCE.replace("A module.", "Ein Modul: äöü 🙂"))
    for hole in holes.from_trees([tree], 100):
        assert hole.middle in SOURCE


def row(task, middle):
    return {
        "task_id": task,
        "entry_point": "f",
        "prompt": "def f(x):\n",
        "canonical_solution": middle,
        "suffix": "    return y\n",
        "test": "def check(f):\n    assert f(1) == 2\n",
    }


@pytest.fixture
def humaneval(tmp_path):
    kinds = ("SingleLine", "MultiLine", "RandomSpan")
    for kind, name in zip(kinds, holes.HUMANEVAL_SPLITS.values(), strict=True):
        rows = [row(f"{kind}Infilling/HumanEval/{i}/L0", "    y = x + 1\n") for i in range(5)]
        with gzip.open(tmp_path / name, "wt") as out:
            out.writelines(json.dumps(one) + "\n" for one in rows)
    return tmp_path


def test_a_problem_becomes_a_hole_whose_line_end_is_in_the_suffix(humaneval):
    found = holes.from_humaneval(humaneval, 2)
    assert [hole.split for hole in found] == [name for name in holes.HUMANEVAL_SPLITS for _ in "ab"]
    single, span = found[0], found[-1]
    assert (single.middle, single.suffix) == ("    y = x + 1", "\n    return y\n")
    assert single.one_line
    assert span.middle == "    y = x + 1\n"
    assert not span.one_line
    assert single.cluster.startswith("HumanEval/")
    assert single.check == "def check(f):\n    assert f(1) == 2\n\ncheck(f)\n"
    assert single.original == span.original


def test_a_fingerprint_changes_with_what_is_around_the_hole(humaneval):
    before = holes.from_humaneval(humaneval, 1)[0]
    with gzip.open(humaneval / holes.HUMANEVAL_SPLITS["HumanEval single-line"], "wt") as out:
        changed = row(before.key, "    y = x + 1\n") | {"prompt": "def f(x, y=0):\n"}
        out.write(json.dumps(changed) + "\n")
    after = holes.from_humaneval(humaneval, 1)[0]
    assert after.key == before.key
    assert after.fingerprint != before.fingerprint


def test_a_folder_without_the_files_is_named(tmp_path):
    with pytest.raises(HolesError, match=r"has no HumanEval-SingleLine.*give the folder"):
        holes.from_humaneval(tmp_path, 1)


def test_a_tree_that_is_no_folder_is_named(tmp_path):
    with pytest.raises(HolesError, match=r"nowhere is no directory"):
        holes.from_trees([tmp_path / "nowhere"], 1)


def test_a_tree_without_sources_is_named(tmp_path):
    with pytest.raises(HolesError, match=r"has no source with holes to dig \(python, javascript"):
        holes.from_trees([tmp_path], 1)
