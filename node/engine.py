"""The model that candor-serve runs and a replay runs again: the aggregate of a FINAL round on its base.

`load` follows the chain, and takes no bundle but one that a round ended with; bundle and base are what their digests
say before a weight of either is used. Nothing is drawn at random: an answer follows from prompt and decoding
(node.choosing), whatever else is in the batch, up to the order of additions, which is what fingerprints
(node.fingerprint) leave room for.

    LocalFault
    └── NotFinal        no round ended with this bundle, or none has ended yet
    PeerFault
    └── PromptRefused   a text or conversation that this model's tokenizer does not take
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ledger.audit_open import Contents
from ledger.config import TaskKind
from ledger.follower import read_history
from ledger.history import History
from ledger.log.receipt import Decoding
from ledger.parents import read_final, read_parents
from ledger.ports import ChainPort, WrongChain
from ledger.round_state import RoundState
from node import fingerprint
from node.choosing import CONTEXT, Writing, choose
from node.fingerprint import States
from node.model import LoadedModel, attach, load_base
from node.recompute import Configs
from node.serving.engine import Classified, Finish, Job, Outcome, Step
from node.training import Device, pick_device
from proofs.errors import LocalFault, PeerFault

LATEST: Final = "latest final"
MOST_PLACES: Final = fingerprint.MAX_TOKENS  # of a model whose config names no bound
Wanted = bytes | Literal["latest final"]
Scores = NDArray[np.float32]


class NotFinal(LocalFault):
    """There is no such model: a bundle counts from the moment that its round is FINAL."""


class PromptRefused(PeerFault):
    """Nothing that this model can be asked."""


def load(
    chain: ChainPort,
    store: Contents,
    rounds_address: bytes,
    wanted: Wanted,
    base_path: str,
    device: Device = "auto",
    *,
    start_block: int = 0,
) -> Engine:
    """The bundle of this digest, or of the latest FINAL round, ready to answer. start_block: the contract's deployment.

    The chain is followed on the node's word. Raises WrongChain, what `load_of` raises, and the faults of the chain.
    """
    if rounds_address != chain.rounds_address:
        raise WrongChain(f"the chain is read at 0x{chain.rounds_address.hex()}, not at 0x{rounds_address.hex()}")
    return load_of(read_history(chain, start_block), store, wanted, base_path, device)


def load_of(history: History, store: Contents, wanted: Wanted, base_path: str, device: Device = "auto") -> Engine:
    """The same of rounds that are known already, for an auditor those that it audited.

    Raises NotFinal, DeviceMissing, BaseUnusable, BaseMismatch, Rejected, ParentRefused, and the faults of the store.
    """
    bundle, state = _final(history, wanted)
    config, weights = read_final(store, bundle, state, Configs(store).of(state))
    parents = read_parents(store, history, config)
    model = attach(load_base(base_path), config, parents).to(pick_device(device))
    model.load_weights(weights)
    return Engine(model, bundle)


def _final(history: History, wanted: Wanted) -> tuple[bytes, RoundState]:
    rounds = [(state.final_bundle, state) for _, state in sorted(history.rounds.items())]
    ended = [(bundle, state) for bundle, state in rounds if bundle is not None and wanted in (LATEST, bundle)]
    if not ended:
        named = wanted.hex() if isinstance(wanted, bytes) else "any bundle"
        raise NotFinal(f"no round of 0x{history.domain.contract.hex()} has ended with {named}; remedy: wait for FINAL")
    return ended[-1]


@dataclass
class _Run:
    """One job of a batch."""

    number: int
    job: Job
    room: int
    writing: Writing
    tokens: list[int] = field(default_factory=list)
    states: list[States] = field(default_factory=list)
    finish: Literal["", "stop", "length"] = ""

    def take(self, scores: Scores, state: States, ends: frozenset[int]) -> Step:
        """The next token, chosen from scores (V,) that came from state (d,)."""
        self.states.append(state)
        return self.add(choose(scores, self.job.decoding, len(self.tokens)), ends)

    def add(self, token: int, ends: frozenset[int]) -> Step:
        self.tokens.append(token)
        text = "" if token in ends else self.writing.add(token)
        if token in ends or self.writing.stopped:
            self.finish = "stop"
        elif len(self.tokens) == self.room:
            self.finish = "length"
        return Step(self.number, token, text + (self.writing.end() if self.finish else ""), self.finish)

    def outcome(self) -> Outcome:
        """Also of one that was stopped in between, as if it had been asked for no more."""
        self.writing.end()
        width = len(self.states[0]) if self.states else 1
        states = np.stack(self.states) if self.states else np.zeros((0, width), np.float32)
        finish: Finish = "stop" if self.finish == "stop" else "length"
        made = fingerprint.of_answer(states, self.tokens).encode()
        return Outcome(tuple(self.tokens), self.writing.text, finish, made)


class Engine:
    """One bundle on its base. `encode` and `chat` may be called by another thread while it answers."""

    def __init__(self, model: LoadedModel, bundle: bytes) -> None:
        """`model` has the bundle's weights."""
        self.model, self.bundle = model, bundle
        self._tokenizer, self._lock = model.base.tokenizer, threading.Lock()
        known = model.module.config
        ends = known.eos_token_id if isinstance(known.eos_token_id, list) else [known.eos_token_id]
        self._ends = frozenset(int(end) for end in [*ends, self._tokenizer.eos_token_id] if end is not None)
        places = getattr(known, "max_position_embeddings", None) or MOST_PLACES
        self._window = min(int(places), int(self._tokenizer.model_max_length), MOST_PLACES)

    @property
    def task(self) -> TaskKind:
        return self.model.config.task.kind

    @property
    def labels(self) -> tuple[str, ...]:
        return self.model.config.task.labels

    @property
    def parents(self) -> tuple[bytes, ...]:
        """Of a mixture; answers may leave some of them out."""
        return self.model.config.adapter.parents

    @property
    def max_tokens(self) -> int:
        """Of a text to classify, no longer than those it was trained on; of a prompt and its answer together."""
        return min(self._window, self.model.config.task.max_tokens) if self.labels else self._window

    @property
    def vocabulary(self) -> int:
        """Tokens are below it."""
        return int(self.model.module.config.vocab_size)

    # ---- texts

    def encode(self, text: str) -> list[int]:
        """Not cut. A prompt has no end mark, and one begin mark even if its template wrote one."""
        with self._lock:
            ids: list[int] = list(self._tokenizer(text)["input_ids"])
        if self.task == "classification":
            return ids
        if ids[-1:] == [self._tokenizer.eos_token_id]:
            ids.pop()
        begin = self._tokenizer.bos_token_id
        return ids[1:] if begin is not None and ids[:2] == [begin, begin] else ids

    def chat(self, messages: Sequence[Mapping[str, str]]) -> str:
        """By the template of the tokenizer; without one, a line for each message. Raises PromptRefused."""
        if self._tokenizer.chat_template is None:
            lines = [f"{message['role']}: {message['content']}\n" for message in messages]
            return "".join([*lines, "assistant:"])
        with self._lock:
            try:
                told = self._tokenizer.apply_chat_template(
                    [dict(message) for message in messages], tokenize=False, add_generation_prompt=True
                )
            except Exception as error:  # a template is a program of the base, and raises what it likes
                raise PromptRefused(f"the model's template refuses it ({type(error).__name__})") from error
        return str(told)

    def written(
        self, prompt: Sequence[int], tokens: Sequence[int], decoding: Decoding
    ) -> tuple[str, Literal["", "stop", "length"]]:
        """The text of an answer's tokens, and how it ends; "" if these tokens are not all, or too many."""
        run = self._run(0, Job(tuple(prompt), decoding))
        for token in tokens:
            if run.finish:
                return run.writing.text, ""
            run.add(token, self._ends)
        return run.writing.text, run.finish

    def _decode(self, tokens: Sequence[int]) -> str:
        with self._lock:
            return str(
                self._tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
            )

    # ---- generation

    def generate(
        self, jobs: Sequence[Job], on_step: Callable[[Step], None], stopped: Callable[[int], bool]
    ) -> list[Outcome]:
        """One outcome a job. A job for which `stopped` says so is left where it is; those that leave out the same
        parents of a mixture go together. Raises PromptRefused, NothingLeft."""
        runs = [self._run(number, job) for number, job in enumerate(jobs)]
        for mask in {run.job.decoding.leave_out: None for run in runs}:
            alike = (run for run in runs if run.job.decoding.leave_out == mask)
            going = [run for run in alike if run.room > 0 and not stopped(run.number)]
            with self._without(mask):
                if going:
                    self._all(going, on_step, stopped)
        return [run.outcome() for run in runs]

    @contextmanager
    def _without(self, leave_out: Collection[bytes]) -> Iterator[None]:
        """Some parents of a mixture do not count meanwhile. Raises PromptRefused, NothingLeft."""
        if not leave_out:
            yield
            return
        if not self.parents:
            raise PromptRefused("parents are to be left out of a model that is no mixture")
        self.model.module.leave_out(leave_out)
        try:
            yield
        finally:
            self.model.module.leave_out(())

    def _run(self, number: int, job: Job) -> _Run:
        if self.task != "next-token" or not 0 < len(job.tokens) <= self.max_tokens:
            raise PromptRefused(f"a prompt of {len(job.tokens)} tokens, for a model of {self.task}")
        room = min(job.decoding.max_tokens, self.max_tokens - len(job.tokens))
        return _Run(number, job, room, Writing(self._decode, job.decoding.stop, job.tokens[-CONTEXT:]))

    @torch.no_grad()
    def _all(self, going: list[_Run], on_step: Callable[[Step], None], stopped: Callable[[int], bool]) -> None:
        """Prompts padded on the left, so that all answers grow at the right; whoever is done leaves the batch."""
        ids, mask = self._padded([run.job.tokens for run in going])
        cache: Any = None
        while True:
            states, scores, cache = self._forward(ids, mask, cache, keep=1)
            for run, state, row in zip(going, states[:, 0], scores[:, 0], strict=True):
                on_step(run.take(row, state, self._ends))
            kept = [at for at, run in enumerate(going) if not run.finish and not stopped(run.number)]
            if not kept:
                return
            if len(kept) < len(going):
                rows = torch.tensor(kept, device=mask.device)
                going, mask = [going[at] for at in kept], mask[rows]
                cache.batch_select_indices(rows)
            ids = torch.tensor([[run.tokens[-1]] for run in going], device=mask.device)
            mask = torch.cat([mask, torch.ones_like(ids)], dim=1)

    @torch.no_grad()
    def follow(
        self, prompt: Sequence[int], answer: Sequence[int], leave_out: Collection[bytes] = ()
    ) -> tuple[States, Scores]:
        """States (n, d) and scores (n, V) that the n tokens of an answer were chosen from, in one pass."""
        ids, mask = self._padded([[*prompt, *answer[:-1]]])
        with self._without(leave_out):
            states, scores, _ = self._forward(ids, mask, None, keep=len(answer))
        return states[0], scores[0]

    def _padded(self, prompts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        width = max(map(len, prompts))
        ids = torch.full((len(prompts), width), int(self._tokenizer.pad_token_id), dtype=torch.long)
        mask = torch.zeros((len(prompts), width), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(list(prompt), dtype=torch.long)
            mask[row, width - len(prompt) :] = 1
        return ids.to(self.model.device), mask.to(self.model.device)

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, cache: Any, *, keep: int) -> tuple[States, Scores, Any]:
        """Of the last `keep` places: what the output layer is given (B, keep, d), and what it gives (B, keep, V)."""
        places = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        with _given(self.model.module.get_output_embeddings()) as seen:
            found = self.model.module(
                input_ids=ids,
                attention_mask=mask,
                position_ids=places,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=keep,
            )
        return _array(seen[-1][:, -keep:]), _array(found.logits[:, -keep:]), found.past_key_values

    # ---- classification

    @torch.no_grad()
    def classify(self, batch: Sequence[Sequence[int]], leave_out: Collection[bytes] = ()) -> list[Classified]:
        """Probabilities of the labels. Raises PromptRefused, NothingLeft."""
        if self.task != "classification" or not all(0 < len(ids) <= self.max_tokens for ids in batch):
            raise PromptRefused(f"texts of 1 to {self.max_tokens} tokens are wanted, for a model of {self.task}")
        states, logits = self.pooled(batch, leave_out)
        shares = torch.softmax(torch.from_numpy(logits).double(), dim=1).tolist()
        return [
            Classified(tuple(scores), int(row.argmax()), made)
            for scores, row, made in zip(shares, logits, self.prints_of(states), strict=True)
        ]

    def prints_of(self, states: States) -> list[bytes]:
        """The fingerprints of n texts' pooled states (n, d)."""
        return [made.encode() for made in fingerprint.of_pooled(states)]

    @torch.no_grad()
    def pooled(self, batch: Sequence[Sequence[int]], leave_out: Collection[bytes] = ()) -> tuple[States, Scores]:
        """What the last layer of the head is given of each text (n, d), and what it gives (n, labels)."""
        with self._without(leave_out), _given(self._last_of_head()) as seen:
            logits = self.model.logits(batch)
        state = seen[-1]
        if state.ndim == 3:  # a head on every token, of which the last one of each text counts
            lasts = torch.tensor([len(ids) - 1 for ids in batch], device=state.device)
            state = state[torch.arange(len(batch), device=state.device), lasts]
        return _array(state), _array(logits)

    def _last_of_head(self) -> torch.nn.Module:
        names = self.model.config.adapter.head
        found = [
            module
            for name, module in self.model.module.named_modules()
            if isinstance(module, torch.nn.Linear) and any(f".{head}.modules_to_save." in f".{name}." for head in names)
        ]
        if not found:
            raise LocalFault(f"no Linear layer in the head {list(names)}")
        return found[-1]


@contextmanager
def _given(module: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """What a module is called with, in order; x-lora calls it in both passes, and the last one counts."""
    seen: list[torch.Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        yield seen
    finally:
        handle.remove()


def _array(tensor: torch.Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = tensor.detach().to("cpu", torch.float32).numpy()
    return found
