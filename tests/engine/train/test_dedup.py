"""Of what stands twice in the corpus only the first is kept; nothing of the evaluation is."""

import os
import subprocess
import sys

import numpy as np
import pytest

from engine.train import dedup
from engine.train.dedup import Forbidden, Lines
from tests.engine.train.packed import module, script

WALK, SWIM, CLIMB = module("walk"), module("swim"), module("climb")


def test_the_first_of_equal_texts_is_kept_whatever_their_white_space():
    spaced = WALK.replace("\n", "\n\n").replace("    ", "\t")
    assert dedup.near_or_exact([WALK, SWIM, spaced, SWIM]) == [
        "",
        "",
        "exact duplicate",
        "exact duplicate",
    ]


def test_a_text_changed_in_one_place_is_a_near_duplicate_and_another_is_not():
    text = module("walk", 60)
    changed = text.replace("walk_3_alpha", "another")
    assert dedup.near_or_exact([text, changed, module("swim", 60)]) == ["", "near duplicate", ""]


def test_texts_that_are_half_alike_are_both_kept():
    assert dedup.near_or_exact([WALK + SWIM, WALK + CLIMB]) == ["", ""]


def test_minhash_estimates_how_alike_two_texts_are():
    words = [f"word{i}" for i in range(4000)]
    signatures = [
        dedup.minhash(" ".join(words[start : start + 2000])) for start in (0, 500, 1000, 2000)
    ]
    shares = [float(np.mean(signatures[0] == other)) for other in signatures]
    assert shares == pytest.approx([1.0, 0.6, 1 / 3, 0.0], abs=0.13)


def test_short_and_empty_texts_have_a_signature_too():
    assert np.array_equal(dedup.minhash("a = b + c * d"), dedup.minhash("a = b + c * d"))
    assert dedup.near_or_exact(["x = 1", "y = 2"]) == ["", ""]


def kept(text, ranges):
    lines = text.split("\n")
    return ["\n".join(lines[start:end]) for start, end in ranges]


def test_lines_of_an_earlier_text_are_cut_out_and_both_sides_stay():
    text = SWIM + "\n" + WALK[: len(WALK) // 2] + "\n" + CLIMB
    first, second = dedup.pieces([WALK, text])
    assert kept(WALK, first) == [WALK]
    before, after = kept(text, second)
    assert before in SWIM and len(before) > 0.9 * len(SWIM)
    assert after.endswith(CLIMB) and "walk_step" not in before


def test_a_text_mostly_copied_goes_as_a_whole():
    long = module("walk", 12)
    assert dedup.pieces([long, long + SWIM])[1] == []
    assert kept(WALK + SWIM + CLIMB, dedup.pieces([WALK, WALK + SWIM + CLIMB])[1]) != []


def test_fewer_lines_in_common_than_a_window_are_no_copy():
    shared = "\n".join(WALK.split("\n")[: dedup.WINDOW - 1])
    text = SWIM + shared + CLIMB
    assert kept(text, dedup.pieces([WALK, text])[1]) == [text]


def test_what_a_text_repeats_of_itself_stays():
    assert kept(WALK + WALK, dedup.pieces([WALK + WALK])[0]) == [WALK + WALK]


def test_a_scrap_between_two_cuts_is_not_worth_a_document():
    scrap = "\n".join(CLIMB.split("\n")[:8])
    text = f"{SWIM}\n{WALK[:500]}\n{scrap}\n{WALK[600:1100]}"
    assert all("climb" not in piece for piece in kept(text, dedup.pieces([WALK, text])[1]))


def test_texts_without_a_window_are_left_alone():
    assert dedup.pieces(["", "x = 1\n", ""]) == [[(0, 1)], [(0, 2)], [(0, 1)]]
    assert dedup.pieces([]) == []


def test_a_few_lines_of_an_evaluation_set_forbid_a_text():
    forbidden = Forbidden()
    forbidden.add(WALK)
    some = "\n".join(WALK.split("\n")[7:14])
    assert forbidden.touches(SWIM + "\n" + some)
    assert not forbidden.touches(SWIM)


def test_comments_and_imports_in_common_forbid_nothing():
    head = "# Licence text, line one\n" * 8 + "import os\nimport sys\nfrom typing import Any\n" * 3
    forbidden = Forbidden()
    forbidden.add(head + WALK)
    assert not forbidden.touches(head + SWIM)


def test_comments_and_imports_of_scripts_forbid_nothing_either():
    head = (
        "/**\n * Licence text of two\n * or more lines\n */\n// and more of it\n"
        "import { readFile } from 'fs/promises'\nexport * from './other.js'\n"
        "export { some, more } from './other.js'\nconst { join } = require('node:path')\n"
    )
    forbidden = Forbidden()
    forbidden.add(head + script("walk"))
    assert not forbidden.touches(head + script("swim"))
    assert forbidden.touches(head + script("walk")[:400])


def test_copies_are_found_in_scripts_as_well():
    long, other = script("walk", 40), script("swim", 40)
    assert (
        dedup.near_or_exact([long, other, long.replace("Step7(", "step7(")])[2] == "near duplicate"
    )
    text = other + script("walk")
    (piece,) = kept(text, dedup.pieces([script("walk"), text])[1])
    assert other.startswith(piece) and len(piece) > 0.99 * len(other)


PROBLEM = "def twice(number: int) -> int:\n    doubled = number * 2\n    return doubled\n"


def test_the_shortest_problem_is_found_as_a_whole():
    forbidden = Forbidden()
    forbidden.add(PROBLEM)
    assert forbidden.touches(SWIM + PROBLEM)


def test_a_problem_is_found_by_its_signature_alone():
    forbidden = Forbidden()
    forbidden.add(PROBLEM, "def twice(number: int) -> int:")
    assert forbidden.touches(SWIM + "    def twice(number: int)  -> int:\n        return 0\n")


def test_hashes_are_the_same_in_every_process():
    code = (
        "from engine.train import dedup; from tests.engine.train.packed import module;"
        "t = module('walk'); print(dedup.minhash(t).sum(), dedup.Lines.of(t).hashes.sum())"
    )
    run = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert run[0] == run[1] != ""


def test_trivial_lines_are_no_lines():
    assert len(Lines.of("{\n}\n\n  )\nelse:\nreturn\n").hashes) == 1
