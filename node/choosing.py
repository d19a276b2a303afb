"""Which token comes next, and what text it makes: a function of scores, decoding and place alone.

A draw needs no generator that remembers: the uniform of a place is SHA-256 of seed and place, and the token is where it
falls in the cumulated probabilities of the tokens that are kept, in the order of their numbers. (In the order of their
probabilities two tokens that are nearly alike would change places with the last bit of a score.) So an answer depends
neither on what is answered beside it nor on when, and whoever has the scores chooses the same token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ledger.log.receipt import Decoding

LABEL: Final = b"candor/draw/1\0"
HALF: Final = "\N{REPLACEMENT CHARACTER}"  # what a tokenizer gives for bytes that are no character, or not yet
CONTEXT: Final = 4  # tokens before a piece that its tokenizer is shown, since some drop a first space
MOST_HELD: Final = 64  # tokens held back in the hope that their bytes become a character

Scores = NDArray[np.float32]


def uniform(seed: int, place: int) -> float:
    """In [0, 1), of 53 bits. place: 0 for the first token of an answer."""
    digest = sha256(LABEL + seed.to_bytes(8) + place.to_bytes(8)).digest()
    return (int.from_bytes(digest[:8]) >> 11) * 2.0**-53


def choose(scores: Scores, decoding: Decoding, place: int) -> int:
    """The token (scores (V,)) that the decoding leads to. Of equal scores the first token's counts as the larger."""
    if not decoding.temperature:
        return int(scores.argmax())
    tokens, edges = cumulated(scores, decoding)
    at = int(np.searchsorted(edges, uniform(decoding.seed, place), "right"))
    return int(tokens[min(at, len(tokens) - 1)])


def margin(scores: Scores, decoding: Decoding, place: int, token: int) -> float:
    """How far from being chosen `token` is: 0 if it is; a difference of scores when greedy, else of probability."""
    if not decoding.temperature:
        return float(scores.max() - scores[token])
    tokens, edges = cumulated(scores, decoding)
    at, drawn = int(np.searchsorted(tokens, token)), uniform(decoding.seed, place)
    if at == len(tokens) or tokens[at] != token:
        return 1.0
    low = float(edges[at - 1]) if at else 0.0
    return max(0.0, low - drawn, drawn - float(edges[at]))


def cumulated(scores: Scores, decoding: Decoding) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The kept tokens, ascending, and the cumulated probabilities up to each of them. temperature > 0."""
    scaled = scores.astype(np.float64) / float(decoding.temperature)
    shares = np.exp(scaled - scaled.max())
    tokens = _kept(shares, decoding)
    edges = np.cumsum(shares[tokens])
    return tokens, edges / edges[-1]


def _kept(shares: NDArray[np.float64], decoding: Decoding) -> NDArray[np.int64]:
    """Ascending. First the top_k likeliest, then the fewest of those whose share of them reaches top_p."""
    everything = np.arange(len(shares))
    if not decoding.top_k and decoding.top_p == 1:
        return everything
    ranked = np.argsort(-shares, kind="stable")
    if decoding.top_k:
        ranked = ranked[: decoding.top_k]
    reached = np.cumsum(shares[ranked])
    enough = int(np.searchsorted(reached, float(decoding.top_p) * reached[-1], "left")) + 1
    return np.sort(ranked[:enough])


@dataclass
class Writing:
    """The text of one answer, token by token: never half a character, and no stop text nor what may become one.

    `decode` gives the text of a few tokens. context: the last tokens of the prompt.
    """

    decode: Any
    stop: tuple[str, ...]
    context: Sequence[int]
    text: str = ""
    stopped: bool = False
    _tokens: list[int] = field(default_factory=list)
    _read: int = 0
    _held: str = ""

    def __post_init__(self) -> None:
        self._tokens = list(self.context)[-CONTEXT:]
        self._read = len(self._tokens)

    def add(self, token: int) -> str:
        """What became certain. After a stop text nothing does."""
        self._tokens.append(token)
        start = max(0, self._read - CONTEXT)
        before, whole = self.decode(self._tokens[start : self._read]), self.decode(self._tokens[start:])
        if whole.endswith(HALF) and len(self._tokens) - self._read < MOST_HELD:
            return ""
        self._read = len(self._tokens)
        return self._give(whole[len(before) :])

    def end(self) -> str:
        """What was held back and is certain now that nothing follows; an unfinished character is dropped."""
        if self.stopped:
            return ""
        start = max(0, self._read - CONTEXT)
        before, whole = self.decode(self._tokens[start : self._read]), self.decode(self._tokens[start:])
        rest, held = self._give(whole[len(before) :].rstrip(HALF)), self._held
        self.text, self._held = self.text + held, ""
        return rest + held

    def _give(self, new: str) -> str:
        if self.stopped:
            return ""
        waiting = self._held + new
        found = [place for place in map(waiting.find, self.stop) if place >= 0]
        if found:
            self.stopped, given, self._held = True, waiting[: min(found)], ""
        else:
            keep = max((_overlap(waiting, stop) for stop in self.stop), default=0)
            given, self._held = waiting[: len(waiting) - keep], waiting[len(waiting) - keep :]
        self.text += given
        return given


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` with which `stop` begins, and is not whole."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
