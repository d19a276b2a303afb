"""One LoRA layer, forward and backward, as a circuit of its own: `python -m benchmarks.lora [T d r ...]`.

Hidden: activations x (T, d) and targets t (T, d). Public: the base's W (d, d), the adapter's A (r, d) and B (d, r), and
what comes out: dA, dB and dx of ½·|Wx + BAx − t|². All is fixed-point as in a program of H (proofs/gradient/README.md):
every total is exact, every rounding is range-checked. CPU seconds, so that other work on the machine counts little, of
a second run, when the kernels are loaded; building the circuit is in both.
"""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from proofs.circuit import prover, verifier
from proofs.circuit.builder import Circuit
from proofs.circuit.layout import Layout, layout_of
from proofs.circuit.wire import CircuitRefused, Units, Wire
from proofs.gradient.circuit_layers import Gradients, linear, linear_backward, ranged
from proofs.gradient.matrix import Matrix
from proofs.gradient.numbers import NARROW_BITS
from proofs.gradient.program import Linear, Pair

SIZES = ((16, 32, 4), (32, 64, 4), (128, 512, 8))
ACTIVATION, OUT, LOW = 11, 10, 11  # fraction bits of x, of y and t, and of A·x
WEIGHT = 14  # of W, A and B
KEY = bytes(32)  # of the pads; what is hidden here is made up
A, B = "A", "B"


@dataclass(frozen=True, eq=False)
class Layer:
    """x, t: the hidden values, where they are known. outputs: dA (r, d), dB (d, r), dx (d, T), in units."""

    tokens: int
    linear: Linear
    x: Units | None = None
    t: Units | None = None
    outputs: tuple[Units, ...] = ()

    def circuit(self) -> tuple[Circuit, tuple[Wire, ...]]:
        """And the wires of the outputs, which are tied to `outputs` where those are given."""
        circuit = Circuit(self.tokens, self.x is not None)
        width = (self.linear.weight.shape[0],)
        x = circuit.signed(width, self.tokens, NARROW_BITS, self.x)
        t = circuit.signed(width, self.tokens, NARROW_BITS, self.t)
        x, t = (wire.with_(bound=1 << (NARROW_BITS - 1)) for wire in (x, t))
        y, state = linear(circuit, self.linear, x.with_(fraction=ACTIVATION), OUT, NARROW_BITS, LOW)
        found: Gradients = {}
        gradient = ranged(circuit, y - t.with_(fraction=OUT), NARROW_BITS)
        back = linear_backward(circuit, self.linear, state, gradient, found, True)
        if back is None:
            raise CircuitRefused("a layer passes its gradient on")
        wires = (found[A], found[B], back)
        for wire, units in zip(wires, self.outputs, strict=False):
            circuit.equal(wire.with_(limbs=None).plus(-units.reshape(*wire.shape, wire.lanes)))
        return circuit, wires

    def digest(self) -> bytes:
        pair = self.linear.pair
        matrices = () if pair is None else (pair.a, pair.b)
        parts = [matrix.digest() for matrix in (self.linear.weight, *matrices)]
        parts += [np.ascontiguousarray(units, dtype="<i8").tobytes() for units in self.outputs]
        return sha256(self.tokens.to_bytes(4, "big") + b"".join(parts)).digest()


def random_layer(tokens: int, width: int, rank: int) -> tuple[Layer, Layer]:
    """With its values, and as a verifier knows it."""
    rng = np.random.default_rng(0)

    def matrix(rows: int, columns: int) -> Matrix:
        return Matrix(np.rint(rng.normal(0, 2**WEIGHT / columns**0.5, (rows, columns))).astype(np.int64), WEIGHT)

    pair = Pair(matrix(rank, width), matrix(width, rank), rank, A, B)
    layer = Linear("layer", matrix(width, width), pair=pair)
    x, t = (np.rint(rng.normal(0, 2.0**bits, (width, tokens))).astype(np.int64) for bits in (ACTIVATION, OUT))
    hidden = Layer(tokens, layer, x, t)
    outputs = tuple(wire.known() for wire in hidden.circuit()[1])
    return Layer(tokens, layer, x, t, outputs), Layer(tokens, layer, outputs=outputs)


def smallest(circuit: Circuit) -> Layout:
    """Rows as long as makes the proof short."""
    found = list[Layout]()
    for bits in range(9, 16):
        try:
            found.append(layout_of(circuit, 1 << bits))
        except CircuitRefused:
            continue
    return min(found, key=lambda layout: layout.largest_bytes)


@dataclass(frozen=True)
class Measured:
    prove_s: float
    verify_s: float
    proof_bytes: int
    cells: int
    row: int
    memory_bytes: int


def measured(tokens: int, width: int, rank: int) -> Measured:
    hidden, public = random_layer(tokens, width, rank)
    layout = smallest(public.circuit()[0])
    for _ in range(2):
        start = time.process_time()
        proof = prover.prove(hidden.digest(), hidden.circuit()[0], layout, [], KEY)
        proven = time.process_time()
        circuit = public.circuit()[0]
        verifier.verify(public.digest(), circuit, layout_of(circuit, layout.row), [], proof)
        checked = time.process_time()
    cells = sum(layout.rows(group) * group.width for group in layout.groups) * layout.lanes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Measured(proven - start, checked - proven, len(proof), cells, layout.row, peak)


def main() -> None:
    numbers = [int(text) for text in sys.argv[1:]]
    sizes = list(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)) or SIZES
    print("a LoRA layer, forward and backward, in zero knowledge at 100 bits; CPU seconds")
    print(
        f"{'T × d, r':>16} {'prove':>8} {'verify':>8} {'proof bytes':>12} {'M cells':>8} {'row':>6} {'memory GB':>10}"
    )
    for tokens, width, rank in sizes:
        found = measured(tokens, width, rank)
        print(
            f"{f'{tokens} × {width}, {rank}':>16} {found.prove_s:8.2f} {found.verify_s:8.3f} {found.proof_bytes:12,}"
            f" {found.cells / 1e6:8.2f} {found.row:6} {found.memory_bytes / 1e9:10.2f}"
        )


if __name__ == "__main__":
    main()
