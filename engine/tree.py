"""Texts that share beginnings behind one cached prefix: each of their tokens is encoded once.

Token ids in, hidden states out; knows nothing of what the texts are for.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.cache import PrefixCache
from engine.model import Transformer

Ids = tuple[int, ...]


class Tree:
    """It grows behind what is cached when it is made; after one forward alone the cache is as it was.

    Who made it cuts the cache after more of them. `shift` and `on_canvas` are those of `Transformer.encode`.
    All texts may begin with `late` tokens of the prefix, which do not see what is `sealed`, the last
    tokens cached, and are encoded as the prefix is.
    """

    def __init__(
        self,
        model: Transformer,
        cache: PrefixCache,
        *,
        shift: int = 0,
        on_canvas: bool = False,
        late: int = 0,
        sealed: int = 0,
    ) -> None:
        self._model, self._cache, self._trunk = model, cache, cache.length
        self._shift, self._on_canvas = shift, on_canvas
        self._late, self._sealed = late, sealed
        self._rows: dict[Ids, int] = {}  # of each text's last token, behind the trunk
        self._new: list[int] = []  # tokens of the last forward; the next one commits them

    def encode(self, texts: Sequence[Ids]) -> Tensor:
        """The states [N, D] of the last tokens of N `texts`, none of which was encoded before.

        One forward over all of their tokens that were not.
        """
        assert not any(ids in self._rows for ids in texts), "a text was encoded before"
        self._cache.commit(self._new)
        first = len(self._rows)
        beginnings = dict.fromkeys(ids[:end] for ids in texts for end in range(1, len(ids) + 1))
        new = [ids for ids in beginnings if ids not in self._rows]
        self._rows |= {ids: row for row, ids in enumerate(new, start=first)}
        device = self._model.embed_tokens.weight.device
        seen = torch.zeros(len(new), len(self._rows), dtype=torch.bool, device=device)
        for row, ids in enumerate(new):
            seen[row, [self._rows[ids[:end]] for end in range(1, len(ids) + 1)]] = True
        self._new, depths = [ids[-1] for ids in new], [len(ids) - 1 for ids in self._rows]
        states = self._model.tree(
            self._new, depths, self._cache, self._trunk, seen,
            shift=self._shift, on_canvas=self._on_canvas,
            plain=max(0, self._late - first), hidden=self._sealed,
        )  # fmt: skip
        return states[[self._rows[ids] - first for ids in texts]]
