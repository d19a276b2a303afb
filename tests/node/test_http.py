"""What a daemon shows: health, metrics, content; and that it shows nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import requests

from ledger.content import Cid, GatewayStore, Limits, MemoryStore, Serving
from ledger.privacy import INFINITE_MICRO
from ledger.records import Phase
from node.collecting import PeerAnswers
from node.http import AddressTaken, Pages, serve_pages
from node.verifying import Board
from node.watch import Watch

LIMITS = Limits(4, 1024, 4096, 2)


@pytest.fixture
def watch() -> Watch:
    return Watch("node")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def server(watch: Watch, store: MemoryStore) -> Iterator[Serving]:
    with serve_pages(Pages(watch, store), "127.0.0.1", 0) as serving:
        yield serving


def test_health_is_503_until_a_turn_succeeded_and_after_one_failed(server: Serving, watch: Watch) -> None:
    assert requests.get(server.url + "/health", timeout=5).status_code == 503
    watch.beat()
    watch.at(7, 2, Phase.TRAIN)
    watch.step(3, 6)
    answer = requests.get(server.url + "/health", timeout=5)
    assert answer.status_code == 200
    facts = answer.json()
    assert (facts["ok"], facts["round"], facts["phase"], facts["head"]) == (True, 2, "TRAIN", 7)
    assert (facts["step"], facts["steps"]) == (3, 6)
    watch.beat("ChainUnavailable: no answer")
    answer = requests.get(server.url + "/health", timeout=5)
    assert answer.status_code == 503
    assert answer.json()["fault"] == "ChainUnavailable: no answer"


def test_silence_is_ill() -> None:
    watch = Watch("node", stale_s=-1.0)
    watch.beat()
    assert watch.health()["ok"] is False


def test_metrics_are_prometheus_text(server: Serving, watch: Watch) -> None:
    watch.spent(1_500_000)
    watch.at(9, 3, Phase.VERIFY)
    watch.gas(21_000)
    watch.failed("StoreFull")
    watch.ended("FINAL")
    answer = requests.get(server.url + "/metrics", timeout=5)
    assert answer.headers["Content-Type"].startswith("text/plain")
    for line in (
        "candor_epsilon_spent 1.5",
        "candor_round 3.0",
        'candor_phase{phase="VERIFY"} 1.0',
        'candor_phase{phase="TRAIN"} 0.0',
        "candor_gas_total 21000.0",
        'candor_faults_total{fault="StoreFull"} 1.0',
        'candor_rounds_ended_total{outcome="FINAL"} 1.0',
    ):
        assert line in answer.text


def test_infinite_privacy_is_shown_as_such_in_json_too(watch: Watch) -> None:
    watch.spent(INFINITE_MICRO)
    assert json.loads(json.dumps(watch.health()))["epsilon_spent"] == "infinite"


def test_content_is_served_as_by_any_gateway(server: Serving, store: MemoryStore) -> None:
    digest = store.put_directory({"a": b"1"})
    assert GatewayStore([server.url]).get_directory(digest, LIMITS) == {"a": b"1"}
    missing = f"{server.url}/ipfs/{Cid.directory(bytes(32))}?format=car"
    assert requests.get(missing, timeout=5).status_code == 404


def test_what_a_verifier_signed_is_served_to_whoever_asks(watch: Watch, store: MemoryStore) -> None:
    """And read back by an aggregator, which asks a peer no more once it was heard."""
    board = Board()
    with serve_pages(Pages(watch, store, board), "127.0.0.1", 0) as serving:
        answers = PeerAnswers(["http://127.0.0.1:9", serving.url], timeout_s=2.0)
        assert answers.ask("1/00ff/3", ()) == {}
        board.put("1/00ff/3", b"{}")
        assert answers.ask("1/00ff/3", ()) == {serving.url: b"{}"}
        assert answers.ask("1/00ff/3", {serving.url}) == {}
        assert answers.ask("1/00ff/4", ()) == {}
        board.put("1/00ff/3", bytes(5000))
        assert answers.ask("1/00ff/3", ()) == {}, "longer than any record"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/verdict/",
        "/verdict/1/00/1",
        "/verdict/../state",
        "/state/member.sqlite",
        "/ipfs/../state",
        "/health/x",
        "/metrics/",
    ],
)
def test_nothing_else_is_served(path: str, server: Serving) -> None:
    assert requests.get(server.url + path, timeout=5).status_code in (400, 404)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/health", "/metrics", "/ipfs/x", "/verdict/1/00/1"])
def test_it_is_read_only(method: str, path: str, server: Serving) -> None:
    assert requests.request(method, server.url + path, timeout=5).status_code == 405


def test_head_has_the_headers_and_no_body(server: Serving, watch: Watch) -> None:
    watch.beat()
    answer = requests.head(server.url + "/health", timeout=5)
    assert answer.status_code == 200
    assert int(answer.headers["Content-Length"]) > 0
    assert answer.content == b""


def test_an_address_in_use_is_a_clear_error(server: Serving, watch: Watch, store: MemoryStore) -> None:
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(AddressTaken, match=r"http\.listen"):
        serve_pages(Pages(watch, store), "127.0.0.1", port)
