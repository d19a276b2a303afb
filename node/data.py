"""A member's private rows: a text each, and a label where the task has any, from a JSONL, CSV or Parquet file.

Loading is strict: the first bad row stops it, named by file, line and column, with what to do about it, and never with
the row's content. Rows become canonical bytes in file order; the dataset root commits to them.

    DatasetInvalid (LocalFault)    the file, a column or a row cannot be used
    DatasetTooLarge (LocalFault)   more rows or bytes than the limits, or than the config's public capacity
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ledger import canonical
from proofs.errors import LocalFault

Format = Literal["jsonl", "csv", "parquet"]
Columns = tuple[str, ...]  # of the text, and of the label where there are any

MAX_ROWS = 1 << 20
MAX_FILE_BYTES = 4 << 30
MAX_TEXT_CHARS = 1 << 16


class DatasetInvalid(LocalFault):
    """The member's data file cannot be used as it is."""


class DatasetTooLarge(LocalFault):
    """The member's data is beyond a limit."""


@dataclass(frozen=True)
class Dataset:
    """`rows`: canonical bytes of each row; `texts`; `labels`: positions in config.task.labels, 0 where there are none.

    All in file order.
    """

    rows: list[bytes]
    texts: list[str]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.rows)

    def check_capacity(self, capacity: int) -> None:
        """Rows beyond the public capacity have no committed words, so they could never be drawn."""
        if len(self.rows) > capacity:
            raise DatasetTooLarge(
                f"{len(self.rows)} rows, but the round's config has a capacity of {capacity}; "
                "remedy: keep a sample of the rows, or ask the coordinator for a larger capacity"
            )


def load_dataset(path: Path, kind: str, text_column: str, label_column: str, labels: Sequence[str]) -> Dataset:
    """Read a file whose rows have `text_column` and, where there are labels, `label_column`; others are ignored.

    Raises DatasetInvalid or DatasetTooLarge.
    """
    readers = {"jsonl": _jsonl, "csv": _csv, "parquet": _parquet}
    if kind not in readers:
        raise DatasetInvalid(f"unknown data format {kind!r}; remedy: one of {sorted(readers)}")
    if not path.is_file():
        raise DatasetInvalid(f"{path}: no such file; remedy: set data.path to a readable file")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise DatasetTooLarge(f"{path}: {path.stat().st_size} bytes, at most {MAX_FILE_BYTES} are read")
    columns = (text_column, label_column) if labels else (text_column,)
    _check_columns(columns)
    dataset, index = Dataset([], [], []), {label: i for i, label in enumerate(labels)}
    for where, values in readers[kind](path, columns):
        _add(dataset, index, where, [_text(where, *pair) for pair in zip(columns, values, strict=True)], columns)
    if not dataset.rows:
        raise DatasetInvalid(f"{path}: no rows; remedy: at least one row with {' and '.join(map(repr, columns))}")
    return dataset


def row_bytes(text: str, label: str | None = None) -> bytes:
    """What the dataset root commits to for one row where nothing is proven."""
    return canonical.encode({"kind": "candor/row/1", "text": text} | ({} if label is None else {"label": label}))


def _check_columns(columns: Columns) -> None:
    if "" in columns:
        raise DatasetInvalid("the round's task has labels; remedy: name their column in data.label_column")
    if len(set(columns)) != len(columns):
        raise DatasetInvalid("data.text_column and data.label_column are the same column")


def _add(dataset: Dataset, index: dict[str, int], where: str, row: list[str], columns: Columns) -> None:
    """`row`: a text, and its label where there are any."""
    if len(dataset.rows) >= MAX_ROWS:
        raise DatasetTooLarge(f"{where}: more than {MAX_ROWS} rows")
    if index and row[1] not in index:
        raise DatasetInvalid(
            f"{where}, column {columns[1]!r}: a label that is not one of {list(index)}; "
            "remedy: map your labels to the round's"
        )
    dataset.rows.append(row_bytes(*row))
    dataset.texts.append(row[0])
    dataset.labels.append(index[row[1]] if index else 0)


def _text(where: str, column: str, value: Any) -> str:
    if not isinstance(value, str):
        raise DatasetInvalid(f"{where}, column {column!r}: expected text, found {type(value).__name__}")
    if not value.strip():
        raise DatasetInvalid(f"{where}, column {column!r}: empty; remedy: drop the row or fill it in")
    if len(value) > MAX_TEXT_CHARS:
        raise DatasetTooLarge(f"{where}, column {column!r}: {len(value)} characters, at most {MAX_TEXT_CHARS}")
    if any(0xD800 <= ord(char) < 0xE000 for char in value):
        raise DatasetInvalid(f"{where}, column {column!r}: half of a surrogate pair, which is not text")
    return value


Rows = Iterator[tuple[str, Sequence[Any]]]


def _jsonl(path: Path, columns: Columns) -> Rows:
    for number, line in enumerate(_lines(path), start=1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DatasetInvalid(f"{where}: not JSON; remedy: one object a line") from error
        if not isinstance(row, dict):
            raise DatasetInvalid(f"{where}: expected an object, found {type(row).__name__}")
        yield where, [_column(row, column, where) for column in columns]


def _csv(path: Path, columns: Columns) -> Rows:
    reader = csv.reader(_lines(path), strict=True)
    try:
        header = next(reader, [])
        at = [_position(header, column, path) for column in columns]
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if row and len(row) != len(header):
                raise DatasetInvalid(f"{where}: {len(row)} fields where the header has {len(header)}")
            if row:
                yield where, [row[place] for place in at]
    except csv.Error as error:
        raise DatasetInvalid(f"{path}, line {reader.line_num}: {error}") from error


def _parquet(path: Path, columns: Columns) -> Rows:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for column in columns:
                _position(file.schema_arrow.names, column, path)
            for batch in file.iter_batches(columns=list(columns)):
                for values in zip(*(batch.column(column).to_pylist() for column in columns), strict=True):
                    number += 1
                    yield f"{path}, row {number}", values
    except (pyarrow.ArrowException, OSError) as error:
        raise DatasetInvalid(f"{path}: not a readable Parquet file") from error


def _lines(path: Path) -> Iterator[str]:
    """Lines of UTF-8, with or without a byte-order mark."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from file
    except UnicodeDecodeError as error:
        raise DatasetInvalid(f"{path}: not UTF-8 near byte {error.start}; remedy: save it as UTF-8") from error
    except OSError as error:
        raise DatasetInvalid(f"{path}: cannot be read ({error.strerror})") from error


def _column(row: dict[str, Any], column: str, where: str) -> Any:
    if column not in row:
        raise DatasetInvalid(f"{where}: no column {column!r}; found {sorted(row)[:8]}")
    return row[column]


def _position(names: Sequence[str], column: str, path: Path) -> int:
    if list(names).count(column) != 1:
        raise DatasetInvalid(f"{path}: {list(names).count(column)} columns called {column!r}; found {list(names)[:8]}")
    return list(names).index(column)
