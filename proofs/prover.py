"""The prover of the mechanism: secret words, rows and contributions in, the bytes of a proof out.

The witness (`proofs.witness`) is committed to tree by tree; between the trees come the challenges of `proofs.verifier`,
in its order. All randomness is drawn from the member's seed and from everything that the proof is about, contributions
included: equal inputs give the equal proof, and two different proofs share no randomness but that of the commitments to
the secret words and to the data. Rows have a random cell for each column that one proof of the mechanism and the
further proofs announced in its shape open: a second proof of the mechanism would open more. Publish one a round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from proofs import relation
from proofs.answering import (
    CHUNK,
    Columns,
    Compiled,
    Section,
    combined_rows,
    coset,
    from_coset,
    mask_values,
    masks,
    on_coset,
    sections_of,
    sums_of_terms,
)
from proofs.commitment import Committed, commit
from proofs.field import DEGREE, Field, P, ext, ext_inverse, interpolate, inverse, mul
from proofs.parameters import (
    DATA,
    LOOKUPS,
    PROJECTIONS,
    RANGE,
    SECRETS,
    SENT,
    SLOTS,
    WITNESS,
    Parameters,
    parameters,
)
from proofs.proof import Proof, encode_elements
from proofs.relation import Public
from proofs.statement import Shape, Statement
from proofs.texts import Texts
from proofs.transcript import Transcript
from proofs.verifier import vanishing
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
    key = words.stream("candor/words-pads/3", sizes.shape.encode())
    return commit(secret_cells(words, sizes), sizes, SECRETS, key)


def _commit_data(words: SecretWords, sizes: Parameters, texts: Texts) -> Committed:
    """Other texts or sizes get other random cells: shown under the same ones, they would tell what differs."""
    cells = data_cells(texts, sizes)
    key = words.stream("candor/data-pads/1", sizes.shape.encode() + texts.digest())
    return commit(cells, sizes, DATA, key)


class _Run:
    """One proof: the transcript, and the keys of its randomness."""

    def __init__(
        self, statement: Statement, sizes: Parameters, words: SecretWords, contributions: Contributions
    ) -> None:
        self._statement, self._sizes, self._transcript = statement, sizes, Transcript()
        everything = sha256(b"".join(part.astype("<i4").tobytes() for part in contributions)).digest()
        self._key = words.stream("candor/proof-pads/1", statement.digest() + everything)

    @cached_property
    def _public(self) -> Public:
        return Public.of(self._statement, self._sizes)

    def proof(self, secrets: Committed, data: Committed, cells: Cells, tell: Progress) -> bytes:
        sizes, transcript = self._sizes, self._transcript
        transcript.absorb("statement", self._statement.digest())
        witness, slots = self.commit(cells, WITNESS), self.commit(cells, SLOTS)
        transcript.absorb("witness", witness.root)
        transcript.absorb("slots", slots.root)
        matrix = relation.projection_signs(transcript.draw("projections"), sizes)
        tell("projecting")
        cells |= self._projected(cells, matrix)
        projections = self.commit(cells, PROJECTIONS)
        transcript.absorb("projections", projections.root)
        alpha, beta = transcript.elements("tables", 2)
        tell("looking up")
        cells |= self._inverses(cells, secrets, alpha, beta)
        lookups = self.commit(cells, LOOKUPS, masks(self._key, self._sizes))
        transcript.absorb("lookups", lookups.root)
        committed = (secrets, data, witness, slots, projections, lookups)
        tell("combining")
        return self._answer(committed, matrix, alpha, beta)

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
        counted = count_cells(values + sizes.reach, 2 * sizes.reach + 1, "projection_counts", sizes)
        return {"projections": np.mod(values, P).astype(np.uint32), "projection_counts": counted}

    def _inverses(self, cells: Cells, secrets: Committed, alpha: Field, beta: Field) -> Cells:
        """1/(α − value) for every value that is looked up, gathered from the inverses of the tables' entries."""
        sizes = self._sizes
        at, opened = 0, dict(cells)
        for name, rows in sizes.trees[SECRETS]:
            opened[name] = secrets.rows[at : at + rows, : sizes.lanes]
            at += rows
        ranges = range_values(opened, self._statement, sizes).T.astype(np.int64)
        shifted = np.mod(cells["projections"].astype(np.int64) + sizes.reach, P)
        tables = (
            (ranges, ext(np.arange(RANGE, dtype=np.uint64))),
            (shifted, ext(np.arange(2 * sizes.reach + 1, dtype=np.uint64))),
            (cells["noise_bins"].reshape(sizes.noise_rows, sizes.lanes), relation.bin_keys(self._public.bins, beta)),
        )
        found = [ext_inverse((alpha + _P - entries) % _P).astype(np.uint32)[places] for places, entries in tables]
        inverses = np.concatenate(found)
        return {f"inverses_{e}": np.ascontiguousarray(inverses[..., e]) for e in range(DEGREE)}

    # ---- the three polynomials, and the opening

    def _answer(self, committed: Sequence[Committed], matrix: NDArray[np.int8], alpha: Field, beta: Field) -> bytes:
        sizes, transcript = self._sizes, self._transcript
        factors = transcript.elements("proximity", sum(sizes.heights) - DEGREE)
        cell_factors = relation.challenges_of_cells(transcript, sizes, alpha, beta)
        sum_factors = relation.challenges_of_sums(transcript, sizes)
        sections = sections_of(committed, sizes)
        proximity = interpolate(combined_rows(sections, factors, sizes))
        cells = self._cells(sections, cell_factors)
        terms = [
            *relation.sum_terms(sizes, matrix, self._public, sum_factors, alpha, beta),
            *relation.noise_terms(self._statement, sizes, sum_factors),
        ]
        sums = from_coset(sums_of_terms(sections, terms, sizes), sizes)[1:]
        for label, polynomial in (("proximity", proximity), ("cells", cells), ("sums", sums)):
            transcript.absorb(label, encode_elements(polynomial))
        positions = transcript.positions("columns", sizes.columns, sizes.queries).tolist()
        return Proof(
            tuple(committed[tree].root for tree in SENT),
            proximity,
            cells,
            sums,
            *zip(*(part.opened(positions) for part in committed), strict=True),
        ).encode()

    def _cells(self, sections: dict[str, Section], drawn: relation.CellChallenges) -> Field:
        """Quotient of the cell identities, by their values on the coset 3·⟨ω_2k⟩, a few points at a time."""
        sizes = self._sizes
        points = coset(sizes)
        public = {name: on_coset(values, sizes) for name, values in self._public.words.items()}
        values = np.zeros((len(points), DEGREE), dtype=np.uint64)
        for start in range(0, len(points), CHUNK):
            part = slice(start, start + CHUNK)
            columns = Columns(sections, part)
            known = {name: table[part] for name, table in public.items()}
            values[part] = relation.cell_identities(columns, known, sizes, drawn, Compiled())
            values[part] += mask_values(columns, "mask_cells", points[part], sizes)
        quotient = mul(values % _P, inverse(vanishing(points, sizes))[:, None])
        coefficients = from_coset(quotient, sizes)
        length = sizes.row + sizes.pads
        if coefficients[length:].any():
            raise WitnessRefused("a cell identity does not hold: the witness breaks the relation")
        return coefficients[:length]
