"""Request -> encoder ids and clamped suffix ids: one template per model family.

Decides how text is laid out for a model, and what is dropped when it does not fit. Which text
goes in is the caller's choice (`dg_lsp/context.py`); how long the hole is, `engine.runtime`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.config import ModelConfig
from engine.request import InfillRequest
from engine.steps import Canvas
from engine.tokenizer import Tokenizer

MIN_CANVAS = 32  # a canvas of 16 needs about twice the steps of one of 32 or more


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What the model is given.

    `ids` go through the encoder, `lead` goes on the canvas before the hole; `suffix` is clamped
    right after the hole, and `ends` says that the file ends with it. `healed` is text taken off the
    end of the prefix: the answer has to spell it again. `above` counts the ids before the cursor's
    line.
    """

    ids: tuple[int, ...]
    lead: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()
    ends: bool = False
    healed: str = ""
    above: int | None = None


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
    split = len(ids) - (config.canvas.shifted or config.canvas.sealed_suffix)
    return Prompt(
        ids=ids[:split],
        lead=ids[split:],
        suffix=tuple(suffix[:suffix_tokens]),
        ends=len(suffix) <= suffix_tokens,
        healed=healed,
        above=_above(ids[:split], tokenizer),
    )


def chat(
    request: InfillRequest,
    tokenizer: Tokenizer,
    limit: int,
    suffix_tokens: int,
) -> Prompt:
    """DiffusionGemma's chat template; the code prefix opens the model's turn.

    The prefix ends the encoder's input, so typing only extends the prefix cache. The thought
    block is opened and closed here: left out, the canvas would be spent on writing one.
    """
    special = tokenizer.special
    suffix = tokenizer.encode(request.suffix)
    near, far = suffix[:suffix_tokens], suffix[suffix_tokens:]
    prefix = _newest(tokenizer.encode(request.prefix), limit // 2)
    room = limit - len(prefix) - 64  # the template's own words
    told = _user_turn(request, tokenizer.decode(far[: max(0, room // 4)]))
    user = tokenizer.encode(told)[-max(0, room) :] if room > 0 else []
    ids = [
        special("<bos>"),
        special("<|turn>"),
        *tokenizer.encode("user\n"),
        *user,
        special("<turn|>"),
        *tokenizer.encode("\n"),
        special("<|turn>"),
        *tokenizer.encode("model\n"),
        special("<|channel>"),
        *tokenizer.encode("thought\n"),
        special("<channel|>"),
        *prefix,
    ]
    return Prompt(ids=tuple(ids), suffix=tuple(near), ends=not far)


def canvas(prompt: Prompt, hole: int, tokenizer: Tokenizer, config: ModelConfig) -> Canvas:
    """The canvas with a hole of `hole` tokens and what is known around it.

    Where a chat model's file ends inside the canvas, the turn is closed as in training; its
    canvas is never shorter than MIN_CANVAS. Without any suffix nothing is clamped: the model
    ends the text.
    """
    clamped = list(prompt.suffix)
    if clamped and prompt.ends and config.family == "diffusion_gemma" and config.pad_id is not None:
        clamped.append(tokenizer.special("<turn|>"))
        clamped += [config.pad_id] * (MIN_CANVAS - hole - len(clamped))
    if not (config.canvas and config.canvas.sealed_suffix):
        del clamped[max(0, config.canvas_length - hole - len(prompt.lead)) :]
    return Canvas(hole=hole, clamped=tuple(clamped), lead=prompt.lead, sees=prompt.above)


def _above(ids: Sequence[int], tokenizer: Tokenizer) -> int:
    """How many of `ids` come before the last line, with the token that ends the line above."""
    for count in range(len(ids), 0, -1):
        if "\n" in tokenizer.decode(ids[count - 1 : count]):
            return count
    return len(ids)


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


def _user_turn(request: InfillRequest, far_suffix: str) -> str:
    parts = [f"Related file {chunk.path}:\n{chunk.text}" for chunk in request.context]
    name = request.path or "the file"
    if far_suffix:
        parts.append(f"Further below in {name}:\n{far_suffix}")
    kind = f" ({request.language})" if request.language else ""
    parts.append(
        f"Write {name}{kind}. Your answer is the file itself, without comments on it and without "
        "code fences; continue exactly where it stops."
    )
    return "\n\n".join(parts)


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
