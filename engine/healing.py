"""Token healing: which tokens may come next when the text has to begin with given characters.

A prefix that ends inside a word, or in spaces, ends in a token the model has hardly ever seen
there. The last token is taken back and its text required instead.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left

import torch
from torch import Tensor

from engine.tokenizer import Tokenizer


class Healer:
    """Looks up the tokens compatible with required text, by binary search over the vocabulary."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        texts = ((tokenizer.decode([i]), i) for i in range(min(vocab_size, tokenizer.vocab_size)))
        # A piece of a character decodes to U+FFFD and could never be matched with text.
        pairs = sorted((text, i) for text, i in texts if text and "\ufffd" not in text)
        # Texts are spelled again when they are asked for: all of them would take 8 MB.
        self._ids = array("i", (i for _, i in pairs))

    def beginning(self, required: str) -> list[int]:
        """Ids whose text begins with `required`."""
        start = self._place(required)
        return self._ids[start : self._place(required + chr(0x10FFFF))].tolist()

    def allowed(self, required: str) -> Tensor | None:
        """Ids whose text begins with `required`, or is a beginning of it; None when none is."""
        if not required:
            return None
        ids = self.beginning(required)
        for length in range(1, len(required)):
            at = self._place(required[:length])
            while at < len(self._ids) and self._text(at) == required[:length]:
                ids.append(self._ids[at])
                at += 1
        return torch.tensor(ids) if ids else None

    def _place(self, text: str) -> int:
        """Where `text` stands, or would, among those of all tokens in order."""
        return bisect_left(range(len(self._ids)), text, key=self._text)

    def _text(self, place: int) -> str:
        return self._tokenizer.decode([self._ids[place]])
