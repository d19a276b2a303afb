"""A base's folder is not trusted: every way in which it can lie about its files is refused by name, at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ledger.base_files import MAX_CONFIG_BYTES, MAX_HEADER_BYTES, BaseUnusable, base_digest, read_base

DATA = np.arange(6, dtype="<f4").tobytes() + np.arange(4, dtype="<f4").tobytes()
ENTRIES: dict[str, Any] = {
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "F32", "shape": [4], "data_offsets": [24, 40]},
}
DIGEST = "28c51a43c48ac78d0beb13ab9d442023c5fed584f9f70a799fd2721e9a419cd8"


def stored(header: bytes, data: bytes = DATA) -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def changed(name: str, **fields: object) -> bytes:
    return json.dumps(ENTRIES | {name: ENTRIES[name] | fields}).encode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "model.safetensors").write_bytes(stored(json.dumps(ENTRIES).encode()))
    return tmp_path


def test_tensors_are_found_and_read_exactly(folder: Path) -> None:
    files = read_base(folder)
    assert {name: one.shape for name, one in files.tensors.items()} == {"a": (2, 3), "b": (4,)}
    assert np.array_equal(files.tensors["a"].read(), np.arange(6.0).reshape(2, 3))
    assert files.digest == base_digest(folder)


def test_the_digest_of_a_folder_is_what_it_was_in_the_first_release(folder: Path) -> None:
    assert base_digest(folder).hex() == DIGEST


@pytest.mark.parametrize(("dtype", "numpy"), [("F16", "<f2"), ("BF16", "<u2")])
def test_half_precision_is_read_exactly(folder: Path, dtype: str, numpy: str) -> None:
    values = np.array([1.0, -0.375, 2.0**-7, 100.0], dtype="<f4")
    halves = values.astype("<f2") if dtype == "F16" else (values.view("<u4") >> 16).astype("<u2")
    header = json.dumps({"a": {"dtype": dtype, "shape": [4], "data_offsets": [0, 8]}}).encode()
    (folder / "model.safetensors").write_bytes(stored(header, halves.tobytes()))
    assert read_base(folder).tensors["a"].read().tolist() == values.tolist()


FILES: dict[str, bytes] = {
    "empty": b"",
    "shorter than a length": bytes(7),
    "a header longer than the file": stored(json.dumps(ENTRIES).encode())[:20],
    "a header of 2^63 bytes": (1 << 63).to_bytes(8, "little") + DATA,
    "a header that is too large": stored(b" " * (MAX_HEADER_BYTES + 1)),
    "truncated": stored(json.dumps(ENTRIES).encode(), DATA[:-1]),
    "a byte too many": stored(json.dumps(ENTRIES).encode(), DATA + b"\0"),
    "not JSON": stored(b"{]" * 10),
    "a list": stored(b"[]", b""),
    "not UTF-8": stored(b'{"\xff": 1}', b""),
    "nested very deep": stored(b'{"a":' + b"[" * 2_000_000 + b"]" * 2_000_000 + b"}"),
    "the same name twice": stored(b'{"a": 1, "a": %s}' % json.dumps(ENTRIES["a"]).encode()),
    "a field too many": stored(changed("a", extra=1)),
    "a field too few": stored(json.dumps(ENTRIES | {"a": {"dtype": "F32", "shape": [2, 3]}}).encode()),
    "an entry that is a number": stored(json.dumps(ENTRIES | {"a": 5}).encode()),
    "an unknown dtype": stored(changed("a", dtype="F33")),
    "a dtype that is a list": stored(changed("a", dtype=["F32"])),
    "a dtype of another size": stored(changed("a", dtype="F64")),
    "a shape of another size": stored(changed("a", shape=[2, 2])),
    "a shape whose product wraps": stored(changed("a", shape=[1 << 32, 1 << 32, 6])),
    "a shape of floats": stored(changed("a", shape=[2.0, 3])),
    "a negative shape": stored(changed("a", shape=[-2, -3])),
    "a shape that is an object": stored(changed("a", shape={})),
    "no shape": stored(changed("a", shape=None)),
    "sixty-four sides": stored(changed("a", shape=[1] * 64 + [6])),
    "a gap": stored(changed("b", data_offsets=[28, 44]), DATA + bytes(4)),
    "an overlap": stored(changed("b", data_offsets=[20, 36]), DATA[:-4]),
    "an offset before the data": stored(changed("a", data_offsets=[-24, 0])),
    "an end before the begin": stored(changed("a", data_offsets=[24, 0])),
    "three offsets": stored(changed("a", data_offsets=[0, 12, 24])),
    "a name beyond ASCII": stored(json.dumps({"ä": ENTRIES["a"], "b": ENTRIES["b"]}).encode()),
    "a name that moves the cursor": stored(json.dumps({"\x1b[2J": ENTRIES["a"], "b": ENTRIES["b"]}).encode()),
    "metadata that is a list": stored(json.dumps(ENTRIES | {"__metadata__": []}).encode()),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_not_safetensors_is_refused(folder: Path, name: str) -> None:
    (folder / "model.safetensors").write_bytes(FILES[name])
    with pytest.raises(BaseUnusable, match="not a safetensors file"):
        read_base(folder)


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def config_is_a_folder(folder: Path) -> None:
    no_config(folder)
    (folder / "config.json").mkdir()


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def weights_are_a_folder(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()


def huge_config(folder: Path) -> None:
    (folder / "config.json").write_bytes(b" " * (MAX_CONFIG_BYTES + 1))


def own_code(folder: Path) -> None:
    (folder / "config.json").write_text('{"auto_map": {}}')


def adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


def one_name_in_two_files(folder: Path) -> None:
    (folder / "more.safetensors").write_bytes((folder / "model.safetensors").read_bytes())


def config(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "config.json").write_text(text)

    return write


def index(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "model.safetensors.index.json").write_text(text)

    return write


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (no_config, r"no config\.json"),
        (config_is_a_folder, r"no config\.json"),
        (no_weights, "pickled weights are refused"),
        (weights_are_a_folder, r"no \*\.safetensors"),
        (huge_config, r"config\.json: more than"),
        (own_code, "auto_map"),
        (adapter, "holds an adapter"),
        (one_name_in_two_files, "in two files"),
        (config('{"transformers_weights": "below/other.safetensors"}'), "transformers_weights"),
        (config(r'{"transformers\u005fweights": "below/other.safetensors"}'), "transformers_weights"),
        (index('{"weight_map": {"a": "model.safetensors", "b": "below/other.safetensors"}}'), "no safetensors file of"),
        (index('{"weight_map": {"a": "../other.safetensors"}}'), "no safetensors file of"),
        (index('{"weight_map": ["model.safetensors"]}'), "no index"),
        (index('{"weight_map": {"a": ["model.safetensors"]}}'), "no safetensors file of"),
        (index('{"weight_map": {"a": "model.safetensors"}, "weight_map": {}}'), "the same key twice"),
        (index("[" * 300_000 + "]" * 300_000), "nested more than"),
        (index("[]"), "not a JSON object"),
        (config("{"), r"config\.json: not JSON"),
        (config("[]"), r"config\.json: not a JSON object"),
        (config('{"a": ' + "[" * 400_000 + "]" * 400_000 + "}"), "nested more than"),
    ],
)
def test_a_folder_that_is_no_base_is_refused(folder: Path, change: Callable[[Path], None], message: str) -> None:
    change(folder)
    with pytest.raises(BaseUnusable, match=message):
        read_base(folder)


def test_an_index_of_the_folders_own_files_changes_nothing(folder: Path) -> None:
    before = base_digest(folder)
    index('{"metadata": {}, "weight_map": {"a": "model.safetensors", "b": "model.safetensors"}}')(folder)
    assert base_digest(folder) == before


def test_a_tensor_that_changes_after_its_digest_was_taken_is_refused(folder: Path) -> None:
    files = read_base(folder)
    (folder / "model.safetensors").write_bytes(stored(json.dumps(ENTRIES).encode(), DATA[:-1] + b"\1"))
    assert files.tensors["a"].read().shape == (2, 3)
    with pytest.raises(BaseUnusable, match="changed while"):
        files.tensors["b"].read()


@pytest.mark.parametrize("dtype", ["I32", "U32"])
def test_a_weight_that_is_no_float_is_refused_when_it_is_read(folder: Path, dtype: str) -> None:
    (folder / "model.safetensors").write_bytes(stored(changed("a", dtype=dtype)))
    with pytest.raises(BaseUnusable, match=f"a tensor of {dtype}"):
        read_base(folder).tensors["a"].read()
