"""The prover of the mechanism: secret words, rows and contributions in, the bytes of a proof out.

The witness (`proofs.witness`) is committed to tree by tree; between the trees come the challenges of `proofs.verifier`,
in its order. All randomness is drawn from the member's seed and from everything that the proof is about, contributions
included: equal inputs give the equal proof, and two different proofs share no randomness but that of the commitments to
the secret words and to the data. Rows have a random cell for each column that one proof of the mechanism and the
further proofs announced in its shape open: a second proof of the mechanism would open more. Publish one a round.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proofs import relation
from proofs.answering import (
    Compiled,
    Section,
    answered,
    at_points,
    check_sum,
    from_coset,
    masks,
    quotient,
    quotient_rows,
    sections_of,
    shared,
    sums_of_terms,
    whole_rows,
)
from proofs.commitment import Committed, commit
from proofs.field import DEGREE, Field, P, ext, ext_inverse
from proofs.parameters import (
    DATA,
    LOOKUPS,
    RANGE,
    SECRETS,
    SLOTS,
    TOGETHER,
    WITNESS,
    Parameters,
    parameters,
)
from proofs.relation import LOOKED_UP, Public
from proofs.statement import Shape, Statement
from proofs.texts import Texts
from proofs.transcript import Transcript
from proofs.witness import (
    Cells,
    Contributions,
    WitnessRefused,
    count_cells,
    data_cells,
    range_values,
    secret_cells,
    slot_cells,
    witness,
)
from proofs.words import SecretWords

Progress = Callable[[str], None]
_P = np.uint64(P)


def words_root(words: SecretWords, shape: Shape) -> bytes:
    """What a member commits to before the beacon: all its secret words of the round. Raises ShapeRefused."""
    return _commit_secrets(words, parameters(shape)).root


def data_root(words: SecretWords, shape: Shape, texts: Texts) -> bytes:
    """What it commits to beside them: its texts and labels, and which slots hold rows. `words` hide it.

    Raises ShapeRefused, WitnessRefused for texts that do not fit the shape.
    """
    return _commit_data(words, parameters(shape), texts).root


def prove(
    statement: Statement,
    words: SecretWords,
    texts: Texts,
    contributions: Contributions,
    progress: Progress | None = None,
) -> bytes:
    """The proof. contributions[t] (n_t, P) int32: those of the rows drawn in step t, rows ascending.

    Raises WitnessRefused when they, the words, the texts and the released sums are not as relation M demands,
    ShapeRefused.
    """
    tell = progress or (lambda _: None)
    sizes = parameters(statement.shape)
    secrets, data = _commit_secrets(words, sizes), _commit_data(words, sizes, texts)
    if secrets.root != statement.words_root:
        raise WitnessRefused("the secret words are not those that were committed to")
    if data.root != statement.data_root:
        raise WitnessRefused("the texts, labels or the number of rows are not those that were committed to")
    run = _Run(statement, sizes, words, contributions)
    tell("laying out the witness")
    cells = witness(statement, sizes, words, len(texts), contributions)
    tell("committing to the witness")
    return run.proof(secrets, data, cells, tell)


def data_and_slots(
    statement: Statement, words: SecretWords, texts: Texts, contributions: Contributions
) -> tuple[Committed, Committed]:
    """The two trees of a proof that a further proof opens, made again. Raises as `prove` does."""
    sizes = parameters(statement.shape)
    run = _Run(statement, sizes, words, contributions)
    cells = slot_cells(statement, sizes, words, len(texts), contributions)
    return _commit_data(words, sizes, texts), run.commit(cells, SLOTS)


def _commit_secrets(words: SecretWords, sizes: Parameters) -> Committed:
    key = words.stream("candor/words-pads/4", sizes.shape.encode())
    return commit(secret_cells(words, sizes), sizes, SECRETS, key)


def _commit_data(words: SecretWords, sizes: Parameters, texts: Texts) -> Committed:
    """Other texts or sizes get other random cells: shown under the same ones, they would tell what differs."""
    cells = data_cells(texts, sizes)
    key = words.stream("candor/data-pads/2", sizes.shape.encode() + texts.digest())
    return commit(cells, sizes, DATA, key)


class _Run:
    """One proof: the transcript, and the keys of its randomness."""

    def __init__(
        self, statement: Statement, sizes: Parameters, words: SecretWords, contributions: Contributions
    ) -> None:
        self._statement, self._sizes, self._transcript = statement, sizes, Transcript()
        everything = sha256(b"".join(part.astype("<i4").tobytes() for part in contributions)).digest()
        self._key = words.stream("candor/proof-pads/2", statement.digest() + everything)

    @cached_property
    def _public(self) -> Public:
        return Public.of(self._statement, self._sizes)

    def proof(self, secrets: Committed, data: Committed, cells: Cells, tell: Progress) -> bytes:
        sizes, transcript = self._sizes, self._transcript
        transcript.absorb("statement", self._statement.digest())
        slots = self.commit(cells, SLOTS)
        transcript.absorb("slots", slots.root)
        matrix = relation.projection_signs(transcript.draw("projections"), sizes)
        tell("projecting")
        cells |= self._projected(cells, matrix)
        witness = self.commit(cells, WITNESS)
        transcript.absorb("witness", witness.root)
        alpha, beta = transcript.elements("tables", 2)
        tell("looking up")
        cells |= self._inverses(cells, secrets, alpha, beta)
        mask = masks(self._key, sizes)
        lookups = self.commit(cells, LOOKUPS, mask)
        transcript.absorb("lookups", lookups.root)
        cell_factors = relation.challenges_of_cells(transcript, sizes, alpha, beta)
        sum_factors = relation.challenges_of_sums(transcript, sizes)
        tell("combining")
        committed = (secrets, data, slots, witness, lookups)
        sections = sections_of(committed, sizes)
        found = self._cells(sections, cell_factors), self._sums(sections, matrix, cell_factors, sum_factors)
        rows = quotient_rows(*found, mask["mask_sums"], self._key, sizes)
        return answered(transcript, committed, rows, self._key, sizes)

    def commit(self, cells: Cells, tree: int, whole: Cells | None = None) -> Committed:
        return commit(cells, self._sizes, tree, sha256(self._key + bytes([tree])).digest(), whole)

    def _projected(self, cells: Cells, matrix: NDArray[np.int8]) -> Cells:
        """y = Π·c for every slot. In float64, whose integers up to 2^53 no sum of these leaves."""
        sizes, blocks, slots = self._sizes, self._sizes.blocks, self._sizes.shape.contributions
        total = np.zeros((sizes.projections, slots), dtype=np.float64)
        start = 0
        for group, rows in enumerate(sizes.group_rows):
            section = cells[f"contributions_{group}"].astype(np.int64)
            signed = np.where(section > P // 2, section - P, section)[:, : blocks * slots]
            by_coordinate = signed.reshape(rows * blocks, slots).astype(np.float64)
            total += matrix[:, start : start + rows * blocks].astype(np.float64) @ by_coordinate
            start += rows * blocks
        if np.abs(total).max(initial=0) > sizes.reach:
            raise WitnessRefused(
                "a projection is beyond its bound, which happens once in 2^40 proofs: this round cannot be proven"
            )
        padded = np.zeros((sizes.projection_rows * blocks, slots), dtype=np.int64)
        padded[: sizes.projections] = total
        values = np.zeros((sizes.projection_rows, sizes.lanes), dtype=np.int64)
        values[:, : blocks * slots] = padded.reshape(sizes.projection_rows, blocks * slots)
        looked_up = relation.in_threes((values.T + sizes.reach).astype(np.uint64))
        counted = count_cells(looked_up, 2 * sizes.reach + 1, "projection_counts", sizes)
        return {"projections": np.mod(values, P).astype(np.uint32), "projection_counts": counted}

    def _inverses(self, cells: Cells, secrets: Committed, alpha: Field, beta: Field) -> Cells:
        """1/(α − value) for every value that is looked up, gathered from the inverses of the tables' entries, and
        added up three by three where they share a row."""
        sizes = self._sizes
        at, opened = 0, dict(cells)
        for name, rows in sizes.trees[SECRETS]:
            opened[name] = secrets.rows[at : at + rows, : sizes.lanes]
            at += rows
        ranges = range_values(opened, self._statement, sizes)
        projected = np.mod(cells["projections"].T.astype(np.int64) + sizes.reach, P)
        found = [
            _inverted(relation.in_threes(values), ext(np.arange(count, dtype=np.uint64)), alpha)
            .reshape(sizes.lanes, -1, TOGETHER, DEGREE)
            .sum(axis=2, dtype=np.uint64)
            % _P
            for values, count in ((ranges, RANGE), (projected, 2 * sizes.reach + 1))
        ]
        bins = cells["noise_bins"].reshape(sizes.noise_rows, sizes.lanes).T
        found.append(_inverted(bins, relation.bin_keys(self._public.bins, beta), alpha))
        inverses = np.concatenate(found, axis=1).transpose(2, 1, 0).astype(np.uint32)
        return {f"inverses_{e}": np.ascontiguousarray(inverses[e]) for e in range(DEGREE)}

    def _cells(self, sections: dict[str, Section], drawn: relation.CellChallenges) -> Field:
        """The quotient of the cell identities: those of degree 2 on a coset of 2k points, those of 4 on one of 4k."""
        sizes = self._sizes
        known = {name: whole_rows(values, sizes) for name, values in self._public.words.items()}
        on_h = {name: section.rows.T.astype(np.uint64) for name, section in sections.items() if name in LOOKED_UP}
        values = relation.values_together(on_h, known, sizes).T.astype(np.uint32)
        inverses = np.stack([sections[f"inverses_{e}"].rows[: len(drawn.together)] for e in range(DEGREE)])
        return quotient(
            [
                at_points(lambda columns: relation.cell_identities(columns, sizes, drawn, Compiled()), sections, sizes),
                shared(values, inverses, drawn.together, drawn.alpha),
            ],
            sizes,
        )

    def _sums(
        self,
        sections: dict[str, Section],
        matrix: NDArray[np.int8],
        cells: relation.CellChallenges,
        sums: relation.SumChallenges,
    ) -> Field:
        """Coefficients (2k, 4) of the sum identity's polynomial."""
        sizes = self._sizes
        terms = [
            *relation.sum_terms(sizes, matrix, self._public, sums, cells.alpha, cells.beta),
            *relation.noise_terms(self._statement, sizes, sums),
        ]
        found = from_coset(sums_of_terms(sections, terms, sizes), sizes)
        check_sum(found, relation.target(self._statement, sizes, sums), sizes)
        return found


def _inverted(places: NDArray[Any], entries: Field, alpha: Field) -> Field:
    """(...,) -> (..., 4): 1/(α − entry) where each stands."""
    return np.asarray(ext_inverse((alpha + _P - entries) % _P)[places.astype(np.int64)], dtype=np.uint64)
