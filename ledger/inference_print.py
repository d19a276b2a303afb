"""How what is found about logs is printed, on a terminal or as JSON (ledger.audit_print)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from ledger.audit_print import COLOURS, Printer, anchor_text, link_row
from ledger.audit_trace import Trace
from ledger.log.access import dropped
from ledger.log.follower import LogReplay
from ledger.log.history import Hosted
from ledger.log.inclusion import LogReport, Standing, Verified
from ledger.log.records import Outcome
from ledger.log.watching import Alarm
from ledger.report import Link, Status

COLUMNS = ("link", "status", "evidence")
OF_STANDING = {
    Standing.INCLUDED: COLOURS[Status.PASS],
    Standing.OMITTED: COLOURS[Status.FAIL],
    Standing.NOT_YET_DUE: COLOURS[Status.NOT_PROVEN],
    Standing.UNSETTLED: COLOURS[Status.NOT_PROVEN],
}


class LogPrinter:
    def __init__(self, printer: Printer) -> None:
        self._printer = printer

    def servers(self, found: LogReplay, links: Sequence[Link]) -> None:
        hosts = [_host_json(found, host) for host in found.history.servers.values()]
        if self._printer.as_json:
            told = {"anchor": found.anchor.to_json(), "links": [link.to_json() for link in links], "servers": hosts}
            self._printer.value({"kind": "candor/inference/list/1", **told})
            return
        for host in hosts:
            self._printer.line(f"server {host['server']}", "bold")
            for name, value in host.items():
                if name != "server":
                    self._printer.line(f"  {name.replace('_', ' '):18} {_in_words(value)}")
        self._printer.table("The chain", COLUMNS, map(link_row, links))
        self._printer.line(anchor_text(found.anchor))

    def verified(self, found: Verified, reported: str) -> None:
        if self._printer.as_json:
            self._printer.value({**found.report.to_json(), "reported": reported or None})
            return
        self._table(found.report)
        self._printer.line(found.standing.value, OF_STANDING[found.standing])
        if reported:
            self._printer.line(f"reported: {reported}")
        self._verdict(found.report)

    def report(self, report: LogReport) -> None:
        if self._printer.as_json:
            self._printer.value(report.to_json())
            return
        self._table(report)
        self._verdict(report)

    def alarms(self, alarms: Sequence[Alarm], known: set[str], reported: Sequence[str]) -> None:
        """Those of one look; in a loop, only what was not told before."""
        if self._printer.as_json:
            told = [alarm.to_json() for alarm in alarms]
            self._printer.value({"kind": "candor/inference/watch/1", "alarms": told, "reported": list(reported)})
            return
        for alarm in alarms:
            if alarm.text not in known:
                self._printer.line(f"{alarm.kind.value}: {alarm.text}", COLOURS[alarm.status])
        for text in reported:
            self._printer.line(f"reported: {text}")
        if not alarms and not known:
            self._printer.line("no alarms", COLOURS[Status.PASS])

    def proof(self, link: Link) -> None:
        if self._printer.as_json:
            self._printer.value({"kind": "candor/inference/prove/1", **link.to_json()})
            return
        self._printer.line(f"{link.status.value}: {link.evidence}", COLOURS[link.status])

    def key(self, file: Path, public: bytes, reported: str) -> None:
        if self._printer.as_json:
            told = {"file": str(file), "public": public.hex(), "registered": reported or None}
            self._printer.value({"kind": "candor/inference/key/1", **told})
            return
        self._printer.line(f"{file}: X25519 public key {public.hex()}")
        if reported:
            self._printer.line(f"registered: {reported}")

    def trace(self, trace: Trace) -> None:
        if self._printer.as_json:
            self._printer.value(trace.to_json())
            return
        rows = [(step.stage, Text(step.status.value, style=COLOURS[step.status]), step.text) for step in trace.steps]
        self._printer.table("From the answer back to the base model", ("stage", "status", "evidence"), rows)
        self._printer.line(anchor_text(trace.anchor))
        self._printer.status(trace.status, (link for step in trace.steps for link in step.links))

    def _table(self, report: LogReport) -> None:
        for name, value in report.told.items():
            self._printer.line(f"{name.replace('_', ' '):12} {value}")
        self._printer.table(f"inference {report.kind}", COLUMNS, map(link_row, report.links))

    def _verdict(self, report: LogReport) -> None:
        self._printer.line(anchor_text(report.anchor))
        self._printer.status(report.status, report.links)


def _host_json(found: LogReplay, host: Hosted) -> dict[str, Any]:
    head, last = found.head.number, host.last
    auditors = host.named[-1][1] if host.named else ()
    return {
        "server": "0x" + host.address.hex(),
        "entries": host.size,
        "root": last.root.hex() if last else None,
        "checkpoints": len(host.points),
        "last_checkpoint": last.block if last else None,
        "blocks_since": head - last.block if last else None,
        "promise_blocks": host.promise_blocks,
        "answer_blocks": found.history.answer_blocks,
        "auditors": ["0x" + address.hex() for address in auditors],
        "auditors_changed": max(0, len(host.named) - 1),
        "auditors_dropped": [f"0x{one.auditor.hex()} in block {one.block}" for one in dropped(host)],
        "auditors_usable": sum(found.history.auditor(address) is not None for address in auditors),
        "omissions_reported": len(host.reports),
        "omissions_late": sum(report.event.late for report in host.reports.values()),
        "omissions_open": host.count(Outcome.OPEN, head),
        "omissions_answered": host.count(Outcome.ANSWERED, head),
        "omissions_never_answered": host.count(Outcome.OMITTED, head),
        "forked_in_block": host.forked.block_number if host.forked else None,
    }


def _in_words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
