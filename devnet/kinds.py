"""The kinds of misbehaviour: what each dishonest daemon does, and what comes of it. A table, and nothing else.

`KIND` acts in every round, `KIND@ROUND` in that one. Where two kinds meet in one round, the first that is named acts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from ledger.records import Reason
from proofs.errors import LocalFault

Role = Literal["node", "aggregator"]


class KindUnknown(LocalFault):
    """There is no such misbehaviour."""


@dataclass(frozen=True)
class Kind:
    """`reason`: what verdicts say of the member; None for an aggregator. `caught`: what comes of it, in words.

    in_prove: it can only be done in rounds that ask for proofs of gradients.
    """

    name: str
    role: Role
    does: str
    reason: Reason | None
    caught: str
    in_prove: bool = False

    def to_json(self) -> dict[str, Any]:
        reason = None if self.reason is None else self.reason.name
        return {"kind": self.name, "role": self.role, "does": self.does, "reason": reason, "caught": self.caught}


def _node(name: str, does: str, reason: Reason, caught: str = "") -> Kind:
    return Kind(name, "node", does, reason, caught or f"left out: {reason.name}")


def _proven(name: str, does: str) -> Kind:
    """What nothing but the proof of the mechanism catches, in rounds that ask for one: all of a devnet with noise."""
    return _node(name, does, Reason.PROOF_INVALID)


def _showing(name: str, does: str, reason: Reason) -> Kind:
    """What a member does in Prove, in rounds that ask for proofs of gradients."""
    return Kind(name, "node", f"{does} (where rounds have a Prove phase)", reason, f"left out: {reason.name}", True)


def _aggregator(name: str, does: str, caught: str) -> Kind:
    return Kind(name, "aggregator", does, None, caught)


KINDS: Final[dict[str, Kind]] = {
    kind.name: kind
    for kind in (
        _proven("no-noise", "releases sums without noise"),
        _proven("half-noise", "adds half of the noise"),
        _proven("off-by-one", "moves one released sum by one unit"),
        _proven("over-clip", "lets one row contribute a unit more than the clip, and proves that"),
        _proven("other-words", "makes its noise from words that it chose after the beacon, and proves that"),
        _proven("stale-proof", "publishes a proof that it made for another round"),
        _proven("broken-proof", "changes one byte of its proof"),
        _node("no-proof", "leaves its proof out", Reason.BUNDLE_MALFORMED),
        _showing("no-gradients", "shows nothing of the picked slots", Reason.NOT_PROVED),
        _showing("other-slots", "proves the gradients of other slots than were picked", Reason.GRADIENT_INVALID),
        _showing("stale-gradients", "shows proofs of gradients made under another beacon", Reason.GRADIENT_INVALID),
        _showing("foreign-gradients", "shows the directory of another round", Reason.GRADIENT_INVALID),
        _showing("broken-gradient", "changes one byte of a proof of a gradient", Reason.GRADIENT_INVALID),
        _node("understate-epsilon", "declares less ε than it spends", Reason.EPSILON_UNDERSTATED),
        _node("wrong-trajectory", "publishes other sums than led to its adapter", Reason.TRAJECTORY_MISMATCH),
        _node("off-grid", "moves a weight half a grid unit", Reason.OFF_GRID),
        _node("nan", "makes a weight NaN", Reason.OFF_GRID),
        _node("wrong-shape", "transposes a tensor", Reason.TENSOR_LAYOUT),
        _node("missing-key", "leaves a tensor out", Reason.TENSOR_LAYOUT),
        _node("extra-key", "adds a tensor that would overwrite the base model", Reason.TENSOR_LAYOUT),
        _node("wrong-dtype", "writes float16", Reason.TENSOR_LAYOUT),
        _node("mutated-config", "makes adapter_config.json change the base when loaded", Reason.ADAPTER_CONFIG),
        _node("pickle", "publishes a pickle in place of safetensors", Reason.BUNDLE_MALFORMED),
        _node("extra-file", "adds a file", Reason.BUNDLE_MALFORMED),
        _node("path-escape", "names a file `..`", Reason.BUNDLE_MALFORMED),
        _node("zip-bomb", "publishes a kilobyte that unfolds to a tebibyte", Reason.BUNDLE_MALFORMED),
        _node("frozen-changed", "moves a frozen weight by one grid unit", Reason.FROZEN_CHANGED),
        _node("foreign-round", "submits the bundle of another round", Reason.MANIFEST_MISMATCH),
        _node("foreign-chain", "submits the bundle of another chain", Reason.MANIFEST_MISMATCH),
        _node("equivocate", "signs and submits two bundles", Reason.EQUIVOCATED),
        _node("late", "submits after the deadline", Reason.NOT_SUBMITTED, "refused on chain, left out: NOT_SUBMITTED"),
        _node("vanish", "commits and is never heard of again", Reason.NOT_SUBMITTED),
        _node("unavailable", "submits a digest behind which there is nothing", Reason.UNAVAILABLE),
        _node(
            "over-cap", "declares more ε than its cap", Reason.NOT_SUBMITTED, "refused on chain: OverCap; NOT_SUBMITTED"
        ),
        _node(
            "false-objection",
            "objects to an honest aggregate",
            Reason.ACCEPTED,
            "alone it changes nothing: only a strict majority of the committed voids a round",
        ),
        _node(
            "false-verdict",
            "signs as a verifier that an honest member is to be left out",
            Reason.ACCEPTED,
            "the quorum does without it; it dissents on chain, and candor-audit shows which side the re-run supports",
        ),
        _aggregator(
            "tampered-aggregate",
            "moves one weight of the average by one grid unit",
            "members object, the round is void: Disputed; candor-audit: FAIL at aggregate",
        ),
        _aggregator(
            "wrong-verdict",
            "posts verdicts that the quorum did not sign, under the quorum's signature",
            "refused on chain: BadQuorumSignature; with no other aggregator, the round is void: NoVerdict",
        ),
        _aggregator(
            "sleeps",
            "posts nothing and proposes nothing",
            "another aggregator acts from the middle of the phase on; with no other, the round is void: NoVerdict",
        ),
    )
}


def kind_named(text: str) -> tuple[Kind, int | None]:
    """The kind and the round of "KIND" or "KIND@ROUND" (None: every round). Raises KindUnknown."""
    name, at, number = text.partition("@")
    if name not in KINDS or (at and not number.isdecimal()):
        raise KindUnknown(f"no misbehaviour {text!r}: KIND or KIND@ROUND, with KIND one of {', '.join(KINDS)}")
    return KINDS[name], int(number) if at else None
