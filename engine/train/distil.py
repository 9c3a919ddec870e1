"""The few-step stage: a canvas learns to give in two to four forwards what the model itself writes.

The model is its own teacher: it writes each hole from left to right, which it does better than it
denoises, and its text, end included, is what the canvases are asked for. They are shown as filling
has them before each of its first forwards. All holes of a batch are written and denoised together,
by the passes that train them. Knows nothing of losses and steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from engine import sampler
from engine.config import SamplerConfig
from engine.train import objective
from engine.train.objective import CANVAS, Example, Hole, Ids, Noised, Recipe
from engine.train.passes import Batch, Passes

CERTAINTY = SamplerConfig().certainty  # what filling asks of a slot before it decides it
Place = tuple[int, Hole]  # the number of a window, and a hole in it


def examples(passes: Passes, holes: Sequence[Sequence[Hole]], recipe: Recipe) -> list[Example]:
    """One example of each window, laid out as always, its canvases asked for the model's own texts."""
    places = [
        (row, hole) for row, some in enumerate(holes) for hole in some if hole.has_canvases(recipe)
    ]
    shown = iter(show(passes, places, write(passes, places), recipe))
    return [
        objective.laid_out(
            window,
            some,
            [next(shown) if hole.has_canvases(recipe) else [] for hole in some],
            recipe,
        )
        for window, some in zip(passes.windows, holes, strict=True)
    ]


@torch.no_grad()
def write(passes: Passes, places: Sequence[Place]) -> list[Ids]:
    """What the model writes into each hole, greedily and with the suffix in view: its slots.

    One forward predicts every slot from those before it, and this is the next text to look at;
    what stands before the first change is final. So it takes as many forwards as slots at most, and
    few where the first guess, the true text, is right. A hole that has not changed is done.
    """
    empty = passes.empty_id
    ends = [empty, *passes.model.config.eos_ids]
    texts = [hole.slots for _, hole in places]
    changing = list(range(len(places)))
    for _ in range(1 + max(map(len, texts), default=0)):
        chosen = [places[index] for index in changing]
        drafts = [places[index][1].draft(texts[index]) for index in changing]
        predicted = zip(changing, _predict(passes, chosen, drafts)[0], strict=True)
        changing = []
        for index, logits in predicted:
            text = logits.argmax(-1).cpu().numpy()
            text[np.isin(text, ends).cumsum() > 0] = empty
            if not np.array_equal(text, texts[index]):
                texts[index] = text
                changing.append(index)
    return texts


@torch.no_grad()
def show(
    passes: Passes, places: Sequence[Place], texts: Sequence[Ids], recipe: Recipe
) -> list[list[Noised]]:
    """Each hole's canvases before each of the first `few_steps` forwards of filling, as far as it takes them.

    A slot is decided as in filling, and then shows what was written there: a canvas that decided
    otherwise could not become that text any more.
    """
    decided = [torch.zeros(1, len(text), dtype=torch.bool) for text in texts]
    shown: list[list[Noised]] = [[] for _ in places]
    soft = None
    for forward in range(recipe.few_steps):
        now = [
            Noised(text, np.where(seen[0], text, passes.mask_id), ~seen[0].numpy())
            for text, seen in zip(texts, decided, strict=True)
        ]
        for copies, canvas, seen in zip(shown, now, decided, strict=True):
            if not sampler.is_filled(torch.from_numpy(canvas.shown)[None], seen, passes.empty_id):
                copies.append(canvas)
        if forward + 1 == recipe.few_steps:
            break
        parts = [
            hole.canvas(CANVAS, canvas, recipe)
            for (_, hole), canvas in zip(places, now, strict=True)
        ]
        predicted, soft = _predict(passes, places, parts, soft)
        for index, logits in enumerate(predicted):
            belief = sampler.predict(logits[None].cpu(), 1.0)
            hole = torch.from_numpy(now[index].shown)[None]
            _, decided[index] = sampler.unmask(belief, hole, decided[index], CERTAINTY)
    return shown


def _predict(
    passes: Passes, places: Sequence[Place], parts: Sequence[Example], soft: Tensor | None = None
) -> tuple[list[Tensor], Tensor | None]:
    """Logits [slots, V] of each of `parts`, one of each hole, and the next self-conditioning signal."""
    if not places:
        return [], None
    by_window: list[list[Example]] = [[] for _ in passes.windows]
    for (row, hole), part in zip(places, parts, strict=True):
        by_window[row] += [hole.suffix(), part]
    laid_out = [
        objective.joined(window, some)
        for window, some in zip(passes.windows, by_window, strict=True)
    ]
    batch = Batch.of(laid_out, passes.device)
    states = passes.states(batch, soft)
    logits = passes.model.logits(states[batch.asked])
    logits[:, passes.mask_id] = -torch.inf
    sizes = [len(hole.slots) for _, hole in places]
    conditioned = passes.canvas.self_conditioning
    return list(torch.split(logits, sizes)), passes.beliefs(states, batch) if conditioned else None
