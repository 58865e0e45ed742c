"""What became of the turns that went through the outbox, counted across processes.

Invariant: counting never stands in the way: a count that cannot be written (a full disk) is logged and left out. The
turns themselves do not depend on it.
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from agentic_flywheel.errors import StoreError
from agentic_flywheel.store.journal import locked

_log = logging.getLogger(__name__)
#: Room for every count there can be: the file is written over in place, so a full disk does not stop the counting.
_SIZE = 200


class Counts(msgspec.Struct, frozen=True):
    """Turns kept, delivered, set aside and lost; `cut`: writes that a crash cut short; `withheld`: turns that a privacy
    policy let nobody keep any more."""

    kept: int = 0
    delivered: int = 0
    rejected: int = 0
    lost: int = 0
    cut: int = 0
    withheld: int = 0


class Tally:
    """The counts in one file. Every method blocks."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Counts:
        """All counts so far; zero where there is no readable file."""
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=Counts)
        except (FileNotFoundError, msgspec.DecodeError):
            return Counts()

    def add(self, **amounts: int) -> None:
        """Add to counts by name."""
        if not any(amounts.values()):
            return
        try:
            with locked(self.path.with_suffix(".lock")):
                counts = self.read()
                sums = {name: getattr(counts, name) + amount for name, amount in amounts.items()}
                content = msgspec.json.encode(msgspec.structs.replace(counts, **sums)).ljust(_SIZE)
                with self.path.open("r+b" if self.path.exists() else "wb") as file:
                    file.write(content)
        except (OSError, StoreError) as error:
            _log.warning("not counted (%s): %s", ", ".join(f"{n} {a}" for n, a in amounts.items() if a), error)
