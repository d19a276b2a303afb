"""How a round's accepted adapters become one, as the config says it; what each rule computes is in AGGREGATION.md.

    rule     which halves of the LoRA pairs are trained, and what is averaged
      fedavg   both halves, each by itself
      ffa      B; every A is frozen
      rolora   B in rounds of odd number, A in those of even number; the other half is frozen
      stack    both; the members' halves side by side, so that the aggregate's rank is the sum of theirs
      svd      both; the mean of the products B·A, cut back to the config's rank
    robust   how each average is taken under fedavg, ffa and rolora; left out: the weighted mean
      median, trimmed-mean, multi-krum, norm-clip

Members may have different ranks under stack and svd, where no half is averaged with another one. A member of rank r
starts from the first r components of the global adapter, and its alpha keeps the scale as it is for everyone. Under
the other rules a smaller half would have to be filled up with zeros, which shrinks, in every round, the components that
small members do not have: refused.

A rule that needs m members to mean anything is refused with a quorum below m, and the contract voids a round with fewer
accepted members than its quorum: nobody can turn a robust rule into a mean by getting others left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import isqrt
from typing import TYPE_CHECKING, Any, Final, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from ledger.adapter import MAGNITUDE, AdapterSpec, Role, TensorSpec
from ledger.canonical import FieldInvalid, Fields
from proofs.errors import PeerFault

if TYPE_CHECKING:
    from ledger.config import Config

Rule = Literal["fedavg", "ffa", "rolora", "stack", "svd"]
Robust = Literal["median", "trimmed-mean", "multi-krum", "norm-clip"]
Half = Literal["A", "B"]

PRODUCT_RULES: Final[tuple[Rule, ...]] = ("stack", "svd")
GRADIENT_RULES: Final[tuple[Rule, ...]] = ("fedavg", "ffa")
UNWEIGHTED: Final[tuple[Robust, ...]] = ("median", "trimmed-mean", "multi-krum")
HALVES: Final[dict[str, Half]] = {".lora_A.": "A", ".lora_B.": "B"}
MAX_MEMBERS: Final = 256
MAX_WEIGHT: Final = 1 << 16
MAX_RANK: Final = 1024
MAX_SVD_RANK: Final = 128
"""Ranks of a round's members together, under svd: its time grows with their third power."""


class WrongHalf(PeerFault):
    """Under rolora, a round whose config trains the half that is frozen in rounds of its number."""


class NoAggregate(PeerFault):
    """The rule gives nothing for these members: too few, or more than it can take."""


@dataclass(frozen=True)
class RobustSpec:
    """tolerates: members that may lie, of trimmed-mean and multi-krum. keep: members that multi-krum averages."""

    name: Robust
    tolerates: int = 0
    keep: int = 0

    @property
    def least(self) -> int:
        """Members without whom the rule means nothing."""
        return {"trimmed-mean": 2 * self.tolerates + 1, "multi-krum": 2 * self.tolerates + 3}.get(self.name, 3)

    def to_json(self) -> dict[str, Any]:
        numbers = {"tolerates": self.tolerates, "keep": self.keep}
        return {"name": self.name} | {key: numbers[key] for key in _numbers(self.name)}


@dataclass(frozen=True)
class AggregationSpec:
    """weights: (member, weight) of members whose weight is not 1; declared here, never counted from data.

    ranks: (member, rank) of members whose rank is not the adapter's. robust: None for the weighted mean.
    """

    rule: Rule
    weights: tuple[tuple[int, int], ...] = ()
    ranks: tuple[tuple[int, int], ...] = ()
    robust: RobustSpec | None = None

    def weight(self, member: int) -> int:
        return dict(self.weights).get(member, 1)

    def __str__(self) -> str:
        """For people: "ffa", "ffa with multi-krum"."""
        return f"{self.rule} with {self.robust.name}" if self.robust else self.rule

    @property
    def told(self) -> str:
        """What the aggregate is, in words."""
        return "the integer average" if self.robust is None and self.rule in GRADIENT_RULES else str(self)

    @property
    def least(self) -> int:
        """The fewest accepted members for which there is an aggregate."""
        return self.robust.least if self.robust else 1

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {"rule": self.rule, "weights": [list(pair) for pair in self.weights]}
        value |= {"ranks": [list(pair) for pair in self.ranks]} if self.ranks else {}
        return value | ({"robust": self.robust.to_json()} if self.robust else {})

    @classmethod
    def read(cls, fields: Fields) -> AggregationSpec:
        """Strict inverse of `to_json`. Raises FieldInvalid."""
        ranked, robust = "ranks" in fields, "robust" in fields
        spec = cls(
            rule=cast(Rule, fields.text("rule", one_of=get_args(Rule))),
            weights=_pairs(fields, "weights", "weight", MAX_WEIGHT),
            ranks=_pairs(fields, "ranks", "rank", MAX_RANK) if ranked else (),
            robust=_robust(Fields(fields.take("robust"), "config.aggregation.robust")) if robust else None,
        )
        fields.done()
        if ranked and not spec.ranks:
            raise FieldInvalid("config.aggregation.ranks: left out where every member has the adapter's rank")
        return spec


def half_of(name: str) -> Half | None:
    """Which half of a LoRA pair a tensor is, by its name; None for the head."""
    return next((half for mark, half in HALVES.items() if mark in name), None)


def frozen_half(rule: Rule, number: int) -> Half | None:
    """The half of every pair that is frozen in the round of this number."""
    if rule == "rolora":
        return "A" if number % 2 else "B"
    return "A" if rule == "ffa" else None


def role_of(name: str, rule: Rule, number: int = 1) -> Role:
    """The role of a tensor of the adapter file in the round of this number. Magnitudes are trained in every round."""
    half = half_of(name)
    if half is None:
        return "adapter" if name.endswith(MAGNITUDE) else "head"
    return "frozen" if half == frozen_half(rule, number) else "adapter"


def pairs(config: Config) -> tuple[tuple[str, str], ...]:
    """The names of every A and its B."""
    halves = [tensor.name for tensor in config.adapter.tensors if half_of(tensor.name) == "A"]
    return tuple((name, name.replace(".lora_A.", ".lora_B.", 1)) for name in halves)


# ---- configs that are one


def in_round(config: Config, number: int) -> Config:
    """The config of the same federation for the round of this number: under rolora the halves take turns."""
    if config.aggregation.rule != "rolora":
        return config
    tensors = tuple(
        tensor if half_of(tensor.name) is None else replace(tensor, role=role_of(tensor.name, "rolora", number))
        for tensor in config.adapter.tensors
    )
    return replace(config, adapter=replace(config.adapter, tensors=tensors))


def check_round(config: Config, number: int) -> None:
    """Raises WrongHalf."""
    if config != in_round(config, number):
        frozen = frozen_half(config.aggregation.rule, number)
        raise WrongHalf(f"config.adapter.tensors: under rolora every {frozen} is frozen in round {number}")


def part_of(config: Config, member: int) -> Config:
    """The config as one member has it: its own rank. Name and bytes stay those of the whole."""
    return at_rank(config, dict(config.aggregation.ranks).get(member, config.adapter.rank))


def aggregated(config: Config, members: Iterable[int]) -> Config:
    """The config as the aggregate of these members has it: under stack the sum of their ranks."""
    if config.aggregation.rule != "stack":
        return config
    return at_rank(config, sum(part_of(config, member).adapter.rank for member in members))


def at_rank(config: Config, rank: int) -> Config:
    """The config with its pairs at another rank and the same scale; `whole` is the config that names it. Raises
    FieldInvalid where no alpha gives that scale."""
    adapter = config.adapter
    if rank == adapter.rank:
        return config
    tensors = tuple(replace(tensor, shape=_at_rank(tensor, rank)) for tensor in adapter.tensors)
    alpha = alpha_at(adapter, rank)
    if alpha is None:
        raise FieldInvalid(f"config.adapter.alpha: none scales rank {rank} as {adapter.alpha} does {adapter.rank}")
    return replace(
        config, adapter=replace(adapter, rank=rank, alpha=alpha, tensors=tensors), whole=config.whole or config
    )


def alpha_at(adapter: AdapterSpec, rank: int) -> int | None:
    """The alpha that scales pairs of another rank as the adapter's own are scaled, by α/r or under rslora by α/√r; None
    where it is no integer."""
    if adapter.method == "rslora":
        square, rest = divmod(adapter.alpha**2 * rank, adapter.rank)
        alpha = isqrt(square)
        return None if rest or alpha * alpha != square else alpha
    alpha, rest = divmod(adapter.alpha * rank, adapter.rank)
    return None if rest else alpha


def start_of(part: Config, weights: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
    """Where a member starts: of the global weights, the first components, as many as its rank."""
    cut = {tensor.name: tuple(map(slice, tensor.shape)) for tensor in part.adapter.tensors}
    return {name: np.ascontiguousarray(weights[name][sides]) for name, sides in cut.items()}


def check_members(config: Config, members: Iterable[int]) -> None:
    """Is there an aggregate of these? Raises NoAggregate."""
    spec, found = config.aggregation, list(members)
    if len(found) < spec.least:
        raise NoAggregate(f"config.aggregation: {spec.least} members are needed, {len(found)} were accepted")
    ranks = sum(part_of(config, member).adapter.rank for member in found)
    if spec.rule == "svd" and ranks > MAX_SVD_RANK:
        raise NoAggregate(f"config.aggregation: ranks of {ranks} together, svd takes {MAX_SVD_RANK}")


# ---- what a config may ask for


def check_aggregation(config: Config) -> None:
    """Raises FieldInvalid, naming the line."""
    spec = config.aggregation
    _check_halves(config)
    if spec.rule in PRODUCT_RULES:
        _check_products(config)
    _check_ranks(config)
    if spec.robust:
        _check_robust(config, spec.robust)
    if config.proof_policy == "gradient" and spec.rule not in GRADIENT_RULES:
        raise FieldInvalid(
            f"config.aggregation.rule: proofs of gradients are there under {_listed(GRADIENT_RULES)}, not {spec.rule}; "
            f"remedy: the proof policy mechanism"
        )


def _check_halves(config: Config) -> None:
    """Which roles belong to a rule. Under rolora either half may be frozen, the same one everywhere."""
    rule, turns = config.aggregation.rule, (1, 2) if config.aggregation.rule == "rolora" else (1,)
    tensors = [tensor for tensor in config.adapter.tensors if half_of(tensor.name) or tensor.name.endswith(MAGNITUDE)]
    if rule == "rolora" and not tensors:
        raise FieldInvalid("config.aggregation.rule: rolora alternates between halves of LoRA pairs: there are none")
    wrong = [[t.name for t in tensors if t.role != role_of(t.name, rule, number)] for number in turns]
    if all(wrong):
        name = min(wrong, key=len)[0]
        frozen = {"ffa": "every A is frozen", "rolora": "every A is frozen or every B"}.get(rule, "no half is frozen")
        raise FieldInvalid(
            f"config.adapter.tensors.{name}: under {rule} {frozen}; other halves and magnitudes have the role adapter"
        )


def _check_products(config: Config) -> None:
    """Under stack and svd: is the product of two halves what an adapter adds, at any rank?"""
    spec, adapter = config.aggregation, config.adapter
    if adapter.method == "dora":
        raise FieldInvalid(
            f"config.aggregation.rule: {spec.rule} adds up products, and under dora a product is normalised: the sum "
            f"would be another adapter; remedy: fedavg, ffa or rolora, or the method lora"
        )
    if adapter.experts:
        raise FieldInvalid(f"config.aggregation.rule: {spec.rule} knows no experts; remedy: fedavg, ffa or rolora")
    if adapter.method == "rslora" and spec.rule == "stack":
        raise FieldInvalid(
            "config.aggregation.rule: a stack has the ranks of all who are accepted, and rslora scales by the root of "
            "their sum, which may be no alpha's; remedy: svd, or the method lora"
        )


def _check_ranks(config: Config) -> None:
    spec, adapter = config.aggregation, config.adapter
    if spec.ranks and spec.rule not in PRODUCT_RULES:
        raise FieldInvalid(
            f"config.aggregation.ranks: members have different ranks under {_listed(PRODUCT_RULES)}; {spec.rule} would "
            f"fill the smaller ones up with zeros and shrink what small members do not have; remedy: svd"
        )
    for member, rank in spec.ranks:
        if rank >= adapter.rank:
            raise FieldInvalid(
                f"config.aggregation.ranks: member {member} has rank {rank}; those named have less than the adapter's "
                f"{adapter.rank}"
            )
        if alpha_at(adapter, rank) is None:
            rooted = adapter.method == "rslora"
            needed = f"{adapter.alpha}·{'√(' * rooted}{rank}/{adapter.rank}{')' * rooted}"
            remedy = f"a quarter of {adapter.rank}, say" if rooted else f"an alpha that {adapter.rank} divides"
            raise FieldInvalid(
                f"config.aggregation.ranks: member {member} of rank {rank} would need an alpha of {needed}; remedy: "
                f"{remedy}"
            )


def _check_robust(config: Config, robust: RobustSpec) -> None:
    spec, where, quorum = config.aggregation, "config.aggregation.robust", config.policy.quorum
    if spec.rule in PRODUCT_RULES:
        raise FieldInvalid(f"{where}: {robust.name} goes with fedavg, ffa and rolora, not with {spec.rule}")
    if robust.name in UNWEIGHTED and spec.weights:
        raise FieldInvalid(f"config.aggregation.weights: {robust.name} knows no weights; remedy: norm-clip, or none")
    if quorum < robust.least:
        raise FieldInvalid(
            f"config.policy.quorum: {quorum}, and {robust.name} needs {robust.least} accepted members; with fewer than "
            f"the quorum a round is void, so the quorum must be at least that"
        )
    if robust.name == "multi-krum" and robust.keep > quorum - robust.tolerates - 2:
        raise FieldInvalid(
            f"{where}.keep: at most the quorum less those tolerated less two, {quorum - robust.tolerates - 2}, "
            f"found {robust.keep}"
        )


def _robust(fields: Fields) -> RobustSpec:
    name = cast(Robust, fields.text("name", one_of=get_args(Robust)))
    numbers = {key: fields.integer(key, 1, MAX_MEMBERS) for key in _numbers(name)}
    fields.done()
    return RobustSpec(name, **numbers)


def _numbers(name: Robust) -> tuple[str, ...]:
    return {"trimmed-mean": ("tolerates",), "multi-krum": ("tolerates", "keep")}.get(name, ())


def _pairs(fields: Fields, key: str, what: str, most: int) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    for pair in fields.array(key, max_items=MAX_MEMBERS):
        if not isinstance(pair, list) or len(pair) != 2 or any(type(item) is not int for item in pair):
            raise FieldInvalid(f"config.aggregation.{key}: expected pairs of member and {what}")
        if not (0 <= pair[0] < MAX_MEMBERS and 1 <= pair[1] <= most):
            raise FieldInvalid(f"config.aggregation.{key}: members are 0-{MAX_MEMBERS - 1}, a {what} is 1-{most}")
        found.append((pair[0], pair[1]))
    if found != sorted(dict(found).items()):
        raise FieldInvalid(f"config.aggregation.{key}: members must be unique and sorted")
    return tuple(found)


def _at_rank(tensor: TensorSpec, rank: int) -> tuple[int, ...]:
    half = half_of(tensor.name)
    if half is None:
        return tensor.shape
    return (rank, *tensor.shape[1:]) if half == "A" else (*tensor.shape[:-1], rank)


def _listed(names: Iterable[str]) -> str:
    return " and ".join(names)
