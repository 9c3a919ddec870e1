import json
from dataclasses import replace

import pytest

from bench import grid, quality, systems
from bench.systems import Answer
from engine.config import EngineConfig
from tests.bench.test_quality import MODULE, hole
from tests.engine import tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "block"
    tiny.diffusion_gemma(directory, seed=4)
    return directory


class Unloaded:
    """An engine without weights, which can only be set up another way."""

    def __init__(self, config):
        self.config = config

    def under(self, config):
        return Unloaded(config)


@pytest.fixture
def asked(monkeypatch, model):
    """What each row asks for one hole: configuration, request and length told."""
    asked = []

    def filled(engine, request, length=None):
        asked.append((engine.config, request, length))
        return Answer(text="", ms=1)

    monkeypatch.setattr(systems, "filled", filled)
    of_row = {}
    for name, system in grid.of_model(Unloaded(EngineConfig(model=model))).items():
        system(hole())
        of_row[name.partition(",")[0]] = list(asked)
        asked.clear()
    return of_row


def test_each_row_asks_for_the_same_hole_under_its_changes(asked, model):
    assert list(asked) == [row.name for row in grid.ROWS]
    for row in grid.ROWS:
        config, request, length = asked[row.name][-1]
        changed = {name: getattr(config, name) for name in row.changes}
        assert changed == row.changes
        assert config == replace(EngineConfig(model=model), cache_prefixes=1, **changed)
        assert request.prefix.endswith(hole().prefix)
        assert (length is not None) == row.told


def test_a_row_of_typing_has_answered_one_keystroke_earlier(asked):
    for row in grid.ROWS:
        prefixes = [request.prefix for _, request, _ in asked[row.name]]
        earlier = [prefixes[0], prefixes[0] + " "] if row.typing else prefixes[:1]
        assert prefixes == earlier


def test_changes_are_parts_of_the_configuration_and_add_up():
    for row in grid.ROWS:
        EngineConfig(model="m", **row.changes)
    told = {tuple(row.changes.items()) for row in grid.ROWS if not row.told}
    assert len(told) == len(grid.ROWS) - 1, "two rows are the same"


def row(name, key, *, right, forwards, passed=None):
    raw = {"passed": passed, "exact": right}
    return {
        "system": f"{name}, m",
        "hole": key,
        "cluster": key,
        "raw": raw,
        "forwards": forwards,
    }


def results(**worth):
    """Ten holes in each row: how many are right, and forwards."""
    given = {
        one.name: worth.get(one.name.strip("+ ").partition(" ")[0], (0, 9)) for one in grid.ROWS
    }
    return [
        row(name, f"k{i}", right=i < right, forwards=forwards)
        for name, (right, forwards) in given.items()
        for i in range(10)
    ]


def test_recommended_is_the_row_that_is_right_most_often_without_being_told():
    text = grid.recommended(results(oracle=(10, 1), fixed=(2, 5), drafts=(4, 9)), "m")
    assert text.startswith("### Recommended for m: + drafts\n")
    assert "`canvas_drafts=True, canvas_warm_start=False, infill=InfillConfig(probe=True)`" in text
    assert "- + drafts: 40.0 %" in text
    assert "- fixed 32: 20.0 %, +20.0 [" in text
    assert "oracle" not in text


def test_of_equal_rows_the_one_with_the_fewest_forwards_is_recommended():
    text = grid.recommended(results(fixed=(4, 6), drafts=(4, 5), warm=(4, 7)), "m")
    assert text.startswith("### Recommended for m: + drafts\n")


def test_unit_tests_count_before_equality():
    rows = results(fixed=(3, 5), drafts=(3, 4))
    for one in rows:
        if one["system"] == "fixed 32, m":
            one["raw"]["passed"] = True
    assert grid.recommended(rows, "m").startswith("### Recommended for m: fixed 32\n")


def test_the_grid_is_one_command_and_goes_on_where_it_was(model, tmp_path, capsys):
    tree = tmp_path / "package"
    tree.mkdir()
    (tree / "module.py").write_text(MODULE)
    out = tmp_path / "out"
    arguments = [
        *("--grid", "--model", str(model), "--tree", str(tree), "--out", str(out)),
        *("--holes", "1", "--threads", "1", "--systems", "copy"),
    ]
    assert quality.main(arguments) == 0
    text = capsys.readouterr().out
    file = out / "results.jsonl"
    whole = file.read_text()
    ran = {json.loads(line)["system"] for line in whole.splitlines()}
    assert ran == {"copy", *(f"{one.name}, block" for one in grid.ROWS)}
    assert "### All holes" in text
    assert "### Recommended for block: " in text
    file.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    assert quality.main(arguments) == 0
    assert len(file.read_text().splitlines()) == len(whole.splitlines())
