"""Settings: one strict TOML file for each daemon. Unknown, missing and mistyped keys are refused, with key and line.

    [chain]    rpc_url, rounds, confirmations, start_block, max_fee_gwei     both daemons
    [key]      keystore, password_file
    [content]  path, peers, kubo, timeout_s
    [http]     listen
    [state]    path
    [node]     poll_s, device, checkpointing                                 an aggregator has poll_s alone
    [model]    path                                                          an aggregator needs none, see below
    [data]     path, format, text_column; label_column for tasks with labels member only
    [privacy]  max_epsilon, max_delta, insecure_no_noise                     member only
    [coordinator]  config, rounds, voids, global                             aggregator only, optional

An aggregator reads [model] to verify proofs of gradients, in rounds that ask for them; without it, it judges none.

Relative paths are relative to the file that names them.

    SettingsInvalid (LocalFault)
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Literal, cast

from proofs.errors import LocalFault

MAX_SETTINGS_BYTES: Final = 1 << 18
Device = Literal["auto", "cpu", "cuda"]
Format = Literal["jsonl", "csv", "parquet"]


class SettingsInvalid(LocalFault):
    """The settings file cannot be used; the text names the key, its line and what was expected."""


@dataclass(frozen=True)
class ChainSettings:
    """confirmations: blocks that must lie on top of a beacon before privacy is spent on it, and of a transaction
    before it is forgotten. start_block: where the contract was deployed."""

    rpc_url: str
    rounds: bytes
    confirmations: int
    start_block: int
    max_fee_gwei: int


@dataclass(frozen=True)
class KeySettings:
    """Without a password file the password comes from CANDOR_KEY_PASSWORD."""

    keystore: Path
    password_file: Path | None


@dataclass(frozen=True)
class ContentSettings:
    """peers: gateways asked for what is not here. kubo: RPC address of a Kubo that mirrors what we publish, or ""."""

    path: Path
    peers: tuple[str, ...]
    kubo: str
    timeout_s: float


@dataclass(frozen=True)
class HttpSettings:
    host: str
    port: int


@dataclass(frozen=True)
class DataSettings:
    """label_column: "" where there is none, which is enough for the task next-token."""

    path: Path
    format: Format
    text_column: str
    label_column: str


@dataclass(frozen=True)
class PrivacySettings:
    """What this member sells at most, whatever cap the chain says: ε over all rounds together, at any δ up to
    max_delta. insecure_no_noise: take part in rounds without noise, which spend everything at once."""

    max_epsilon: float
    max_delta: Fraction
    insecure_no_noise: bool


@dataclass(frozen=True)
class BaseSettings:
    """What both daemons need."""

    chain: ChainSettings
    key: KeySettings
    content: ContentSettings
    http: HttpSettings
    state: Path
    poll_s: float


@dataclass(frozen=True)
class NodeSettings(BaseSettings):
    """model: a folder, or "package:NAME". checkpointing: compute activations twice, to keep fewer of them."""

    model: str
    data: DataSettings
    privacy: PrivacySettings
    device: Device
    checkpointing: bool = False


@dataclass(frozen=True)
class CoordinatorSettings:
    """Opens rounds with this config until `rounds` of them are Final, or `voids` in a row were void.

    global_bundle: digest of the genesis bundle that the first round starts from. last: the config of the last round,
    where that one has another (ledger/AGGREGATION.md, "What becomes of a stack").
    """

    config: Path
    rounds: int
    voids: int
    global_bundle: bytes
    last: Path | None = None


@dataclass(frozen=True)
class AggregatorSettings(BaseSettings):
    """model: a folder or "package:NAME", to verify proofs of gradients on; "" for none."""

    coordinator: CoordinatorSettings | None
    model: str = ""


def load_node(path: Path) -> NodeSettings:
    """Raises SettingsInvalid."""
    file = SettingsFile(path)
    base = base_settings(file)
    data, node = file.table("data"), file.table("node", required=False)
    settings = NodeSettings(
        **base,
        poll_s=node.number("poll_s", 1.0, least=0.01),
        device=cast(Device, node.choice("device", ("auto", "cpu", "cuda"), "auto")),
        checkpointing=node.flag("checkpointing", False),
        model=model_path(file),
        data=DataSettings(
            data.path("path"),
            cast(Format, data.choice("format", ("jsonl", "csv", "parquet"))),
            data.text("text_column"),
            data.text("label_column", ""),
        ),
        privacy=_privacy(file.table("privacy")),
    )
    file.done()
    return settings


def load_aggregator(path: Path) -> AggregatorSettings:
    """Raises SettingsInvalid."""
    file = SettingsFile(path)
    base = base_settings(file)
    poll_s = file.table("node", required=False).number("poll_s", 1.0, least=0.01)
    model = model_path(file) if file.has("model") else ""
    settings = AggregatorSettings(**base, poll_s=poll_s, coordinator=_coordinator(file), model=model)
    file.done()
    return settings


def base_settings(file: SettingsFile) -> dict[str, Any]:
    chain, key, content = file.table("chain"), file.table("key"), file.table("content")
    return {
        "chain": ChainSettings(
            rpc_url=chain.text("rpc_url"),
            rounds=chain.digits("rounds", 20),
            confirmations=chain.integer("confirmations", 2),
            start_block=chain.integer("start_block", 0),
            max_fee_gwei=chain.integer("max_fee_gwei", 500, least=1),
        ),
        "key": KeySettings(key.path("keystore"), key.path("password_file") if key.has("password_file") else None),
        "content": ContentSettings(
            content.path("path"),
            content.texts("peers"),
            content.text("kubo", ""),
            content.number("timeout_s", 30.0, least=0.1),
        ),
        "http": _http(file.table("http", required=False)),
        "state": file.table("state").path("path"),
    }


def _http(table: SettingsTable) -> HttpSettings:
    host, colon, port = table.text("listen", "127.0.0.1:0").rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise table.fault("listen", 'expected "HOST:PORT"')
    return HttpSettings(host.strip("[]"), int(port))


def model_path(file: SettingsFile) -> str:
    table = file.table("model")
    name = table.text("path")
    return name if name.startswith("package:") else str(file.folder / name)


def _privacy(table: SettingsTable) -> PrivacySettings:
    delta = table.text("max_delta", "1/100000")
    try:
        most = Fraction(delta)
    except (ValueError, ZeroDivisionError) as error:
        raise table.fault("max_delta", 'expected a fraction in quotes, like "1/100000"') from error
    if not 0 < most < 1:
        raise table.fault("max_delta", "expected a fraction between 0 and 1")
    return PrivacySettings(table.number("max_epsilon", least=0.0), most, table.flag("insecure_no_noise", False))


def _coordinator(file: SettingsFile) -> CoordinatorSettings | None:
    if not file.has("coordinator"):
        return None
    table = file.table("coordinator")
    return CoordinatorSettings(
        config=table.path("config"),
        rounds=table.integer("rounds", least=1),
        voids=table.integer("voids", 5, least=1),
        global_bundle=table.digits("global", 32),
        last=table.path("last") if table.has("last") else None,
    )


class SettingsFile:
    """The parsed file; remembers which tables and keys were asked for, so that `done` finds the others."""

    def __init__(self, path: Path) -> None:
        self.path, self.folder = path, path.parent
        self.text = _read(path)
        try:
            self._tables = tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            raise SettingsInvalid(f"{path}: {error}") from error
        self._taken: dict[str, SettingsTable] = {}

    def has(self, name: str) -> bool:
        return name in self._tables

    def table(self, name: str, *, required: bool = True) -> SettingsTable:
        found = self._tables.get(name, None if required else {})
        if found is None:
            raise SettingsInvalid(f"{self.path}: the table [{name}] is missing")
        if not isinstance(found, dict):
            raise SettingsInvalid(f"{self.path}, line {self.line('', name)}: {name} must be a table: [{name}]")
        return self._taken.setdefault(name, SettingsTable(self, name, found))

    def done(self) -> None:
        for name in self._tables:
            if name not in self._taken:
                where = self.line("", name)
                raise SettingsInvalid(f"{self.path}, line {where}: unknown table or key {name!r}")
        for table in self._taken.values():
            table.done()

    def line(self, table: str, key: str) -> int:
        """Where `key` of `table` is written; the table's own line for a table, 1 when it is written otherwise."""
        inside = ""
        for number, line in enumerate(self.text.splitlines(), 1):
            header = re.match(r"\s*\[\s*([\w.-]+)\s*\]", line)
            inside = header[1] if header else inside
            if header and not table and inside == key:
                return number
            if inside == table and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line):
                return number
        return 1


class SettingsTable:
    def __init__(self, file: SettingsFile, name: str, values: dict[str, Any]) -> None:
        self._file, self._name, self._values = file, name, values
        self._taken: set[str] = set()

    def fault(self, key: str, why: str) -> SettingsInvalid:
        where = f"{self._file.path}, line {self._file.line(self._name, key)}"
        return SettingsInvalid(f"{where}: {self._name}.{key}: {why}")

    def has(self, key: str) -> bool:
        return key in self._values

    def done(self) -> None:
        for key in self._values:
            if key not in self._taken:
                raise self.fault(key, f"unknown key; known here are {sorted(self._taken)}")

    def text(self, key: str, default: str | None = None) -> str:
        value = self._take(key, default)
        if not isinstance(value, str) or (default is None and not value):
            raise self.fault(key, "expected text in quotes")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._take(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise self.fault(key, "expected a list of texts")
        return tuple(value)

    def choice(self, key: str, options: tuple[str, ...], default: str | None = None) -> str:
        value = self.text(key, default)
        if value not in options:
            raise self.fault(key, f"expected one of {list(options)}, found {value!r}")
        return value

    def path(self, key: str) -> Path:
        return self._file.folder / self.text(key)

    def digits(self, key: str, size: int) -> bytes:
        """`size` bytes in hex, with or without 0x."""
        value = self.text(key).removeprefix("0x")
        if len(value) != 2 * size or re.search("[^0-9a-fA-F]", value):
            raise self.fault(key, f"expected {size} bytes in hex")
        return bytes.fromhex(value)

    def integer(self, key: str, default: int | None = None, *, least: int = 0, most: int = (1 << 63) - 1) -> int:
        value = self._take(key, default)
        if type(value) is not int or not least <= value <= most:
            bound = f" and at most {most}" if most >> 62 == 0 else ""
            raise self.fault(key, f"expected an integer of at least {least}{bound}")
        return value

    def number(self, key: str, default: float | None = None, *, least: float) -> float:
        value = self._take(key, default)
        if type(value) not in (int, float) or not least <= value < float("inf"):
            raise self.fault(key, f"expected a number of at least {least:g}")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self._take(key, default)
        if type(value) is not bool:
            raise self.fault(key, "expected true or false")
        return value

    def _take(self, key: str, default: Any) -> Any:
        self._taken.add(key)
        value = self._values.get(key, default)
        if value is None:
            raise SettingsInvalid(f"{self._file.path}: the key {self._name}.{key} is missing")
        return value


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_SETTINGS_BYTES:
            raise SettingsInvalid(f"{path}: more than {MAX_SETTINGS_BYTES} bytes of settings")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SettingsInvalid(f"{path}: not UTF-8 near byte {error.start}") from error
    except OSError as error:
        raise SettingsInvalid(f"{path}: {error.strerror}; `init` writes a template") from error
