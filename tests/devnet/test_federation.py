"""A federation of real processes: every kind of dishonest member acts in its turn, and every one is found out.

One run for all of the tests below. Two honest members and five dishonest ones, two aggregators of which the first lies
in two rounds and sleeps in a third; the honest finish all the same. All seven verify, and five signatures are needed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from devnet.anvil import Anvil, AnvilOptions
from devnet.federation import CHAIN_ID, Federation, Plan, door
from devnet.kinds import KINDS
from devnet.presets import TINY
from devnet.scenarios import audit, follow, running
from devnet.serving import Served, serve_and_audit
from ledger.audit import why
from ledger.audit_open import open_contents
from ledger.evm import EvmChain
from ledger.quorum import check_signed
from ledger.records import Phase, Policy, Reason, VoidReason
from ledger.round_state import RoundState
from node.memory import MemberMemory
from node.privacy_ledger import PrivacyLedger
from node.recompute import round_key
from node.service import MEMBER, PRIVACY
from proofs.words import Binding, SecretWords

pytestmark = [pytest.mark.anvil, pytest.mark.timeout(900)]

SMALL = replace(TINY, steps=2, rows=64, capacity=64, mean_batch=16, held_out=30, gradient=None)
POLICY = Policy(
    commit_blocks=240, train_blocks=45, prove_blocks=0, verify_blocks=20, propose_blocks=16, challenge_blocks=8,
    quorum=2, proof_required=False, verifier_quorum=5,
)  # fmt: skip
# round → what the five dishonest members do; the ones that make others wait for a deadline share a round
SCHEDULE = {
    1: ("vanish", "late", "unavailable", "over-cap", "no-noise"),
    2: ("half-noise", "nan", "missing-key", "pickle", "understate-epsilon"),
    3: ("wrong-shape", "extra-key", "zip-bomb", "path-escape", "extra-file"),
    4: ("wrong-dtype", "mutated-config", "frozen-changed", "foreign-round", "foreign-chain"),
    5: ("equivocate", "off-grid", "wrong-trajectory", "false-objection", "false-verdict"),
    6: ("off-by-one", "over-clip", "other-words", "stale-proof", "broken-proof"),
    7: ("no-proof",),
}
SLEEPS, TAMPERS, LIES, LAST = 2, 4, 6, 7
HONEST = ("node-0", "node-1")
CASES = [(number, 2 + place, kind) for number, kinds in SCHEDULE.items() for place, kind in enumerate(kinds)]


def plan_for(folder: Path) -> Plan:
    dishonest = {
        f"node-{2 + place}": tuple(
            f"{kind}@{number}" for number, kinds in SCHEDULE.items() for kind in kinds[place:][:1]
        )
        for place in range(5)
    }
    liar = (f"sleeps@{SLEEPS}", f"tampered-aggregate@{TAMPERS}", f"wrong-verdict@{LIES}")
    return Plan(
        SMALL, folder, POLICY, nodes=7, aggregators=2, rounds=6, spare_rounds=1,
        misbehave=dishonest | {"aggregator-0": liar},
    )  # fmt: skip


@dataclass(frozen=True)
class Story:
    """What is left when the daemons are gone: the chain, the stores, and what was seen."""

    federation: Federation
    chain: EvmChain
    states: dict[int, RoundState]
    lines: list[str]
    report: dict[str, object]
    audit_status: int
    served: Served


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Everything that is asked below is asked after the run, of chain and content; only anvil is still there."""
    folder, lines = tmp_path_factory.mktemp("federation"), []
    with running(plan_for(folder)) as run:
        follow(run, lambda new, watch: lines.extend(new), timeout_s=600)
        served = serve_and_audit(run.federation, run.supervisor, lines.append)
        run.supervisor.stop_all()
        printed = audit(run.federation, as_json=True)
        run.federation.anvil.save()
        chain = run.federation.chain()
        report, states = json.loads(printed.stdout), dict(run.watch.rounds)
        yield Story(run.federation, chain, states, lines, report, printed.returncode, served)


def test_what_is_final_is_served_and_its_answers_pass_their_audit(story: Story) -> None:
    """With the bundle of the last round; and history is not rewritten by the owner of the key."""
    assert set(story.served.audits.values()) == {0}, story.lines
    assert (len(story.served.answers), story.served.refused) == (3, "ProofMismatch")
    last = max(number for number, state in story.states.items() if state.finalised)
    final = story.states[last].finalised
    assert final is not None
    assert any(final.aggregate_bundle.hex()[:10] in line for line in story.lines if "candor-serve" in line)


def status_of(story: Story, number: int, link: str) -> str:
    """PASS, FAIL or NOT PROVEN of one link of one round, from the audit's JSON."""
    rounds = {report["round"]: report for report in story.report["rounds"]}  # type: ignore[attr-defined, union-attr]
    return next(str(item["status"]) for item in rounds[number]["links"] if item["link"] == link)


def verdicts_of(report: dict[str, object]) -> list[object]:
    """The report without its texts, which name the folders that were asked for what nobody has."""
    return [
        (found["round"], found["outcome"], [(link["link"], link["status"], link["missing"]) for link in found["links"]])
        for found in report["rounds"]  # type: ignore[attr-defined]
    ]


def test_every_kind_of_dishonest_member_acts_in_the_schedule() -> None:
    scheduled = {kind for kinds in SCHEDULE.values() for kind in kinds}
    assert scheduled == {name for name, kind in KINDS.items() if kind.role == "node" and not kind.in_prove}


def test_the_honest_are_accepted_in_every_round_with_honest_verdicts(story: Story) -> None:
    for number, state in story.states.items():
        assert {0, 1} <= set(state.accepted), f"round {number}"


@pytest.mark.parametrize(("number", "member", "kind"), CASES)
def test_a_dishonest_member_is_left_out_for_what_it_did(number: int, member: int, kind: str, story: Story) -> None:
    assert Reason(story.states[number].reasons[member]) is KINDS[kind].reason


@pytest.mark.parametrize(("number", "member", "kind"), CASES)
def test_why_re_runs_the_reason(number: int, member: int, kind: str, story: Story) -> None:
    """From chain and content alone. What the chain itself shows, or time has changed, has nothing to agree with."""
    contents = open_contents(tuple(str(site.content) for site in story.federation.sites))
    finding = why(story.chain, contents, round_number=number, member=member).finding
    assert finding.found.reason is KINDS[kind].reason
    assert finding.agrees is (None if finding.found.reason is Reason.UNAVAILABLE else True)


def test_the_command_tells_why(story: Story) -> None:
    command = [door("candor-audit"), "why", "--member", "3", "--round", "2", *story.federation.audit_arguments()]
    told = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert told.returncode == 0
    assert "OFF_GRID" in told.stdout


def test_a_sleeping_aggregator_is_stood_in_for(story: Story) -> None:
    state, stand_in = story.states[SLEEPS], story.federation.aggregators[1].key.address
    assert state.verdicts is not None
    assert state.proposal is not None
    assert {state.verdicts.aggregator, state.proposal.aggregator} == {stand_in}
    assert state.phase is Phase.FINAL


def test_members_void_the_round_of_an_aggregator_that_averages_wrongly(story: Story) -> None:
    voided = story.states[TAMPERS].voided
    assert voided is not None
    assert voided.reason is VoidReason.DISPUTED


def test_verdicts_that_the_quorum_did_not_sign_are_refused_and_another_aggregator_posts_its_own(story: Story) -> None:
    state, (liar, honest) = story.states[LIES], story.federation.aggregators
    assert state.verdicts is not None
    assert state.verdicts.aggregator == honest.key.address
    assert state.phase is Phase.FINAL
    assert "BadQuorumSignature" in (liar.folder / "log.txt").read_text()


def test_every_verdict_has_a_quorum_behind_it(story: Story) -> None:
    for state in story.states.values():
        assert state.verdicts is not None
        assert len(state.verdicts.signed.members) >= POLICY.verifier_quorum
        check_signed(state)


def test_a_false_witness_excludes_nobody_and_is_shown_by_the_audit(story: Story) -> None:
    number, member = next(
        (number, 2 + kinds.index("false-verdict")) for number, kinds in SCHEDULE.items() if "false-verdict" in kinds
    )
    state = story.states[number]
    assert list(state.dissents) == [member]
    assert state.dissents[member].reasons[0] == Reason.OFF_GRID
    assert state.reasons[0] == Reason.ACCEPTED
    rounds = {report["round"]: report for report in story.report["rounds"]}  # type: ignore[attr-defined, union-attr]
    link = next(item for item in rounds[number]["links"] if item["link"] == "verdicts")
    assert f"member {member} dissents (member 0 OFF_GRID): the re-run supports what was posted" in link["evidence"]


def test_dissent_is_seen_in_no_other_round(story: Story) -> None:
    dissented = [number for number, state in story.states.items() if state.dissents]
    assert dissented == [number for number, kinds in SCHEDULE.items() if "false-verdict" in kinds]


def test_every_other_round_is_final(story: Story) -> None:
    final = {number for number, state in story.states.items() if state.phase is Phase.FINAL}
    assert final == set(range(1, LAST + 1)) - {TAMPERS}


def test_the_audit_blames_the_lying_aggregator_and_nobody_else(story: Story) -> None:
    failed = {
        (report["round"], link["link"])
        for report in story.report["rounds"]  # type: ignore[attr-defined]
        for link in report["links"]
        if link["status"] == "FAIL"
    }
    assert failed == {(TAMPERS, "aggregate")}
    assert story.audit_status == 1


def test_a_copy_of_chain_and_content_gives_the_same_verdict(story: Story, tmp_path: Path) -> None:
    """Another folder, another anvil that was killed with the first one's saved state, no access to the originals."""
    plan = story.federation.plan
    shutil.copy(plan.directory / "chain.json", tmp_path / "chain.json")
    places = []
    for site in story.federation.sites:
        shutil.copytree(site.content, tmp_path / site.name)
        places += ["--content", str(tmp_path / site.name)]
    with Anvil(AnvilOptions(chain_id=CHAIN_ID), state_file=tmp_path / "chain.json") as anvil:
        rounds = f"0x{story.federation.deployment.rounds.hex()}"
        command = [
            door("candor-audit"),
            "verify",
            "--all",
            "--json",
            "--rpc",
            anvil.rpc_url,
            "--rounds",
            rounds,
            *places,
        ]
        printed = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    again = json.loads(printed.stdout)
    assert printed.returncode == story.audit_status
    assert verdicts_of(again) == verdicts_of(story.report)


@pytest.mark.parametrize(("number", "status"), [(3, 0), (TAMPERS, 1)])
def test_an_exported_round_gives_the_same_verdict_offline(
    number: int, status: int, story: Story, tmp_path: Path
) -> None:
    file = str(tmp_path / "round.candor")
    audit_door = str(door("candor-audit"))
    export = [audit_door, "export", "--round", str(number), file, *story.federation.audit_arguments()]
    assert subprocess.run(export, capture_output=True, check=False).returncode == 0
    verified = subprocess.run([audit_door, "verify", file, "--json"], capture_output=True, text=True, check=False)
    assert verified.returncode == status
    links = json.loads(verified.stdout)["rounds"][-1]["links"]
    found = {link["link"]: link["status"] for link in links}
    assert found == {name: status_of(story, number, name) for name in found}


@pytest.mark.parametrize("name", HONEST)
def test_the_honest_booked_every_round_once(name: str, story: Story) -> None:
    entries = PrivacyLedger(story.federation.plan.directory / name / "state" / PRIVACY).entries()
    assert [entry.key.split("/")[2] for entry in entries] == [str(number) for number in range(1, LAST + 1)]
    assert entries[-1].spent_micro <= story.federation.plan.cap_micro


def secrets_of(story: Story, number: int) -> Iterator[bytes]:
    """A member's seeds, and a run of each step's secret words in every round."""
    site, config = story.federation.nodes[number], story.federation.config
    memory = MemberMemory(site.folder / "state" / MEMBER)
    try:
        for state in story.states.values():
            seed = memory.seed(f"words/{round_key(state)}")
            binding = Binding(state.domain.chain_id, state.domain.contract, state.number, number)
            words = SecretWords(seed, binding, config.steps, config.adapter.parameters, config.privacy.capacity)
            runs = [run for step in range(config.steps) for run in (words.noise(step), words.draws(step))]
            yield from (seed, *(run[5:15].astype("<u2").tobytes() for run in runs))
        yield memory.seed("dataset")
    finally:
        memory.close()


@pytest.mark.parametrize("number", range(7))
def test_no_secret_of_a_member_is_in_a_log_a_store_or_the_chain(number: int, story: Story) -> None:
    """Not even the liars': as bytes, or as anybody would print them."""
    places = [site.folder / "log.txt" for site in story.federation.sites]
    places += [path for site in story.federation.sites for path in site.content.rglob("*") if path.is_file()]
    public = b"\n".join(path.read_bytes() for path in [*places, story.federation.plan.directory / "chain.json"])
    assert b"proving" in public
    assert len(public) > 10_000_000
    secrets = list(secrets_of(story, number))
    assert len(set(secrets)) == LAST * (1 + 2 * SMALL.steps) + 1
    for secret in secrets:
        assert secret not in public
        assert secret.hex().encode() not in public


def test_the_watcher_told_the_story(story: Story) -> None:
    text = "\n".join(story.lines)
    assert "node-2 (NOT_SUBMITTED)" in text
    assert f"round {TAMPERS}  VOID in PROPOSED: DISPUTED" in text
    assert "held-out accuracy before training" in text
