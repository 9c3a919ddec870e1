"""One denoising step after the other in plain torch: forward, belief, decision.

`plain` is the definition, for any number of canvases over one prefix; `engine.graphs` makes the same
steps for a single canvas on a CUDA device without its processor waiting for ours. There too the
attention, head and sampling of `plain` are torch's: what kernels do is compared with it. What is
decided, and when it is the answer, is `engine.sampler`'s; who wants it, `engine.infill`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine import sampler
from engine.cache import PrefixCache, Suffix
from engine.config import CanvasConfig, SamplerConfig
from engine.model import Transformer
from engine.noise import Noise
from engine.sampler import Prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class Canvas:
    """[lead | hole | clamped]: known ids, `hole` undecided positions, known ids.

    `lead` is the last token of the prefix where the model predicts one position earlier
    (`CanvasConfig.shifted`) or seals the suffix: it is then on the canvas and not in the cache. The first `late`
    of `lead` are the prefix's own, which are not in the cache yet. `guess` is what the
    hole's first positions show before the first step, instead of noise. `begin` are the ids the
    hole may begin with; none stands for all. `sees` is how many tokens of the prefix a sealed
    suffix sees, None stands for all; it is encoded as it stands behind `room` positions, None: its own
    hole's. `sealed` is that suffix once it is encoded, `clamped` is then empty. Each step says how well
    the first `judged` tokens of `clamped` follow the hole.
    """

    hole: int
    clamped: tuple[int, ...] = ()
    lead: tuple[int, ...] = ()
    late: int = 0
    guess: tuple[int, ...] = ()
    begin: tuple[int, ...] = ()
    sees: int | None = None
    room: int | None = None
    judged: int = 0
    sealed: Suffix | None = field(default=None, compare=False)

    @property
    def size(self) -> int:
        """Rows on the canvas."""
        return len(self.lead) + self.hole + len(self.clamped)


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of one canvas after a step.

    The hole's best ids [H]; the log-probabilities of those that count [<= H]. In nats, `entropy` is
    the mean over the hole, `junction` the mean log-probability of the judged tokens.
    """

    best: Tensor
    log_best: Tensor
    done: bool
    entropy: float
    junction: float | None = None


# Steps over canvases that follow one prefix, at most `max_steps`. A report has what was seen of each
# canvas, by its place in the sequence. Of the noise, which is that of the longest hole, a canvas
# takes the beginning. The last argument says before each step whether a canvas is still wanted.
Steps = Callable[
    [Transformer, PrefixCache, Sequence[Canvas], SamplerConfig, Noise, Callable[[int], bool]],
    Iterator[Mapping[int, Seen]],
]


def plain(
    model: Transformer,
    cache: PrefixCache,
    canvases: Sequence[Canvas],
    config: SamplerConfig,
    noise: Noise,
    wanted: Callable[[int], bool] = lambda number: True,
) -> Iterator[Mapping[int, Seen]]:
    """All canvases in one forward a step, each with the answer that it has alone.

    Logits are computed for rows of holes and judged tokens, self-conditioning for holes only. What a
    step decides is a matter of the noise the model was trained on.
    """
    own = model.config.canvas
    assert own
    tracks = [_Track(model, canvas, config, noise) for canvas in canvases]
    for step in range(1, config.max_steps + 1):
        live = {number: track for number, track in enumerate(tracks) if wanted(number)}
        if not live:
            return
        holes = [track.canvas.hole for track in live.values()]
        logits = _logits(model, cache, list(live.values()))
        belief = sampler.predict(logits, _temperature(own, config, step))
        parts = zip(live.items(), belief.split(holes), strict=True)
        yield {number: track.decide(part, step) for (number, track), part in parts}
        if own.self_conditioning:
            believed = torch.split(model.soft_embedding(belief.probabilities), holes, 1)
            for track, part in zip(live.values(), believed, strict=True):
                track.feed_back(part)


def _logits(model: Transformer, cache: PrefixCache, tracks: Sequence[_Track]) -> Tensor:
    """One forward: the logits of all holes [1, sum of H, V]; junctions are judged on the way."""
    own = model.config.canvas
    assert own
    sizes = [track.canvas.size for track in tracks]
    soft = [track.soft for track in tracks if track.soft is not None]
    hidden = model.canvas(
        torch.cat([track.ids for track in tracks], 1),
        cache,
        torch.cat(soft, 1) if soft else None,
        sizes=sizes,
        suffixes=[track.canvas.sealed for track in tracks],
    )
    parts = list(zip(torch.split(hidden, sizes, 1), tracks, strict=True))
    rows = [part[:, track.hole_rows] for part, track in parts]
    rows += [part[:, track.judged_rows] for part, track in parts]
    holes = [track.canvas.hole for track in tracks]
    widths = [sum(holes), *(track.canvas.judged for track in tracks)]
    logits, *judged = torch.split(model.logits(torch.cat(rows, 1)), widths, 1)
    if own.mask_id is not None:
        logits[..., own.mask_id] = -torch.inf
    for track, hole, after in zip(tracks, torch.split(logits, holes, 1), judged, strict=True):
        track.judge(after)
        track.restrict(hole)
    return logits


def _temperature(own: CanvasConfig, config: SamplerConfig, step: int) -> float:
    """Of the step with this number, from 1 on; that of training for mask noise."""
    if own.noise == "mask":
        return 1.0
    return sampler.temperature(config, config.max_steps + 1 - step)


class _Track:
    """One canvas on its way: what it shows, and the process that decides its hole."""

    def __init__(
        self, model: Transformer, canvas: Canvas, config: SamplerConfig, noise: Noise
    ) -> None:
        own = model.config.canvas
        assert own
        assert canvas.judged <= len(canvas.clamped), "only what is clamped can be judged"
        device, size = noise.ids.device, canvas.hole
        noise = Noise(noise.uniform[:, :size], noise.ids[:, :size])
        blank = (
            noise.ids[:1] if own.mask_id is None else torch.full_like(noise.ids[:1], own.mask_id)
        )
        guess, self._before, self._after = (
            _ids(part, device) for part in (canvas.guess, canvas.lead, canvas.clamped)
        )
        hole = torch.cat((guess, blank[:, len(canvas.guess) :]), 1)
        self.canvas = canvas
        self.soft: Tensor | None = None
        self._known = model.embed(self._before), model.embed(self._after)
        self._begin = torch.tensor(canvas.begin, device=device)
        self._corrects = config.leave_one_out
        self._process: _Process = (_Unmasked if own.noise == "mask" else _Renoised)(
            hole, len(canvas.guess), own, config, noise
        )
        self._junction: float | None = None
        first = len(canvas.lead) - own.shifted
        assert first >= 0, "shifted logits need the token before the hole on the canvas"
        self.hole_rows = slice(first, first + size)
        self.judged_rows = slice(first + size, first + size + canvas.judged)

    @property
    def ids(self) -> Tensor:
        """What the canvas shows, [1, C]."""
        return torch.cat((self._before, self._process.hole, self._after), 1)

    def judge(self, logits: Tensor) -> None:
        """Notes how well the judged tokens follow, from the logits [1, J, V] of their rows."""
        if not self.canvas.judged:
            return
        assert isinstance(self._process, _Renoised), "a mask's model repeats what it is shown"
        shown = self._after[:, : self.canvas.judged]
        logits = sampler.leave_one_out(logits, shown, self._clean(self._process.noisy))
        self._junction = float(logits.log_softmax(-1).gather(-1, shown[..., None]).mean())

    def restrict(self, logits: Tensor) -> None:
        """Changes the hole's logits [1, H, V] where a token may not, or not so easily, be written."""
        if self.canvas.begin and self.canvas.hole:
            allowed = logits[0, 0, self._begin]
            logits[0, 0] = -torch.inf
            logits[0, 0, self._begin] = allowed
        if self._corrects and isinstance(self._process, _Renoised):
            noisy = self._process.noisy
            fair = sampler.leave_one_out(logits, self._process.hole, self._clean(noisy))
            logits.copy_(torch.where(noisy[..., None], fair, logits))

    def decide(self, belief: Prediction, step: int) -> Seen:
        """The canvas after this step, which `belief` is of."""
        if not self.canvas.hole:  # nothing to decide; only the junction was asked for
            return Seen(belief.best[0], belief.log_best[0], True, 0.0, self._junction)
        done = self._process.decide(belief, step)
        entropy = float(belief.entropy.mean())
        return Seen(self._process.best[0], self._process.log_best, done, entropy, self._junction)

    def feed_back(self, believed: Tensor) -> None:
        """Makes [known | believed | known] embeddings the next step's self-conditioning."""
        before, after = self._known
        self.soft = torch.cat((before, believed, after), 1)

    def _clean(self, noisy: Tensor) -> float:
        """The share of the canvas that is not `noisy`, at least one position taken to be."""
        return 1 - max(1, int(noisy.sum())) / max(2, self.canvas.size)


class _Renoised:
    """Uniform noise: nothing is ever frozen, and the answer is the argmax of the last step."""

    def __init__(
        self, hole: Tensor, guessed: int, own: CanvasConfig, config: SamplerConfig, noise: Noise
    ) -> None:
        self.hole = hole  # [1, H] as it is shown
        self.noisy = torch.arange(hole.shape[1], device=hole.device)[None] >= guessed  # [1, H]
        self.best = torch.full_like(hole, -1)
        self._config = config
        self._noise = noise
        self._unchanged = torch.zeros(1, dtype=torch.long, device=hole.device)

    def decide(self, belief: Prediction, step: int) -> bool:
        """Makes the next hole; says whether the best of this one is the answer."""
        accepted = sampler.accept(belief.entropy, self._config.entropy_bound)
        uniform, ids = self._noise.uniform[step - 1, None], self._noise.ids[step, None]
        self.hole = sampler.renoise(belief.probabilities, accepted, uniform, ids)
        self.noisy = ~accepted
        self._unchanged = sampler.unchanged(belief.best, self.best, self._unchanged)
        self.best, self.log_best = belief.best, belief.log_best[0]
        stable = self._unchanged >= self._config.stability
        return bool(stable & sampler.is_confident(belief.entropy, self._config.confidence))


class _Unmasked:
    """Mask noise: what is decided stays. What stands behind the first empty slot is empty too."""

    def __init__(
        self, hole: Tensor, guessed: int, own: CanvasConfig, config: SamplerConfig, noise: Noise
    ) -> None:
        assert own.mask_id is not None
        self.hole = hole  # [1, H] as it is shown
        self._decided = torch.zeros_like(hole, dtype=torch.bool)
        self._mask_id = own.mask_id
        self._empty_id = -1 if own.empty_id is None else own.empty_id
        self._config = config
        self._log_best: Tensor | None = None

    def decide(self, belief: Prediction, step: int) -> bool:
        """Makes the next hole; says whether the best of this one is the answer."""
        earlier = self._decided
        hole, self._decided = sampler.unmask(belief, self.hole, earlier, self._config.certainty)
        kept = belief.log_best if self._log_best is None else self._log_best
        self._log_best = torch.where(earlier, kept, belief.log_best)
        self.best = torch.where(self._decided, hole, belief.best)
        ends = self.best == self._empty_id
        behind = ends.cumsum(-1) - ends.int() > 0
        self.best = self.best.masked_fill(behind, self._empty_id)
        self.log_best = self._log_best[~behind]
        done = bool(sampler.is_filled(hole, self._decided, self._empty_id))
        # A guess that was not decided has done its work: from now on its slots are open.
        self.hole = hole.masked_fill(~self._decided, self._mask_id)
        return done


_Process = _Renoised | _Unmasked


def _ids(ids: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor(list(ids), dtype=torch.long, device=device)[None]
