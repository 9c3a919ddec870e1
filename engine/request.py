"""What the engine is asked and what it answers: the one vocabulary both processes share.

Stdlib only, so that the language server may import it without torch. Knows nothing of
tokens, models or HTTP; `to_json` and `from_json` are the wire format of `/v1/infill`.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self, Union, get_args, get_origin, get_type_hints

MAX_HOLE_TOKENS = 1024
MAX_TEXT_CHARS = 4_000_000
NEARLY = 0.05  # of confidence: no reason to prefer one text to another
PROTOCOL = 4  # of the HTTP interface; a client and an engine of different ones do not talk


class StopReason(StrEnum):
    """Why the engine stopped writing."""

    COMPLETE = "complete"  # the model is stable and confident, or ended the text itself
    STEPS = "steps"  # the cap on denoising steps was reached
    LENGTH = "length"  # the token budget is spent
    SUFFIX = "suffix"  # the text began to repeat what follows the hole
    LINE = "line"  # one line was asked for, and it ended
    DEADLINE = "deadline"  # the best answer so far, at the deadline


class Mode(StrEnum):
    """How the hole is filled. `auto` takes the best that the model was trained for."""

    AUTO = "auto"
    DIFFUSION = "diffusion"  # denoises a canvas
    FIM = "fim"  # from left to right, what follows the hole in view
    CAUSAL = "causal"  # from left to right, knowing only what stands before


class RequestError(ValueError):
    """A request or reply whose fields cannot be used; the message names field and value."""


@dataclass(frozen=True, slots=True)
class _Message:
    """Shared JSON conversion: unknown keys and wrong types are errors, never dropped."""

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Builds the message from decoded JSON; raises RequestError naming the bad field."""
        if not isinstance(data, dict):
            raise RequestError(f"{cls.__name__} must be a JSON object, got {type(data).__name__}")
        hints = get_type_hints(cls)
        if unknown := sorted(set(data) - set(hints)):
            raise RequestError(
                f"{cls.__name__} has no field {unknown[0]!r}; it has {sorted(hints)}"
            )
        try:
            return cls(**{key: _decode(key, hints[key], value) for key, value in data.items()})
        except TypeError as error:  # a required field is missing
            raise RequestError(f"{cls.__name__}: {error}") from None


def _decode(key: str, hint: Any, value: Any) -> Any:
    """`value` as the type `hint` of field `key`: scalars, enums, messages, tuples, dicts."""
    origin = get_origin(hint)
    if origin in (types.UnionType, Union):
        options = [option for option in get_args(hint) if option is not type(None)]
        return None if value is None else _decode(key, options[0], value)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_decode(key, get_args(hint)[0], item) for item in value)
    if origin is dict and isinstance(value, dict):
        return {str(name): _decode(key, get_args(hint)[1], item) for name, item in value.items()}
    if isinstance(hint, type):
        if issubclass(hint, _Message):
            return hint.from_json(value)
        if issubclass(hint, StrEnum):
            if value in list(hint):
                return hint(value)
            raise RequestError(f"{key} must be one of {[str(v) for v in hint]}, got {value!r}")
        if hint is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
            return value
    wanted = getattr(hint, "__name__", str(hint))
    raise RequestError(f"{key} must be {wanted}, got {type(value).__name__}: {str(value)[:80]!r}")


@dataclass(frozen=True, slots=True)
class ContextChunk(_Message):
    """Text from elsewhere that may help, most useful last; `path` is shown to the model."""

    path: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InfillRequest(_Message):
    """One hole to fill: `prefix` ends and `suffix` starts exactly at the cursor.

    `max_tokens` bounds the hole; `hole_tokens` fixes its length where it is known (tokens).
    `deadline_ms` counts from the moment the engine receives the request: what is there by
    then is the answer. `context` comes before the file in the prompt, in the order given.
    `prepare` asks for nothing but that the prompt be encoded, so that a later request with its
    beginning is quick; it gives way to any other request.
    """

    prefix: str
    suffix: str = ""
    path: str = ""
    language: str = ""
    context: tuple[ContextChunk, ...] = ()
    max_tokens: int = 64
    hole_tokens: int | None = None
    single_line: bool = False
    deadline_ms: float | None = None
    mode: Mode = Mode.AUTO
    seed: int = 0
    prepare: bool = False

    def __post_init__(self) -> None:
        for name in ("max_tokens", "hole_tokens"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= MAX_HOLE_TOKENS:
                raise RequestError(f"{name} must be 1 to {MAX_HOLE_TOKENS}, got {value}")
        if self.deadline_ms is not None and not self.deadline_ms > 0:
            raise RequestError(f"deadline_ms must be above 0, got {self.deadline_ms}")
        if not 0 <= self.seed < 2**63:
            raise RequestError(f"seed must be 0 to 2**63 - 1, got {self.seed}")
        size = len(self.prefix) + len(self.suffix) + sum(len(c.text) for c in self.context)
        if size > MAX_TEXT_CHARS:
            raise RequestError(f"text must be at most {MAX_TEXT_CHARS} characters, got {size}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft(_Message):
    """The hole as it stands after denoising step (or token) `step`: never final.

    Written from left to right, it mostly ends as it has begun; on a canvas all of it may change.
    """

    text: str
    step: int
    mode: Mode = Mode.AUTO


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence(_Message):
    """What speaks against a text, in nats, over the `tokens` it is spelled with.

    `surprise` is minus the sum of their log-probabilities and `worst` the lowest of these; `end` is
    that of what was written behind the text, None where a limit ended it. `junction` is the mean over
    the first tokens of what stands behind the hole, where they were judged.
    """

    tokens: int = 0
    surprise: float = 0.0
    worst: float = 0.0
    end: float | None = None
    junction: float | None = None

    @property
    def probability(self) -> float:
        """The geometric mean of the tokens' probabilities."""
        return math.exp(-self.surprise / max(1, self.tokens))


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate(_Message):
    """A text for a hole and how likely it is right as far as it goes, 0 to 1, by its evidence."""

    text: str
    confidence: float
    evidence: Evidence = field(default_factory=Evidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class InfillResult(_Message):
    """The text for the hole and what it took.

    `confidence` and `evidence` are those of a Candidate. `beginnings` are those of the text's first
    line that end where a word does, the shortest first and all of the line last; `alternatives` are
    other texts that were found, the best first.
    `forwards` counts model passes after the prompt was encoded; `cached_tokens` of `prompt_tokens`
    came from the prefix cache. `timings_ms` has queue, tokenize, encode, decode and total.
    """

    text: str
    stop: StopReason
    mode: Mode
    model: str
    confidence: float
    tokens: int
    forwards: int
    prompt_tokens: int
    cached_tokens: int
    evidence: Evidence = field(default_factory=Evidence)
    beginnings: tuple[Candidate, ...] = ()
    alternatives: tuple[Candidate, ...] = ()
    timings_ms: dict[str, float] = field(default_factory=dict)

    def preferring(self, valid: Callable[[str], bool]) -> InfillResult:
        """This, or where its text is not valid, with the first alternative that is and is as likely."""
        if not self.alternatives or valid(self.text):
            return self
        likely = (a for a in self.alternatives if a.confidence >= self.confidence - NEARLY)
        best = next((other for other in likely if valid(other.text)), None)
        if best is None:
            return self
        own = Candidate(text=self.text, confidence=self.confidence, evidence=self.evidence)
        return dataclasses.replace(
            self,
            text=best.text,
            confidence=best.confidence,
            evidence=best.evidence,
            tokens=best.evidence.tokens,
            beginnings=(),
            alternatives=(own, *(other for other in self.alternatives if other is not best)),
        )
