"""The keys that a tenant's values are sealed with, for people: which there are, and the change to another one.

Invariant: no key is shown; what tells two keys of one id apart is a digest of each (`check`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from agentic_flywheel.errors import KeyMissing

if TYPE_CHECKING:
    from agentic_flywheel.store.rotation import Rotated
    from agentic_flywheel.store.store import Store

_NONE = "no key is configured here: encryption.keys, encryption.key_file and encryption.key_command are empty"


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """A key: its id, what tells it from another of this id, whether it is configured here, whether it seals, and
    whether values of the tenant may be sealed with it."""

    id: str
    check: str
    here: bool
    current: bool = False
    used: bool = False


class KeyState(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a tenant's encryption. `origin` says where this process' keys came from ("" without any),
    `since` (epoch seconds) since when the tenant is encrypted (0: it is not), `index` the key that indexes of history
    are made with. `problem` says why this process may not use the tenant; `unreadable` counts values that it could not
    open, by reason."""

    tenant: str
    keys: tuple[KeyView, ...] = ()
    origin: str = ""
    since: float = 0.0
    index: str = ""
    rotating: bool = False
    problem: str = ""
    unreadable: dict[str, int] = {}


class Encryption:
    """The encryption of one tenant."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def state(self) -> KeyState:
        """Which keys there are, and which are in use. Raises `StoreError`."""
        link = self._store.link
        await link.look()
        seals = link.seals
        mark, ring = seals.mark, seals.vault.keyring if seals.vault is not None else None
        used = dict(mark.keys) if mark is not None else {}
        views = []
        if ring is not None:
            views += [
                KeyView(id=id_, check=ring.check(id_), here=True, current=id_ == ring.current, used=id_ in used)
                for id_ in ring.keys
            ]
        known = {view.id for view in views}
        views += [
            KeyView(id=id_, check=check, here=False, used=True) for id_, check in used.items() if id_ not in known
        ]
        return KeyState(
            tenant=seals.tenant,
            keys=tuple(views),
            origin=ring.origin if ring is not None else "",
            since=mark.since if mark is not None else 0.0,
            index=mark.index if mark is not None else "",
            rotating=bool(mark is not None and mark.rotation),
            problem=seals.problem,
            unreadable=dict(seals.vault.unreadable) if seals.vault is not None else {},
        )

    def on_unreadable(self, told: Callable[[str], None]) -> None:
        """Have `told` called with the reason of each value that cannot be opened."""
        vault = self._store.link.seals.vault
        if vault is not None:
            vault.told = told

    async def rotate(self, progress: Callable[[int, int, int], None] | None = None) -> Rotated:
        """Seal everything that is plain, or was sealed with another key, with the current one, while others go on.

        `progress` is told how much of how much is done, and in which pass. A rotation that was stopped is gone on with.
        Raises `KeyMissing` where no key is configured, `StoreError`; what was done stays done.
        """
        from agentic_flywheel.store.rotation import Rotation

        link = self._store.link
        await link.meet()
        if link.seals.vault is None:
            raise KeyMissing(_NONE, tenant=link.seals.tenant)
        await self._store.outbox.settle()
        return await Rotation(link, self._store.keys, link.seals.vault).run(progress)
