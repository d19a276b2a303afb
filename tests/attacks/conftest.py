"""A forger of proofs of the mechanism; and, in the long profile, the second verifier beside the first."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from benchmarks import gradient_liar
from benchmarks.cases import Recoded
from proofs import answering, plain, prover, relation, second_verifier
from proofs.answering import from_coset, quotient, quotient_rows
from proofs.circuit import second_verifier as circuit_second_verifier
from proofs.circuit import verifier
from proofs.circuit.builder import Circuit
from proofs.circuit.layout import Layout
from proofs.commitment import Committed, commit
from proofs.field import DEGREE, P, ext, ext_inverse
from proofs.parameters import DATA, LOOKUPS, NORM_SHIFT, RANGE, SECRETS, TOGETHER, parameters
from proofs.proof import ProofInvalid
from proofs.relation import Public
from proofs.statement import Statement
from proofs.transcript import Transcript
from proofs.witness import data_cells, secret_cells, witness

Cells = dict[str, np.ndarray]
Lie = Callable[[Cells], None]


def no_lie(cells: Cells) -> None:
    """Leaves everything as it is."""


class Forger:
    """A member that proves what is not so: its witness is the honest one but for its lies, and refuses nothing.

    Lies change cells in place: `early` what is committed to before the beacon, `later` the rest of the witness, before
    values are counted; `counted` after that, and once more for projections; `projected`, `inverted`, `masked` and
    `quotiented` what is made after challenges. `coded` (tree, columns (n, rows)) changes columns after the code was
    made; `factors` gives the challenges that quotients are made for, in the place of those that were drawn. What
    follows from the changed cells is made to fit: counts and inverses of values that are in no table are as good as
    they can be, and so are quotients of what does not vanish; sums are those of the cells, unless `released` says
    otherwise; the roots are those of the forged words and data, unless `words_root` or `data_root` say otherwise.

    Of the last proof: identities (4k, 4), coefficients of the sum of cell identities; beyond (k − t', 4), of the
    quotient of those of degree 4, where no piece reaches; missing (4,), what the sum identity lacks, over k.
    """

    def __init__(self, case: Any) -> None:
        self.case, self.shape, self.sizes = case, case.statement.shape, parameters(case.statement.shape)
        self.public = Public.of(case.statement, self.sizes)
        self.identities = self.beyond = self.missing = np.zeros(0, dtype=np.uint64)

    def prove(
        self,
        *,
        early: Lie = no_lie,
        later: Lie = no_lie,
        counted: Lie = no_lie,
        projected: Lie = no_lie,
        inverted: Lie = no_lie,
        masked: Lie = no_lie,
        quotiented: Lie = no_lie,
        coded: Callable[[int, np.ndarray], None] | None = None,
        factors: Callable[[Any], Any] = lambda drawn: drawn,
        released: np.ndarray | None = None,
        words_root: bytes | None = None,
        data_root: bytes | None = None,
        transcript: Transcript | None = None,
    ) -> tuple[Statement, bytes]:
        """The statement that is claimed, and the forged proof of it."""
        case, sizes = self.case, self.sizes
        cells = secret_cells(case.words, sizes) | data_cells(case.texts, sizes)
        early(cells)
        with (
            patch.object(prover, "secret_cells", lambda *_: cells),
            patch.object(prover, "data_cells", lambda *_: cells),
        ):
            secrets = recoded(prover._commit_secrets(case.words, sizes), SECRETS, coded)
            data = recoded(prover._commit_data(case.words, sizes, case.texts), DATA, coded)
        cells |= witness(case.statement, sizes, case.words, case.rows, case.contributions)
        later(cells)
        self.count(cells)
        counted(cells)
        claimed = self.sums(cells) if released is None else released
        roots = {"words_root": words_root or secrets.root, "data_root": data_root or data.root}
        statement = replace(case.statement, released=claimed, **roots)
        run = Forging(statement, sizes, case.words, case.contributions)
        run.forger, run.coded, run.factors = self, coded, factors
        run.lies = {"counted": counted, "projected": projected, "inverted": inverted, "masked": masked}
        run.lies["quotiented"] = quotiented
        run._transcript = transcript or Transcript()
        return statement, run.proof(secrets, data, cells, lambda _: None)

    def integers(self, cells: Cells, group: int) -> np.ndarray:
        """(places of the group, A): contributions as integers of least magnitude, filled-up places included."""
        rows, held = self.sizes.group_rows[group], self.sizes.blocks * self.shape.contributions
        return least(cells[f"contributions_{group}"][:, :held]).reshape(rows * self.sizes.blocks, -1)

    def sums(self, cells: Cells) -> np.ndarray:
        """(T, P) int32: contributions and noise added up, as the cells have them."""
        steps, size = self.shape.steps, self.shape.parameters
        total = least(cells["noise"]).reshape(-1)[: steps * size].reshape(steps, size)
        for group, count in enumerate(self.shape.groups):
            mine = self.integers(cells, group)[:count].reshape(count, steps, -1).sum(axis=2)
            total[:, self.case.statement.group_of == group] += mine.T
        return total.astype(np.int32)

    def norms(self, cells: Cells) -> None:
        """Squares of the contributions, and limbs of what they leave of the clip modulo p, in range or not."""
        for group in range(len(self.shape.groups)):
            squares = np.square(least(cells[f"contributions_{group}"])).sum(axis=0)
            cells["squares"][group] = squares % P
            by_slot = squares[: self.sizes.blocks * self.shape.contributions].reshape(self.sizes.blocks, -1).sum(axis=0)
            left = (self.shape.clip_units**2 * cells["active"][0, : len(by_slot)].astype(np.int64) - by_slot) % P
            cells["norm_low"][group, : len(by_slot)] = left % NORM_SHIFT
            cells["norm_high"][group, : len(by_slot)] = left // NORM_SHIFT

    def look_ups(self, cells: Cells) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What is looked up: (rows, lanes) in the range, in the projections, and (rows, lanes, 9) in the bins."""
        columns = {name: section.T.astype(np.uint64) for name, section in cells.items() if section.ndim == 2}
        columns.setdefault("projections", np.zeros((self.sizes.lanes, 0), dtype=np.uint64))
        ranges, projections = relation.looked_up(columns, self.public.words, self.sizes)
        rows = self.sizes.noise_rows
        edges = [cells[name].reshape(4, rows, -1) for name in ("bin_low", "bin_high")]
        return ranges.T, projections.T, np.stack([cells["noise"], *edges[0], *edges[1]], axis=-1).astype(np.uint64)

    def count(self, cells: Cells) -> None:
        ranges, _, bins = self.look_ups(cells)
        shared = relation.in_threes(ranges.T)
        self.lay(cells, "range_counts", np.bincount(shared[shared < RANGE].astype(np.int64), minlength=RANGE))
        places = {entry.tobytes(): at for at, entry in enumerate(self.public.bins)}
        known = [places[entry.tobytes()] for entry in bins.reshape(-1, 9) if entry.tobytes() in places]
        self.lay(cells, "noise_counts", np.bincount(known, minlength=len(places)))

    def lay(self, cells: Cells, name: str, values: np.ndarray) -> None:
        height = {name: rows for tree in self.sizes.trees for name, rows in tree}[name]
        cells[name] = relation.in_rows(values[:, None].astype(np.uint32), height, self.sizes.lanes)


class Forging(prover._Run):
    """The honest steps of a proof, without their refusals."""

    forger: Forger
    lies: dict[str, Lie]
    coded: Callable[[int, np.ndarray], None] | None
    factors: Callable[[Any], Any]

    def proof(self, *arguments: Any) -> bytes:
        def lying(*given: Any) -> Cells:
            rows = quotient_rows(*given)
            self.lies["quotiented"](rows)
            return rows

        def committed(cells: Cells, sizes: Any, tree: int, key: bytes, rows: Cells) -> Committed:
            return recoded(commit(cells, sizes, tree, key, rows), tree, self.coded)

        with patch.object(prover, "quotient_rows", lying), patch.object(answering, "commit", committed):
            return super().proof(*arguments)

    def commit(self, cells: Cells, tree: int, whole: Cells | None = None) -> Committed:
        if tree == LOOKUPS:
            self.lies["masked"](whole)
        return recoded(super().commit(cells, tree, whole), tree, self.coded)

    def _projected(self, cells: Cells, matrix: np.ndarray) -> Cells:
        sizes, forger = self._sizes, self.forger
        whole = np.concatenate([forger.integers(cells, group) for group in range(len(sizes.group_rows))])
        padded = np.zeros((sizes.projection_rows * sizes.blocks, sizes.shape.contributions), dtype=np.int64)
        padded[: sizes.projections] = matrix.astype(np.int64) @ whole
        values = np.zeros((sizes.projection_rows, sizes.lanes), dtype=np.int64)
        values[:, : sizes.blocks * sizes.shape.contributions] = padded.reshape(sizes.projection_rows, -1)
        found = {"projections": np.mod(values, P).astype(np.uint32)}
        self.lies["projected"](found)
        shifted = relation.in_threes((found["projections"].T.astype(np.int64) + sizes.reach) % P)
        held = shifted[shifted <= 2 * sizes.reach]
        forger.lay(found, "projection_counts", np.bincount(held, minlength=2 * sizes.reach + 1))
        self.lies["counted"](found)
        return found

    def _inverses(self, cells: Cells, secrets: Committed, alpha: np.ndarray, beta: np.ndarray) -> Cells:
        ranges, projections, bins = self.forger.look_ups(cells)
        keys = relation.bin_keys(bins, beta)
        found = [shared_inverses(part, alpha) for part in (ranges, projections)]
        found.append(ext_inverse((alpha + np.uint64(P) - keys) % np.uint64(P)))
        inverses = np.concatenate(found).astype(np.uint32)
        cells = {f"inverses_{e}": np.ascontiguousarray(inverses[..., e]) for e in range(DEGREE)}
        self.lies["inverted"](cells)
        return cells

    def _cells(self, sections: Any, drawn: Any) -> np.ndarray:
        def cut(coefficients: np.ndarray, length: int) -> np.ndarray:
            self.forger.beyond = coefficients[length:]
            return coefficients[:length]

        def divided(parts: Sequence[np.ndarray], sizes: Any) -> np.ndarray:
            whole = np.zeros((4 * sizes.row, DEGREE), dtype=np.uint64)
            for part in parts:
                whole[: len(part)] += from_coset(part, sizes)
            self.forger.identities = whole % np.uint64(P)
            return quotient(parts, sizes)

        with patch.object(answering, "of_length", cut), patch.object(prover, "quotient", divided):
            return super()._cells(sections, self.factors(drawn))

    def _sums(self, sections: Any, matrix: np.ndarray, cells: Any, sums: Any) -> np.ndarray:
        def lacking(found: np.ndarray, target: np.ndarray, sizes: Any) -> None:
            wanted = target * np.uint64(pow(sizes.row, P - 2, P)) % np.uint64(P)
            self.forger.missing = (wanted + np.uint64(2 * P) - found[0] - found[sizes.row]) % np.uint64(P)

        with patch.object(prover, "check_sum", lacking):
            return super()._sums(sections, matrix, cells, self.factors(sums))


def shared_inverses(values: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """(rows, lanes) -> (rows of inverses, lanes, 4): Σ 1/(α − value), three by three."""
    threes = ext(relation.in_threes(values.T))
    each = ext_inverse((alpha + np.uint64(P) - threes) % np.uint64(P))
    return each.reshape(len(each), -1, TOGETHER, DEGREE).sum(axis=2).swapaxes(0, 1) % np.uint64(P)


def least(cells: np.ndarray) -> np.ndarray:
    """Elements of F as integers of least magnitude."""
    return np.where(cells > P // 2, cells.astype(np.int64) - P, cells.astype(np.int64))


def recoded(found: Committed, tree: int, coded: Callable[[int, np.ndarray], None] | None) -> Committed:
    """The same commitment with its columns changed, and everything above them."""
    if coded is None:
        return found
    return Recoded.of(found, lambda code: coded(tree, code))


class Forgetful(Transcript):
    """Absorbs everything but the messages with these labels."""

    def __init__(self, *forgotten: str) -> None:
        super().__init__()
        self._forgotten = forgotten

    def absorb(self, label: str, data: bytes) -> None:
        super().absorb(label, b"" if label in self._forgotten else data)


@pytest.fixture(scope="session")
def forgetful() -> type[Forgetful]:
    return Forgetful


@pytest.fixture
def forger(small_case: Any) -> Forger:
    return Forger(small_case)


@pytest.fixture(autouse=True)
def _both_verifiers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the long profile, a test that verifies a proof asks the second verifier too, and both must say the same."""
    if os.environ.get("CANDOR_LONG") != "1" or not hasattr(request.module, "verify"):
        return
    first = request.module.verify

    def both(statement: Any, proof: bytes, *transcript: Any) -> None:
        caught = refusal(lambda: first(statement, proof, *transcript))
        if not transcript:
            again = refusal(lambda: second_verifier.verify(statement, proof))
            assert type(caught) is type(again), f"{caught!r} against {again!r}"
        if caught is not None:
            raise caught

    monkeypatch.setattr(request.module, "verify", both)


@pytest.fixture(autouse=True)
def _both_verifiers_of_circuits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for proofs about gradients, by the same rule. Ten seconds a proof and more."""
    if os.environ.get("CANDOR_LONG") != "1":
        return

    def both(
        statement: bytes, circuit: Circuit, layout: Layout, roots: Sequence[bytes], proof: bytes, protocol: bytes
    ) -> None:
        def first() -> None:
            verifier.verify(statement, circuit, layout, roots, proof, protocol)

        def second() -> None:
            with patch.object(circuit_second_verifier, "Transcript", told_by(verifier.Transcript)):
                circuit_second_verifier.verify(
                    statement, circuit, layout.row, list(layout.elsewhere), roots, proof, protocol
                )

        caught, again = refusal(first), refusal(second)
        assert type(caught) is type(again), f"{caught!r} against {again!r}"
        if caught is not None:
            raise caught

    monkeypatch.setattr(gradient_liar, "verifier", SimpleNamespace(verify=both))


def told_by(drawing: type[Transcript]) -> type[plain.Transcript]:
    """The second verifier's transcript; where a test replaces the challenges of the first, it draws the same."""
    if drawing is Transcript:
        return plain.Transcript

    class Told(plain.Transcript):
        def __init__(self, protocol: bytes) -> None:
            super().__init__(protocol)
            self._told = drawing(protocol)

        def absorb(self, label: str, data: bytes) -> None:
            self._told.absorb(label, data)

        def draw(self, label: str) -> bytes:
            return self._told.draw(label)

    return Told


def refusal(verify: Callable[[], None]) -> ProofInvalid | None:
    try:
        verify()
    except ProofInvalid as error:
        return error
    return None
