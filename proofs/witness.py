"""The witness of relation M, laid out in rows of lanes (README.md, section 3): what a member knows and a proof hides.

Everything is checked on the way: contributions against their clip, their number against the words, the released sums
against both. A witness that breaks the relation is refused here, before any of it leaves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from proofs import mechanism, relation
from proofs.errors import LocalFault
from proofs.field import Field, P
from proofs.gaussian import noise_table
from proofs.parameters import NORM_SHIFT, RANGE, Parameters
from proofs.relation import Public, in_rows
from proofs.statement import Statement
from proofs.texts import Texts
from proofs.words import SecretWords, combine, public_draws, public_noise

Contributions = Sequence[NDArray[np.int32]]
Cells = dict[str, NDArray[np.uint32]]  # section -> (rows, lanes)


class WitnessRefused(LocalFault):
    """What was done is not what is to be proven; nothing of it may be published."""


def witness(
    statement: Statement, sizes: Parameters, words: SecretWords, rows: int, contributions: Contributions
) -> Cells:
    by_slot = _by_slot(statement, sizes, contributions)
    cells = {**_noise_cells(statement, sizes, words), **_draw_cells(statement, sizes, words, rows)}
    noise = cells.pop("released_noise").view(np.int32)
    drawn = cells.pop("drawn_counts")
    counts = np.array([len(step) for step in contributions])
    if not np.array_equal(counts, drawn) or counts.max(initial=0) > sizes.shape.slots:
        raise WitnessRefused("the contributions of a step are not one for each row that the words draw, or too many")
    sums = by_slot.reshape(sizes.shape.steps, sizes.shape.slots, -1).sum(axis=1, dtype=np.int64)
    if not np.array_equal(sums + noise, statement.released):
        raise WitnessRefused("the released sums are not contributions and noise added up")
    cells |= _contribution_cells(statement, sizes, by_slot, counts)
    ranges = range_values(cells | secret_cells(words, sizes), statement, sizes)
    cells["range_counts"] = count_cells(relation.in_threes(ranges), RANGE, "range_counts", sizes)
    cells["noise_counts"] = count_cells(cells["noise_bins"], sizes.noise_values, "noise_counts", sizes)
    return cells


def slot_cells(
    statement: Statement, sizes: Parameters, words: SecretWords, rows: int, contributions: Contributions
) -> Cells:
    """The part of `witness` that further proofs open: contributions, which slots are in use, which rows were used."""
    cells = _draw_cells(statement, sizes, words, rows)
    counts = np.array([len(step) for step in contributions])
    return cells | _contribution_cells(statement, sizes, _by_slot(statement, sizes, contributions), counts)


def _by_slot(statement: Statement, sizes: Parameters, contributions: Contributions) -> NDArray[np.int32]:
    """(A, P): row after row of a step in its first slots, zeros in the rest."""
    shape = sizes.shape
    if len(contributions) != shape.steps or any(part.shape[1:] != (shape.parameters,) for part in contributions):
        raise WitnessRefused(f"contributions are wanted for {shape.steps} steps of {shape.parameters} coordinates")
    if any(len(part) > shape.slots for part in contributions):
        raise WitnessRefused(f"a step drew more rows than its {shape.slots} slots")
    found = np.zeros((shape.steps, shape.slots, shape.parameters), dtype=np.int32)
    for step, part in enumerate(contributions):
        for group in range(len(shape.groups)):
            mechanism.check_contributions(np.ascontiguousarray(part[:, statement.group_of == group]), shape.clip_units)
        found[step, : len(part)] = part
    return found.reshape(shape.contributions, shape.parameters)


def _noise_cells(statement: Statement, sizes: Parameters, words: SecretWords) -> Cells:
    shape, table = sizes.shape, noise_table(sizes.shape.sigma_units)
    secret = np.concatenate([words.noise(step) for step in range(shape.steps)])
    public = np.concatenate(
        [public_noise(statement.beacon, statement.binding, t, shape.parameters) for t in range(shape.steps)]
    )
    cells = sizes.noise_rows * sizes.lanes
    secret, public = (np.concatenate([part, np.zeros((cells - len(part), 4), np.uint16)]) for part in (secret, public))
    used = combine(secret, public)
    bins = table.lookup(used).astype(np.int64) + table.bound
    entries = relation.bins(table)[bins]
    low, high, word = entries[:, 1:5], entries[:, 5:9], used.astype(np.uint64)
    released = (bins - table.bound)[: shape.steps * shape.parameters].astype(np.int32)
    return {
        "noise": _laid(entries[:, :1], sizes.noise_rows, sizes),
        "noise_carry": _laid(secret.astype(np.uint32) + public >= RANGE, sizes.noise_rows, sizes),
        "bin_low": _laid(low, sizes.noise_rows, sizes),
        "bin_high": _laid(high, sizes.noise_rows, sizes),
        "low_borrow": _laid(_borrows(word, low), sizes.noise_rows, sizes),
        "high_borrow": _laid(_borrows(high, word), sizes.noise_rows, sizes),
        "noise_bins": bins.astype(np.uint32),
        "released_noise": released.reshape(shape.steps, shape.parameters).view(np.uint32),
    }


def _borrows(upper: Field, lower: Field) -> NDArray[np.bool_]:
    """(n, 3): which of the three low words of upper − lower borrow from the next."""
    found, borrow = [], np.zeros(len(upper), dtype=bool)
    for word in range(3):
        borrow = upper[:, word] < lower[:, word] + borrow
        found.append(borrow)
    return np.stack(found, axis=1)


def _draw_cells(statement: Statement, sizes: Parameters, words: SecretWords, rows: int) -> Cells:
    shape, count = sizes.shape, sizes.draw_rows * sizes.lanes
    secret = np.concatenate([words.draws(step) for step in range(shape.steps)])
    public = np.concatenate(
        [public_draws(statement.beacon, statement.binding, t, shape.capacity) for t in range(shape.steps)]
    )
    secret, public = (np.concatenate([part, np.zeros((count - len(part), 2), np.uint16)]) for part in (secret, public))
    used = combine(secret, public).astype(np.int64)
    drawn = used[:, 0] + (used[:, 1] << 16) < shape.sample_threshold
    filled = np.zeros(count, dtype=bool)
    filled[: shape.steps * shape.capacity] = np.tile(np.arange(shape.capacity) < rows, shape.steps)
    taken = (drawn & filled)[: shape.steps * shape.capacity].reshape(shape.steps, shape.capacity)
    return {
        "draw_carry": _laid(secret.astype(np.uint32) + public >= RANGE, sizes.draw_rows, sizes),
        "draw_borrow": _laid((used[:, :1] < shape.sample_threshold % RANGE), sizes.draw_rows, sizes),
        "drawn": _laid(drawn[:, None], sizes.draw_rows, sizes),
        "used": _laid((drawn & filled)[:, None], sizes.draw_rows, sizes),
        "drawn_counts": taken.sum(axis=1).astype(np.uint32),
    }


def _contribution_cells(
    statement: Statement, sizes: Parameters, by_slot: NDArray[np.int32], counts: NDArray[np.int64]
) -> Cells:
    shape, blocks = sizes.shape, sizes.blocks
    cells: Cells = {}
    squares = np.zeros((len(shape.groups), sizes.lanes), dtype=np.int64)
    left = np.zeros((len(shape.groups), sizes.lanes), dtype=np.int64)
    active = (np.arange(shape.slots)[None] < counts[:, None]).reshape(-1)
    for group, rows in enumerate(sizes.group_rows):
        padded = np.zeros((shape.contributions, rows * blocks), dtype=np.int32)
        padded[:, : shape.groups[group]] = by_slot[:, statement.group_of == group]
        section = np.zeros((rows, sizes.lanes), dtype=np.int32)
        section[:, : blocks * shape.contributions] = padded.T.reshape(rows, blocks * shape.contributions)
        squares[group] = np.einsum("rl,rl->l", section, section, dtype=np.int64)
        left[group, : shape.contributions] = shape.clip_units**2 * active
        left[group, : shape.contributions] -= np.einsum("ac,ac->a", padded, padded, dtype=np.int64)
        section += np.int32(P) * (section < 0)
        cells[f"contributions_{group}"] = section.view(np.uint32)
    cells["squares"] = squares.astype(np.uint32)
    cells["norm_low"] = (left % NORM_SHIFT).astype(np.uint32)
    cells["norm_high"] = (left // NORM_SHIFT).astype(np.uint32)
    cells["active"] = _laid(active[:, None], 1, sizes)
    last = active & ~np.append(active[1:], False)
    last.reshape(shape.steps, shape.slots)[:, -1] |= active.reshape(shape.steps, shape.slots)[:, -1]
    cells["last"] = _laid(last[:, None], 1, sizes)
    return cells


def range_values(cells: Cells, statement: Statement, sizes: Parameters) -> NDArray[np.uint64]:
    """All values that are looked up in the range of 16 bits; every one must lie in it."""
    columns = {name: section.T.astype(np.uint64) for name, section in cells.items() if section.ndim == 2}
    columns["projections"] = np.zeros((sizes.lanes, 0), dtype=np.uint64)
    found, _ = relation.looked_up(columns, Public.of(statement, sizes).words, sizes)
    return found


def count_cells(values: NDArray[np.generic], size: int, name: str, sizes: Parameters) -> NDArray[np.uint32]:
    flat = values.reshape(-1)
    if flat.size and int(flat.max()) >= size:
        raise WitnessRefused(f"a value for {name} is out of range")
    counted = np.bincount(flat.astype(np.int64), minlength=size)
    return _laid(counted[:, None], dict(row for tree in sizes.trees for row in tree)[name], sizes)


def secret_cells(words: SecretWords, sizes: Parameters) -> Cells:
    shape = sizes.shape
    noise = np.concatenate([words.noise(step) for step in range(shape.steps)])
    draws = np.concatenate([words.draws(step) for step in range(shape.steps)])
    return {
        "secret_noise": _laid(noise, sizes.noise_rows, sizes),
        "secret_draws": _laid(draws, sizes.draw_rows, sizes),
    }


def data_cells(texts: Texts, sizes: Parameters) -> Cells:
    """Which slots hold rows, once for every step; and place s of the text of slot i as number s·N + i."""
    shape = sizes.shape
    if len(texts) > shape.capacity:
        raise WitnessRefused(f"there are more rows than the capacity of {shape.capacity}")
    if texts.width != shape.tokens:
        raise WitnessRefused(f"texts are laid out for {texts.width} tokens, where the longest may have {shape.tokens}")
    filled = np.tile(np.arange(shape.capacity) < len(texts), shape.steps)[:, None]
    places = np.zeros((shape.tokens + 2, shape.capacity), dtype=np.uint32)
    places[:, : len(texts)] = texts.places().T
    return {
        "filled": _laid(filled, sizes.draw_rows, sizes),
        "texts": _laid(places.reshape(-1, 1), sizes.text_rows, sizes),
    }


def _laid(values: NDArray[np.generic], rows: int, sizes: Parameters) -> NDArray[np.uint32]:
    return in_rows(values, rows, sizes.lanes).astype(np.uint32)
