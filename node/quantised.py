"""4-bit bases: every Linear layer of the base but the head as ledger.quantise rounds it, run by bitsandbytes.

The codes and scales are computed here by Candor's own rule, the same bits on every machine, and handed to bitsandbytes,
which computes with them on CPUs and GPUs. Embeddings, norms and fused experts stay float32, and so does all arithmetic
between layers: what is saved is memory. A matrix whose rows are not whole blocks stays float32 too: on CPUs,
bitsandbytes 0.50 takes the wrong scales for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ledger.base_files import BaseUnusable
from ledger.quantise import BLOCK, LEVELS, SCALE_BLOCK, SCALE_LEVELS, Quantised, quantise

MISSING = (
    "config.adapter.method: qlora, and a mixture of qlora parents, need the package bitsandbytes; remedy: pip install "
    "'candor[qlora]'"
)


def matrices(model: torch.nn.Module, head: Sequence[str]) -> dict[str, Quantised]:
    """The 4-bit form of every matrix that is rounded, by its name in the model. Raises BaseUnusable."""
    found = {f"{name}.weight": quantise(layer.weight.detach().numpy()) for name, layer in _linears(model, head)}
    if not found:
        raise BaseUnusable(
            f"config.adapter.method: qlora rounds Linear layers of whole blocks of {BLOCK} inputs; this base has none"
        )
    return found


def convert(model: Any, head: Sequence[str], rounded: Mapping[str, Quantised]) -> None:
    """Put 4-bit layers in the place of the Linear ones. Raises BaseUnusable without bitsandbytes."""
    try:
        import bitsandbytes
    except ImportError as error:
        raise BaseUnusable(MISSING) from error
    for name, layer in list(_linears(model, head)):
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, _layer(bitsandbytes, layer, rounded[f"{name}.weight"]))
    model.is_loaded_in_4bit = True  # PEFT asks this


def _linears(model: Any, head: Sequence[str]) -> Iterator[tuple[str, torch.nn.Linear]]:
    kept = [module for module in (model.get_output_embeddings(),) if module is not None]
    for name, module in model.named_modules():
        outside = not any(f".{name}.".startswith(f".{one}.") for one in head) and all(module is not one for one in kept)
        if type(module) is torch.nn.Linear and outside and module.in_features % BLOCK == 0:
            yield name, module


def _layer(bitsandbytes: Any, layer: torch.nn.Linear, rounded: Quantised) -> torch.nn.Module:
    """A frozen bitsandbytes layer that holds these very numbers."""
    state = bitsandbytes.functional.QuantState(
        absmax=torch.from_numpy(rounded.scales),
        shape=torch.Size(rounded.shape),
        code=torch.from_numpy(LEVELS),
        blocksize=BLOCK,
        quant_type="nf4",
        dtype=torch.float32,
        offset=torch.tensor(rounded.offset),
        state2=bitsandbytes.functional.QuantState(
            absmax=torch.from_numpy(rounded.ranges),
            code=torch.from_numpy(SCALE_LEVELS),
            blocksize=SCALE_BLOCK,
            dtype=torch.float32,
        ),
    )
    out, inputs = rounded.shape
    made = bitsandbytes.nn.Linear4bit(
        inputs, out, bias=layer.bias is not None, compute_dtype=torch.float32, quant_type="nf4", device="meta"
    )
    made.weight = bitsandbytes.nn.Params4bit(
        torch.from_numpy(np.ascontiguousarray(rounded.codes).reshape(-1, 1)),
        requires_grad=False,
        quant_state=state,
        blocksize=BLOCK,
        compress_statistics=True,
        quant_type="nf4",
        module=made,
        bnb_quantized=True,
    )
    made.quant_state = state
    made.bias = layer.bias
    made.support_avx512bf16_for_cpu = False  # else it goes over to a bfloat16 kernel without gradients
    module: torch.nn.Module = made.eval().requires_grad_(False)
    return module
