"""Evaluation data in both its forms becomes something no document may share."""

import gzip
import json

import pytest

from engine.errors import EngineError
from engine.train import leaks, tarballs, wheels
from tests.engine.train import packed
from tests.engine.train.packed import module, script

ROW = {
    "task_id": "0",
    "entry_point": "largest",
    "prompt": "from typing import List\n\n\ndef largest(numbers: List[int]) -> int:\n    best = numbers[0]\n",
    "canonical_solution": "    for candidate in numbers:\n",
    "suffix": "        best = max(best, candidate)\n    checked = best\n    return checked\n",
}
BODY = ROW["prompt"].partition("int:\n")[2] + ROW["canonical_solution"] + ROW["suffix"]


def write(path, rows):
    text = "\n".join(json.dumps(row) for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


# HumanEval/0 (OpenAI, MIT licence), its parameters renamed and its docstring gone.
KNOWN = """
def near(values, limit):
    for idx, elem in enumerate(numbers):
        for idx2, elem2 in enumerate(numbers):
            if idx != idx2:
                distance = abs(elem - elem2)
                if distance < threshold:
                    return True
    return False
"""


def test_problems_of_humaneval_are_forbidden_without_their_files():
    found = leaks.humaneval()
    assert found.touches(module("walk") + KNOWN)
    assert found.touches("def truncate_number(number: float) -> float:\n    ...\n")
    assert not found.touches(module("walk"))
    more = leaks.forbidden([], found)
    assert more.touches(KNOWN)


@pytest.mark.parametrize("name", ["one.jsonl.gz", "one.jsonl"])
def test_a_problem_is_forbidden_where_the_hole_was_filled(tmp_path, name):
    found = leaks.forbidden([write(tmp_path / name, [ROW, {**ROW, "task_id": "1"}])])
    assert found.touches(module("walk") + "def renamed(numbers):\n" + BODY)
    assert found.touches("class A:\n    def largest(numbers: List[int]) -> int:\n        ...\n")
    assert not found.touches(module("walk"))


def test_a_folder_is_read_for_problems_and_for_sources(tmp_path):
    write(tmp_path / "p.jsonl.gz", [ROW])
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "own.py").write_text(module("swim"))
    found = leaks.forbidden([tmp_path])
    assert found.touches(module("swim"))
    assert found.touches(ROW["prompt"])


def test_every_file_of_a_held_out_package_is_forbidden(tmp_path):
    wheel = packed.wheel(
        tmp_path, "held", {"held/a.py": module("walk"), "held/b.py": module("swim")}
    )
    found = leaks.forbidden([])
    leaks.forbid_files(found, wheels.files("held", wheel))
    assert found.touches(module("walk")) and found.touches(module("swim"))
    assert not found.touches(module("climb"))


def test_some_lines_of_a_held_out_script_forbid_a_script_in_the_other_language(tmp_path):
    path = packed.npm_tarball(tmp_path, "held", {"lib/a.js": script("walk")})
    found = leaks.forbidden([])
    leaks.forbid_files(found, tarballs.files("held", path))
    copied = "\n".join("\t" + line for line in script("walk").split("\n")[8:22])
    assert found.touches(script("swim") + copied)
    assert not found.touches(script("swim"))


def test_a_tree_of_scripts_is_an_evaluation_set_too(tmp_path):
    (tmp_path / "own.ts").write_text(script("swim"))
    assert leaks.forbidden([tmp_path]).touches(script("swim"))


def test_a_path_that_is_no_evaluation_set_is_refused(tmp_path):
    with pytest.raises(EngineError, match=r"--exclude .*absent is no folder and no \*\.jsonl"):
        leaks.forbidden([tmp_path / "absent"])
    with pytest.raises(EngineError, match=r"--exclude .* holds neither"):
        leaks.forbidden([tmp_path])


DAMAGED = {
    "no gzip": b"no gzip",
    "no JSON": gzip.compress(b"{"),
    "a list": gzip.compress(b"[1]"),
    "another object": gzip.compress(b'{"prompt": "x"}'),
    "cut off": gzip.compress(b"{}")[:-9],
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)  # gzip writes the time
def test_a_damaged_problem_file_is_refused(tmp_path, content):
    (tmp_path / "p.jsonl.gz").write_bytes(content)
    with pytest.raises(EngineError, match=r"is not a file of infilling problems .*entry_point"):
        leaks.forbidden([tmp_path / "p.jsonl.gz"])
