"""config.json of a base → the sizes of a model that H knows, or a refusal.

Only architectures whose arithmetic H knows to the last detail are taken, with the defaults that transformers gives to
what config.json leaves out. A field that is not known here might change what is computed: it is refused, not ignored.

    ArchitectureUnknown (LocalFault)     H has no program for what this config.json describes
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

from ledger import canonical
from proofs.errors import LocalFault

MAX_DEPTH = 16
MAX_LAYERS = 1024
MAX_SIDE = 1 << 24
MAX_THETA = 1 << 53
LM_HEAD = "lm_head.weight"  # of a language model; beside the model that it is the head of, not in it
THETA = 10_000.0  # where config.json is silent

Shape = tuple[int, ...]

# What does not reach the logits of a frozen model in evaluation: names, training, generation, the head it came with.
_WITHOUT_EFFECT = """
_commit_hash _name_or_path architectures attention_dropout attention_probs_dropout_prob bos_token_id classifier_dropout
directionality dtype eos_token_id finetuning_task gradient_checkpointing hidden_dropout_prob id2label initializer_range
is_llama_config label2id max_length model_type num_labels output_past pad_token_id pooler_fc_size
pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pooler_type pretraining_tp problem_type temperature
tie_word_embeddings top_p torch_dtype transformers.js_config transformers_version unsloth_version use_cache
"""
WITHOUT_EFFECT = frozenset(_WITHOUT_EFFECT.split())
# What would reach them, with the one value that H knows.
EXPECTED: dict[str, Any] = {
    "add_cross_attention": False,
    "chunk_size_feed_forward": 0,
    "is_decoder": False,
    "is_encoder_decoder": False,
    "output_attentions": False,
    "output_hidden_states": False,
    "pruned_heads": {},
}


class ArchitectureUnknown(LocalFault):
    """H has no program for this model; its gradients cannot be proven."""


def _linear(name: str, shape: Shape, bias: bool) -> dict[str, Shape]:
    """A module's tensors; `shape` is (out, in)."""
    return {f"{name}.weight": shape} | ({f"{name}.bias": shape[:1]} if bias else {})


@dataclass(frozen=True)
class Llama:
    """A Llama-like base. tied: as a language model, its head is its embedding; else it has a matrix of its own."""

    vocabulary: int
    hidden: int
    inner: int
    layers: int
    heads: int
    key_heads: int
    head_size: int
    epsilon: Fraction
    theta: Fraction
    attention_bias: bool
    mlp_bias: bool
    tied: bool

    prefix = "model"

    @property
    def head(self) -> dict[str, Shape]:
        """What is there if the base can predict tokens."""
        return {LM_HEAD: (self.vocabulary, self.hidden)}

    @property
    def shapes(self) -> dict[str, Shape]:
        """Every tensor of the base that H uses."""
        hidden, queries, keys = self.hidden, self.heads * self.head_size, self.key_heads * self.head_size
        found: dict[str, Shape] = {
            "model.embed_tokens.weight": (self.vocabulary, hidden),
            "model.norm.weight": (hidden,),
        }
        for at in (f"model.layers.{index}" for index in range(self.layers)):
            found |= {f"{at}.{name}_layernorm.weight": (hidden,) for name in ("input", "post_attention")}
            attention = {"q": (queries, hidden), "k": (keys, hidden), "v": (keys, hidden), "o": (hidden, queries)}
            for name, shape in attention.items():
                found |= _linear(f"{at}.self_attn.{name}_proj", shape, self.attention_bias)
            mlp = {"gate": (self.inner, hidden), "up": (self.inner, hidden), "down": (hidden, self.inner)}
            for name, shape in mlp.items():
                found |= _linear(f"{at}.mlp.{name}_proj", shape, self.mlp_bias)
        return found


@dataclass(frozen=True)
class Bert:
    """A BERT-like base."""

    vocabulary: int
    hidden: int
    inner: int
    layers: int
    heads: int
    places: int
    kinds: int
    epsilon: Fraction

    prefix = "bert"
    head: ClassVar[dict[str, Shape]] = {}

    @property
    def shapes(self) -> dict[str, Shape]:
        """Every tensor of the base that H uses."""
        hidden, at = self.hidden, "bert.embeddings"
        found: dict[str, Shape] = {
            f"{at}.word_embeddings.weight": (self.vocabulary, hidden),
            f"{at}.position_embeddings.weight": (self.places, hidden),
            f"{at}.token_type_embeddings.weight": (self.kinds, hidden),
        }
        square, norms = ["bert.pooler.dense"], ["bert.embeddings.LayerNorm"]
        for at in (f"bert.encoder.layer.{index}" for index in range(self.layers)):
            square += [f"{at}.attention.self.{name}" for name in ("query", "key", "value")]
            square += [f"{at}.attention.output.dense"]
            norms += [f"{at}.attention.output.LayerNorm", f"{at}.output.LayerNorm"]
            found |= _linear(f"{at}.intermediate.dense", (self.inner, hidden), True)
            found |= _linear(f"{at}.output.dense", (hidden, self.inner), True)
        for name in square:
            found |= _linear(name, (hidden, hidden), True)
        return found | {f"{name}.{part}": (hidden,) for name in norms for part in ("weight", "bias")}


Settings = Llama | Bert


def read_settings(data: bytes) -> Settings:
    """The settings that config.json holds. Raises ArchitectureUnknown."""
    try:
        value = canonical.parse(data, MAX_DEPTH, canonical.unique)
    except ValueError as error:
        raise ArchitectureUnknown(f"config.json is not JSON: {str(error)[:200]}") from error
    kinds: dict[str, Callable[[_Fields], Settings]] = {"llama": _llama, "bert": _bert}
    kind = value.get("model_type") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise ArchitectureUnknown(f"no fixed-point program for {_show(kind)}; known: {sorted(kinds)}")
    fields = _Fields(kind, value)
    settings = kinds[kind](fields)
    fields.done()
    return settings


def _llama(fields: _Fields) -> Llama:
    fields.expect("hidden_act", "silu")
    if "rope_interleaved" in fields:
        fields.expect("rope_interleaved", False)
    hidden, heads = fields.integer("hidden_size", 4096), fields.integer("num_attention_heads", 32)
    found = Llama(
        vocabulary=fields.integer("vocab_size", 32000),
        hidden=hidden,
        inner=fields.integer("intermediate_size", 11008),
        layers=fields.integer("num_hidden_layers", 32, MAX_LAYERS),
        heads=heads,
        key_heads=fields.integer("num_key_value_heads", heads, optional=True),
        head_size=fields.integer("head_dim", max(1, hidden // heads), optional=True),
        epsilon=fields.epsilon("rms_norm_eps", 1e-6),
        theta=_theta(fields),
        attention_bias=fields.boolean("attention_bias", False),
        mlp_bias=fields.boolean("mlp_bias", False),
        tied=fields.boolean("tie_word_embeddings", False),
    )
    fields.integer("max_position_embeddings", 2048)
    if hidden % heads or heads % found.key_heads or found.head_size % 2:
        raise ArchitectureUnknown(f"llama with {heads} heads over {found.key_heads} of {found.head_size} for {hidden}")
    return found


def _bert(fields: _Fields) -> Bert:
    fields.expect("hidden_act", "gelu")
    fields.expect("position_embedding_type", "absolute")
    found = Bert(
        vocabulary=fields.integer("vocab_size", 30522),
        hidden=fields.integer("hidden_size", 768),
        inner=fields.integer("intermediate_size", 3072),
        layers=fields.integer("num_hidden_layers", 12, MAX_LAYERS),
        heads=fields.integer("num_attention_heads", 12),
        places=fields.integer("max_position_embeddings", 512),
        kinds=fields.integer("type_vocab_size", 2),
        epsilon=fields.epsilon("layer_norm_eps", 1e-12),
    )
    if found.hidden % found.heads:
        raise ArchitectureUnknown(f"bert with {found.heads} heads for {found.hidden}")
    return found


def _theta(fields: _Fields) -> Fraction:
    """The base of rotary positions: `rope_parameters` since transformers 5, `rope_theta` and `rope_scaling` before."""
    known = {"rope_type": "default", "type": "default"}
    new, old = fields.take("rope_parameters", None) or {}, fields.take("rope_scaling", None) or {}
    outside = fields.take("rope_theta", None)
    if not isinstance(new, dict) or not isinstance(old, dict) or (new and old):
        raise ArchitectureUnknown("rope_parameters and rope_scaling: H takes one of them, and an object")
    rope = dict(new or old)
    thetas = [value for value in (rope.pop("rope_theta", None), outside) if value is not None]
    for name, value in rope.items():
        if name not in known or value != known[name]:
            raise ArchitectureUnknown(
                f"H knows rotary positions of the default kind alone, not {_show(name)} = {_show(value)}"
            )
    if any(value != thetas[0] for value in thetas):
        raise ArchitectureUnknown("rope_theta has two values")
    theta = thetas[0] if thetas else THETA
    if type(theta) not in (int, float) or not 1 <= theta <= MAX_THETA:
        raise ArchitectureUnknown(f"llama with rope_theta = {_show(theta)}")
    return Fraction(theta)


class _Fields:
    """Reader of one config.json: what is taken is known; what is left in the end must be without effect."""

    def __init__(self, kind: str, values: dict[str, Any]) -> None:
        self.kind, self.values = kind, dict(values)
        for name, expected in EXPECTED.items():
            self.expect(name, expected)

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def take(self, name: str, default: Any) -> Any:
        return self.values.pop(name, default)

    def expect(self, name: str, expected: object) -> None:
        """The one value that H knows, which is also the default."""
        found = self.take(name, expected)
        if type(found) is not type(expected) or found != expected:
            raise ArchitectureUnknown(f"{self.kind} with {name} = {_show(found)}; H knows {expected!r}")

    def integer(self, name: str, default: int, most: int = MAX_SIDE, *, optional: bool = False) -> int:
        found = self.take(name, default)
        if found is None and optional:
            return default
        if type(found) is not int or not 1 <= found <= most:
            raise ArchitectureUnknown(f"{self.kind} with {name} = {_show(found)}; H knows 1 to {most}")
        return found

    def boolean(self, name: str, default: bool) -> bool:
        found = self.take(name, default)
        if not isinstance(found, bool):
            raise ArchitectureUnknown(f"{self.kind} with {name} = {_show(found)}; H knows true and false")
        return found

    def epsilon(self, name: str, default: float) -> Fraction:
        found = self.take(name, default)
        if type(found) is not float or not 0 < found < 1:
            raise ArchitectureUnknown(f"{self.kind} with {name} = {_show(found)}; H knows numbers between 0 and 1")
        return Fraction(found)

    def done(self) -> None:
        unknown = sorted(set(self.values) - WITHOUT_EFFECT)
        if unknown:
            raise ArchitectureUnknown(f"{self.kind} with {_show(unknown[0])}, of which H does not know what it does")


def _show(value: object) -> str:
    """A value for people, cut short."""
    return repr(value)[:80]
