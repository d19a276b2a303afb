"""The program from a folder has the weights that transformers loads from it, however they are written down."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForSequenceClassification, BertModel, LlamaConfig, LlamaForCausalLM, LlamaModel

from devnet.presets import MINILM, TINY, Preset, make_config
from ledger.base_files import BaseMismatch, BaseUnusable
from ledger.base_program import Base, IterateMisfit, at_fraction, quantise
from ledger.base_settings import ArchitectureUnknown
from ledger.config import Config
from ledger.records import Policy
from ledger.tensors import Weights
from node.model import LoadedModel, attach, genesis, layout, load_base, resolve
from proofs.gradient.matrix import Matrix
from proofs.gradient.numbers import Value
from proofs.gradient.program import Linear, Norm, Program

TINY_FOLDER = Path(TINY.base_path)
POLICY = Policy(1, 1, 1, 1, 1, 1, 1, False, 1)
# Of every integer of the program at genesis; made when the program still came from torch's parameters.
GOLDEN = {
    "tiny": "127cb613c92785d5c947c7dce55569e8ec87661cc44a3a9b11e91b7654d26607",
    "minilm": "763863b8121a954986c3c729bef6480006bf23cf1b5836380307ad1520d05708",
}
SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40}
Folder = Callable[..., Path]
Build = Callable[..., Config]


def integers(part: object) -> Iterator[Matrix | Value]:
    """Every matrix and vector of a program, in the order of its fields."""
    if isinstance(part, Matrix | Value):
        yield part
    elif isinstance(part, tuple):
        for item in part:
            yield from integers(item)
    elif hasattr(part, "__dataclass_fields__"):
        for name in part.__dataclass_fields__:
            yield from integers(getattr(part, name))


def digest(program: Program) -> str:
    hasher = sha256()
    for one in integers(program):
        assert one.units.dtype == np.int64
        hasher.update(repr((type(one).__name__, one.units.shape, one.fraction)).encode())
        hasher.update(one.units.astype("<i8").tobytes())
    return hasher.hexdigest()


@pytest.mark.parametrize("preset", [TINY, MINILM], ids=["tiny", "minilm"])
def test_the_presets_programs_are_what_they_were(preset: Preset) -> None:
    config, weights = make_config(preset, epsilon=8.0, rounds=1, policy=POLICY)
    assert digest(Base.open(resolve(preset.base_path)).program(config, weights)) == GOLDEN[preset.name]


@pytest.fixture
def save(bert_folder: Path, tmp_path: Path) -> Folder:
    """save(model): a folder with a model's random weights, and a tokenizer."""

    def build(model: Any, **options: object) -> Path:
        kind = model.config.model_type
        torch.manual_seed(11)
        for parameter in model.parameters():
            parameter.data.normal_(0.0, 0.3)
        folder = tmp_path / kind
        shutil.copytree(bert_folder if kind == "bert" else TINY_FOLDER, folder)
        (folder / "model.safetensors").unlink()
        model.save_pretrained(folder, **options)
        return folder

    return build


def llama(**settings: object) -> Any:
    return LlamaModel(LlamaConfig(vocab_size=259, pad_token_id=0, **SIZES, **settings))


def bert(**settings: object) -> Any:
    return BertModel(BertConfig(vocab_size=18, max_position_embeddings=32, **SIZES, **settings))


def rewrite(folder: Path, change: Callable[[str, torch.Tensor], tuple[str, torch.Tensor]]) -> Path:
    tensors = dict(change(name, tensor) for name, tensor in load_file(folder / "model.safetensors").items())
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def edit(folder: Path, **fields: object) -> Path:
    """config.json with other fields; None takes one out."""
    settings = json.loads((folder / "config.json").read_text()) | fields
    settings = {name: value for name, value in settings.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def to_tensorflow(name: str, tensor: torch.Tensor) -> tuple[str, torch.Tensor]:
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"), tensor


def in_bert(name: str, tensor: torch.Tensor) -> tuple[str, torch.Tensor]:
    return f"bert.{name}", tensor


FORMS: dict[str, Callable[[Folder], Path]] = {
    "llama": lambda save: save(llama()),
    "llama with a head": lambda save: save(LlamaForCausalLM(llama().config)),
    "llama with fewer keys": lambda save: save(llama(num_key_value_heads=2)),
    "llama with a head size": lambda save: save(llama(head_dim=10)),
    "llama with biases": lambda save: save(llama(attention_bias=True, mlp_bias=True)),
    "llama whose biases are not used": lambda save: edit(save(llama(attention_bias=True)), attention_bias=False),
    "llama in parts": lambda save: save(llama(), max_shard_size="20KB"),
    "llama in bfloat16": lambda save: save(llama().to(torch.bfloat16)),
    "llama in float16": lambda save: save(llama().to(torch.float16)),
    "llama before transformers 5": lambda save: edit(
        save(llama()), rope_parameters=None, rope_theta=500000.0, torch_dtype="float32", dtype=None
    ),
    "llama without what is default": lambda save: edit(
        save(llama()), rope_parameters=None, head_dim=None, num_key_value_heads=None, hidden_act=None, rms_norm_eps=None
    ),
    "bert": lambda save: save(bert()),
    "bert with a head": lambda save: save(BertForSequenceClassification(bert().config)),
    "bert from tensorflow": lambda save: rewrite(save(bert()), to_tensorflow),
    "bert from tensorflow with its prefix": lambda save: rewrite(rewrite(save(bert()), to_tensorflow), in_bert),
    "bert without what is default": lambda save: edit(save(bert()), hidden_act=None, layer_norm_eps=None),
}


def loaded(folder: Path, config_for: Build, kind: str) -> tuple[LoadedModel, Weights]:
    """What transformers and PEFT make of a folder."""
    base, config = load_base(str(folder)), config_for(kind)
    spec = config.adapter
    tensors = layout(base, rank=2, alpha=4, targets=spec.targets, head=spec.head, labels=3, rule="ffa")
    config = replace(config, base_digest=base.digest, adapter=replace(spec, tensors=tensors))
    return attach(base, config), genesis(tensors, config.weight_bits, "test")


@pytest.mark.parametrize("form", FORMS)
def test_the_weights_are_those_that_transformers_loads(save: Folder, config_for: Build, form: str) -> None:
    folder = FORMS[form](save)
    model, weights = loaded(folder, config_for, form.partition(" ")[0])
    program, tensors = Base.open(folder).program(model.config, weights), by_torch(model)
    settings = model.module.get_base_model().config
    assert len(list(folder.glob("*.safetensors"))) == (1 if "parts" not in form else 4)
    assert check_all(program, tensors) == {name for name in tensors if ".lora_" not in name}
    attention = program.layers[0].attention
    assert attention.heads == settings.num_attention_heads
    if settings.model_type == "llama":
        assert (attention.key_heads, attention.size) == (settings.num_key_value_heads, settings.head_dim)
        assert attention.theta == settings.rope_parameters["rope_theta"]
        assert program.layers[0].mlp_norm.epsilon == settings.rms_norm_eps
    else:
        assert program.layers[0].mlp_norm.epsilon == settings.layer_norm_eps


def by_torch(model: LoadedModel) -> dict[str, np.ndarray[Any, Any]]:
    return {
        name.removeprefix("base_model.model.").replace(".base_layer.", "."): parameter.detach().double().numpy()
        for name, parameter in model.module.named_parameters()
        if ".modules_to_save." not in name and ".original_module." not in name
    }


def check_all(program: Program, tensors: dict[str, np.ndarray[Any, Any]]) -> set[str]:
    """The names of torch's tensors, each of which was found in the program."""
    seen: set[str] = set()

    def same(found: Matrix | Value, name: str, fraction: int | None) -> None:
        tensor = tensors[name]
        expected = quantise(tensor, 16) if fraction is None else Matrix(at_fraction(tensor, fraction), fraction)
        assert found.fraction == expected.fraction, name
        assert np.array_equal(found.units, expected.units), name
        seen.add(name)

    def module(part: Linear | Norm) -> None:
        first, second = (part.weight, part.bias) if isinstance(part, Linear) else (part.gain, part.shift)
        same(first, f"{part.name}.weight", None)
        assert (second is None) == (f"{part.name}.bias" not in tensors)
        if second is not None:
            same(second, f"{part.name}.bias", 14)

    for layer in program.layers:
        for part in (*layer.linears(), layer.attention_norm, layer.mlp_norm):
            module(part)
    for part in (program.embedding_norm, program.final_norm, program.head.pooler):
        if part is not None:
            module(part)
    if program.positions is None:
        same(program.embedding, "model.embed_tokens.weight", 12)
    else:
        at = "bert.embeddings"
        same(program.embedding, f"{at}.word_embeddings.weight", 14)
        rows, kinds = (at_fraction(tensors[f"{at}.{one}_embeddings.weight"], 14) for one in ("position", "token_type"))
        assert np.array_equal(program.positions.units, rows + kinds[0])
        seen |= {f"{at}.position_embeddings.weight", f"{at}.token_type_embeddings.weight"}
    return seen


@pytest.fixture
def tiny(tmp_path: Path) -> tuple[Path, Config, Weights]:
    """A copy of the tiny base, to be changed; a config and weights of its own."""
    config, weights = make_config(TINY, epsilon=8.0, rounds=1, policy=POLICY)
    return Path(shutil.copytree(TINY_FOLDER, tmp_path / "tiny")), config, weights


def test_the_programs_of_two_iterates_share_the_base(tiny: tuple[Path, Config, Weights]) -> None:
    folder, config, weights = tiny
    base = Base.open(folder)
    first, second = base.program(config, weights), base.program(config, {n: u + 1 for n, u in weights.items()})
    assert first.embedding is second.embedding
    for one, other in zip(first.layers, second.layers, strict=True):
        for left, right in zip(one.linears(), other.linears(), strict=True):
            assert left.weight is right.weight
    assert not np.array_equal(first.head.classifier.weight.units, second.head.classifier.weight.units)


def test_another_base_than_the_configs_is_refused(tiny: tuple[Path, Config, Weights]) -> None:
    folder, config, weights = tiny
    other = Base.open(edit(folder, rms_norm_eps=1e-5))
    with pytest.raises(BaseMismatch, match=config.base_digest.hex()):
        other.program(config, weights)


def drop(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors")


def transpose(folder: Path) -> None:
    rewrite(folder, lambda name, one: (name, one.T.contiguous() if "down_proj" in name else one))


def double(folder: Path) -> None:
    rewrite(folder, lambda name, one: (name, one.double()))


def bytes_for_weights(folder: Path) -> None:
    rewrite(folder, lambda name, one: (name, one.to(torch.int8)))


def twice(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({"norm.weight": tensors["model.norm.weight"]}, folder / "more.safetensors")


def another_size(folder: Path) -> None:
    edit(folder, num_hidden_layers=3)


def many_layers(folder: Path) -> None:
    edit(folder, num_hidden_layers=1024)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, r"model\.norm\.weight is not in the weights"),
        (transpose, r"is F32 of \(176, 64\); config\.json implies \(64, 176\)"),
        (double, "is F64"),
        (bytes_for_weights, "is I8"),
        (twice, r"two tensors for model\.norm\.weight"),
        (another_size, r"layers\.2\..* is not in the weights"),
        (many_layers, "is not in the weights"),
    ],
)
def test_weights_that_are_not_the_models_are_refused_before_any_is_read(
    tiny: tuple[Path, Config, Weights], change: Callable[[Path], None], message: str
) -> None:
    folder, _, _ = tiny
    change(folder)
    with pytest.raises(BaseUnusable, match=message):
        Base.open(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight"])
def test_a_weight_that_is_no_number_is_refused(tiny: tuple[Path, Config, Weights], name: str, value: float) -> None:
    folder, config, weights = tiny

    def spoil(found: str, tensor: torch.Tensor) -> tuple[str, torch.Tensor]:
        if found == name:
            tensor[1, 2] = value
        return found, tensor

    base = Base.open(rewrite(folder, spoil))
    if value == 3e38 and "embed" not in name:  # a matrix has a scale of its own
        assert base.program(replace(config, base_digest=base.digest), weights).layers
        return
    with pytest.raises(ArchitectureUnknown, match=r"NaN or infinite|above"):
        base.program(replace(config, base_digest=base.digest), weights)


def test_a_weight_that_changes_after_the_digest_was_taken_is_refused(tiny: tuple[Path, Config, Weights]) -> None:
    folder, config, weights = tiny
    base = Base.open(folder)
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(BaseUnusable, match="changed while"):
        base.program(config, weights)


@pytest.mark.parametrize("change", ["missing", "shape", "dtype"])
def test_an_iterate_that_is_not_the_configs_is_refused(tiny: tuple[Path, Config, Weights], change: str) -> None:
    folder, config, weights = tiny
    name = next(name for name in weights if name.endswith("lora_B.weight"))
    if change == "missing":
        del weights[name]
    else:
        weights[name] = weights[name].T if change == "shape" else weights[name].astype(np.float64)
    with pytest.raises(IterateMisfit, match="lora_B"):
        Base.open(folder).program(config, weights)


def test_a_tensor_without_a_place_in_the_program_is_refused(tiny: tuple[Path, Config, Weights]) -> None:
    folder, config, weights = tiny
    stray = weights | {"base_model.model.model.norm.lora_A.weight": np.zeros((2, 2), dtype=np.int64)}
    with pytest.raises(ArchitectureUnknown, match="does not use"):
        Base.open(folder).program(config, stray)


def test_an_adapter_of_another_shape_than_the_bases_is_refused(tiny: tuple[Path, Config, Weights]) -> None:
    """The config may list any shape; what it says of the base is checked against the base."""
    folder, config, weights = tiny
    name = next(name for name in weights if name.endswith("lora_A.weight"))
    wider = tuple(replace(one, shape=(one.shape[0], 65)) if one.name == name else one for one in config.adapter.tensors)
    config = replace(config, adapter=replace(config.adapter, tensors=wider))
    weights[name] = np.zeros((weights[name].shape[0], 65), dtype=np.int64)
    with pytest.raises(ArchitectureUnknown, match="65"):
        Base.open(folder).program(config, weights)


def test_quantised_weights_are_nearest_and_fill_their_bits() -> None:
    for largest in (0.49, 0.5, 1.0, 7.9, 0.99999):
        values = np.linspace(-largest, largest, 101)
        matrix = quantise(values, 16)
        assert 1 << 13 <= np.abs(matrix.units).max() < 1 << 15
        assert np.abs(matrix.units * 2.0**-matrix.fraction - values).max() <= 2.0 ** (-matrix.fraction - 1)
    with pytest.raises(ArchitectureUnknown):
        quantise(np.array([1.0, float("nan")]), 16)


def test_an_auditor_builds_the_program_without_a_model_library(tmp_path: Path) -> None:
    """Seen in a process of its own, which has the config as bytes and the folder."""
    config, weights = make_config(TINY, epsilon=8.0, rounds=1, policy=POLICY)
    (tmp_path / "config").write_bytes(config.encode())
    np.savez(tmp_path / "weights.npz", **weights)  # type: ignore[arg-type]
    program = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from ledger.base_program import Base; from ledger.config import Config\n"
        "config = Config.decode(Path(sys.argv[1], 'config').read_bytes())\n"
        "weights = dict(np.load(Path(sys.argv[1], 'weights.npz')))\n"
        "assert Base.open(Path(sys.argv[2])).program(config, weights).layers\n"
        "print('\\n'.join({name.partition('.')[0] for name in sys.modules}))"
    )
    command = [sys.executable, "-c", program, str(tmp_path), str(TINY_FOLDER)]
    loaded = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert {"ledger", "proofs", "numpy"} <= loaded
    unwanted = {"torch", "transformers", "peft", "safetensors", "tokenizers", "opacus", "node", "devnet", "numba"}
    assert loaded & unwanted == set()
