"""Models that denoise from a mask id, with empty slots and logits read one position earlier."""

import json
from dataclasses import replace

import pytest
import torch

from engine import causal, hf_config, infill
from engine.config import CanvasConfig, EngineConfig, SamplerConfig
from engine.errors import Cancelled, ConfigError, EngineError
from engine.infill import Control
from engine.model import Transformer
from engine.request import InfillRequest, Mode, StopReason
from engine.runtime import Engine
from engine.steps import Canvas
from tests.engine import tiny
from tests.engine.test_cache import make_config
from tests.engine.test_hf_config import LLAMA
from tests.engine.test_model import fresh_cache

MASK, EMPTY = 3, 4
STEPS = SamplerConfig(max_steps=5)


def make_model(*, shifted: bool, sealed: bool = False, rank: int = 0) -> Transformer:
    canvas = CanvasConfig(
        length=16,
        noise="mask",
        mask_id=MASK,
        empty_id=EMPTY,
        shifted=shifted,
        self_conditioning=False,
        sealed_suffix=sealed,
        adapter_rank=rank,
    )
    torch.manual_seed(1)
    model = Transformer(replace(make_config(), canvas=canvas)).eval()
    for name, value in model.named_parameters():
        if "adapter_" in name:
            torch.nn.init.normal_(value, std=0.5)
    return model


def fill(model: Transformer, canvas: Canvas) -> infill.Filled:
    cache = fresh_cache(model)
    with torch.inference_mode():
        model.encode([10, 11, 12], cache)
    return infill.infill(model, cache, canvas, STEPS, 0)


def test_undecided_positions_show_the_mask_and_the_answer_never_has_it(monkeypatch):
    shown = []
    canvas = Transformer.canvas

    def spy(self, ids, cache, soft, **place):
        shown.append(ids[0].tolist())
        assert soft is None
        return canvas(self, ids, cache, soft, **place)

    monkeypatch.setattr(Transformer, "canvas", spy)
    filled = fill(make_model(shifted=True), Canvas(hole=5, clamped=(20, 21), lead=(13,)))
    assert shown[0] == [13, *[MASK] * 5, 20, 21]
    assert all(ids[0] == 13 and ids[6:] == [20, 21] for ids in shown)
    assert MASK in shown[1]
    assert set(shown[1]) != set(shown[0]), "something was decided in the first step"
    assert MASK not in filled.ids


@pytest.mark.parametrize("shifted", [False, True])
def test_a_guess_is_shown_first_and_decides_nothing(monkeypatch, shifted):
    shown = []

    def canvas(self, ids, cache, soft, **place):
        shown.append(ids[0].tolist())
        return torch.zeros(1, ids.shape[1], 8)

    def logits(self, hidden):
        return 2.0 * torch.eye(100)[[30, 31, 32, 33]][None]

    monkeypatch.setattr(Transformer, "canvas", canvas)
    monkeypatch.setattr(Transformer, "logits", logits)
    filled = fill(make_model(shifted=shifted), Canvas(hole=4, lead=(13,), guess=(30, 41)))
    assert shown[0] == [13, 30, 41, MASK, MASK]
    assert shown[1] == [13, 30, MASK, MASK, MASK]
    assert filled.ids == (30, 31, 32, 33)


@pytest.mark.parametrize("shifted", [False, True])
def test_shifted_logits_are_read_one_position_earlier(monkeypatch, shifted):
    model = make_model(shifted=shifted)
    rows = []

    def canvas(self, ids, cache, soft, **place):
        # The states tell their own row.
        return torch.arange(ids.shape[1]).float()[None, :, None].expand(1, -1, 8)

    def logits(self, hidden):
        rows.append(hidden[0, :, 0].int().tolist())
        return torch.randn(*hidden.shape[:-1], 100)

    monkeypatch.setattr(Transformer, "canvas", canvas)
    monkeypatch.setattr(Transformer, "logits", logits)
    fill(model, Canvas(hole=4, clamped=(20,), lead=(13,)))
    assert set(map(tuple, rows)) == {(0, 1, 2, 3) if shifted else (1, 2, 3, 4)}


def test_without_the_token_before_the_hole_shifted_logits_are_refused():
    with pytest.raises(AssertionError, match="need the token before the hole"):
        fill(make_model(shifted=True), Canvas(hole=4))


def test_what_is_decided_stays_and_the_rest_follows_from_left_to_right(monkeypatch):
    """Later steps believe something else everywhere: it changes open slots only."""
    steps = [
        ([30, 31, 32, 33], [2.0, 2.0, 50.0, 2.0]),
        ([40, 41, 42, 43], [2.0, 2.0, 2.0, 2.0]),
        ([50, 51, 52, 53], [2.0, 2.0, 2.0, 2.0]),
    ]
    made = iter(steps)

    def logits(self, hidden):
        ids, strength = next(made)
        return (torch.tensor(strength)[:, None] * torch.eye(100)[ids])[None]

    monkeypatch.setattr(Transformer, "logits", logits)
    filled = fill(make_model(shifted=False), Canvas(hole=4))
    assert filled.ids == (30, 41, 32, 53)
    assert (filled.forwards, filled.stop) == (3, StopReason.COMPLETE)


@pytest.mark.parametrize("begin", [(7,), (8, 60), (99, 1, 2)])
def test_a_hole_begins_with_one_of_the_ids_it_may(begin):
    model = make_model(shifted=True)
    assert fill(model, Canvas(hole=5, lead=(13,), begin=begin)).ids[0] in begin


def test_nothing_behind_the_first_empty_slot_is_taken_or_waited_for(monkeypatch):
    def logits(self, hidden):
        values = torch.zeros(*hidden.shape[:-1], 100)
        for slot, token in enumerate([30, 31, EMPTY]):
            values[0, slot, token] = 50.0
        return values  # the slots behind are open

    monkeypatch.setattr(Transformer, "logits", logits)
    filled = fill(make_model(shifted=False), Canvas(hole=8))
    assert (filled.ids, filled.forwards) == ((30, 31), 1)
    assert filled.log_probability == pytest.approx(0.0, abs=1e-6), "of what was written"
    assert filled.end == filled.log_probabilities[2], "of the slot that ends it"


def test_empty_slots_are_taken_out_of_the_answer(monkeypatch):
    def logits(self, hidden):
        values = torch.zeros(*hidden.shape[:-1], 100)
        for slot, token in enumerate([30, EMPTY, 31, EMPTY]):
            values[0, slot, token] = 50.0
        return values

    monkeypatch.setattr(Transformer, "logits", logits)
    assert fill(make_model(shifted=False), Canvas(hole=4)).ids == (30,)


def test_a_trained_directory_fills_holes_by_denoising(tmp_path):
    tiny.llama(tmp_path, seed=4, bos_token_id=2)
    config = json.loads((tmp_path / "config.json").read_text())
    config["canvas"] = {
        "length": 48,
        "noise": "mask",
        "mask_id": 3,
        "empty_id": 4,
        "shifted": True,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    engine = Engine.load(EngineConfig(model=tmp_path, dtype="float32", sampler=STEPS))
    request = InfillRequest(prefix="a = ", suffix="\nb = 2\n", max_tokens=6)
    first = engine.infill(request, cancelled=lambda: False)
    assert first.mode is Mode.DIFFUSION
    assert first.tokens <= 6 + 1, "the last token of the prefix is healed"
    other = engine.infill(replace(request, suffix=")"), cancelled=lambda: False)
    assert other.cached_tokens == other.prompt_tokens == first.prompt_tokens
    assert engine.infill(replace(request, suffix=""), cancelled=lambda: False).mode is first.mode
    with pytest.raises(EngineError, match=r"hole of 48 tokens .* ask for at most 46"):
        engine.infill(replace(request, suffix="", hole_tokens=48), cancelled=lambda: False)


HOLE = Canvas(hole=5, clamped=(20, 21, 22), lead=(13,))


@pytest.mark.parametrize("rank", [0, 2])
def test_a_sealed_suffix_is_encoded_once_and_stands_behind_the_hole(monkeypatch, rank):
    """Each step has the hole's rows only, at the positions they have with the suffix in place."""
    model = make_model(shifted=True, sealed=True, rank=rank)
    encoded, shown = [], []
    encode, canvas = Transformer.encode, Transformer.canvas

    def spy_encode(self, ids, cache, **place):
        encoded.append((list(ids), cache.length + place.get("shift", 0)))
        return encode(self, ids, cache, **place)

    def spy_canvas(self, ids, cache, soft, **place):
        shown.append((ids.shape[1], cache.length, [s.ids for s in place["suffixes"]]))
        return canvas(self, ids, cache, soft, **place)

    monkeypatch.setattr(Transformer, "encode", spy_encode)
    monkeypatch.setattr(Transformer, "canvas", spy_canvas)
    filled = fill(model, HOLE)
    assert encoded == [([10, 11, 12], 0), ([20, 21, 22], 3 + 1 + 5)]
    assert shown == [(1 + 5, 3, [(20, 21, 22)])] * filled.forwards


def test_writing_from_left_to_right_sees_the_suffix_and_leaves_the_cache_alone():
    model = make_model(shifted=True, sealed=True, rank=2)
    cache = fresh_cache(model)
    with torch.inference_mode():
        model.encode([10, 11, 12], cache)

    def write(canvas, **options):
        filled = causal.fill(model, cache, canvas, lambda ids: None, Control(), **options)
        assert cache.ids == [10, 11, 12]
        return filled

    assert write(HOLE).ids == write(HOLE).ids
    suffixes = [(20, 21, 22), (), (50,), (60, 61, 62, 63)]
    told = {write(replace(HOLE, clamped=suffix)).log_probability for suffix in suffixes}
    assert len(told) == len(suffixes)


@pytest.mark.parametrize("draft", [(), (30, 31), (9, 9, 9)])
def test_writing_by_hand_row_by_row_gives_the_same(draft):
    """The greedy text of full causal passes over [prefix, suffix, lead, text so far]."""
    model = make_model(shifted=True, sealed=True, rank=2)
    cache = fresh_cache(model)
    with torch.inference_mode():
        model.encode([10, 11, 12], cache)
        ids = []
        for _ in range(5):
            with infill.sealed(model, cache, HOLE) as shift:
                states = model.encode([13, *ids], cache, shift=shift, on_canvas=True)
            logits = model.logits(states[0, -1])
            logits[MASK] = -torch.inf
            if int(logits.argmax()) == EMPTY:
                break
            ids.append(int(logits.argmax()))
    filled = causal.fill(
        model, cache, HOLE, lambda ids: None, Control(), propose=lambda ids, room: draft[:room]
    )
    assert list(filled.ids) == ids


def test_a_draft_of_the_whole_text_is_verified_beside_the_lead():
    model = make_model(shifted=True, sealed=True, rank=2)
    cache = fresh_cache(model)
    with torch.inference_mode():
        model.encode([10, 11, 12], cache)

    def write(*known):
        def propose(ids, room):
            return known[len(ids) : len(ids) + room]

        return causal.fill(model, cache, HOLE, lambda ids: None, Control(), propose=propose)

    plain = write()
    assert len(plain.ids) > 1, "nothing to copy"
    copied = write(*plain.ids)
    assert (copied.ids, copied.stop, copied.forwards) == (plain.ids, plain.stop, 1)


def seen_behind(model: Transformer, cache, canvas: Canvas) -> torch.Tensor:
    """States of the lead, with the suffix of `canvas` sealed behind the cached prefix."""
    with torch.inference_mode(), infill.sealed(model, cache, canvas) as shift:
        return model.encode(canvas.lead, cache, shift=shift, on_canvas=True)


def test_a_suffix_that_sees_a_part_of_the_prefix_is_moved_on_while_typing(monkeypatch):
    """Kept from an earlier hole or encoded anew behind the longer prefix: the same states."""
    model = make_model(shifted=True, sealed=True, rank=2)
    typed, anew = fresh_cache(model), fresh_cache(model)
    canvas = replace(HOLE, sees=2)
    with torch.inference_mode():
        model.encode([10, 11], typed)
        seen_behind(model, typed, canvas)
        for token in (12, 14, 15):
            model.encode([token], typed)
        model.encode([10, 11, 12, 14, 15], anew)
    expected = seen_behind(model, anew, canvas)
    suffixes = []
    encode = Transformer.encode

    def spy_encode(self, ids, cache, **place):
        suffixes.append(list(ids))
        return encode(self, ids, cache, **place)

    monkeypatch.setattr(Transformer, "encode", spy_encode)
    found = seen_behind(model, typed, canvas)
    assert suffixes == [[13]], "the suffix was encoded again"
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for other in (replace(canvas, clamped=(20, 21)), replace(canvas, hole=6)):
        suffixes.clear()
        torch.testing.assert_close(
            seen_behind(model, typed, other), seen_behind(model, anew, other), rtol=1e-5, atol=1e-5
        )
        assert suffixes[0] == list(other.clamped), "another suffix was taken for it"


def test_a_suffix_does_not_see_behind_the_part_it_may_see():
    model = make_model(shifted=True, sealed=True)
    keys = []
    for ids in ([10, 11, 12, 14], [10, 11, 50, 51], [10, 60, 12, 14]):
        cache = fresh_cache(model)
        with torch.inference_mode():
            model.encode(ids, cache)
        seen_behind(model, cache, replace(HOLE, sees=2))
        assert cache.suffix
        keys.append(cache.suffix.keys[-1])
    torch.testing.assert_close(keys[0], keys[1], rtol=1e-6, atol=1e-6)
    assert not torch.allclose(keys[0], keys[2])


def test_a_suffix_is_forgotten_with_the_prefix_it_saw():
    model = make_model(shifted=True, sealed=True)
    cache = fresh_cache(model)
    with torch.inference_mode():
        model.encode([10, 11, 12], cache)
    seen_behind(model, cache, replace(HOLE, sees=2))
    cache.truncate(2)
    assert cache.suffix is not None
    cache.truncate(1)
    assert cache.suffix is None


def test_writing_stops_when_it_is_cancelled_and_leaves_the_cache_alone():
    model = make_model(shifted=True, sealed=True)
    cache = fresh_cache(model)
    with torch.inference_mode():
        model.encode([10, 11, 12], cache)
    asked = iter([False, True])
    control = Control(cancelled=lambda: next(asked))
    with pytest.raises(Cancelled):
        causal.fill(model, cache, HOLE, lambda ids: None, control)
    assert cache.ids == [10, 11, 12]


def test_an_empty_slot_ends_the_text(monkeypatch):
    def logits(self, hidden):
        wanted = next(steps)
        return 50.0 * torch.eye(100)[[wanted]].expand(hidden.shape[0], 100).clone()

    steps = iter([30, 31, EMPTY])
    monkeypatch.setattr(Transformer, "logits", logits)
    model = make_model(shifted=True, sealed=True)
    cache = fresh_cache(model)
    with torch.inference_mode():
        model.encode([10, 11, 12], cache)
    filled = causal.fill(model, cache, HOLE, lambda ids: None, Control())
    assert (filled.ids, filled.stop) == ((30, 31), StopReason.COMPLETE)


@pytest.mark.parametrize(
    ("canvas", "message"),
    [
        ({"noise": "mask"}, "canvas must have length"),
        ({"length": 16, "size": 3}, "canvas must have length and at most"),
        ({"length": 0}, "length must be a number above 0"),
        ({"length": 16, "noise": "mask"}, "noise 'mask' with mask_id None"),
        ({"length": 16, "noise": "fog"}, "'uniform' or 'mask', got 'fog'"),
        ({"length": 16, "noise": "mask", "mask_id": 100}, "mask_token_id 100 is outside"),
    ],
)
def test_a_canvas_that_cannot_work_is_refused(canvas, message):
    with pytest.raises(ConfigError, match=message):
        hf_config.model_config({**LLAMA, "canvas": canvas}, {})
