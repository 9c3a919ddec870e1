"""Token healing: which tokens may come next when the text has to begin with given characters.

A prefix that ends inside a word, or in spaces, ends in a token the model has hardly ever seen
there. The last token is taken back and its text required instead.
"""

from __future__ import annotations

from bisect import bisect_left

import torch
from torch import Tensor

from engine.tokenizer import Tokenizer


class Healer:
    """Looks up the tokens compatible with required text, by binary search over the vocabulary."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        texts = ((tokenizer.decode([i]), i) for i in range(min(vocab_size, tokenizer.vocab_size)))
        # A piece of a character decodes to U+FFFD and could never be matched with text.
        pairs = sorted((text, i) for text, i in texts if text and "\ufffd" not in text)
        self._texts = [text for text, _ in pairs]
        self._ids = [i for _, i in pairs]

    def beginning(self, required: str) -> list[int]:
        """Ids whose text begins with `required`."""
        start = bisect_left(self._texts, required)
        end = bisect_left(self._texts, required + chr(0x10FFFF))
        return self._ids[start:end]

    def allowed(self, required: str) -> Tensor | None:
        """Ids whose text begins with `required`, or is a beginning of it; None when none is."""
        if not required:
            return None
        ids = self.beginning(required)
        for length in range(1, len(required)):
            at = bisect_left(self._texts, required[:length])
            while at < len(self._texts) and self._texts[at] == required[:length]:
                ids.append(self._ids[at])
                at += 1
        return torch.tensor(ids) if ids else None
