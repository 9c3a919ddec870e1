"""Long holes with a model that knows the text, and writes it the better the more it sees."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from engine import infill, long_holes
from engine.config import CanvasConfig, EngineConfig, LongHoleConfig, SamplerConfig
from engine.errors import Cancelled
from engine.infill import Control
from engine.request import InfillRequest, Mode, StopReason
from engine.runtime import Engine
from engine.steps import Canvas
from engine.tokenizer import Tokenizer
from tests.engine import tiny
from tests.engine.test_cache import make_config

CANVAS = 48
WRONG = 99
END = 1
SUFFIX = tuple(range(60, 80))
POLICY = LongHoleConfig(steps=3, judged=8)
SAMPLER = SamplerConfig(max_steps=6)


@dataclass
class Author:
    """Writes `text` and then the suffix, by position; what is `late` is wrong on a whole canvas."""

    text: list[int]
    after: tuple[int, ...] = SUFFIX
    late: frozenset[int] = frozenset()
    canvases: list[list[int]] = field(default_factory=list)
    embed_tokens: object = field(default_factory=lambda: SimpleNamespace(weight=torch.zeros(1)))
    config: object = field(
        default_factory=lambda: replace(
            make_config(), canvas=CanvasConfig(length=CANVAS), eos_ids=(END,)
        )
    )

    def embed(self, ids):
        return torch.zeros(*ids.shape, 1)

    def soft_embedding(self, probabilities):
        return torch.zeros(*probabilities.shape[:-1], 1)

    def logits(self, hidden):
        return hidden.clone()

    def encode(self, ids, cache):
        cache.ids.extend(ids)

    def canvas(self, ids, cache, soft, **place):
        shown = ids[0].tolist()
        self.canvases.append(shown)
        start = len(cache.ids)
        written = [*self.text, *self.after, *[5] * CANVAS][start : start + len(shown)]
        for slot in range(len(shown)):
            if start + slot in self.late and len(shown) == CANVAS:
                written[slot] = WRONG
        return 9.0 * torch.eye(100)[written][None]


def fill(author: Author, max_tokens: int = 200, **how):
    cache = SimpleNamespace(ids=[])
    how = {"policy": POLICY, "config": SAMPLER, "seed": 3, "control": Control(), **how}
    canvas = how.pop("canvas", Canvas(hole=1, clamped=SUFFIX))
    filled = long_holes.fill(author, cache, canvas, max_tokens, **how)
    return filled, cache.ids


def text(length: int) -> list[int]:
    return [10 + i % 37 for i in range(length)]


@pytest.mark.parametrize("length", [0, 1, 2, 7, 31, 39, 40, 41, 47, 48, 64, 80, 81, 150])
def test_the_length_is_found_over_as_many_canvases_as_it_takes(length):
    filled, encoded = fill(Author(text(length)))
    assert list(filled.ids) == text(length)
    assert filled.stop is StopReason.COMPLETE
    assert len(filled.log_probabilities) == length
    step = CANVAS - POLICY.judged
    # A suffix that begins in the last slots is met on the next canvas.
    assert len(encoded) == max(0, length - 1) // step * step


def test_what_is_wrong_before_the_suffix_is_in_view_is_mended_where_it_is_clamped():
    author = Author(text(20), late=frozenset({3, 4, 11}))
    filled, _ = fill(author)
    assert list(filled.ids) == text(20)
    last = author.canvases[-1]
    assert last[20:] == list(SUFFIX)
    first_clamped = next(shown for shown in author.canvases if shown[20:] == list(SUFFIX))
    assert [i for i, token in enumerate(first_clamped[:20]) if token != text(20)[i]] == [3, 4, 11]


def test_forwards_are_those_of_the_model():
    author = Author(text(60))
    filled, encoded = fill(author)
    assert encoded, "one canvas was kept, which takes a forward of its own"
    assert filled.forwards == len(author.canvases) + 1


def test_a_suffix_that_never_comes_ends_at_the_limit_with_what_was_written():
    filled, encoded = fill(Author(text(300), after=()), max_tokens=100)
    assert list(filled.ids) == text(300)[:100]
    assert filled.stop is StopReason.LENGTH
    assert encoded == text(300)[: len(encoded)]


def test_where_the_model_ends_the_text_without_the_suffix_it_is_clamped_there():
    filled, _ = fill(Author([*text(9), END], after=()))
    assert list(filled.ids) == text(9)
    assert filled.stop is StopReason.COMPLETE


def test_a_hole_that_repeats_the_suffixs_head_ends_at_the_whole_of_it():
    repeated = [*text(5), *SUFFIX[:4], *text(3)]
    assert list(fill(Author(repeated))[0].ids) == repeated


@pytest.mark.parametrize("length", [20, 70])
def test_a_deadline_at_any_step_gives_what_is_written_so_far(monkeypatch, length):
    whole = Author(text(length))
    fill(whole)
    for after in range(1, len(whole.canvases)):
        author = Author(text(length))
        monkeypatch.setattr(time, "monotonic", lambda a=author: float(len(a.canvases)))
        filled, _ = fill(author, control=Control(deadline=float(after)))
        assert filled.stop is StopReason.DEADLINE
        assert list(filled.ids) == text(length)[: len(filled.ids)], "and nothing of the suffix"
        assert len(filled.ids) == len(filled.log_probabilities)


@pytest.mark.parametrize("written", [3, 4, 8])
def test_at_the_limit_what_is_written_of_the_suffix_is_no_part_of_the_answer(written):
    """All that is met of it is wanted by nobody before it is clear where it begins."""
    author = Author(text(30), after=SUFFIX[:written])
    never = replace(POLICY, least=0.0)
    filled, _ = fill(author, max_tokens=30 + written, policy=never)
    assert (list(filled.ids), filled.stop) == (text(30), StopReason.LENGTH)


@pytest.mark.parametrize("after", range(9))
def test_cancelling_is_seen_before_the_next_forward(after):
    author = Author(text(70))
    with pytest.raises(Cancelled):
        fill(author, control=Control(cancelled=lambda: len(author.canvases) >= after))
    assert len(author.canvases) == after


def test_drafts_go_on_from_what_is_written():
    drafts = []
    filled, _ = fill(Author(text(70)), control=Control(on_draft=lambda ids, n: drafts.append(ids)))
    assert tuple(drafts[-1]) == filled.ids
    assert all(list(ids[:70]) == text(70)[: len(ids)] for ids in drafts)


def test_the_first_canvas_begins_with_what_is_healed_and_shows_the_guess():
    author = Author(text(10))
    canvas = Canvas(hole=1, clamped=SUFFIX, begin=(50, 51), guess=(50, 11, 12))
    filled, _ = fill(author, canvas=canvas)
    assert author.canvases[0][:3] == [50, 11, 12]
    assert filled.ids[0] in (50, 51)


@pytest.fixture(scope="module")
def gemma(tmp_path_factory) -> Engine:
    directory = tmp_path_factory.mktemp("tiny-gemma")
    tiny.diffusion_gemma(directory, seed=4, num_hidden_layers=2)
    return Engine.load(EngineConfig(model=directory, device="cpu", sampler=SAMPLER))


ASKED = InfillRequest(prefix="def f():\n  ret", suffix="\n\nx = f()\n", max_tokens=100)


@pytest.mark.parametrize(
    ("changes", "long"),
    [
        ({}, True),
        ({"max_tokens": 64}, False),
        ({"single_line": True}, False),
        ({"hole_tokens": 8}, False),
        ({"suffix": ""}, False),
    ],
)
def test_a_block_of_unknown_length_is_begun_freely_with_the_whole_suffix_told(
    gemma, monkeypatch, changes, long
):
    asked = []
    fill = long_holes.fill

    def spy(model, cache, canvas, most, policy, **how):
        asked.append((list(cache.ids), canvas.clamped, most))
        return fill(model, cache, canvas, most, policy, **how)

    monkeypatch.setattr(long_holes, "fill", spy)
    result = gemma.infill(replace(ASKED, **changes), cancelled=lambda: False)
    assert result.mode is Mode.DIFFUSION
    assert bool(asked) == long
    if long:
        ids, clamped, most = asked[0]
        encode = Tokenizer.from_directory(Path(gemma.describe()["directory"])).encode
        told = encode("Further below in the file:\n" + ASKED.suffix)
        assert any(ids[i : i + len(told)] == told for i in range(len(ids)))
        assert clamped[:8] == tuple(encode(ASKED.suffix))[:8]
        assert most == 100


def test_long_holes_can_be_left_to_others(tmp_path, monkeypatch):
    tiny.diffusion_gemma(tmp_path, seed=4, num_hidden_layers=2)
    config = EngineConfig(model=tmp_path, device="cpu", sampler=SAMPLER, long_holes=None)
    monkeypatch.setattr(long_holes, "fill", None)
    assert Engine.load(config).infill(ASKED, cancelled=lambda: False).mode is Mode.DIFFUSION


def test_without_a_suffix_the_word_at_the_cursor_is_written_anew_as_well(gemma, monkeypatch):
    written = []
    generate = infill.generate
    monkeypatch.setattr(
        infill,
        "generate",
        lambda *args, **how: written.append(generate(*args, **how)) or written[-1],
    )
    gemma.infill(replace(ASKED, suffix="", max_tokens=6), cancelled=lambda: False)
    decode = Tokenizer.from_directory(Path(gemma.describe()["directory"])).decode
    assert decode(written[0].ids).startswith(" ret")
