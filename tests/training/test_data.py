"""Rows load strictly: the first bad one is named by place, never by content, and says what to do."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from devnet import notes
from node import data
from node.data import Dataset, DatasetInvalid, DatasetTooLarge, load_dataset

LABELS = ("repay", "watch", "default")
SECRET = "Mrs Smith owes 4711"

Write = Callable[[str, Any], Path]


def load(path: Path, kind: str = "jsonl", text: str = "text", label: str = "label") -> Dataset:
    return load_dataset(path, kind, text, label, LABELS)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def build(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return build


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    lot = notes.members(1, 20, 4)[0]
    notes.write(tmp_path / "notes", lot, kind)  # type: ignore[arg-type]
    found = load(tmp_path / "notes", kind)
    assert found.texts == [note.text for note in lot]
    assert [LABELS[label] for label in found.labels] == [note.label for note in lot]
    assert found.rows[0] == data.row_bytes(lot[0].text, lot[0].label)
    assert len(found) == 20


def test_columns_are_named_by_the_operator_and_others_are_ignored(write: Write) -> None:
    path = write("a", lines({"note": "fine", "class": "watch", "customer": 3}))
    assert load(path, text="note", label="class").labels == [1]


def test_a_byte_order_mark_quotes_and_line_breaks_are_read(write: Write) -> None:
    path = write("a.csv", '\ufefftext,label\r\n"two\nlines, ""quoted""",repay\r\n')
    assert load(path, "csv").texts == ['two\nlines, "quoted"']


def test_a_rows_bytes_tell_text_from_label() -> None:
    assert data.row_bytes("a", "b") == b'{"kind":"candor/row/1","label":"b","text":"a"}'


BAD_ROWS: Sequence[tuple[Any, str]] = [
    ({"text": SECRET}, "no column 'label'"),
    ({"text": SECRET, "label": "REPAY"}, "not one of"),
    ({"text": SECRET, "label": 1}, "expected text, found int"),
    ({"text": "  ", "label": "repay"}, "empty"),
    ({"text": None, "label": "repay"}, "expected text, found NoneType"),
    ({"text": SECRET + "\ud800", "label": "repay"}, "surrogate"),
    ([SECRET], "expected an object"),
]


@pytest.mark.parametrize(("row", "message"), BAD_ROWS)
def test_a_bad_row_is_named_by_line_and_not_quoted(write: Write, row: Any, message: str) -> None:
    path = write("a", lines({"text": "good", "label": "repay"}, row))
    with pytest.raises(DatasetInvalid, match=message) as caught:
        load(path)
    assert "line 2" in str(caught.value)
    assert "4711" not in str(caught.value)


def test_a_line_that_is_not_json_is_named(write: Write) -> None:
    with pytest.raises(DatasetInvalid, match="line 1: not JSON"):
        load(write("a", SECRET))


def test_a_text_that_is_too_long_is_refused(write: Write) -> None:
    with pytest.raises(DatasetTooLarge, match="characters"):
        load(write("a", lines({"text": "x" * (data.MAX_TEXT_CHARS + 1), "label": "repay"})))


def test_too_many_rows_are_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "MAX_ROWS", 2)
    with pytest.raises(DatasetTooLarge, match="line 3: more than 2 rows"):
        load(write("a", lines(*[{"text": "x", "label": "repay"}] * 3)))


def test_a_file_that_is_too_large_is_refused_before_it_is_read(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "MAX_FILE_BYTES", 3)
    with pytest.raises(DatasetTooLarge, match="bytes"):
        load(write("a", "garbage"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,kind\nx,repay\n", "0 columns called 'label'"),
        ("text,label,label\nx,repay,watch\n", "2 columns called 'label'"),
        ("text,label\nx\n", "1 fields where the header has 2"),
        ("text,label\nx,repay,more\n", "3 fields"),
        ('text,label\n"x,repay\n', "line 2"),
        ("", "0 columns"),
        ("text,label\n", "no rows"),
    ],
)
def test_a_bad_csv_is_refused(write: Write, content: str, message: str) -> None:
    with pytest.raises(DatasetInvalid, match=message):
        load(write("a.csv", content), "csv")


def test_a_bad_parquet_is_refused(write: Write, tmp_path: Path) -> None:
    with pytest.raises(DatasetInvalid, match="not a readable Parquet"):
        load(write("a.parquet", "PAR1 not really PAR1"), "parquet")
    pyarrow.parquet.write_table(pyarrow.table({"text": ["x", None], "label": ["repay", "watch"]}), tmp_path / "b")
    with pytest.raises(DatasetInvalid, match="row 2, column 'text'"):
        load(tmp_path / "b", "parquet")
    with pytest.raises(DatasetInvalid, match="0 columns called 'note'"):
        load(tmp_path / "b", "parquet", text="note")


def test_text_that_is_not_utf8_is_refused(write: Write) -> None:
    with pytest.raises(DatasetInvalid, match="UTF-8"):
        load(write("a", b'{"text": "\xff", "label": "repay"}\n'))


def test_missing_files_unknown_formats_and_one_column_for_both_are_refused(write: Write, tmp_path: Path) -> None:
    with pytest.raises(DatasetInvalid, match="no such file"):
        load(tmp_path / "nothing")
    path = write("a", lines({"text": "x", "label": "repay"}))
    with pytest.raises(DatasetInvalid, match="unknown data format"):
        load(path, "xml")
    with pytest.raises(DatasetInvalid, match="same column"):
        load(path, text="label")


def test_more_rows_than_the_capacity_are_refused_with_a_remedy(write: Write) -> None:
    dataset = load(write("a", lines(*[{"text": "x", "label": "repay"}] * 3)))
    dataset.check_capacity(3)
    with pytest.raises(DatasetTooLarge, match="remedy"):
        dataset.check_capacity(2)


# ---- the task next-token: texts alone


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_without_labels_one_column_is_enough(tmp_path: Path, kind: str) -> None:
    lot = notes.members(1, 5, 4)[0]
    notes.write(tmp_path / "notes", lot, kind)  # type: ignore[arg-type]
    for column in ("", "label", "no such column", "text"):
        found = load_dataset(tmp_path / "notes", kind, "text", column, ())
        assert found.texts == [note.text for note in lot]
        assert found.labels == [0] * 5
        assert found.rows[0] == data.row_bytes(lot[0].text) != data.row_bytes(lot[0].text, lot[0].label)


def test_with_labels_their_column_must_be_named(write: Write) -> None:
    with pytest.raises(DatasetInvalid, match=r"remedy: name their column in data\.label_column"):
        load(write("a", lines({"text": "x", "label": "repay"})), label="")
