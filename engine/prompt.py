"""Request -> encoder ids and clamped suffix ids: one template per model family.

Decides how text is laid out for a model, and what is dropped when it does not fit. Which text
goes in is the caller's choice (`dg_lsp/context.py`); how long the hole is, `engine.runtime`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.config import ModelConfig, Template
from engine.errors import ConfigError
from engine.request import InfillRequest
from engine.steps import Canvas
from engine.tokenizer import Tokenizer

_TEMPLATE_TOKENS = 64  # at most, of a chat template's own words
MIN_CANVAS = 32  # a canvas of 16 needs about twice the steps of one of 32 or more


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What the model is given.

    `ids` go through the encoder, `lead` goes on the canvas before the hole; `suffix` is clamped
    right after the hole, and `end` is the id that closes the text there if the file ends with it. `healed` is text taken off the
    end of the prefix: the answer has to spell it again. `above` counts the ids before the cursor's
    line.
    """

    ids: tuple[int, ...]
    lead: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()
    end: int | None = None
    healed: str = ""
    above: int | None = None


def choose_template(wanted: Template, config: ModelConfig) -> Template:
    """`auto` is the model family's own; raises ConfigError for a chat with a model that has none."""
    chats = config.family == "diffusion_gemma"
    if wanted == "auto":
        return "chat" if chats else "raw"
    if wanted != "raw" and not chats:
        raise ConfigError(f"template {wanted!r} is for models that chat; use 'raw' or 'auto'")
    return wanted


def raw(request: InfillRequest, tokenizer: Tokenizer, config: ModelConfig, limit: int) -> Prompt:
    """Context and prefix as plain text, for left-to-right continuation, its end to be healed."""
    prefix, healed = _to_heal(request.prefix, tokenizer)
    return Prompt(ids=_document(request, prefix, tokenizer, config, limit), healed=healed)


def plain(
    request: InfillRequest,
    tokenizer: Tokenizer,
    config: ModelConfig,
    limit: int,
    suffix_tokens: int,
) -> Prompt:
    """The same plain text for a canvas: prefix in the encoder, the near suffix clamped.

    The hole begins with what is healed, as the canvases of training begin where a token does.
    """
    assert config.canvas, "a canvas is for models that denoise"
    prefix, healed = _to_heal(request.prefix, tokenizer)
    ids = _document(request, prefix, tokenizer, config, limit)
    suffix = tokenizer.encode(request.suffix)
    end = config.eos_ids[0] if config.family == "diffusion_gemma" and config.eos_ids else None
    split = len(ids) - (config.canvas.shifted or config.canvas.sealed_suffix)
    return Prompt(
        ids=ids[:split],
        lead=ids[split:],
        suffix=tuple(suffix[:suffix_tokens]),
        end=end if len(suffix) <= suffix_tokens else None,
        healed=healed,
        above=_above(ids, split, tokenizer),
    )


def chat(
    request: InfillRequest,
    tokenizer: Tokenizer,
    limit: int,
    suffix_tokens: int,
    *,
    thought: bool = True,
    whole: bool = False,
) -> Prompt:
    """DiffusionGemma's chat template; the code prefix opens the model's turn, its end to be healed.

    The prefix ends the encoder's input, so typing only extends the prefix cache. `thought` closes
    an empty thought before it; see `closes_thought`. With `whole` the user tells all of the suffix,
    else what is not clamped of it.
    """
    suffix = tokenizer.encode(request.suffix)
    near, far = suffix[:suffix_tokens], suffix[suffix_tokens:]
    before, healed = _to_heal(request.prefix, tokenizer)
    prefix = _newest(before, limit // 2)
    room = max(0, limit - len(prefix) - _TEMPLATE_TOKENS)
    below = suffix if whole else far
    told = _user_turn(request, below=tokenizer.decode(below[: room // 4]))
    return Prompt(
        ids=_turns(tokenizer, _last(tokenizer.encode(told), room), prefix, thought),
        suffix=tuple(near),
        end=None if far else tokenizer.special("<turn|>"),
        healed=healed,
    )


def hole(
    request: InfillRequest, tokenizer: Tokenizer, limit: int, *, thought: bool = True
) -> Prompt:
    """The hole asked for in DiffusionGemma's chat: both sides in the user's turn, nothing clamped.

    The text before the hole comes last, so that typing changes little of what is encoded.
    """
    prefix = _newest(tokenizer.encode(request.prefix), limit // 2)
    room = max(0, limit - len(prefix) - _TEMPLATE_TOKENS)
    below = tokenizer.decode(tokenizer.encode(request.suffix)[: room // 2])
    told = _hole_turn(request, tokenizer.decode(prefix), below)
    user = _last(tokenizer.encode(told), limit - _TEMPLATE_TOKENS)
    return Prompt(ids=_turns(tokenizer, user, [], thought))


def closes_thought(directory: Path) -> bool:
    """Whether the model's own chat template closes an empty thought before an answer.

    As first released DiffusionGemma's does, in later copies it does not. Without a template: yes.
    """
    template = directory / "chat_template.jinja"
    if not template.is_file():
        return True
    return r"<|channel>thought\n<channel|>" in template.read_text(encoding="utf-8")


def canvas(prompt: Prompt, hole: int, config: ModelConfig) -> Canvas:
    """The canvas with a hole of `hole` tokens and what is known around it.

    Where the file ends inside the canvas, the text is closed as in training; a canvas so closed is
    never shorter than MIN_CANVAS. Without any suffix nothing is clamped: the model ends the text.
    """
    clamped = list(prompt.suffix)
    if clamped and prompt.end is not None and config.pad_id is not None:
        clamped.append(prompt.end)
        clamped += [config.pad_id] * (MIN_CANVAS - hole - len(clamped))
    if not (config.canvas and config.canvas.sealed_suffix):
        del clamped[max(0, config.canvas_length - hole - len(prompt.lead)) :]
    return Canvas(hole=hole, clamped=tuple(clamped), lead=prompt.lead, sees=prompt.above)


def joins(healed: str) -> bool:
    """Whether what is healed is as a rule the beginning of a longer token, not one of its own."""
    last = healed[-1:]
    return last.isalnum() or last in ("_", " ")


def _above(ids: Sequence[int], split: int, tokenizer: Tokenizer) -> int:
    """How many of `ids` come before the blank ones that begin the last line, at most `split`.

    Without these, so that the number stays while the line's first word is typed: the last may be
    the lead at one keystroke and encoded at the next, and they are cut otherwise in front of a word.
    """

    def text(place: int) -> str:
        return tokenizer.decode(ids[place : place + 1])

    for place in range(len(ids) - 1, 0, -1):
        if "\n" in text(place):
            while place > 1 and not text(place - 1).strip():
                place -= 1
            return min(place, split)
    return split


def _document(
    request: InfillRequest,
    prefix: list[int],
    tokenizer: Tokenizer,
    config: ModelConfig,
    limit: int,
) -> tuple[int, ...]:
    """Start token, context and prefix; the context gives way where they do not fit."""
    start = [] if config.bos_id is None else [config.bos_id]
    context = tokenizer.encode("".join(f"{chunk.text.rstrip()}\n\n" for chunk in request.context))
    kept = _newest(prefix, limit - len(start))
    ids = start + _newest(context, limit - len(start) - len(kept)) + kept
    # Nothing before the cursor and no start token: any end token opens a document.
    return tuple(ids or config.eos_ids[:1] or (0,))


def _turns(
    tokenizer: Tokenizer, user: Sequence[int], answer: Sequence[int], thought: bool
) -> tuple[int, ...]:
    """A conversation of what the user says and the beginning of the model's answer."""
    special, encode = tokenizer.special, tokenizer.encode
    closed = [special("<|channel>"), *encode("thought\n"), special("<channel|>")]
    return (
        special("<bos>"),
        *(special("<|turn>"), *encode("user\n"), *user, special("<turn|>"), *encode("\n")),
        *(special("<|turn>"), *encode("model\n"), *(closed if thought else ())),
        *answer,
    )


def _user_turn(request: InfillRequest, below: str) -> str:
    parts = _related(request)
    name, kind = _named(request)
    if below:
        parts.append(f"Further below in {name}:\n{below}")
    parts.append(
        f"Write {name}{kind}. Your answer is the file itself, without comments on it and without "
        "code fences; continue exactly where it stops."
    )
    return "\n\n".join(parts)


def _hole_turn(request: InfillRequest, above: str, below: str) -> str:
    name, kind = _named(request)
    return "\n\n".join(
        (
            *_related(request),
            f"A piece is missing from {name}{kind}. This is what follows the missing piece:\n{below}",
            f"And this is what stands before it:\n{above}",
            "Write the missing piece, exactly as it belongs between the two, from where the text "
            "before it stops, without code fences and without comments on it.",
        )
    )


def _related(request: InfillRequest) -> list[str]:
    return [f"Related file {chunk.path}:\n{chunk.text}" for chunk in request.context]


def _named(request: InfillRequest) -> tuple[str, str]:
    """The file's name and, in brackets, its language."""
    kind = f" ({request.language})" if request.language else ""
    return request.path or "the file", kind


def _to_heal(prefix: str, tokenizer: Tokenizer) -> tuple[list[int], str]:
    """The ids of `prefix` without its last token, and that token's text.

    Where the user stopped typing is rarely where a token of the whole text would end, so the
    prefix is cut into tokens as if a word went on: of an indentation the last blank then belongs
    to that word, as it nearly always does in what the model has read.
    """
    ids = tokenizer.encode(prefix + "x")
    kept = tokenizer.decode(ids)
    while ids and len(kept) > len(prefix):
        del ids[-1]
        kept = tokenizer.decode(ids)
    if kept == prefix and ids:
        del ids[-1]
        kept = tokenizer.decode(ids)
    healed = prefix[len(kept) :]
    # Beyond ASCII a token may be a piece of a character, which no text can stand for.
    if not prefix.startswith(kept) or not healed.isascii():
        return tokenizer.encode(prefix), ""
    return ids, healed


def _newest(ids: list[int], limit: int) -> list[int]:
    """The end of `ids` within `limit`, dropping from the front in steps of a quarter of it.

    Steps, because every move of the start makes the whole prefix cache useless.
    """
    if len(ids) <= limit:
        return ids
    if limit <= 0:
        return []
    step = max(1, limit // 4)
    dropped = -(-(len(ids) - limit) // step) * step
    return ids[min(dropped, len(ids) - 1) :]


def _last(ids: list[int], limit: int) -> list[int]:
    return ids[max(0, len(ids) - max(0, limit)) :]
