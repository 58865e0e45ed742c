"""The flow `assistant` of `afw serve --demo`: it knows a few things, and takes its time as a model would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from agentic_flywheel.flows.protocol import FlowQuestion

#: How long it thinks.
pause_seconds = 1.2

_KNOWN: Final[dict[tuple[str, ...], str]] = {
    ("roll", "undo"): """\
Run `make rollback ENV=staging`: the release before is put back in about a minute. Migrations of data are not undone;
ask in #releases first if the release had one.""",
    ("deploy",): """\
Merge into `main`, wait for the green check, then run `make deploy ENV=staging`. It takes about four minutes; the page
https://staging.shop.example/version shows the commit that runs.""",
    ("log",): "`make logs ENV=staging` follows them; older ones are in the log viewer, 14 days back.",
    ("password",): "Open the customer in the back office, *Security*, *Send reset link*. Never set one by hand.",
    ("facture",): """\
Les factures partent le premier jour ouvrable du mois, à 6 heures, par courriel et dans l'espace client.""",
    ("invoice",): "On the first working day of the month at 6:00, by e-mail and in the customer's account.",
    ("refund",): "In the order, *Refund*; above 200 EUR a second person has to confirm it.",
    ("approve", "approval"): """\
Somebody of the team that owns the service, and for the payment service somebody of finance as well.""",
}
_ELSE: Final = """\
That is not something I know. I stand for a model in this demo, and know about deploying, logs, passwords, invoices,
refunds and approvals."""


async def answer(question: FlowQuestion) -> AsyncIterator[str]:
    """The answer, word by word; what was said before is not looked at, since words of it would be taken for the
    question's."""
    await asyncio.sleep(pause_seconds)
    words = question.text.casefold()
    said = next((text for keys, text in _KNOWN.items() if any(key in words for key in keys)), _ELSE)
    for number, word in enumerate(said.split(" ")):
        yield word if number == 0 else f" {word}"
        if pause_seconds:
            await asyncio.sleep(0.02)
