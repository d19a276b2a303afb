"""Every byte counts: whatever is changed in a bundle, it is refused with a reason, or nothing was changed."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.records import Reason
from ledger.verdict import judge

Honest = Any  # the fixture of conftest.py
PATHS = [
    "adapter_config.json",
    "adapter_model.safetensors",
    "candor/config.json",
    "candor/manifest.json",
    "candor/trajectory.safetensors",
]
BOUNDED = settings(
    derandomize=True, max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def refused(honest: Honest, files: dict[str, bytes]) -> None:
    verdict = judge(honest.facts, files)
    assert verdict.reason >= 16, verdict
    assert verdict.detail


@BOUNDED
@given(path=st.sampled_from(PATHS), place=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
def test_one_changed_byte_is_refused(honest: Honest, path: str, place: float, change: int) -> None:
    files = honest.files
    changed = bytearray(files[path])
    changed[int(place * len(changed))] ^= change
    refused(honest, {**files, path: bytes(changed)})


@BOUNDED
@given(path=st.sampled_from(PATHS[:3]), place=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
def test_one_changed_byte_is_refused_under_a_fitting_manifest_too(
    honest: Honest, path: str, place: float, change: int
) -> None:
    files = honest.files
    changed = bytearray(files[path])
    changed[int(place * len(changed))] ^= change
    refused(honest, honest.sealed({**files, path: bytes(changed)}))


@BOUNDED
@given(place=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
def test_one_changed_byte_of_the_trajectory_is_refused_or_leads_to_the_same_adapter(
    honest: Honest, place: float, change: int
) -> None:
    """A sum changed by less than the grid of the weights can see is another true history of the same adapter."""
    files = honest.files
    changed = bytearray(files[PATHS[4]])
    changed[int(place * len(changed))] ^= change
    verdict = judge(honest.facts, honest.sealed({**files, PATHS[4]: bytes(changed)}))
    if verdict.accepted:
        sums = np.frombuffer(bytes(changed[-honest.trajectory.nbytes :]), dtype="<i4").reshape(honest.trajectory.shape)
        other = honest.retrained(sums.astype(np.int32))
        assert all((other.weights[name] == units).all() for name, units in honest.weights.items())
    else:
        assert verdict.reason >= 16


@BOUNDED
@given(path=st.sampled_from(PATHS), cut=st.integers(1, 400), tail=st.binary(max_size=40), sealed=st.booleans())
def test_cut_short_or_padded_files_are_refused(honest: Honest, path: str, cut: int, tail: bytes, sealed: bool) -> None:
    files = honest.files
    changed = {**files, path: files[path][:-cut] + tail}
    if changed != files:
        refused(honest, honest.sealed(changed) if sealed and path != PATHS[3] else changed)


@BOUNDED
@given(path=st.sampled_from(PATHS), data=st.binary(max_size=300))
def test_random_bytes_are_refused(honest: Honest, path: str, data: bytes) -> None:
    refused(honest, {**honest.files, path: data})


@BOUNDED
@given(st.dictionaries(st.text(max_size=20) | st.sampled_from(PATHS), st.binary(max_size=50), max_size=7))
def test_random_directories_are_refused(honest: Honest, files: dict[str, bytes]) -> None:
    refused(honest, files)


@BOUNDED
@given(one=st.sampled_from(PATHS), other=st.sampled_from(PATHS))
def test_files_in_each_others_place_are_refused(honest: Honest, one: str, other: str) -> None:
    files = honest.files
    swapped = {**files, one: files[other], other: files[one]}
    if one != other:
        refused(honest, swapped)


def test_reasons_in_the_suite_are_the_bundles_own() -> None:
    assert all(reason >= 16 for reason in Reason if reason and not reason.on_chain)
