"""Which layers can be adapted with one exact gradient for each example; what else a config asks for is refused here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper

from ledger.base_files import BaseUnusable
from ledger.config import AdapterSpec
from node import experts

LAYERS = ("Linear", "Conv1D", "Linear4bit")
ROUTERS = ("gate", "router")


def check(path: Path, adapted: PeftModel, adapter: AdapterSpec) -> None:
    """Raises BaseUnusable, naming the line of the config and the layer."""
    wrapped = [(name, module) for name, module in adapted.named_modules() if isinstance(module, LoraLayer)]
    for name, module in wrapped:
        if isinstance(module, ParamWrapper) and not _is_target(name, adapter.targets):
            experts.check(path, name, module)
        else:
            _check_layer(path, adapted, name, module)
    for target in adapter.targets:
        if not any(_is_target(name, (target,)) for name, _ in wrapped):
            raise BaseUnusable(f"{path}: config.adapter.targets: no layer is called {target!r}")
    for target in adapter.experts:
        if not any(f".{_parameter(name, module)}".endswith(f".{target}") for name, module in wrapped):
            raise BaseUnusable(f"{path}: config.adapter.experts: no fused experts are called {target!r}")
    for head in adapter.head:
        _check_head(path, adapted, head)


def _is_target(name: str, targets: Sequence[str]) -> bool:
    """As PEFT matches them: a whole name, or its end at a dot."""
    return any(f".{name}".endswith(f".{target}") for target in targets)


def _check_layer(path: Path, adapted: PeftModel, name: str, module: Any) -> None:
    kind, line = type(module.get_base_layer()).__name__, "config.adapter.targets"
    if kind not in LAYERS:
        raise BaseUnusable(f"{path}: {line}: the target {name} is a {kind}; LoRA goes on Linear layers only")
    parent, _, last = name.rpartition(".")
    if last in ROUTERS and hasattr(adapted.get_submodule(parent), "experts"):
        raise BaseUnusable(f"{path}: {line}: the target {name} is a router, which stays frozen")
    _check_untied(path, adapted, line, name)


def _check_head(path: Path, adapted: PeftModel, head: str) -> None:
    """It is there, and made of layers whose gradients are known one by one."""
    line = "config.adapter.head"
    found = [module for name, module in adapted.named_modules() if _is_target(name, (head,))]
    if not found:
        raise BaseUnusable(f"{path}: {line}: no layer is called {head!r}")
    for part in (part for module in found for part in module.modules()):
        if not isinstance(part, torch.nn.Linear) and any(True for _ in part.parameters(recurse=False)):
            raise BaseUnusable(f"{path}: {line}: {head} is made of a {type(part).__name__}; known are Linear layers")
    _check_untied(path, adapted, line, head)


def _check_untied(path: Path, adapted: PeftModel, line: str, name: str) -> None:
    """A matrix that is also another layer's (an embedding's, say) cannot be adapted in one place alone."""
    at = {
        id(parameter): place
        for place, parameter in adapted.named_parameters(remove_duplicate=False)
        if not _within(place, name)
    }
    for place, parameter in adapted.named_parameters(remove_duplicate=False):
        if _within(place, name) and id(parameter) in at:
            raise BaseUnusable(f"{path}: {line}: {name} shares its weights with {at[id(parameter)]}: it is tied")


def _within(place: str, name: str) -> bool:
    return f".{name}." in f".{place}"


def _parameter(name: str, module: torch.nn.Module) -> str:
    """What PEFT's target_parameters call a wrapper: its place in the base, and the parameter."""
    if not isinstance(module, ParamWrapper):
        return ""
    return f"{name.replace('.base_layer', '')}.{module.parameter_name}"
