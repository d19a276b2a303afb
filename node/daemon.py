"""The member's daemon: `run` opens everything, joins the parts, and turns until it is asked to stop."""

from __future__ import annotations

import threading
from contextlib import ExitStack

from ledger.signing import SigningGuard
from node.acceptance import Limits
from node.conduct import HonestMember
from node.judging import Judges
from node.kept import KeptContributions
from node.member import Member, MemberParts
from node.memory import MemberMemory
from node.privacy_ledger import PrivacyLedger
from node.service import CONTRIBUTIONS, MEMBER, PRIVACY, SIGNING, Service, Stopped, opened, run_loop, state_file
from node.settings import NodeSettings
from node.showing import BaseProver, GradientProver
from node.trainer import ModelTrainer, Trainer


def run(
    settings: NodeSettings,
    conduct: HonestMember | None = None,
    *,
    stop: threading.Event | None = None,
    trainer: Trainer | None = None,
    gradients: GradientProver | None = None,
) -> None:
    """Blocks until `stop` is set. Raises LocalFault for what only the operator can repair."""
    privacy = PrivacyLedger(state_file(settings, PRIVACY))
    trainer = trainer or ModelTrainer(
        settings.model, settings.data, settings.device, checkpointing=settings.checkpointing
    )
    try:
        with opened(settings, "node", stop or threading.Event()) as service, ExitStack() as stack:
            trainer.warm_up()
            if gradients is None and isinstance(trainer, ModelTrainer):
                gradients = BaseProver(trainer.base().path)
            member = _member(stack, service, settings, privacy, trainer, conduct, gradients)
            run_loop(service, member.act)
    except Stopped:
        return


def _member(
    stack: ExitStack,
    service: Service,
    settings: NodeSettings,
    privacy: PrivacyLedger,
    trainer: Trainer,
    conduct: HonestMember | None,
    gradients: GradientProver | None,
) -> Member:
    """A member over an open service, with the files that only members have; `stack` closes them."""
    guard = SigningGuard(state_file(settings, SIGNING))
    stack.callback(guard.close)
    memory, kept = MemberMemory(state_file(settings, MEMBER)), KeptContributions(state_file(settings, CONTRIBUTIONS))
    stack.callback(memory.close)
    entries = privacy.entries()
    service.watch.spent(entries[-1].spent_micro if entries else 0)
    judges = Judges()
    stack.callback(judges.close)
    parts = MemberParts(
        chain=service.chain,
        key=service.key,
        store=service.store,
        sender=service.sender,
        guard=guard,
        board=service.board,
        memory=memory,
        kept=kept,
        privacy=privacy,
        trainer=trainer,
        limits=Limits.of(settings.privacy),
        confirmations=settings.chain.confirmations,
        watch=service.watch,
        log=service.log,
        judges=judges,
        gradients=gradients,
    )
    return Member(parts, conduct, service.stop_if_asked)
