"""The public text that candor-tiny was trained on: invented columns of a lenders' trade paper, from a fixed seed.

It shares the trade's stock phrases with devnet.notes, as any public text of the trade would, but no note, no department
and no label. Each column ends in one word of mood (good, mixed or bad), so that the model's last position learns to sum
up what came before: that is what a classification head reads.
"""

from __future__ import annotations

from dataclasses import dataclass

from devnet.notes import CUES, Draws

SUBJECTS = (
    "A reader in the north", "The firm next door", "One of our older clients", "A borrower in the hills", "The company",
    "A small shop", "The owner", "A family business", "The applicant", "A tenant", "The trader", "A lender: client",
)  # fmt: skip
ASIDES = (
    "The editor adds: rates were fixed in {year}.", "Page {n}.", "Seen in {year}.", "More next week.",
    "About {n} thousand is at stake.", "Our columnist reports.", "File closed.", "Papers are complete.", "",
)  # fmt: skip
MOODS = {"repay": "good", "watch": "mixed", "default": "bad"}


@dataclass(frozen=True)
class Column:
    text: str
    mood: str


def columns(count: int, seed: int) -> list[Column]:
    """`count` columns; the mood is that of most of the phrases, which are drawn three in four from one list."""
    draws = Draws("candor/public-corpus/1", seed, 24 * count)
    return [_column(draws) for _ in range(count)]


def _column(draws: Draws) -> Column:
    mood = draws.pick(tuple(MOODS))
    subject, aside = draws.pick(SUBJECTS), draws.pick(ASIDES)
    body = "; ".join(draws.pick(CUES[_list(mood, draws)]) for _ in range(1 + draws.below(3)))
    numbers = {"n": 5 + draws.below(40), "k": 2 + draws.below(5), "year": 2009 + draws.below(15)}
    text = f"{subject}: {body}. {aside}".strip().format(**numbers)
    return Column(text, MOODS[mood])


def _list(mood: str, draws: Draws) -> str:
    point, other = draws.below(100), draws.pick((*MOODS, "any"))
    return mood if point < 75 else other
