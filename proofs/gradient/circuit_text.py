"""A hidden text as the circuit of H sees it: its tokens, where it ends, what attention may see, its label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from proofs.circuit.builder import Circuit
from proofs.circuit.wire import Units, Wire, constant_wire
from proofs.gradient.circuit_attention import Text
from proofs.gradient.circuit_model import Example
from proofs.gradient.circuit_next_token import following
from proofs.gradient.numbers import OutOfRange, ProgramRefused
from proofs.gradient.program import Head, NextToken, Program


def cells_of(tokens: Sequence[int], label: int, places: int) -> Units:
    """(places + 2, 1): token ids, zeros beyond the end, label, length. Raises OutOfRange."""
    if not 1 <= len(tokens) <= places:
        raise OutOfRange(f"a text of {len(tokens)} tokens where 1 to {places} are allowed")
    found = np.zeros((places + 2, 1), dtype=np.int64)
    found[: len(tokens), 0], found[places, 0], found[places + 1, 0] = tokens, label, len(tokens)
    return found


def example(circuit: Circuit, program: Program, cells: Wire) -> Example:
    """cells (lanes + 2,) of one lane: token ids, label, length. Where tokens are predicted, nothing reads the label."""
    ids, text, end = read(circuit, program, cells)
    if program.predicts:
        return Example(ids, text, None, following(circuit, ids, end))
    return Example(ids, text, _label(circuit, program.head, cells))


def read(circuit: Circuit, program: Program, cells: Wire) -> tuple[Wire, Text, Wire]:
    """Token ids (1,), what attention knows, and where the text ends (1, 1), of cells as `example` takes them."""
    places = circuit.lanes
    known = cells.units[:, 0] if circuit.proving and cells.units is not None else None
    whole = np.eye(places, dtype=np.int64)
    ids = circuit.free((1,), places, None if known is None else known[None, :places])
    circuit.across([(whole, ids)], [_picked(cells, 0, places).scaled(-1)])
    end = circuit.bits((1, 1), places, None if known is None else _one_hot(int(known[-1]) - 1, places)[None, None])
    ones, steps = np.ones((1, places), dtype=np.int64), np.arange(1, places + 1, dtype=np.int64)[None]
    circuit.across([(ones, end)], [_constant(np.array([-1]))])
    circuit.across([(steps, end)], [_picked(cells, places + 1, places + 2).scaled(-1)])
    count = _heads(program)
    if program.predicts:
        mask = _looking_back(circuit, count)
        return ids, Text(end, mask, mask), end
    valid = circuit.free(
        (1,), places, None if known is None else (np.arange(places) < known[-1])[None].astype(np.int64)
    )
    circuit.across([(whole - np.eye(places, k=1, dtype=np.int64), valid), (-whole, end)])
    return ids, _text(circuit, program, end, valid, count), end


def _heads(program: Program) -> int:
    heads = {layer.attention.heads for layer in program.layers}
    if len(heads) != 1 or {layer.attention.causal for layer in program.layers} != {program.prenorm}:
        raise ProgramRefused("all layers have the same heads, and the same view of the text")
    if program.predicts and not program.prenorm:
        raise ProgramRefused("a token that sees those after it does not predict them")
    return heads.pop()


def _looking_back(circuit: Circuit, heads: int) -> Wire:
    """(heads·tokens,): each token counts for itself and for those after it."""
    places = circuit.lanes
    sees = np.arange(places)[None, :] >= np.arange(places)[:, None]  # [token asked, token asking]
    allowed = np.tile(sees.astype(np.int64), (heads, 1))
    return Wire((heads * places,), places, (), allowed, allowed, 0, 1)


def _text(circuit: Circuit, program: Program, end: Wire, valid: Wire, count: int) -> Text:
    places = circuit.lanes
    if program.prenorm:
        return Text(end, _looking_back(circuit, count), _spread(circuit, valid, count, 1))
    first = _one_hot(0, places)
    asking = circuit.free((1, 1), places, first[None, None] if circuit.proving else None, 1)
    circuit.across([(np.eye(places, dtype=np.int64), asking)], [_constant(-first)])
    return Text(asking, _spread(circuit, valid, count, places), _spread(circuit, valid, count, 1))


def _spread(circuit: Circuit, valid: Wire, heads: int, lanes: int) -> Wire:
    """(heads·tokens,): whether a token counts, in every lane."""
    places = circuit.lanes
    units = None
    if circuit.proving:
        units = np.broadcast_to(valid.known()[0][None, :, None], (heads, places, lanes))
    found = circuit.free((heads, places), lanes, units, 1)
    circuit.spread(found, valid)
    return found.shaped(lambda strips: strips.reshape(-1))


def _label(circuit: Circuit, head: Head | NextToken, cells: Wire) -> Wire:
    if isinstance(head, NextToken):
        raise ProgramRefused("what predicts tokens has no labels")
    labels, places = head.classifier.weight.shape[0], circuit.lanes
    units = None
    if circuit.proving:
        label = int(cells.known()[places, 0])
        if not 0 <= label < labels:
            raise OutOfRange(f"a label that is none of the {labels}")
        units = _one_hot(label, labels)[:, None]
    onehot = circuit.bits((labels,), 1, units)
    counted = onehot.scaled(np.arange(labels, dtype=np.int64)).summed()
    circuit.equal(onehot.summed().plus(-1), counted - _picked(cells, places, places + 1).shaped(lambda s: s[0]))
    return onehot


def _picked(wire: Wire, start: int, end: int) -> Wire:
    return wire.shaped(lambda strips: strips[start:end])


def _constant(units: Units) -> Wire:
    return constant_wire(np.asarray(units, dtype=np.int64), 1, 0)


def _one_hot(at: int, count: int) -> Units:
    return np.asarray(np.arange(count) == at, dtype=np.int64)
