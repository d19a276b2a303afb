"""config.json of a base: two architectures with their defaults; whatever else it says is refused, not ignored."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import pytest

from ledger.base_settings import ArchitectureUnknown, Bert, Llama, read_settings

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 259,
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "rms_norm_eps": 1e-6,
}
BERT: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 18,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
}


def read(settings: dict[str, Any]) -> Llama | Bert:
    return read_settings(json.dumps(settings).encode())


def test_what_config_json_leaves_out_has_the_defaults_of_transformers() -> None:
    assert read_settings(b'{"model_type": "llama"}') == Llama(
        vocabulary=32000,
        hidden=4096,
        inner=11008,
        layers=32,
        heads=32,
        key_heads=32,
        head_size=128,
        epsilon=Fraction(1e-6),
        theta=Fraction(10000),
        attention_bias=False,
        mlp_bias=False,
        tied=False,
    )
    assert read_settings(b'{"model_type": "bert"}') == Bert(
        vocabulary=30522,
        hidden=768,
        inner=3072,
        layers=12,
        heads=12,
        places=512,
        kinds=2,
        epsilon=Fraction(1e-12),
    )


def test_null_is_a_default_where_transformers_takes_it_for_one() -> None:
    empty = dict.fromkeys(("head_dim", "num_key_value_heads", "rope_parameters", "rope_scaling", "rope_theta"))
    assert read(LLAMA | empty) == read(LLAMA)


@pytest.mark.parametrize(
    "spelling",
    [
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
        {"rope_parameters": {"rope_theta": 500000}},
        {"rope_parameters": {"rope_type": "default"}, "rope_theta": 5e5},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}, "rope_theta": 500000},
        {"rope_theta": 5e5},
        {"rope_theta": 5e5, "rope_scaling": None},
        {"rope_theta": 5e5, "rope_scaling": {"type": "default"}},
        {"rope_theta": 5e5, "rope_scaling": {"rope_type": "default"}},
    ],
)
def test_rotary_positions_have_an_old_and_a_new_spelling(spelling: dict[str, Any]) -> None:
    found = read(LLAMA | spelling)
    assert isinstance(found, Llama)
    assert found.theta == 500000


@pytest.mark.parametrize(
    ("of", "changes"),
    [
        (LLAMA, {"model_type": "gpt2"}),
        (LLAMA, {"model_type": ["llama"]}),
        (LLAMA, {"model_type": None}),
        (LLAMA, {"hidden_act": "gelu"}),
        (LLAMA, {"hidden_act": None}),
        (LLAMA, {"rope_interleaved": True}),
        (LLAMA, {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}),
        (LLAMA, {"rope_parameters": {"rope_type": "default", "factor": 2.0}}),
        (LLAMA, {"rope_parameters": {"rope_type": "default", "factor": None}}),
        (LLAMA, {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}),
        (LLAMA, {"rope_parameters": {"rope_type": "default", "type": "linear"}}),
        (LLAMA, {"rope_parameters": {"full_attention": {"rope_type": "default"}}}),
        (LLAMA, {"rope_parameters": [1]}),
        (LLAMA, {"rope_scaling": {"type": "dynamic", "factor": 2.0}}),
        (LLAMA, {"rope_scaling": {"type": "default"}, "rope_parameters": {"rope_type": "default"}}),
        (LLAMA, {"rope_theta": 1e4, "rope_parameters": {"rope_theta": 2e4}}),
        (LLAMA, {"rope_theta": "1e4"}),
        (LLAMA, {"rope_theta": True}),
        (LLAMA, {"rope_theta": -1.0}),
        (LLAMA, {"rope_theta": float("nan")}),
        (LLAMA, {"rope_theta": float("inf")}),
        (LLAMA, {"rope_theta": 10**400}),
        (LLAMA, {"partial_rotary_factor": 0.5}),
        (LLAMA, {"rms_norm_eps": 0.0}),
        (LLAMA, {"rms_norm_eps": 1}),
        (LLAMA, {"rms_norm_eps": float("nan")}),
        (LLAMA, {"attention_bias": 1}),
        (LLAMA, {"mlp_bias": None}),
        (LLAMA, {"num_hidden_layers": 0}),
        (LLAMA, {"num_hidden_layers": 10**9}),
        (LLAMA, {"num_hidden_layers": 2.0}),
        (LLAMA, {"num_hidden_layers": True}),
        (LLAMA, {"hidden_size": 63}),
        (LLAMA, {"hidden_size": 10**30}),
        (LLAMA, {"hidden_size": -64}),
        (LLAMA, {"num_attention_heads": 128}),
        (LLAMA, {"num_key_value_heads": 3}),
        (LLAMA, {"head_dim": 15}),
        (LLAMA, {"quantization_config": {"quant_method": "bitsandbytes"}}),
        (LLAMA, {"transformers_weights": "other.safetensors"}),
        (LLAMA, {"per_layer_config": {}}),
        (LLAMA, {"layer_types": ["full_attention"]}),
        (LLAMA, {"sliding_window": 128}),
        (LLAMA, {"never heard of": 0}),
        (LLAMA, {"output_attentions": True}),
        (BERT, {"hidden_act": "relu"}),
        (BERT, {"hidden_act": "gelu_new"}),
        (BERT, {"is_decoder": True}),
        (BERT, {"is_decoder": 0}),
        (BERT, {"add_cross_attention": True}),
        (BERT, {"is_encoder_decoder": True}),
        (BERT, {"position_embedding_type": "relative_key"}),
        (BERT, {"chunk_size_feed_forward": 8}),
        (BERT, {"pruned_heads": {"0": [1]}}),
        (BERT, {"layer_norm_eps": None}),
        (BERT, {"type_vocab_size": 0}),
        (BERT, {"num_attention_heads": 5}),
        (BERT, {"embedding_size": 32}),
    ],
)
def test_architectures_that_h_does_not_know_are_refused(of: dict[str, Any], changes: dict[str, Any]) -> None:
    assert read(of)
    with pytest.raises(ArchitectureUnknown):
        read(of | changes)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"5",
        b"null",
        b"{",
        b'{"model_type": "llama", "model_type": "bert"}',
        b'{"model_type": "llama", "architectures": ' + b"[" * 300_000 + b"]" * 300_000 + b"}",
        b'{"model_type": "llama", "vocab_size": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_json_object_with_a_known_model_is_refused(data: bytes) -> None:
    with pytest.raises(ArchitectureUnknown):
        read_settings(data)
