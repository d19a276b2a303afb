"""Contributions on a member's disk: what is kept comes back whole, or as damage."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from node.kept import KeptContributions, KeptDamaged
from proofs.errors import LocalFault


def test_what_is_kept_comes_back_and_damage_is_told(tmp_path: Any) -> None:
    kept = KeptContributions(tmp_path / "contributions")
    parts = [np.arange(6, dtype=np.int32).reshape(2, 3) - 3, np.zeros((0, 3), np.int32)]
    assert kept.get("a") is None
    kept.drop_others(None)
    kept.keep("a", parts)
    kept.keep("b", parts[:1])
    found = kept.get("a")
    assert [part.tolist() for part in found] == [part.tolist() for part in parts]
    assert [part.dtype for part in found] == [np.int32, np.int32]
    kept.drop_others("a")
    assert kept.get("b") is None
    (file,) = (tmp_path / "contributions").iterdir()
    whole = file.read_bytes()
    for damage in (b"", b"PK\3\4 broken", whole[:-2], whole + b"\0", whole[:20], b"\x80\x04pickle"):
        file.write_bytes(damage)
        with pytest.raises(KeptDamaged, match="cannot be read"):
            kept.get("a")
    kept.drop_others(None)
    assert os.listdir(tmp_path / "contributions") == []


def test_contributions_too_large_for_any_proof_are_not_kept(tmp_path: Any) -> None:
    with pytest.raises(LocalFault, match="beyond 32767"):
        KeptContributions(tmp_path).keep("a", [np.full((1, 1), 40_000, np.int32)])
