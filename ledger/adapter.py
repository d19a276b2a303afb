"""What a round trains on its frozen base: the adapter's method, its tensors by PEFT's names, and how the base is kept.

    lora      y = W x + (α/r)·B A x
    rslora    the same with α/√r
    dora      y = m ⊙ (W x + (α/r)·B A x) / ‖W + (α/r)·B A‖, one norm and one magnitude m for each output
    qlora     lora on a base whose matrices were rounded to 4-bit NormalFloats
    mole      final adapters side by side, frozen, and one gate for each layer that weighs their outputs
    x-lora    the same, weighed by one head that reads the hidden states of a first pass

`experts` names fused matrices of a mixture-of-experts base (one matrix for each expert, in one tensor) that get a LoRA
pair for each expert. A router is never trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, Final, Literal, cast, get_args

from ledger.canonical import FieldInvalid, Fields, from_hex

MAX_TENSORS = 4096
MAX_PARAMETERS = 1 << 26
MAGNITUDE: Final = ".lora_magnitude_vector"

Role = Literal["frozen", "adapter", "head"]
Method = Literal["lora", "rslora", "dora", "qlora", "mole", "x-lora"]
MIXTURES: Final[tuple[Method, ...]] = ("mole", "x-lora")
METHODS: Final[tuple[Method, ...]] = tuple(method for method in get_args(Method) if method not in MIXTURES)
MIXED: Final[tuple[Method, ...]] = ("lora", "rslora", "dora", "qlora")
GATE: Final = "candor.gate."
SCALING: Final = "candor.scaling."
MAX_PARENTS: Final = 16


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of the adapter file, by the name that PEFT writes. Frozen tensors are published but never trained."""

    name: str
    shape: tuple[int, ...]
    role: Role

    @property
    def size(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class AdapterSpec:
    """A PEFT adapter of the LoRA family. `tensors` is sorted by name and complete; `experts`: none on dense bases.

    parents: of a mixture, the digests of the aggregates that it is made of, in the order of its gates; it has no rank,
    alpha (1 each) or targets of its own. top_k: how many of them each token gets, under x-lora.
    """

    rank: int
    alpha: int
    targets: tuple[str, ...]
    head: tuple[str, ...]
    tensors: tuple[TensorSpec, ...]
    method: Method = "lora"
    experts: tuple[str, ...] = ()
    parents: tuple[bytes, ...] = ()
    top_k: int = 0

    @property
    def trained(self) -> tuple[TensorSpec, ...]:
        return tuple(tensor for tensor in self.tensors if tensor.role != "frozen")

    @property
    def parameters(self) -> int:
        """P: trained coordinates, in the order of `trained`, each tensor row-major."""
        return sum(tensor.size for tensor in self.trained)

    def to_json(self) -> dict[str, Any]:
        optional: dict[str, Any] = {"experts": list(self.experts)} if self.experts else {}
        optional |= {"parents": [parent.hex() for parent in self.parents]} if self.parents else {}
        optional |= {"top_k": self.top_k} if self.method == "x-lora" else {}
        return optional | {
            "method": self.method,
            "rank": self.rank,
            "alpha": self.alpha,
            "targets": list(self.targets),
            "head": list(self.head),
            "tensors": [{"name": t.name, "shape": list(t.shape), "role": t.role} for t in self.tensors],
        }


@dataclass(frozen=True)
class QuantisedSpec:
    """A 4-bit base: NF4 in blocks of 64, their scales in 8 bits in blocks of 256 (ledger.quantise).

    digest: of all its codes and scales. Everybody who has the base of the config's digest computes the same.
    """

    digest: bytes

    def to_json(self) -> dict[str, Any]:
        return {"scheme": "nf4", "block": 64, "scale_block": 256, "digest": self.digest.hex()}


def read_adapter(fields: Fields) -> AdapterSpec:
    """Raises FieldInvalid, naming the field."""
    method = cast(Method, fields.text("method", one_of=(*METHODS, *MIXTURES)))
    parents = _parents(fields) if method in MIXTURES else ()
    adapter = AdapterSpec(
        rank=fields.integer("rank", 1, 1024),
        alpha=fields.integer("alpha", 1, 65536),
        targets=fields.texts("targets", most=256),
        head=fields.texts("head", most=16),
        tensors=tuple(
            _tensor(Fields(item, "config.adapter.tensors")) for item in fields.array("tensors", max_items=MAX_TENSORS)
        ),
        method=method,
        experts=_experts(fields),
        parents=parents,
        top_k=fields.integer("top_k", 1, len(parents)) if method == "x-lora" else 0,
    )
    fields.done()
    names = [tensor.name for tensor in adapter.tensors]
    if names != sorted(set(names)):
        raise FieldInvalid("config.adapter.tensors: names must be unique and sorted")
    if not 0 < sum(tensor.size for tensor in adapter.tensors) <= MAX_PARAMETERS or not adapter.trained:
        raise FieldInvalid(f"config.adapter.tensors: between 1 and {MAX_PARAMETERS} parameters, some of them trained")
    _check_pairs(adapter)
    if adapter.parents:
        _check_mixture(adapter)
    return adapter


def _parents(fields: Fields) -> tuple[bytes, ...]:
    found = [from_hex(item, 32) for item in fields.texts("parents", most=MAX_PARENTS)]
    digests = tuple(digest for digest in found if digest is not None)
    if len(digests) < max(2, len(found)):
        raise FieldInvalid(
            f"config.adapter.parents: 2 to {MAX_PARENTS} digests of aggregates, each 64 lower-case hex digits"
        )
    return digests


def _experts(fields: Fields) -> tuple[str, ...]:
    if "experts" not in fields:
        return ()
    found = fields.texts("experts", most=16)
    if not found:
        raise FieldInvalid("config.adapter.experts: leave it out where no experts are trained")
    return found


def read_quantised(fields: Fields) -> QuantisedSpec:
    """Raises FieldInvalid, naming the field."""
    fields.text("scheme", one_of=("nf4",))
    fields.integer("block", 64, 64)
    fields.integer("scale_block", 256, 256)
    spec = QuantisedSpec(fields.hex32("digest"))
    fields.done()
    return spec


def _tensor(fields: Fields) -> TensorSpec:
    name = fields.text("name")
    if not name or name == "__metadata__":
        raise FieldInvalid(f"config.adapter.tensors: {name!r} is no name for a tensor")
    shape = tuple(fields.array("shape", max_items=4))
    if not shape or any(type(side) is not int or not 0 < side <= MAX_PARAMETERS for side in shape):
        raise FieldInvalid(f"config.adapter.tensors.{name}: a shape is one to four positive integers")
    role = cast(Role, fields.text("role", one_of=("frozen", "adapter", "head")))
    fields.done()
    return TensorSpec(name, shape, role)


def _check_pairs(adapter: AdapterSpec) -> None:
    """Every A with its B, of a rank that fits; under dora a magnitude beside each B, and none elsewhere."""
    if adapter.experts and adapter.method == "dora":
        raise FieldInvalid("config.adapter.experts: experts have no DoRA; remedy: lora or rslora")
    shapes = {tensor.name: tensor.shape for tensor in adapter.tensors}
    magnitudes = {name.removesuffix(MAGNITUDE) for name in shapes if name.endswith(MAGNITUDE)}
    pairs = {name.removesuffix(".lora_B.weight") for name in shapes if name.endswith(".lora_B.weight")}
    for layer in sorted(pairs | {name.removesuffix(".lora_A.weight") for name in shapes if ".lora_A." in name}):
        a, b = shapes.get(f"{layer}.lora_A.weight", ()), shapes.get(f"{layer}.lora_B.weight", ())
        _check_pair(adapter, layer, a, b)
    wanted = pairs if adapter.method == "dora" else set()
    for layer in sorted(magnitudes ^ wanted):
        raise FieldInvalid(
            f"config.adapter.tensors.{layer}{MAGNITUDE}: a magnitude is there exactly under the method dora"
        )
    for layer in sorted(magnitudes):
        if shapes[layer + MAGNITUDE] != shapes[f"{layer}.lora_B.weight"][:1]:
            raise FieldInvalid(f"config.adapter.tensors.{layer}{MAGNITUDE}: one magnitude for each row of B")


def _check_pair(adapter: AdapterSpec, layer: str, a: tuple[int, ...], b: tuple[int, ...]) -> None:
    where, rank = f"config.adapter.tensors.{layer}", adapter.rank
    if len(a) != 2 or len(b) != 2 or a[0] != b[1]:
        raise FieldInvalid(f"{where}: A is (rank, inputs) and B is (outputs, rank), found {a} and {b}")
    if a[0] != rank and not (adapter.experts and a[0] % rank == 0):
        raise FieldInvalid(f"{where}: A has {a[0]} rows, where config.adapter.rank is {rank}")
    if rank > min(a[1], b[0]):
        raise FieldInvalid(f"config.adapter.rank: {rank} is above the sides of {layer}, {b[0]} × {a[1]}")


def _check_mixture(adapter: AdapterSpec) -> None:
    """A mixture has nothing of its own but gates (N, N·outputs), or one head of N rows for each layer; all trained."""
    number, where = len(adapter.parents), "config.adapter"
    if (adapter.rank, adapter.alpha, adapter.targets, adapter.experts) != (1, 1, (), ()):
        raise FieldInvalid(
            f"{where}.rank: a mixture's ranks and targets are those of its parents; remedy: rank and alpha 1, targets "
            "and experts empty"
        )
    gates = adapter.method == "mole"
    for tensor in adapter.tensors:
        known = tensor.name.startswith(GATE) and tensor.name.endswith(".weight") if gates else _is_scaling(tensor.name)
        if not known or tensor.role != "adapter":
            raise FieldInvalid(f"{where}.tensors.{tensor.name}: {adapter.method} trains nothing but its gates or head")
        rows, columns = tensor.shape[0], tensor.shape[-1]
        wide = len(tensor.shape) == (1 if tensor.name.endswith(".bias") else 2)
        if not wide or (rows != number or columns % number if gates else rows % number):
            raise FieldInvalid(f"{where}.tensors.{tensor.name}: the shape {tensor.shape} is not for {number} parents")
    if not gates and len({tensor.shape[0] for tensor in adapter.tensors}) * 2 != len(adapter.tensors):
        raise FieldInvalid(f"{where}.tensors: x-lora has a weight and a bias of as many rows")


def _is_scaling(name: str) -> bool:
    return name in (f"{SCALING}weight", f"{SCALING}bias")
