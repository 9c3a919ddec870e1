"""Several canvases in one forward: each gets what it gets alone, in all families of models."""

from dataclasses import replace

import pytest
import torch

from engine import infill, steps
from engine.config import CanvasConfig, SamplerConfig
from engine.infill import Control
from engine.model import Transformer
from engine.steps import Canvas
from tests.engine import tiny
from tests.engine.test_cache import make_config
from tests.engine.test_infill import encoded
from tests.engine.test_masked_canvas import make_model
from tests.engine.test_model import random_ids

SAMPLER = SamplerConfig(max_steps=6, entropy_bound=2.0, confidence=3.0)


def uniform_llama() -> Transformer:
    torch.manual_seed(5)
    canvas = CanvasConfig(length=16, self_conditioning=False)
    return Transformer(replace(make_config(), canvas=canvas)).eval()


@pytest.fixture(scope="module")
def gemma(tmp_path_factory) -> Transformer:
    """Weights under which rounding differences do not grow from step to step."""
    return tiny.diffusion_gemma(tmp_path_factory.mktemp("gemma"), seed=3, gain=0.5).ours


@pytest.fixture(params=["gemma", "uniform", "masked", "shifted", "sealed", "sealed with adapters"])
def model(request, gemma) -> Transformer:
    if request.param == "gemma":
        return gemma
    if request.param == "uniform":
        return uniform_llama()
    return make_model(
        shifted=request.param != "masked",
        sealed=request.param.startswith("sealed"),
        rank=2 if request.param.endswith("adapters") else 0,
    )


def make_canvases(model: Transformer) -> list[Canvas]:
    """Holes and suffixes of different lengths, one hole at a file's end, one of nothing."""
    own = model.config.canvas
    lead = (13,) if own.shifted or own.sealed_suffix else ()
    judged = 2 if own.judges else 0
    return [
        Canvas(hole=5, clamped=(20, 21, 22, 9), lead=lead, judged=judged),
        Canvas(hole=1, clamped=(20, 21, 22, 9), lead=lead),
        Canvas(hole=9, clamped=(20, 21), lead=lead, judged=judged),
        Canvas(hole=7, lead=lead, guess=(30, 31)),
        Canvas(hole=3, clamped=(40,), lead=lead, begin=(7, 8, 50)),
        Canvas(hole=0, clamped=(20, 21, 22), lead=lead, judged=judged),
    ]


def denoised(model, cache, canvases, config=SAMPLER, **options) -> list[infill.Filled]:
    ready = [infill.ready(model, cache, canvas) for canvas in canvases]
    noise = infill.noise_for(model, config, 7, max(canvas.hole for canvas in canvases))
    return infill.denoise(model, cache, ready, config, noise, Control(), **options)


@pytest.mark.parametrize("correction", [False, True])
def test_a_canvas_among_others_is_denoised_as_it_is_alone(model, correction):
    cache = encoded(model, [i % 100 for i in random_ids(tiny.WINDOW + 3, seed=1)])
    cache_ids = list(cache.ids)
    config = replace(SAMPLER, leave_one_out=correction)
    canvases = make_canvases(model)
    together = denoised(model, cache, canvases, config)
    for canvas, filled in zip(canvases, together, strict=True):
        [alone] = denoised(model, cache, [canvas], config)
        assert (filled.ids, filled.stop) == (alone.ids, alone.stop)
        assert filled.forwards == alone.forwards
        assert filled.log_probability == pytest.approx(alone.log_probability, abs=1e-3)
        assert filled.entropy == pytest.approx(alone.entropy, abs=1e-3)
        assert filled.junction == pytest.approx(alone.junction, abs=1e-3)
    assert cache.ids == cache_ids
    assert len({filled.forwards for filled in together}) > 1, "some must leave before others"


def test_one_forward_a_step_has_the_rows_of_all_live_canvases(gemma, monkeypatch):
    widths = []
    canvas = Transformer.canvas

    def spy(self, ids, cache, soft, **place):
        widths.append((ids.shape, place["sizes"]))
        return canvas(self, ids, cache, soft, **place)

    monkeypatch.setattr(Transformer, "canvas", spy)
    cache = encoded(gemma, random_ids(9, seed=1))
    canvases = [Canvas(hole=5, clamped=(4, 5)), Canvas(hole=3, clamped=(4, 5))]
    config = replace(SAMPLER, confidence=1e-9)
    denoised(gemma, cache, canvases, config, most=3, trailing=lambda found: [0])
    assert widths == [((1, 12), [7, 5]), ((1, 5), [5]), ((1, 5), [5])]


def test_what_each_canvas_sees_is_no_other_canvas(gemma):
    """Its hidden states are those it has alone, whatever the other shows, in windowed layers too."""
    cache = encoded(gemma, random_ids(tiny.WINDOW * 2, seed=2))
    first, second, other = (torch.tensor([random_ids(n, seed=n)]) for n in (5, 9, 8))
    with torch.inference_mode():
        pair = gemma.canvas(torch.cat((first, second), 1), cache, None, sizes=[5, 9])
        changed = gemma.canvas(torch.cat((first, other), 1), cache, None, sizes=[5, 8])
        alone = [gemma.canvas(ids, cache, None) for ids in (first, second)]
    torch.testing.assert_close(pair, torch.cat(alone, 1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(changed[:, :5], alone[0], rtol=1e-4, atol=1e-4)


def test_the_junction_is_judged_without_what_the_shown_tokens_say_for_themselves(
    gemma, monkeypatch
):
    """A model that only repeats what it is shown says nothing of how well the suffix follows."""
    size = gemma.config.vocab_size
    copied = torch.log1p(torch.tensor(size * (1 - 4 / 6) / (4 / 6)))

    def logits(self, hidden):
        shown = torch.zeros(*hidden.shape[:-1], size)
        shown[:, 4:, [40, 41]] = copied
        return shown

    monkeypatch.setattr(Transformer, "logits", logits)
    cache = encoded(gemma, random_ids(9, seed=1))
    canvas = Canvas(hole=4, clamped=(40, 41), judged=2)
    config = replace(SAMPLER, entropy_bound=1e-9)
    noise = infill.noise_for(gemma, config, 1, 4)
    with torch.inference_mode():
        report = next(iter(steps.plain(gemma, cache, [canvas], config, noise)))
    # Each row makes both ids likely; its own is brought back to the level of all others.
    rest = size - 1 + copied.exp()
    assert report[0].junction == pytest.approx(-float(rest.log()), abs=1e-4)
