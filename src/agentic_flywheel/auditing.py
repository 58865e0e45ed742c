"""The audit log as people use it, and receipts that can be verified later.

Invariant: what is carried out here stands in the log before it is done; a receipt names its entry by number and digest,
and is signed by this installation, so neither can be changed afterwards without being seen.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable

import msgspec

from agentic_flywheel.callers import AuditEntry, AuditVerdict, ReceiptVerdict
from agentic_flywheel.errors import InputError, StoreDamaged
from agentic_flywheel.model import Receipt
from agentic_flywheel.redacting import Redacting
from agentic_flywheel.signing import Signer
from agentic_flywheel.store.store import Store

_HEAD = re.compile(r"(\d+):([0-9a-f]{64})")


class Audit:
    """The audit log of one tenant."""

    def __init__(self, store: Store, signer: Signer, redacting: Redacting) -> None:
        self._store = store
        self._redacting = redacting
        self._signer = signer

    async def record(self, action: str, target: str, *, by: str, why: str = "", **facts: object) -> AuditEntry:
        """Write down what `by` is about to do; do it afterwards. Raises `StoreError`: then do not."""
        kept = self._redacting.text
        shown = {name: kept(str(value)) for name, value in facts.items() if value is not None}
        entry = AuditEntry(action=action, target=target, by=by, at=time.time(), why=kept(why), facts=shown)
        return await self._store.audit.append(entry)

    async def carry_out(
        self,
        action: str,
        target: str,
        work: Callable[[bool], Awaitable[Receipt]],
        *,
        by: str,
        why: str = "",
        dry_run: bool = False,
        **facts: object,
    ) -> Receipt:
        """Do what `work` (told whether it only is to look) does, and give a signed receipt for it.

        What cannot be done is not in the log. Raises what `work` raises, and `StoreError`.
        """
        looked = await work(True)
        if dry_run:
            return looked
        entry = await self.record(action, target, by=by, why=why, **facts)
        done = await work(False)
        return self._signer.sign(msgspec.structs.replace(done, by=by, why=why, audit=entry.head))

    async def list(self, *, limit: int = 50, cursor: str = "") -> tuple[list[AuditEntry], str]:
        """Entries, newest first; the cursor continues the list, "" at its end."""
        if not 1 <= limit <= 1000:
            raise InputError(f"a page holds 1 to 1000 entries, not {limit}")
        if not re.fullmatch(r"(\d+-\d+)?", cursor):
            raise InputError(f"{cursor!r} is not a cursor of this list; start again without one")
        found = await self._store.audit.newest(limit + 1, before=cursor)
        return found[:limit], found[limit - 1].id if len(found) > limit else ""

    async def verify(self, *, against: str = "") -> AuditVerdict:
        """Whether every entry stands where and as it was written; `against` is a head that was noted before.

        Without it, entries that were cut off at the end, or a log that was written anew as a whole, cannot be noticed.
        Reads the whole log, 500 entries a round trip. Raises `InputError`, `StoreError`.
        """
        noted = _HEAD.fullmatch(against) if against else None
        if against and noted is None:
            raise InputError(
                f"{against!r} is not the head of a log",
                suggestions=("Give it as `afw audit verify` printed it: NUMBER:DIGEST.",),
            )
        number, digest, entries, fault = 0, "", 0, ""
        async for row in self._store.audit.rows():
            entries += 1
            if fault:
                continue
            number += 1
            if row.number > number:
                fault = "is missing" if row.number == number + 1 else f"is missing, and all up to {row.number - 1}"
            elif row.number < number or not row.follows(digest):
                fault = "was changed, or does not belong there"
            elif noted is not None and number == int(noted[1]) and row.digest != noted[2]:
                fault = "is not the one that was noted: the log was written anew"
            else:
                try:
                    _ = row.entry
                except StoreDamaged as error:
                    fault = f"cannot be read ({error.message})"
                digest = row.digest
        if not fault and noted is not None and int(noted[1]) > number:
            number, fault = number + 1, f"is missing: the log went on to {noted[1]} when its head was noted"
        if fault:
            return AuditVerdict(intact=False, entries=entries, head="", broken_at=number, fault=fault)
        return AuditVerdict(intact=True, entries=entries, head=f"{number}:{digest}" if number else "")

    async def verify_receipt(self, receipt: Receipt, *, signed_by: str = "") -> ReceiptVerdict:
        """Whether a receipt is as it was given: its signature, its signer (`signed_by`, else this installation), and
        its entry of the log. Raises `ExtraMissing`, `StoreError`."""
        faults = list(self._signer.faults(receipt, signed_by=signed_by))
        noted = _HEAD.fullmatch(receipt.audit)
        if noted is None:
            faults.append("it names no entry of the audit log")
        else:
            verdict = await self.verify(against=receipt.audit)
            if not verdict.intact:
                faults.append(f"the audit log does not bear it out: entry {verdict.broken_at} {verdict.fault}")
        return ReceiptVerdict(valid=not faults, signer=receipt.signer, audit=receipt.audit, faults=tuple(faults))
