"""Text <-> token ids, over the `tokenizers` library.

Encoding never adds a special token and never reads one out of the text: source code that contains
`<|im_end|>` is text. Decoding is of bytes, so that what ends inside a character ends before it.
Knows nothing of prompts or templates.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import tokenizers

from engine import hf_config
from engine.errors import CheckpointError, ConfigError

_Spelling = Callable[[str], bytes]
_KNOWN = 4096  # tokens whose spelling is kept; that of a whole vocabulary would be megabytes
_SURROGATE = re.compile("[\ud800-\udfff]")


class Tokenizer:
    """The tokenizer of a model directory."""

    def __init__(self, inner: tokenizers.Tokenizer, spelling: _Spelling, source: str) -> None:
        self._inner = inner
        self._source = source
        inner.encode_special_tokens = True  # special tokens in the text are cut up like any text
        inner.no_truncation()
        inner.no_padding()
        self._piece_bytes = spelling
        added = inner.get_added_tokens_decoder()
        self._special = {token.content: i for i, token in added.items() if token.special}
        self._skipped = frozenset(self._special.values())
        # Added tokens stand for themselves, whatever the alphabet of the vocabulary.
        self._added = {i: token.content.encode() for i, token in added.items()}
        self._id_bytes = lru_cache(_KNOWN)(self._spelled)
        self._refuse_leaks()

    @classmethod
    def from_directory(cls, directory: Path) -> Tokenizer:
        """Reads `tokenizer.json`; raises CheckpointError when it cannot be used."""
        path = directory / "tokenizer.json"
        try:
            spelling = _spelling(hf_config.read_json(path), path)
        except ConfigError as error:
            raise CheckpointError(str(error)) from None
        try:
            inner = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # noqa: BLE001 - the library raises nothing more precise
            raise CheckpointError(f"{path} is damaged ({error}); fetch it again") from None
        return cls(inner, spelling, str(path))

    @property
    def vocab_size(self) -> int:
        """How many ids there are, special ones included."""
        return int(self._inner.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        """The ids of `text` and nothing else; a lone surrogate, which no file can hold, becomes �."""
        clean = _SURROGATE.sub("�", text)
        return list(self._inner.encode(clean, add_special_tokens=False).ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids` without special tokens, up to the last complete character."""
        data = b"".join(self._id_bytes(i) for i in ids if i not in self._skipped)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return codecs.getincrementaldecoder("utf-8")("replace").decode(data)

    def special(self, name: str) -> int:
        """The id of a special token such as `<bos>`."""
        if name not in self._special:
            raise CheckpointError(
                f"{self._source} has no special token {name!r}; it has {sorted(self._special)[:20]}"
            )
        return self._special[name]

    def _spelled(self, token: int) -> bytes:
        if token in self._added:
            return self._added[token]
        piece = self._inner.id_to_token(token)  # None: the embedding is padded beyond the ids
        return b"" if piece is None else self._piece_bytes(piece)

    def _refuse_leaks(self) -> None:
        for name in self._special:
            if not self._skipped.isdisjoint(self.encode(name)):
                raise CheckpointError(
                    f"{self._source} reads the plain text {name!r} as a special token"
                )


def _spelling(layout: Mapping[str, Any], path: Path) -> _Spelling:
    """How the vocabulary's pieces spell bytes; raises for a kind of tokenizer this cannot run."""
    model, decoder = layout.get("model"), layout.get("decoder")
    kind = model.get("type", "BPE") if isinstance(model, dict) else None
    if not isinstance(model, dict) or kind != "BPE":
        raise CheckpointError(f"{path}: the model is {kind!r}; this engine runs BPE only")
    # The first two mark words in ways the spellings below do not undo, the last is for training.
    for key in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(key):
            raise CheckpointError(f"{path}: {key} {model[key]!r} is not supported")
    steps = decoder.get("decoders", [decoder]) if isinstance(decoder, dict) else decoder
    names = (
        [step.get("type") if isinstance(step, dict) else step for step in steps]
        if isinstance(steps, list)
        else steps
    )
    if names == ["ByteLevel"]:
        return partial(_byte_level_bytes, str.maketrans(_byte_level_alphabet()))
    if names == ["Replace", "ByteFallback", "Fuse"]:
        return _fallback_bytes
    raise CheckpointError(
        f"{path} decodes with {names}; this engine knows ByteLevel and Replace, ByteFallback, Fuse"
    )


def _byte_level_bytes(byte_of: Mapping[int, int], piece: str) -> bytes:
    if all(map(byte_of.__contains__, map(ord, piece))):
        return piece.translate(byte_of).encode("latin-1")
    return piece.encode()  # outside the alphabet, so it cannot spell bytes


def _fallback_bytes(piece: str) -> bytes:
    if re.fullmatch("<0x[0-9A-F]{2}>", piece):
        return bytes([int(piece[3:5], 16)])
    return piece.replace("▁", " ").encode()


def _byte_level_alphabet() -> dict[str, int]:
    """Printable Latin-1 characters spell their own byte; the other bytes follow from U+0100 on."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in own]
    return {chr(b): b for b in own} | {chr(256 + i): b for i, b in enumerate(rest)}
