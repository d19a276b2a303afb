"""The rows of a dataset as a proof sees them: token ids, length and label of each text, as integers.

They are committed to before the beacon (`proofs.prover.data_root`) and are as secret as the texts themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from proofs.errors import LocalFault

MOST_IDS = 1 << 24
MOST_LABELS = 1 << 16


class TextsInvalid(LocalFault):
    """Rows that no proof can hold. The row is named, and nothing of its content."""


@dataclass(frozen=True, eq=False)
class Texts:
    """n encoded rows, in the order of slots. All int32.

    tokens (n, width): token ids below 2^24, zero beyond a text's end. lengths (n,): 1 to width tokens. labels (n,):
    below 2^16. Raises TextsInvalid.
    """

    tokens: NDArray[np.int32]
    lengths: NDArray[np.int32]
    labels: NDArray[np.int32]

    def __post_init__(self) -> None:
        rows = (len(self.tokens),)
        parts = (self.tokens, self.lengths, self.labels)
        if self.tokens.ndim != 2 or self.lengths.shape != rows or self.labels.shape != rows:
            raise TextsInvalid("texts are wanted with one length and one label each")
        if any(part.dtype != np.int32 for part in parts):
            raise TextsInvalid("token ids, lengths and labels are wanted as int32")
        beyond = np.arange(self.width) >= self.lengths[:, None]
        _require(self.lengths >= 1, "no token at all")
        _require(self.lengths <= self.width, f"more than {self.width} tokens")
        outside = (self.tokens < 0) | (self.tokens >= MOST_IDS)
        _require(outside.sum(axis=1) == 0, "a token id that is not below 2^24")
        _require((beyond & (self.tokens != 0)).sum(axis=1) == 0, "a token beyond its end")
        _require((self.labels >= 0) & (self.labels < MOST_LABELS), "a label that is not below 2^16")

    @classmethod
    def of(cls, ids: Sequence[Sequence[int]], labels: Sequence[int], width: int) -> Texts:
        """From token ids as a tokenizer gives them, each text at its own length. Raises TextsInvalid."""
        tokens = np.zeros((len(ids), width), dtype=np.int32)
        for row, text in enumerate(ids):
            if len(text) > width:
                raise TextsInvalid(f"row {row}: more than {width} tokens")
            if not all(0 <= token < MOST_IDS for token in text):
                raise TextsInvalid(f"row {row}: a token id that is not below 2^24")
            tokens[row, : len(text)] = text
        for row, label in enumerate(labels):
            if not 0 <= label < MOST_LABELS:
                raise TextsInvalid(f"row {row}: a label that is not below 2^16")
        return cls(tokens, np.array([len(text) for text in ids], np.int32), np.array(labels, np.int32))

    @property
    def width(self) -> int:
        """Tokens of the longest text that there may be."""
        return int(self.tokens.shape[1])

    def __len__(self) -> int:
        return len(self.tokens)

    def places(self) -> NDArray[np.uint32]:
        """(n, width + 2): token ids, the label, the number of tokens."""
        return np.column_stack([self.tokens, self.labels, self.lengths]).astype(np.uint32)

    def digest(self) -> bytes:
        """SHA-256 over the number of rows (u32, big-endian) and all places; as secret as they are."""
        rows = self.places().astype("<u4").tobytes()
        return sha256(b"candor/texts/1\0" + len(self).to_bytes(4, "big") + rows).digest()

    def __repr__(self) -> str:
        return f"Texts(width={self.width})"


def _require(holds: NDArray[np.bool_], otherwise: str) -> None:
    """Raises TextsInvalid, naming the first row for which it does not hold."""
    if not holds.all():
        raise TextsInvalid(f"row {int(np.argmin(holds))}: {otherwise}")
