"""Turns as they are written: the value of `codec`, made quickly where the same was answered to the same before.

A turn is what an answer says, between what is of the one question alone (ids, times, traces). Where turns that say the
same come again and again, that part is compressed once and set between the other two, which stay as they are: a frame
of Zstandard (RFC 8878) is a row of blocks, and a block that refers to nothing before it means the same in every frame.

Invariant: `codec.decode` reads either form, and reads the same turn.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import msgspec

from agentic_flywheel.model import Turn
from agentic_flywheel.store.codec import COMPRESS_FROM, Stored, compressed, encode, head_of, stored

#: What turns say that is kept compressed, for each thread, and the longest of it in bytes.
_KEPT = 512
_LONGEST = 16_384
#: The most that a block may hold, in bytes.
_BLOCK = 128 * 1024

_FIELDS = Turn.__struct_fields__
#: Fields from question to reason: what the answer is. What stands before and after is of the one turn.
_FROM, _UNTIL = _FIELDS.index("question"), _FIELDS.index("trace_id")
_encoder = msgspec.msgpack.Encoder()
_OPENING = b"\xdc" + len(_FIELDS).to_bytes(2, "big")
_MAGIC = b"\x28\xb5\x2f\xfd"
#: A frame in one piece that says its size in four bytes, and has no checksum: values have one of their own.
_DESCRIPTOR = b"\xa0"


class _Said(threading.local):
    """What turns said lately: None where it was said once, else the block and the size of what is in it."""

    def __init__(self) -> None:
        self.blocks: OrderedDict[tuple[Any, ...], tuple[bytes, int] | None] = OrderedDict()


_said = _Said()


def encode_turn(turn: Turn, at: str = "") -> Stored:
    """A turn as bytes, to be stored `at` (see `codec.Stored`)."""
    block = _block_of(turn)
    if block is None:
        return encode(turn, at)
    squeezed, size = block
    fields = msgspec.structs.astuple(turn)
    before, after = _OPENING + _packed(fields[:_FROM]), _packed(fields[_UNTIL:])
    if max(len(before), len(after)) > _BLOCK:  # sources, or an id out of all proportion
        return encode(turn, at)
    whole = (len(before) + size + len(after)).to_bytes(4, "little")
    frame = b"".join((_MAGIC, _DESCRIPTOR, whole, _raw(before), squeezed, _raw(after, last=True)))
    return stored(head_of(frame, compression=1) + frame, at)


def _block_of(turn: Turn) -> tuple[bytes, int] | None:
    """What the turn says as a block, where turns have said it before."""
    if not COMPRESS_FROM <= len(turn.answer) <= _LONGEST:
        return None
    said = (turn.question, turn.answer, turn.flow, turn.fingerprint, turn.outcome, turn.reason)
    blocks = _said.blocks
    if said not in blocks:
        blocks[said] = None
        if len(blocks) > _KEPT:
            blocks.popitem(last=False)
        return None
    blocks.move_to_end(said)
    block = blocks[said]
    if block is None:
        plain = _packed(said)
        if (squeezed := _only_block(compressed(plain))) is None:
            return None
        block = blocks[said] = (squeezed, len(plain))
    return block


def _only_block(frame: bytes) -> bytes | None:
    """The block of a frame that has one alone, as one that others follow; None for other frames."""
    descriptor = frame[4]
    in_one_piece = bool(descriptor & 0x20)
    size_bytes = (int(in_one_piece), 2, 4, 8)[descriptor >> 6]
    start = 5 + size_bytes + (0 if in_one_piece else 1)
    header = int.from_bytes(frame[start : start + 3], "little")
    if not header & 1 or start + 3 + (header >> 3) != len(frame):
        return None
    return (header & ~1).to_bytes(3, "little") + frame[start + 3 :]


def _raw(plain: bytes, *, last: bool = False) -> bytes:
    """Bytes as a block that holds them as they are."""
    return (len(plain) << 3 | int(last)).to_bytes(3, "little") + plain


def _packed(fields: tuple[Any, ...]) -> bytes:
    """Fields one after the other, without the head of an array around them."""
    return _encoder.encode(fields)[1 if len(fields) < 16 else 3 :]
