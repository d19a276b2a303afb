"""Config: everything that decides a round's meaning, named by the digest of its canonical JSON.

The coordinator writes it, the contract keeps its digest, every member and auditor reads it before anything else. It
names every tensor with its shape, so that checking a bundle needs no model and no peft.

Two integer grids:
- weights are multiples of 2^-weight_bits, below 2^24 units in magnitude, so float32 holds them exactly;
- contributions and noise are integers in units of group.clip / clip_units, one unit per group.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from ledger import canonical
from ledger.adapter import AdapterSpec as AdapterSpec
from ledger.adapter import QuantisedSpec as QuantisedSpec
from ledger.adapter import Role as Role
from ledger.adapter import TensorSpec as TensorSpec
from ledger.adapter import read_adapter, read_quantised
from ledger.aggregation import AggregationSpec as AggregationSpec
from ledger.aggregation import at_rank, check_aggregation
from ledger.canonical import FieldInvalid, Fields, format_fraction
from ledger.records import Policy
from proofs.mechanism import most_rows
from proofs.parameters import ShapeRefused, parameters
from proofs.statement import Shape

MAX_CONFIG_BYTES = 1 << 20
MAX_RELEASED = 1 << 28  # integers in a trajectory: one GiB
MAX_TASK_TOKENS = 8192
MAX_PICKS = 16
MAX_TOLERANCE = 64
FLOAT32_INTEGERS = 1 << 24

ProofPolicy = Literal["none", "mechanism", "gradient"]
TaskKind = Literal["classification", "next-token"]
GRADIENT_METHODS = ("lora", "rslora")  # what H computes
GROUPS: tuple[Role, ...] = ("adapter", "head")  # what is clipped together


@dataclass(frozen=True)
class TaskSpec:
    """What the model learns of a text. max_tokens: after so many a text is cut.

    classification: which of `labels`, in order, it has, by a head that is trained beside the adapter. next-token: each
    of its tokens but the first from those before it, by the head that the base has; there are no labels.
    """

    labels: tuple[str, ...]
    max_tokens: int
    kind: TaskKind = "classification"


@dataclass(frozen=True)
class PrivacySpec:
    """The mechanism. Each example's gradient is clipped per group to `clip_*`, then rounded to `clip_units` units.

    noise_units: σ of the rounded Gaussian added to every coordinate, in the same units; 0 only with
    `insecure_no_noise`. sample_threshold: a row joins a step with probability sample_threshold / 2^32.
    capacity: public upper bound on the rows of a dataset (the true number is not released).
    """

    delta: Fraction
    clip_units: int
    clip_adapter: Fraction
    clip_head: Fraction
    noise_units: int
    sample_threshold: int
    capacity: int
    insecure_no_noise: bool = False


@dataclass(frozen=True)
class OptimizerSpec:
    """Public, deterministic post-processing of the released sums; see ledger.optimizer."""

    name: Literal["sgd", "adamw"]
    learning_rate: Fraction
    learning_rate_head: Fraction
    momentum: Fraction  # sgd; beta1 for adamw
    beta2: Fraction  # adamw only, 0/1 for sgd
    epsilon: Fraction  # adamw only, 0/1 for sgd
    weight_decay: Fraction


@dataclass(frozen=True)
class GradientSpec:
    """What is asked of each member in Prove. slots: m, of all its slots, picked by the beacon (ledger.picks).

    tolerance: τ, clip units that a coordinate of a contribution may differ from the gradient computed in integers.
    """

    slots: int
    tolerance: int


@dataclass(frozen=True)
class Config:
    """gradient: there exactly under the proof policy of that name. quantised: under the method qlora,
    and of a mixture whose parents are of that method.

    whole: of a config that is another one's at some rank (ledger.aggregation.at_rank), that other one, whose bytes and
    digest it has.
    """

    base_name: str
    base_digest: bytes
    task: TaskSpec
    adapter: AdapterSpec
    weight_bits: int
    privacy: PrivacySpec
    optimizer: OptimizerSpec
    steps: int
    mean_batch: int
    aggregation: AggregationSpec
    proof_policy: ProofPolicy
    policy: Policy
    gradient: GradientSpec | None = None
    quantised: QuantisedSpec | None = None
    whole: Config | None = None

    @property
    def digest(self) -> bytes:
        return canonical.digest(self.encode())

    @property
    def proven(self) -> bool:
        """Does every submission carry a proof of the mechanism?"""
        return self.proof_policy != "none"

    @property
    def openings(self) -> int:
        """Further proofs about a submission's data and contributions, for which its proof keeps room: one for each
        picked slot."""
        return self.gradient.slots if self.gradient else 0

    @property
    def groups(self) -> dict[Role, NDArray[np.int64]]:
        """The trained coordinates of each clipping group that is not empty."""
        roles = np.concatenate([np.full(tensor.size, GROUPS.index(tensor.role)) for tensor in self.adapter.trained])
        found = {role: np.flatnonzero(roles == number) for number, role in enumerate(GROUPS)}
        return {role: columns for role, columns in found.items() if len(columns)}

    @property
    def shape(self) -> Shape:
        """The sizes of the mechanism; `slots` is derived, so that an honest draw exceeds it less than once in 2^66."""
        privacy = self.privacy
        sizes = {role: sum(t.size for t in self.adapter.trained if t.role == role) for role in GROUPS}
        return Shape(
            steps=self.steps,
            groups=tuple(size for size in sizes.values() if size),
            capacity=privacy.capacity,
            slots=most_rows(privacy.capacity, privacy.sample_threshold, self.steps),
            clip_units=privacy.clip_units,
            sigma_units=privacy.noise_units,
            sample_threshold=privacy.sample_threshold,
            tokens=self.task.max_tokens,
            openings=self.openings,
        )

    def encode(self) -> bytes:
        return canonical.encode(_to_json(self.whole or self))

    @classmethod
    def decode(cls, data: bytes) -> Config:
        """Strict inverse of `encode`. Raises NotCanonical or FieldInvalid, naming the field."""
        return _from_json(canonical.decode(data, max_bytes=MAX_CONFIG_BYTES))


def _to_json(config: Config) -> dict[str, Any]:
    privacy, optimizer = config.privacy, config.optimizer
    return {
        "kind": "candor/config/1",
        "base": {"name": config.base_name, "digest": config.base_digest.hex()}
        | ({"quantised": config.quantised.to_json()} if config.quantised else {}),
        "task": _task_json(config.task),
        "adapter": config.adapter.to_json(),
        "weight_bits": config.weight_bits,
        "privacy": {
            "delta": format_fraction(privacy.delta),
            "clip_units": privacy.clip_units,
            "clip_adapter": format_fraction(privacy.clip_adapter),
            "clip_head": format_fraction(privacy.clip_head),
            "noise_units": privacy.noise_units,
            "sample_threshold": privacy.sample_threshold,
            "capacity": privacy.capacity,
            "insecure_no_noise": privacy.insecure_no_noise,
        },
        "optimizer": {
            "name": optimizer.name,
            "learning_rate": format_fraction(optimizer.learning_rate),
            "learning_rate_head": format_fraction(optimizer.learning_rate_head),
            "momentum": format_fraction(optimizer.momentum),
            "beta2": format_fraction(optimizer.beta2),
            "epsilon": format_fraction(optimizer.epsilon),
            "weight_decay": format_fraction(optimizer.weight_decay),
        },
        "steps": config.steps,
        "mean_batch": config.mean_batch,
        "aggregation": config.aggregation.to_json(),
        "proof_policy": config.proof_policy,
        "policy": config.policy.to_json(),
    } | ({"gradient": vars(config.gradient)} if config.gradient else {})


def _task_json(task: TaskSpec) -> dict[str, Any]:
    labels = {"labels": list(task.labels)} if task.kind == "classification" else {}
    return {"kind": task.kind, "max_tokens": task.max_tokens} | labels


def _from_json(value: Any) -> Config:
    fields = Fields(value, "config")
    fields.text("kind", one_of=("candor/config/1",))
    base = Fields(fields.take("base"), "config.base")
    base_name, base_digest = base.text("name"), base.hex32("digest")
    quantised = read_quantised(Fields(base.take("quantised"), "config.base.quantised")) if "quantised" in base else None
    base.done()
    proof_policy = cast(ProofPolicy, fields.text("proof_policy", one_of=("none", "mechanism", "gradient")))
    config = Config(
        base_name=base_name,
        base_digest=base_digest,
        task=_task(Fields(fields.take("task"), "config.task")),
        adapter=read_adapter(Fields(fields.take("adapter"), "config.adapter")),
        weight_bits=fields.integer("weight_bits", 8, 23),
        privacy=_privacy(Fields(fields.take("privacy"), "config.privacy")),
        optimizer=_optimizer(Fields(fields.take("optimizer"), "config.optimizer")),
        steps=fields.integer("steps", 1, 4096),
        mean_batch=fields.integer("mean_batch", 1, 1 << 20),
        aggregation=AggregationSpec.read(Fields(fields.take("aggregation"), "config.aggregation")),
        proof_policy=proof_policy,
        policy=Policy.from_json(fields.take("policy")),
        gradient=_gradient(Fields(fields.take("gradient"), "config.gradient")) if proof_policy == "gradient" else None,
        quantised=quantised,
    )
    fields.done()
    _check_rule(config)
    return config


def _task(fields: Fields) -> TaskSpec:
    """Of one token alone there is nothing to predict."""
    kind = cast(TaskKind, fields.text("kind", one_of=("classification", "next-token")))
    classifies = kind == "classification"
    labels = fields.texts("labels", most=1024) if classifies else ()
    task = TaskSpec(labels, fields.integer("max_tokens", 1 if classifies else 2, MAX_TASK_TOKENS), kind)
    fields.done()
    if classifies and len(labels) < 2:
        raise FieldInvalid("config.task.labels: at least two labels are needed")
    return task


def _privacy(fields: Fields) -> PrivacySpec:
    privacy = PrivacySpec(
        delta=fields.fraction("delta", positive=True),
        clip_units=fields.integer("clip_units", 1, 1 << 20),
        clip_adapter=fields.fraction("clip_adapter", positive=True),
        clip_head=fields.fraction("clip_head", positive=True),
        noise_units=fields.integer("noise_units", 0, 3500),
        sample_threshold=fields.integer("sample_threshold", 1, 1 << 32),
        capacity=fields.integer("capacity", 1, 1 << 24),
        insecure_no_noise=fields.boolean("insecure_no_noise"),
    )
    fields.done()
    if privacy.delta >= 1:
        raise FieldInvalid("config.privacy.delta: must be below 1")
    if privacy.capacity * privacy.clip_units >= 1 << 30:
        raise FieldInvalid("config.privacy: capacity times clip_units must stay below 2^30, so that sums fit 32 bits")
    if (privacy.noise_units == 0) != privacy.insecure_no_noise:
        raise FieldInvalid("config.privacy: noise_units is 0 exactly when insecure_no_noise is set")
    return privacy


def _optimizer(fields: Fields) -> OptimizerSpec:
    optimizer = OptimizerSpec(
        name=cast(Literal["sgd", "adamw"], fields.text("name", one_of=("sgd", "adamw"))),
        learning_rate=fields.fraction("learning_rate"),
        learning_rate_head=fields.fraction("learning_rate_head"),
        momentum=fields.fraction("momentum"),
        beta2=fields.fraction("beta2"),
        epsilon=fields.fraction("epsilon"),
        weight_decay=fields.fraction("weight_decay"),
    )
    fields.done()
    if optimizer.momentum >= 1 or optimizer.beta2 >= 1:
        raise FieldInvalid("config.optimizer: momentum and beta2 must be below 1")
    if optimizer.name == "adamw" and optimizer.epsilon == 0:
        raise FieldInvalid("config.optimizer.epsilon: adamw needs it above zero")
    return optimizer


def _gradient(fields: Fields) -> GradientSpec:
    gradient = GradientSpec(fields.integer("slots", 1, MAX_PICKS), fields.integer("tolerance", 1, MAX_TOLERANCE))
    fields.done()
    return gradient


def _check_rule(config: Config) -> None:
    if config.steps * config.adapter.parameters > MAX_RELEASED:
        raise FieldInvalid(f"config: steps times trained parameters must stay within {MAX_RELEASED}")
    _check_task(config)
    four_bit = config.quantised is not None
    if four_bit != (config.adapter.method == "qlora") and not (four_bit and config.adapter.parents):
        raise FieldInvalid(
            "config.base.quantised: a 4-bit base is there under the method qlora, and of a mixture of qlora parents"
        )
    check_aggregation(config)
    if config.adapter.parents and config.aggregation.rule != "fedavg":
        raise FieldInvalid(
            f"config.aggregation.rule: {config.aggregation.rule} is a rule for halves of pairs, and a mixture trains "
            "gates; remedy: fedavg"
        )
    _check_proof(config)


def _check_task(config: Config) -> None:
    """Under next-token nothing is trained but the adapter: the base's own head predicts."""
    if config.task.kind != "next-token":
        return
    if config.adapter.head or any(tensor.role == "head" for tensor in config.adapter.tensors):
        raise FieldInvalid("config.adapter.head: the task next-token has none; it keeps the head of the base")


def _check_proof(config: Config) -> None:
    if config.policy.proof_required != (config.gradient is not None):
        raise FieldInvalid(
            f"config.policy.proof_required: the phase Prove is there exactly under the proof policy gradient, "
            f"not with {config.proof_policy}"
        )
    if config.gradient is not None and (config.adapter.method not in GRADIENT_METHODS or config.adapter.experts):
        raise FieldInvalid(
            f"config.adapter.method: proofs of gradients know {' and '.join(GRADIENT_METHODS)} without experts, not "
            f"{config.adapter.method}; remedy: the proof policy mechanism"
        )
    if not config.proven:
        return
    if config.privacy.insecure_no_noise:
        raise FieldInvalid("config.proof_policy: without noise there is no mechanism to prove; remedy: none")
    try:
        for rank in sorted({config.adapter.rank, *dict(config.aggregation.ranks).values()}):
            parameters(at_rank(config, rank).shape)
    except ShapeRefused as error:
        raise FieldInvalid(f"config.proof_policy: {error}; or prove nothing: none") from error
    if config.openings > config.shape.contributions:
        raise FieldInvalid(f"config.gradient.slots: {config.openings} of {config.shape.contributions} slots")
