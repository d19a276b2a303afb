"""A round beside its training: `python -m benchmarks.round`.

First, for one member and one round: each thing that it computes besides training, as a share of the training, in one
process on one thread; the proofs of the mechanism and of one gradient are among them. Then a whole devnet of real
processes: gas by transaction and round, exact sizes of bundles.
"""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

import ledger.privacy
import proofs.gaussian
from devnet import notes
from devnet.cli import policy_for
from devnet.federation import Plan
from devnet.presets import MINILM, TINY, Preset, make_config
from devnet.scenarios import Outcome, run
from ledger.aggregate import average
from ledger.bundle import Claim, SubmissionBundle, bundle_limits
from ledger.config import Config
from ledger.content import EmbeddedStore
from ledger.eip712 import Domain, Submission
from ledger.gradients import Answers, challenges, jobs_of
from ledger.optimizer import replay
from ledger.privacy import spend_of
from ledger.signing import Key, SigningGuard
from ledger.tensors import Weights, flatten, unflatten
from ledger.verdict import SubmissionFacts, Verdict, fetch_shown, judge_stored
from node.data import load_dataset
from node.model import attach, load_base
from node.privacy_ledger import PrivacyLedger, RoundKey
from node.proving import data_root, proof_of, words_root
from node.showing import BaseProver
from node.training import TrainingJob, train
from proofs.texts import Texts
from proofs.words import Binding, SecretWords

T = TypeVar("T")
REPETITIONS = 3
FIRST, LATER = "booking ε, durably, in a fresh process", "booking ε, durably, later"
BEACON = bytes(32)


def main() -> None:
    """Prints shares for both presets, then gas and sizes of a tiny federation."""
    logging.getLogger("ledger.content").setLevel(logging.ERROR)
    for preset in (TINY, MINILM):
        with tempfile.TemporaryDirectory() as folder:
            shares(preset, Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        print_costs(federation(Path(folder)))


@dataclass
class Stopwatch:
    """Seconds by name; a name met twice keeps the median."""

    taken: dict[str, list[float]]

    def time(self, name: str, work: Callable[[], T]) -> T:
        began = time.perf_counter()
        result = work()
        self.taken.setdefault(name, []).append(time.perf_counter() - began)
        return result

    def medians(self) -> Mapping[str, float]:
        return {name: statistics.median(seconds) for name, seconds in self.taken.items()}


def shares(preset: Preset, folder: Path) -> None:
    config, weights = make_config(preset, epsilon=preset.epsilon, rounds=1, policy=policy_for(preset, 3))
    notes.write(folder / "notes.jsonl", notes.members(1, preset.rows, 7)[0])
    watch = Stopwatch({})
    for repetition in range(REPETITIONS):
        if repetition == 0:
            forget()
        one_round(preset, config, weights, folder, repetition, watch)
    seconds = dict(watch.medians())
    training = seconds.pop("training")
    later = seconds.pop(LATER)
    others = {name: seconds.pop(name) for name in ("judging one submission", "averaging three")}
    print(f"\n{preset.name}: {config.steps} steps, {config.adapter.parameters:,} parameters; training = 1")
    for name, value in seconds.items():
        print(f"  {name:<50}{value / training:8.3f}")
    print(f"  {'all that a member does besides training':<50}{sum(seconds.values()) / training:8.3f}")
    print(f"  {'of which not again in the rounds that follow':<50}{(seconds[FIRST] - later) / training:8.3f}")
    for name, value in others.items():
        print(f"  {name + ' (aggregator, anyone)':<50}{value / training:8.3f}")


def forget() -> None:
    """As in a process that has just started: no noise table, no privacy-loss distribution."""
    for module in (ledger.privacy, proofs.gaussian):
        for value in vars(module).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()


def one_round(preset: Preset, config: Config, start: Weights, folder: Path, repetition: int, watch: Stopwatch) -> None:
    """What a member does, in the order of a round; then what everybody does with its submission."""
    store, key = EmbeddedStore(folder / f"content-{repetition}"), Key.create()
    binding = Binding(31337, bytes(20), 1, 0)
    data = watch.time("reading the data", lambda: load_dataset(
        folder / "notes.jsonl", "jsonl", "text", "label", config.task.labels
    ))  # fmt: skip
    base = load_base(preset.base_path)
    model = attach(base, config)
    words = SecretWords(bytes([repetition]) * 32, binding, config.steps, config.adapter.parameters, preset.capacity)
    texts = watch.time("encoding the texts", lambda: Texts.of(
        model.encode(data.texts), data.labels, config.shape.tokens
    ))  # fmt: skip
    root = watch.time("dataset root", lambda: data_root(config, words, texts))
    bound = watch.time("root of the secret words", lambda: words_root(config, words))
    spend = spend_of(config)
    booked = watch.time("opening the privacy ledger", lambda: PrivacyLedger.create(folder / f"privacy-{repetition}"))
    booking = FIRST if repetition == 0 else LATER
    spent = watch.time(booking, lambda: booked.reserve(
        RoundKey(31337, bytes(20), 1, config.digest), spend, config.privacy.delta, 10**9, 0
    ))  # fmt: skip
    job = TrainingJob(config, model, data, start, words, BEACON, binding, "cpu")
    trained = watch.time("training", lambda: train(job, lambda done, steps: None))
    released = trained.released
    reached = watch.time("replaying the optimizer", lambda: replay(config, flatten(config, start), released))
    claim = Claim(31337, bytes(20), 1, 0, bytes(32), root, bound, spent)
    proof = watch.time("proving the mechanism", lambda: proof_of(
        config, claim, BEACON, words, texts, trained, released, lambda _: None
    ))  # fmt: skip
    bundle = SubmissionBundle(config, claim, start | unflatten(config, reached), released, proof)
    files = watch.time("writing the bundle", bundle.files)
    digest = watch.time("publishing it, with every fsync", lambda: store.put_directory(files))
    guard = SigningGuard(folder / f"signing-{repetition}.sqlite")
    domain, submission = Domain(31337, bytes(20)), Submission(1, 0, digest, spent)
    watch.time("signing under the guard", lambda: guard.sign(key, domain, submission))
    asked = challenges(config, claim, BEACON, released, proof, BEACON)
    prover, (job_of_pick, *_) = BaseProver(base.path), jobs_of(bundle, start, asked, [b""] * len(asked))
    secrets = words, texts, trained.contributions
    shown = watch.time("proving the gradient of a slot", lambda: prover.prove(
        config, job_of_pick.iterate, asked[0], *secrets, lambda _: None
    ))  # fmt: skip
    answers = Answers(config, binding, digest, BEACON)
    gradients = watch.time("publishing that", lambda: store.put_directory(answers.files([shown])))
    facts = SubmissionFacts(claim, config, start, (), BEACON, digest, BEACON)

    def judged() -> Verdict:
        return judge_stored(facts, digest, store, fetch_shown(config, start, gradients, store, prover))

    verdict = watch.time("judging one submission", judged)
    if not verdict.accepted:
        raise SystemExit(f"an honest submission was refused: {verdict}")
    alike = dict.fromkeys(range(3), bundle.weights)
    mean = watch.time("averaging three", lambda: average(config, start, alike))
    if any((mean[name] != bundle.weights[name]).any() for name in mean):
        raise SystemExit("the average of three alike is not they")
    watch.time("reading a bundle back, verified", lambda: store.get_directory(digest, bundle_limits(config)))


def federation(folder: Path) -> Outcome:
    plan = Plan(TINY, folder, policy_for(TINY, 3), rounds=2)
    return run(plan, lambda lines, watch: None, timeout_s=900)


def print_costs(outcome: Outcome) -> None:
    print(f"\ngas, {outcome.plan.nodes} members, medians of real transactions")
    for name, used in sorted(outcome.gas_by_action.items()):
        print(f"  {name:<24}{int(np.median(used)):>12,}  × {len(used)}")
    for number, total in sorted(outcome.gas.items()):
        print(f"  {'all of round ' + str(number):<24}{total:>12,}")
    print("\nbytes, exactly")
    for number, state in outcome.rounds.items():
        for member, sent in sorted(state.submissions.items()):
            print(f"  round {number}, bundle of node-{member:<10}{outcome.sizes.get(sent.bundle) or 0:>10,}")
        if state.proposal is not None:
            print(f"  round {number}, aggregate{'':<14}{outcome.sizes.get(state.proposal.aggregate_bundle) or 0:>10,}")


if __name__ == "__main__":
    main()
