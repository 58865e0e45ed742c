"""Signatures under receipts (Ed25519, RFC 8032), by a key that this installation makes for itself.

Invariant: the key is in a file that its owner alone may read (`signing_key_file`, else `signing.key` in the data
directory) and nowhere else. A receipt whose signature holds says what it said when it was signed.
"""

from __future__ import annotations

import logging
import os
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from agentic_flywheel.errors import ExtraMissing, SettingsError
from agentic_flywheel.model import Receipt
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.folders import data_folder

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_log = logging.getLogger(__name__)
_LENGTH = 32
#: What a note under a receipt says where the library is missing.
UNSIGNED = "This receipt is not signed: pip install 'agentic-flywheel[encryption]' adds what signs."


class Signer:
    """Signs with the key of this installation, which is made when it is first needed."""

    def __init__(self, settings: Settings) -> None:
        self._path = Path(settings.text("signing.key_file") or data_folder(settings) / "signing.key").expanduser()
        self._key: Ed25519PrivateKey | None = None

    @property
    def public(self) -> str:
        """What others verify with, in base64. Raises `ExtraMissing`, `SettingsError`."""
        return b64encode(self._signing_key().public_key().public_bytes_raw()).decode()

    def sign(self, receipt: Receipt) -> Receipt:
        """The receipt with signer and signature; without the extra, with a note instead."""
        try:
            named = msgspec.structs.replace(receipt, signer=self.public, signature="")
        except (ExtraMissing, SettingsError) as error:
            _log.warning("a receipt could not be signed: %s", error)
            note = UNSIGNED if isinstance(error, ExtraMissing) else f"This receipt is not signed: {error.message}."
            return msgspec.structs.replace(receipt, notes=(*receipt.notes, note))
        return msgspec.structs.replace(named, signature=b64encode(self._signing_key().sign(_signed(named))).decode())

    def faults(self, receipt: Receipt, *, signed_by: str = "") -> Iterator[str]:
        """What speaks against a receipt's signature; `signed_by` is the public key that is expected, this
        installation's where it is empty. Raises `ExtraMissing`."""
        if not receipt.signature:
            yield "it is not signed"
            return
        expected = signed_by or self.public
        if receipt.signer != expected:
            yield f"it was signed with another key ({receipt.signer}), not {expected}"
        _library()
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            key = Ed25519PublicKey.from_public_bytes(b64decode(receipt.signer, validate=True))
            key.verify(b64decode(receipt.signature, validate=True), _signed(receipt))
        except (InvalidSignature, ValueError):
            yield "it was changed after it was signed"

    def _signing_key(self) -> Ed25519PrivateKey:
        if self._key is None:
            _library()
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

            self._key = Ed25519PrivateKey.from_private_bytes(self._secret())
        return self._key

    def _secret(self) -> bytes:
        try:
            if not self._path.exists():
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                new = self._path.with_name(f".{self._path.name}.{os.getpid()}")
                with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(b64encode(os.urandom(_LENGTH)) + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
                try:
                    os.link(new, self._path)  # whoever is first makes the key of all
                except FileExistsError:
                    pass
                finally:
                    new.unlink()
            secret = b64decode(self._path.read_bytes().strip(), validate=True)
        except OSError as error:
            raise SettingsError(f"the signing key {self._path} cannot be used: {error.strerror}") from error
        except ValueError as error:
            raise SettingsError(f"the signing key {self._path} is not base64") from error
        if len(secret) != _LENGTH:
            raise SettingsError(f"the signing key {self._path} has {len(secret)} bytes, not {_LENGTH}")
        return secret


def _library() -> None:
    try:
        import cryptography.exceptions  # noqa: F401
    except ImportError as error:
        raise ExtraMissing("signed receipts", "encryption") from error


def _signed(receipt: Receipt) -> bytes:
    """What is signed: all of the receipt but the signature, as JSON with its names in order."""
    return msgspec.json.encode(msgspec.structs.replace(receipt, signature=""), order="sorted")
