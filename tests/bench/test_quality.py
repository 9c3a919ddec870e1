import gzip
import itertools
import json
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from bench import quality, systems
from bench.holes import HUMANEVAL_SPLITS, Hole
from bench.systems import Answer
from tests.engine import tiny

MODULE = "\n\n".join(
    f"def step_{i}(value):\n    first = value + {i}\n    if first:\n        first = {i}\n"
    "        value = first\n    return first * value\n"
    for i in range(4)
)


def hole(split="1 line", start="    ", middle="y = x + 1", suffix="\n    return y\n", check=""):
    return Hole(
        key="k",
        split=split,
        cluster="c",
        path="p.py",
        prefix="def f(x):\n" + start,
        middle=middle,
        suffix=suffix,
        check=check,
    )


@pytest.fixture
def tree(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "module.py").write_text(MODULE)
    return package


@pytest.fixture
def run(tmp_path, capsys):
    def run(*arguments):
        status = quality.main(["--out", str(tmp_path / "out"), *map(str, arguments)])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def one_line_only(monkeypatch):
    monkeypatch.setattr(quality, "QUICK", {"1 line": 2})


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "little"
    tiny.llama(directory, seed=4, bos_token_id=2)
    return directory


def load(model):
    return systems.load(model, device="cpu", threads=1)


def results(tmp_path):
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


CHECK = "def check(f):\n    assert f(1) == 2\ncheck(f)\n"


def test_the_right_fill_scores_in_everything():
    scores = quality.score(hole(check=CHECK), Answer(text="y = x + 1", ms=1))
    right = {"exact": True, "similarity": 1.0, "parses": True, "passed": True, "verdict": "passed"}
    assert scores == {"raw": right, "shown": right, "shown_text": "y = x + 1"}


def test_another_way_to_say_it_passes_without_being_exact():
    raw = quality.score(hole(check=CHECK), Answer(text="y = 1 + x", ms=1))["raw"]
    assert (raw["exact"], raw["passed"], raw["parses"]) == (False, True, True)
    assert 0 < raw["similarity"] < 1


def test_a_wrong_fill_fails_and_a_broken_one_does_not_parse():
    wrong = quality.score(hole(check=CHECK), Answer(text="y = x - 1", ms=1))["raw"]
    broken = quality.score(hole(check=CHECK), Answer(text="y = (x +", ms=1))["raw"]
    assert (wrong["passed"], wrong["parses"]) == (False, True)
    assert (broken["passed"], broken["parses"]) == (False, False)


def test_holes_without_unit_tests_have_no_verdict():
    assert quality.score(hole(), Answer(text="", ms=1))["raw"]["passed"] is None


def test_what_is_shown_is_scored_after_the_filters():
    over = Answer(text="y = x + 1\n    return y\n", ms=1)
    scores = quality.score(hole(check=CHECK), over)
    assert not scores["raw"]["exact"]
    assert scores["shown"]["exact"]
    assert scores["shown"]["passed"]
    assert scores["shown_text"] == "y = x + 1"


def test_closers_that_the_ghost_text_covers_are_no_part_of_the_text():
    covering = hole(start="    y = g(", middle="x", suffix=")\n    return y\n")
    scores = quality.score(covering, Answer(text="x) or x", ms=1))
    assert scores["shown_text"] == "x) or x"
    assert scores["shown"]["parses"]
    assert not scores["raw"]["parses"]


def test_a_run_fills_scores_and_reports(run, tree, model, tmp_path, one_line_only):
    status, out, err = run(
        *("--tree", tree, "--model", model, "--quick", "--threads", 1, "--pictures")
    )
    assert status == 0
    assert (tmp_path / "out" / "quality.png").exists()
    assert "hole" in err, "a progress bar"
    figures = json.loads(out.splitlines()[-1])
    assert set(figures["splits"]["1 line"]) == {"copy", "engine little"}
    engine = figures["splits"]["1 line"]["engine little"]
    assert engine["holes"] == 2
    assert engine["forwards"] > 0
    assert engine["ms_p50"] > engine["decode_ms_p50"] > 0
    assert "### By split" in out
    assert (tmp_path / "out" / "report.md").read_text() in out
    assert len(results(tmp_path)) == 2 * sum(s["copy"]["holes"] for s in figures["splits"].values())


def test_without_quick_all_systems_run_that_there_are(run, tree, tmp_path, tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "block"
    tiny.diffusion_gemma(directory, seed=4, num_hidden_layers=2)
    run("--tree", tree, "--model", directory, "--holes", 1, "--threads", 1)
    systems = {row["system"] for row in results(tmp_path)}
    assert systems == {"copy", "engine block", "causal block", "oracle block"}


def test_a_broken_off_run_goes_on_where_it_was(run, tree, tmp_path, monkeypatch):
    arguments = ("--tree", tree, "--systems", "copy", "--holes", 2)
    run(*arguments)
    file = tmp_path / "out" / "results.jsonl"
    whole = file.read_text().splitlines(keepends=True)
    file.write_text("".join(whole[:-2]) + whole[-2][:20])
    asked = []
    monkeypatch.setattr(systems, "copy", lambda h: asked.append(h) or Answer(text="", ms=1))
    status, *_ = run(*arguments)
    assert status == 0
    assert len(asked) == 2
    assert [row["key"] for row in results(tmp_path)] == [json.loads(r)["key"] for r in whole]
    run(*arguments)
    assert len(asked) == 2, "everything was there"


DUG = [
    replace(hole(), key=f"{split}{n}", split=split)
    for split, count in (("a", 4), ("b", 3))
    for n in range(count)
]


def test_holes_of_all_splits_are_filled_together():
    """In parts of one hole a split, two, four: a run cut short has something of everything."""
    parts = [[one.key for one in part] for part in quality._rounds(DUG)]
    assert parts == [["a0", "b0"], ["a1", "a2", "b1", "b2"], ["a3"]]


def test_when_the_time_is_up_the_rows_are_of_holes_that_all_systems_have_filled(
    tmp_path, monkeypatch
):
    """Each answer takes a minute."""
    asked = []
    monkeypatch.setattr(quality, "time", SimpleNamespace(monotonic=lambda: 60.0 * len(asked)))
    fillers = {name: lambda h: asked.append(h) or Answer(text="", ms=1) for name in ("x", "y")}
    file = tmp_path / "results.jsonl"

    def run(minutes):
        rows = quality._run(DUG, fillers, file, until=60.0 * minutes)
        return [(row["system"], row["key"]) for row in rows]

    with pytest.raises(quality.RunError, match="in time; give more --minutes"):
        run(2)
    assert run(9) == [(name, key) for name in "xy" for key in ("a0", "a1", "b0")]
    assert len(asked) == len(file.read_text().splitlines()) == 9
    assert run(100) == [(name, one.key) for name in "xy" for one in DUG]
    assert len(asked) == 14, "what was there was not filled again"


def test_a_report_on_fewer_holes_says_so(run, tree, monkeypatch):
    arguments = ("--tree", tree, "--systems", "copy", "--holes", 2)
    assert "the time was up" not in run(*arguments)[1]
    clock = itertools.count(step=60)
    monkeypatch.setattr(quality, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    _, out, _ = run(*arguments, "--seed", 1, "--minutes", 3)
    assert re.search(r"^2 of \d+ holes: the time was up\.$", out, re.MULTILINE)


def test_a_changed_hole_is_filled_anew(run, tree, tmp_path):
    arguments = ("--tree", tree, "--systems", "copy", "--holes", 1)
    run(*arguments)
    before = len(results(tmp_path))
    (tree / "module.py").write_text("import os\n" + MODULE)
    run(*arguments)
    assert len(results(tmp_path)) == 2 * before


def test_a_diffusion_model_is_also_told_the_length_and_run_from_left_to_right(
    run, tree, tmp_path, tmp_path_factory, monkeypatch
):
    monkeypatch.setattr(quality, "QUICK", {"1 line": 1})
    directory = tmp_path_factory.mktemp("models") / "block"
    tiny.diffusion_gemma(directory, seed=4, num_hidden_layers=2)
    everything = ("--systems", "copy,engine,causal,diffusion,oracle")
    status, _, err = run(
        *("--tree", tree, "--model", directory, "--quick", "--threads", 1, *everything)
    )
    assert status == 0
    assert "block is left out as diffusion: that is what engine does" in err
    rows = results(tmp_path)
    assert {row["system"] for row in rows} == {
        "copy",
        "engine block",
        "causal block",
        "oracle block",
    }
    failed = {row["error"] for row in rows if row["error"]}
    assert all("do not fit the canvas" in error for error in failed)
    told = [row for row in rows if row["system"] == "oracle block" and not row["error"]]
    assert all(row["tokens"] >= row["length"] / 3 for row in told)
    modes = {row["system"]: row["mode"] for row in rows if not row["error"]}
    assert modes["causal block"] == "causal"
    assert {modes.get("engine block"), modes.get("oracle block")} <= {"diffusion", None}


def test_the_report_says_what_knowing_the_length_is_worth(run, tmp_path, tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "block"
    tiny.diffusion_gemma(directory, seed=4, num_hidden_layers=2)
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "a.py").write_text("a = 1")  # nothing behind it: the canvas is small
    status, out, _ = run(
        *("--tree", tmp_path / "small", "--model", directory, "--holes", 1, "--threads", 1),
        *("--systems", "engine,oracle"),
    )
    assert status == 0
    assert not any(row["error"] for row in results(tmp_path) if row["split"] == "1 line")
    figures = json.loads(out.splitlines()[-1])
    assert figures["gaps"]["splits"]["1 line"]["block"]["holes"] == 1
    assert "| 1 line | block | 1 | raw |" in out


@pytest.mark.parametrize(
    ("kinds", "ran", "notes"),
    [
        (("engine", "causal"), ["engine"], ["as causal: that is what engine does"]),
        (("causal",), ["causal"], []),
        (("diffusion", "engine"), ["engine"], ["as diffusion: little was not trained"]),
        (("oracle",), [], ["as oracle: little was not trained for mode 'diffusion'"]),
    ],
)
def test_a_model_is_run_in_the_modes_it_has_each_once(model, kinds, ran, notes):
    found, said = systems.of_model(load(model), kinds)
    assert list(found) == [f"{kind} little" for kind in ran]
    assert len(said) == len(notes)
    assert all(f"little is left out {n}" in note for n, note in zip(notes, said, strict=True))


def test_a_mode_that_the_engine_has_not_is_left_out(model, monkeypatch):
    monkeypatch.setitem(systems._MODES, "fim", "telepathy")
    found, said = systems.of_model(load(model), ("fim", "engine"))
    assert list(found) == ["engine little"]
    assert said == ["little is left out as fim: 'telepathy' is not a valid Mode"]


def test_other_languages_are_scored_by_their_own_syntax(run, tree, tmp_path):
    (tree / "step.go").write_text(
        "package step\n\nfunc Step(value int) int {\n\tfirst := value + 1\n"
        "\treturn first * value\n}\n"
    )
    status, out, _ = run("--tree", tree, "--systems", "copy", "--holes", 1)
    assert status == 0
    assert "### By language" in out
    rows = [row for row in results(tmp_path) if row["language"] == "go"]
    assert {row["split"] for row in rows} >= {"rest of line", "1 line", "block"}
    go = quality.score(
        Hole(key="k", split="1 line", cluster="c", path="a.go", prefix="package a\n\n",
             middle="var x = 1", suffix="\n"),
        Answer(text="var x = 1", ms=1),
    )  # fmt: skip
    assert go["raw"]["parses"]


def test_the_quick_subset_takes_fewer_of_the_same_holes(run, tree, tmp_path, one_line_only):
    run("--tree", tree, "--systems", "copy", "--holes", 3)
    every = [row["hole"] for row in results(tmp_path) if row["split"] == "1 line"]
    (tmp_path / "out" / "results.jsonl").unlink()
    run("--tree", tree, "--systems", "copy", "--quick")
    assert [row["hole"] for row in results(tmp_path)] == every[:2]


def test_with_baselines_the_quick_subset_is_half_as_large(
    run, tree, model, tmp_path, one_line_only
):
    run("--tree", tree, "--model", model, "--systems", "copy,engine", "--quick")
    every = [row["hole"] for row in results(tmp_path) if row["system"] == "copy"]
    (tmp_path / "out" / "results.jsonl").unlink()
    run("--tree", tree, "--model", model, "--systems", "copy,causal,fim", "--quick")
    assert [row["hole"] for row in results(tmp_path) if row["system"] == "copy"] == every[:1]


def test_the_quick_subset_has_the_same_python_whatever_stands_beside_it(
    run, tree, tmp_path, one_line_only, monkeypatch
):
    monkeypatch.setattr(quality, "QUICK_OTHERS", {"1 line": 3})
    run("--tree", tree, "--systems", "copy", "--quick")
    alone = [row["hole"] for row in results(tmp_path)]
    script = "".join(f"function f{i}(x) {{\n  return x + {i};\n}}\n" for i in range(4))
    for name in ("a.js", "b.ts"):
        (tree / name).write_text(script)
    (tmp_path / "out" / "results.jsonl").unlink()
    run("--tree", tree, "--systems", "copy", "--quick")
    rows = results(tmp_path)
    assert [row["hole"] for row in rows if row["language"] == "python"] == alone
    others = [row["language"] for row in rows if row["language"] != "python"]
    assert others == ["javascript", "typescript", "javascript"]


def test_humaneval_is_run_with_its_unit_tests(run, tmp_path):
    row = {
        "entry_point": "f",
        "prompt": "def g(x):\n    y = x + 1\n    return y\n\n\ndef f(x):\n    y = x +",
        "canonical_solution": " 1",
        "suffix": "\n    return y\n",
        "test": "def check(f):\n    assert f(1) == 2\n",
    }
    for name in HUMANEVAL_SPLITS.values():
        with gzip.open(tmp_path / name, "wt") as out:
            out.write(json.dumps({"task_id": f"{name}/HumanEval/0/L0", **row}) + "\n")
    status, out, _ = run("--humaneval", tmp_path, "--systems", "copy")
    assert status == 0
    figures = json.loads(out.splitlines()[-1])
    assert figures["splits"]["HumanEval single-line"]["copy"]["passed_raw"][0] == 1


def test_results_of_other_weights_are_not_mixed(run, tree, model, one_line_only):
    assert run("--tree", tree, "--model", model, "--quick", "--threads", 1)[0] == 0
    config = model / "config.json"
    config.write_text(config.read_text() + "\n")
    status, out, err = run("--tree", tree, "--model", model, "--quick")
    assert (status, out) == (1, "")
    assert "has results of another little than today's; give a new --out" in err


def test_a_model_that_can_run_none_of_the_systems_is_said(run, tree, model):
    status, _, err = run("--tree", tree, "--model", model, "--systems", "oracle")
    assert status == 1
    assert "little is left out as oracle: little was not trained for mode 'diffusion'" in err
    assert "there is nothing left to run; name copy or engine in --systems" in err


def test_without_holes_there_is_nothing_to_do(run):
    status, _, err = run("--systems", "copy")
    assert status == 1
    assert err == (
        "bench.quality: there are no holes to fill; give --humaneval DIR, --tree DIR or both\n"
    )


def test_an_unknown_model_is_named(run, tree):
    status, _, err = run("--tree", tree, "--model", "nonesuch")
    assert status == 1
    assert "unknown model 'nonesuch'" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--systems", "copy,guess"), "there is no system 'guess'; there are copy, engine"),
        (("--holes", "0"), "must be a whole number above 0, got '0'"),
    ],
)
def test_wrong_arguments_are_named(run, capsys, arguments, message):
    with pytest.raises(SystemExit):
        run(*arguments)
    assert message in capsys.readouterr().err
