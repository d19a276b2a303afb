"""The config is read strictly, names itself by its digest, and refuses every meaning that a round could not have."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import canonical
from ledger.canonical import FieldInvalid, NotCanonical
from ledger.config import MAX_CONFIG_BYTES, Config, TaskSpec
from ledger.privacy import spend_of

DIGEST = "530300ae73e47a17"  # of the config in conftest.py; a change renames every config on any chain
GRADIENT_DIGEST = "d0d32c4362fbcb46"  # of the one that asks for gradients
LANGUAGE_DIGEST = "d8baf614693c3332"  # of the one of a language model


def edited(config: Config, edit: Callable[[Any], None]) -> bytes:
    value = json.loads(config.encode())
    edit(value)
    return canonical.encode(value)


def at(*path: str | int) -> Callable[[Any, Any], None]:
    """A setter for one place in the JSON."""

    def put(value: Any, new: Any) -> None:
        for key in path[:-1]:
            value = value[key]
        value[path[-1]] = new

    return put


def test_what_was_written_is_read_back(config: Config) -> None:
    assert Config.decode(config.encode()) == config


def test_the_digest_is_the_hash_of_the_bytes(config: Config) -> None:
    assert config.digest == canonical.digest(config.encode())


def test_the_digest_of_a_released_version_stays_as_it_is(config: Config) -> None:
    assert config.digest.hex()[:16] == DIGEST


def test_parameters_are_the_trained_ones_in_order(config: Config) -> None:
    assert [tensor.name.rsplit(".", 2)[-2] for tensor in config.adapter.trained] == [
        "classifier",
        "classifier",
        "lora_B",
    ]
    assert config.adapter.parameters == 2 + 16 + 16


TENSOR = ("adapter", "tensors", 0)
REFUSED: list[tuple[str, Callable[[Any, Any], None], Any]] = [
    ("another kind", at("kind"), "candor/config/2"),
    ("a base digest in upper case", at("base", "digest"), "AB" * 32),
    ("a base that moves the cursor", at("base", "name"), "\x1b[2Jhello"),
    ("a label that moves the cursor", at("task", "labels"), ["a", "\x1b[2J"]),
    ("a tensor of two lines", at("adapter", "tensors", 0, "name"), "a\nb"),
    ("one label", at("task", "labels"), ["only"]),
    ("a label twice", at("task", "labels"), ["a", "a"]),
    ("an empty label", at("task", "labels"), ["a", ""]),
    ("no tokens", at("task", "max_tokens"), 0),
    ("another task", at("task", "kind"), "generation"),
    ("another method", at("adapter", "method"), "dora"),
    ("rank nought", at("adapter", "rank"), 0),
    ("an unsorted tensor", at(*TENSOR, "name"), "zzz"),
    ("a nameless tensor", at(*TENSOR, "name"), ""),
    ("a tensor by the name of the metadata", at(*TENSOR, "name"), "__metadata__"),
    ("a scalar", at(*TENSOR, "shape"), []),
    ("an empty tensor", at(*TENSOR, "shape"), [0]),
    ("a negative side", at(*TENSOR, "shape"), [-2]),
    ("a boolean side", at(*TENSOR, "shape"), [True]),
    ("five dimensions", at(*TENSOR, "shape"), [1, 1, 1, 1, 2]),
    ("more parameters than memory", at(*TENSOR, "shape"), [1 << 26, 1 << 26]),
    ("another role", at(*TENSOR, "role"), "owner"),
    ("no tensors", at("adapter", "tensors"), []),
    ("B frozen", at("adapter", "tensors", 3, "role"), "frozen"),
    ("A trained under ffa", at("adapter", "tensors", 2, "role"), "adapter"),
    ("A frozen under fedavg", at("aggregation", "rule"), "fedavg"),
    ("another rule", at("aggregation", "rule"), "median"),
    ("weights out of order", at("aggregation", "weights"), [[2, 1], [1, 1]]),
    ("a member weighed twice", at("aggregation", "weights"), [[1, 1], [1, 2]]),
    ("a weight of nought", at("aggregation", "weights"), [[1, 0]]),
    ("a weight too large", at("aggregation", "weights"), [[1, 65537]]),
    ("member 256", at("aggregation", "weights"), [[256, 1]]),
    ("a weight that is no pair", at("aggregation", "weights"), [[1, 2, 3]]),
    ("a boolean weight", at("aggregation", "weights"), [[1, True]]),
    ("weights finer than float32", at("weight_bits"), 24),
    ("delta one", at("privacy", "delta"), "1/1"),
    ("delta nought", at("privacy", "delta"), "0/1"),
    ("a clip of nought", at("privacy", "clip_adapter"), "0/1"),
    ("a negative clip", at("privacy", "clip_head"), "-1/2"),
    ("clip_units nought", at("privacy", "clip_units"), 0),
    ("noise beyond the table", at("privacy", "noise_units"), 3501),
    ("no noise without saying insecure", at("privacy", "noise_units"), 0),
    ("insecure with noise", at("privacy", "insecure_no_noise"), True),
    ("insecure as a number", at("privacy", "insecure_no_noise"), 1),
    ("a sampling rate of nought", at("privacy", "sample_threshold"), 0),
    ("a sampling rate above one", at("privacy", "sample_threshold"), (1 << 32) + 1),
    ("sums that could pass 32 bits", at("privacy", "capacity"), 1 << 20),
    ("momentum one", at("optimizer", "momentum"), "1/1"),
    ("beta2 one", at("optimizer", "beta2"), "1/1"),
    ("adamw without epsilon", at("optimizer", "epsilon"), "0/1"),
    ("another optimizer", at("optimizer", "name"), "lion"),
    ("a learning rate as a number", at("optimizer", "learning_rate"), 1),
    ("no steps", at("steps"), 0),
    ("too many steps", at("steps"), 4097),
    ("an expected batch of nought", at("mean_batch"), 0),
    ("another proof policy", at("proof_policy"), "trust-me"),
    ("no quorum", at("policy", "quorum"), 0),
    ("no commit phase", at("policy", "commit_blocks"), 0),
    ("no train phase", at("policy", "train_blocks"), 0),
    ("no verify phase", at("policy", "verify_blocks"), 0),
    ("no propose phase", at("policy", "propose_blocks"), 0),
    ("a phase of 2^32 blocks", at("policy", "train_blocks"), 1 << 32),
    ("proofs without a phase for them", at("policy", "proof_required"), True),
    ("a trajectory beyond a gigabyte", at(*TENSOR, "shape"), [1 << 26]),
]


@pytest.mark.parametrize(("flaw", "put", "value"), REFUSED, ids=[flaw for flaw, _, _ in REFUSED])
def test_a_config_without_a_meaning_is_refused(
    config: Config, flaw: str, put: Callable[[Any, Any], None], value: Any
) -> None:
    with pytest.raises(FieldInvalid):
        Config.decode(edited(config, lambda json_value: put(json_value, value)))


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"noise_units": 0, "insecure_no_noise": True}, "without noise there is no mechanism"),
        ({"clip_units": 4096}, "clip_units from 1 to 2048"),
    ],
)
def test_a_proof_that_nobody_could_make_is_refused_with_the_remedy(
    config: Config, changes: dict[str, Any], cause: str
) -> None:
    asked = replace(config, proof_policy="mechanism", privacy=replace(config.privacy, **changes))
    with pytest.raises(FieldInvalid, match=f"config.proof_policy: .*{cause}.*none"):
        Config.decode(asked.encode())


# ---- gradients


def test_a_config_that_asks_for_gradients_comes_back_and_has_its_own_digest(proving: Config, config: Config) -> None:
    assert Config.decode(proving.encode()) == proving
    assert proving.digest.hex()[:16] == GRADIENT_DIGEST
    assert proving.proven
    assert (proving.openings, config.openings) == (4, 0)


GRADIENTS_REFUSED: list[tuple[str, Callable[[Any, Any], None], Any, str]] = [
    ("no slot", at("gradient", "slots"), 0, "config.gradient.slots"),
    ("too many slots", at("gradient", "slots"), 17, "config.gradient.slots"),
    ("slots as text", at("gradient", "slots"), "4", "config.gradient.slots"),
    ("no tolerance", at("gradient", "tolerance"), 0, "config.gradient.tolerance"),
    ("too much tolerance", at("gradient", "tolerance"), 65, "config.gradient.tolerance"),
    ("nothing said of it", at("gradient"), None, "config.gradient"),
    ("no phase to prove in", at("policy", "proof_required"), False, "config.policy.proof_required"),
    ("a phase without a block", at("policy", "prove_blocks"), 0, "config.policy"),
    ("gradients under the mechanism alone", at("proof_policy"), "mechanism", "gradient"),
    ("gradients where nothing is proven", at("proof_policy"), "none", "gradient"),
]


@pytest.mark.parametrize(("flaw", "put", "value", "named"), GRADIENTS_REFUSED, ids=[f for f, *_ in GRADIENTS_REFUSED])
def test_a_config_whose_gradients_nobody_could_prove_is_refused(
    proving: Config, flaw: str, put: Callable[[Any, Any], None], value: Any, named: str
) -> None:
    with pytest.raises(FieldInvalid, match=named):
        Config.decode(edited(proving, lambda json_value: put(json_value, value)))


def test_a_config_that_asks_for_gradients_says_how_many(proving: Config) -> None:
    with pytest.raises(FieldInvalid, match="gradient"):
        Config.decode(edited(proving, lambda value: value.pop("gradient")))
    with pytest.raises(FieldInvalid, match="gradient"):
        Config.decode(edited(proving, lambda value: value["gradient"].update(another=1)))


@pytest.mark.parametrize("policy", ["none", "mechanism"])
def test_a_prove_phase_is_for_gradients_alone(config: Config, policy: str) -> None:
    asked = replace(config, proof_policy=policy, policy=replace(config.policy, prove_blocks=5, proof_required=True))
    with pytest.raises(FieldInvalid, match=f"exactly under the proof policy gradient, not with {policy}"):
        Config.decode(asked.encode())


def test_the_shape_of_a_config_counts_groups_and_slots(config: Config) -> None:
    """What a proof's sizes follow from: groups in the order adapter, head, and no more slots than rows."""
    shape = config.shape
    assert sum(shape.groups) == config.adapter.parameters
    assert [len(columns) for columns in config.groups.values()] == list(shape.groups)
    assert list(config.groups) == ["adapter", "head"]
    assert shape.slots <= config.privacy.capacity


# ---- next-token


@pytest.fixture(scope="module")
def language(config: Config) -> Config:
    """The same, of a language model: the tensors of the adapter alone."""
    adapter = replace(config.adapter, head=(), tensors=config.adapter.tensors[2:])
    return replace(config, task=TaskSpec((), 64, "next-token"), adapter=adapter)


def test_a_language_model_has_one_clipping_group_and_a_digest_of_its_own(language: Config) -> None:
    assert Config.decode(language.encode()) == language
    assert language.digest.hex()[:16] == LANGUAGE_DIGEST
    assert json.loads(language.encode())["task"] == {"kind": "next-token", "max_tokens": 64}
    assert list(language.groups) == ["adapter"]
    assert language.shape.groups == (16,)
    assert spend_of(language).groups == 1


LANGUAGE_REFUSED: list[tuple[str, Callable[[Any, Any], None], Any, str]] = [
    ("labels", at("task", "labels"), ["a", "b"], "config.task"),
    ("no labels, said in so many words", at("task", "labels"), [], "config.task"),
    ("nothing to predict", at("task", "max_tokens"), 1, "config.task.max_tokens"),
    ("a module of a head", at("adapter", "head"), ["classifier"], "config.adapter.head"),
    ("a tensor of a head", at("adapter", "tensors", 1, "role"), "head", "config.adapter"),
    ("labels wanted after all", at("task", "kind"), "classification", "config.task: missing field .labels"),
]


@pytest.mark.parametrize(("flaw", "put", "value", "named"), LANGUAGE_REFUSED, ids=[f for f, *_ in LANGUAGE_REFUSED])
def test_a_language_model_with_a_head_to_train_is_refused(
    language: Config, flaw: str, put: Callable[[Any, Any], None], value: Any, named: str
) -> None:
    with pytest.raises(FieldInvalid, match=named):
        Config.decode(edited(language, lambda json_value: put(json_value, value)))


def test_every_proof_policy_is_there_for_a_language_model(language: Config, proving: Config) -> None:
    asked = replace(proving, task=language.task, adapter=language.adapter)
    assert Config.decode(asked.encode()).gradient == proving.gradient
    assert Config.decode(replace(language, proof_policy="mechanism").encode()).proven


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [found for key in value for found in [(*path, key), *places(value[key], (*path, key))]]
    if isinstance(value, list):
        return [found for i, item in enumerate(value) for found in places(item, (*path, i))]
    return []


def parent(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        value = value[key]
    return value


def test_every_field_is_needed_and_no_other_is_known(config: Config) -> None:
    value = json.loads(config.encode())
    for path in places(value):
        without = copy.deepcopy(value)
        del parent(without, path)[path[-1]]
        with pytest.raises(FieldInvalid):
            Config.decode(canonical.encode(without))
        extra = copy.deepcopy(value)
        parent(extra, path)["another"] = 1
        with pytest.raises(FieldInvalid):
            Config.decode(canonical.encode(extra))


def test_every_field_is_in_the_digest(config: Config) -> None:
    """Wherever a value can be replaced by another valid one, the digest changes with it."""
    assert Config.decode(edited(config, lambda v: at("privacy", "noise_units")(v, 1501))).digest != config.digest
    assert Config.decode(edited(config, lambda v: at("base", "name")(v, "other"))).digest != config.digest


def test_a_config_that_is_too_large_is_not_parsed() -> None:
    with pytest.raises(NotCanonical, match="bytes"):
        Config.decode(b" " * (MAX_CONFIG_BYTES + 1))


@settings(derandomize=True, max_examples=200, deadline=None)
@given(data=st.data())
def test_a_config_with_any_byte_changed_is_refused_or_has_another_digest(config: Config, data: st.DataObject) -> None:
    original = config.encode()
    changed = bytearray(original)
    changed[data.draw(st.integers(0, len(original) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = Config.decode(bytes(changed))
    except (NotCanonical, FieldInvalid):
        return
    assert found.encode() == bytes(changed)
