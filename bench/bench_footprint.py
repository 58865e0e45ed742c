"""What a stored answer and a remembered turn weigh in Redis, and what compression could take off.

    python bench/bench_footprint.py [--server valkey|redis|URL] [--answers N] [--json] [--write]

Texts: the assistant's messages of the BEAM chats (ten chats on different subjects; github.com/mohammadtavakoli78/BEAM)
in ../shared/data/history beside the project, else this project's own documentation; cut at 2 KB. Entries and turns are
written by the store's own commands, and weighed by `MEMORY USAGE`, what the indexes hold included, and by the growth of
`used_memory`.

Compression is compared on the values that the store would write: without, zstandard levels 1 and 3, and with a trained
dictionary of 16 and 64 KB. Trained three ways: on this project's documentation, which could be shipped; on other
answers of the same subjects; and on answers of other subjects. Always measured on answers it was not trained on.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import re
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import msgspec
import zstandard

from agentic_flywheel.model import Entry, Outcome, Reason, Turn
from agentic_flywheel.policy.identity import digest, normalise
from agentic_flywheel.store.codec import COMPRESS_FROM
from agentic_flywheel.store.store import Store
from performance_page import DOCS, circumstances, markdown_table, write_part
from private_server import private_server, private_settings

CHATS = Path(__file__).resolve().parents[2] / "shared" / "data" / "history" / "beam100k"
ANSWER_BYTES = 2048
_HEADER_BYTES = 10
_pack = msgspec.msgpack.Encoder().encode


class Text(msgspec.Struct, frozen=True):
    """A question and its answer, and the subject that they belong to."""

    subject: str
    question: str
    answer: str


class Weight(msgspec.Struct):
    """Bytes per entry or per turn: its value, all of it in Redis, and the growth of `used_memory`."""

    value: float
    redis: float
    grown: float


class Variant(msgspec.Struct):
    """One way to compress: mean bytes of a value, what Redis takes for the whole entry, and microseconds."""

    name: str
    value: float
    redis: float
    encode_us: float
    decode_us: float


def chats() -> list[Text]:
    """Questions and answers of the BEAM chats, where they are."""
    found = []
    for file in sorted(CHATS.glob("*/chat.json")):
        for batch in json.loads(file.read_text("utf-8")):
            messages = [message for turn in batch["turns"] for message in turn]
            for asked, said in itertools.pairwise(messages):
                if (asked["role"], said["role"]) == ("user", "assistant") and len(said["content"]) > ANSWER_BYTES // 2:
                    question = re.sub(r"\s*->->.*$", "", asked["content"], flags=re.DOTALL)
                    found.append(Text(file.parent.name, question[:400], _cut(said["content"])))
    return found


def documentation() -> list[Text]:
    """Passages of this project's own pages, each under its heading."""
    found = []
    for page in sorted(DOCS.rglob("*.md")):
        for part in re.split(r"^#+ ", page.read_text("utf-8"), flags=re.MULTILINE)[1:]:
            heading, _, body = part.partition("\n")
            pieces = [body[start : start + 1500] for start in range(0, len(body), 1500)]
            found += [Text(page.stem, heading, piece) for piece in pieces if len(piece) > 700]
    return found


def _cut(text: str) -> str:
    return text.encode()[:ANSWER_BYTES].decode("utf-8", "ignore")


def values_of(text: Text, draw: random.Random) -> tuple[str, Entry, Turn]:
    """The entry's key, the entry and the turn that an answer would leave, with ids as random as real ones."""

    def name(bits: int = 128) -> str:
        return f"{draw.getrandbits(bits):0{bits // 4}x}"

    normal, at = normalise(text.question), 1.7e9 + draw.random() * 1e7
    fingerprint, trace, session, turn = digest(text.subject), name(), f"s-{name(64)}", name()
    key = f"afw:v1:default:team:flow:support:q:{{{digest('question', normal, '')}}}"
    flow_id, ttl = "7d1c3f0e-aaaa-4bbb-8ccc-1234567890ab", 604800 * draw.uniform(0.95, 1.05)
    took = draw.uniform(800, 4000)
    flow_id, ttl = "7d1c3f0e-aaaa-4bbb-8ccc-1234567890ab", 604800 * draw.uniform(0.95, 1.05)
    took = draw.uniform(800, 4000)
    entry = Entry(
        question=normal, identity="", answer=text.answer, flow="support", flow_id=flow_id, flow_name="Support",
        fingerprint=fingerprint, generation=3, created_at=at, ttl_seconds=ttl, trace_id=trace, turn_id=turn,
        session_id=session, asked=text.question, first=True, flow_ms=took,
    )  # fmt: skip
    kept = Turn(
        id=turn, session_id=session, at=at, question=text.question, answer=text.answer, flow="support",
        fingerprint=fingerprint, outcome=Outcome.MISS, reason=Reason.NOT_STORED, trace_id=trace, origin_trace_id=trace,
        entry_key=key, elapsed_ms=took + 2.25, flow_ms=took,
    )  # fmt: skip
    return key, entry, kept


async def weigh(url: str, texts: list[Text]) -> dict[str, Weight]:
    """Write all of them as the store does; bytes per entry, per turn of long sessions and per session of one turn."""
    draw = random.Random(11)
    made = [values_of(text, draw) for text in texts]
    entries = [(key + str(n), entry) for n, (key, entry, _) in enumerate(made)]
    turns = [turn for _, _, turn in made]
    long = [msgspec.structs.replace(turn, session_id=f"long-{n // 50}") for n, turn in enumerate(turns)]
    with tempfile.TemporaryDirectory(prefix="afw-bench-") as folder:
        store = Store(private_settings(url, folder, tenant="default"))
        try:
            return {
                "entry": await _weigh(store, [store.entries.put_commands(key, entry) for key, entry in entries]),
                "turn of a session of 50": await _weigh(store, [store.sessions.append_commands(turn) for turn in long]),
                "session of one turn": await _weigh(store, [store.sessions.append_commands(turn) for turn in turns]),
            }
        finally:
            await store.aclose()


async def _weigh(store: Store, written: list[list[Any]]) -> Weight:
    await store.link.run(("FLUSHALL",))
    before = await _used(store)
    payloads: list[int] = []
    for commands in written:
        await store.link.run(*commands, slow=True)
        payloads.append(max(len(part) for command in commands for part in command if isinstance(part, bytes)))
    grown = await _used(store) - before
    (keys,) = await store.link.run(("KEYS", "*"), slow=True)
    sizes = await store.link.run(*(("MEMORY", "USAGE", key, "SAMPLES", 0) for key in keys), slow=True)
    count = len(written)
    return Weight(statistics.mean(payloads), sum(sizes) / count, grown / count)


async def _used(store: Store) -> int:
    (text,) = await store.link.run(("INFO", "memory"), slow=True)
    return int(re.search(r"used_memory:(\d+)", text if isinstance(text, str) else text.decode())[1])  # type: ignore[index]


def dictionaries(texts: list[Text]) -> tuple[dict[str, Any], list[Text]]:
    """Trained dictionaries by name, and the answers to measure on: those of the last subjects, every second one."""
    pages = documentation()
    subjects = sorted({text.subject for text in texts})
    held_out = set(subjects[len(subjects) // 2 :])
    of_held_out = [text for text in texts if text.subject in held_out]
    training = {
        # Nothing is measured on what it was trained on.
        "own documentation": [] if texts[0].subject in {text.subject for text in pages} else pages,
        "same subjects": of_held_out[::2],
        "other subjects": [text for text in texts if text.subject not in held_out],
    }
    made: dict[str, Any] = {}
    for name, chosen in training.items():
        if not chosen:
            continue
        draw = random.Random(13)
        samples = [_pack(value) for text in chosen for value in values_of(text, draw)[1:]]
        for kilobytes in (16, 64):
            trained = zstandard.train_dictionary(kilobytes * 1024, samples)
            made[f"zstd 3, {kilobytes} KB of {name}"] = trained
    return made, of_held_out[1::2]


async def compare(url: str, texts: list[Text]) -> dict[str, list[Variant]]:
    """All ways to compress, for entries and for turns."""
    made, measured = dictionaries(texts)
    draw = random.Random(17)
    values = [values_of(text, draw) for text in measured]
    ways: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {"none": (bytes, bytes)}
    plain = zstandard.ZstdDecompressor()
    for level in (1, 3):
        ways[f"zstd {level}"] = (zstandard.ZstdCompressor(level=level).compress, plain.decompress)
    for name, trained in made.items():
        trained.precompute_compress(level=3)
        compress = zstandard.ZstdCompressor(level=3, dict_data=trained).compress
        ways[name] = (compress, zstandard.ZstdDecompressor(dict_data=trained).decompress)
    found: dict[str, list[Variant]] = {}
    with tempfile.TemporaryDirectory(prefix="afw-bench-") as folder:
        store = Store(private_settings(url, folder, tenant="default"))
        try:
            for kind, at in (("entry", 1), ("turn", 2)):
                bodies = [(value[0], _pack(value[at])) for value in values]
                assert min(len(body) for _, body in bodies) >= COMPRESS_FROM
                found[kind] = [await _variant(store, name, way, bodies) for name, way in ways.items()]
        finally:
            await store.aclose()
    return found


async def _variant(
    store: Store,
    name: str,
    way: tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]],
    bodies: list[tuple[str, bytes]],
) -> Variant:
    compress, expand = way
    squeezed = [compress(body) for _, body in bodies]
    if [expand(body) for body in squeezed] != [body for _, body in bodies]:
        raise SystemExit(f"{name} does not give back what it was given")
    sizes = []
    for (key, _), body in zip(bodies, squeezed, strict=True):
        replies = await store.link.run(
            ("SET", key, bytes(_HEADER_BYTES) + body, "PX", 10**9), ("MEMORY", "USAGE", key), slow=True
        )
        sizes.append(replies[1])
    return Variant(
        name,
        value=statistics.mean(map(len, squeezed)) + _HEADER_BYTES,
        redis=statistics.mean(sizes),
        encode_us=_micros(compress, [body for _, body in bodies]),
        decode_us=_micros(expand, squeezed),
    )


def _micros(work: Callable[[bytes], bytes], over: list[bytes]) -> float:
    def once() -> float:
        start = process_time()
        for body in over:
            work(body)
        return (process_time() - start) / len(over) * 1e6

    return min(once() for _ in range(7))


def fields(texts: list[Text]) -> dict[str, dict[str, float]]:
    """By how many bytes an entry's and a turn's compressed value shrinks without each of its fields."""
    draw = random.Random(19)
    squeeze = zstandard.ZstdCompressor(level=3).compress
    made = [values_of(text, draw)[1:] for text in texts[:300]]
    found: dict[str, dict[str, float]] = {}
    for at, (kind, type_) in enumerate((("entry", Entry), ("turn", Turn))):
        arrays = [msgspec.to_builtins(value[at]) for value in made]
        whole = statistics.mean(len(squeeze(_pack(array))) for array in arrays)
        named: dict[str, float] = {}
        for place, field in enumerate(type_.__struct_fields__):
            without = [array[:place] + array[place + 1 :] for array in arrays]
            named[field] = whole - statistics.mean(len(squeeze(_pack(array))) for array in without)
        found[kind] = dict(sorted(named.items(), key=lambda pair: -pair[1]))
    return found


def page(name: str, source: str, weights: dict[str, Weight], ways: dict[str, list[Variant]], shares: Any) -> str:
    """The figures as docs/performance.md shows them."""
    rows = [[what, *(f"{x:,.0f}" for x in (w.value, w.redis, w.grown))] for what, w in weights.items()]
    parts = [markdown_table(["bytes per", "value", "in Redis, indexes included", "growth of used_memory"], rows)]
    for kind, variants in ways.items():
        now = next(v for v in variants if v.name == "zstd 3")
        parts.append(
            markdown_table(
                [f"{kind}: compression", "value", "in Redis", "against zstd 3", "encode us", "decode us"],
                [
                    [
                        v.name,
                        f"{v.value:,.0f}",
                        f"{v.redis:,.0f}",
                        f"{v.redis / now.redis - 1:+.0%}",
                        f"{v.encode_us:.1f}",
                        f"{v.decode_us:.1f}",
                    ]
                    for v in variants
                ],
            )
        )
    heaviest = [
        f"{kind}: " + ", ".join(f"`{field}` {size:,.0f}" for field, size in list(of.items())[:9])
        for kind, of in shares.items()
    ]
    parts.append(
        "Bytes that a field takes of the compressed value, the heaviest first:\n\n"
        + "\n".join(f"- {line}" for line in heaviest)
    )
    return "\n\n".join([*parts, f"{circumstances(name)} Texts: {source}."])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="valkey", help="valkey (default), redis, or a Redis address")
    parser.add_argument("--answers", type=int, default=1000, help="how many answers at most (default 1000)")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    given = parser.parse_args()
    texts, source = chats(), "assistant messages of the BEAM chats, cut at 2 KB"
    if not texts:
        texts, source = documentation(), "this project's documentation (no chats in ../shared/data/history)"
    random.Random(7).shuffle(texts)
    texts = texts[: given.answers]
    with private_server(given.server) as server:
        url = next(iter(server.urls.values()))
        weights = asyncio.run(weigh(url, texts))
        ways = asyncio.run(compare(url, texts))
        shares = fields(texts)
        whole = page(server.name, f"{source}, {len(texts):,} of them", weights, ways, shares)
    if given.json:
        print(json.dumps(msgspec.to_builtins({"weights": weights, "compression": ways, "fields": shares}), indent=2))
    else:
        print(whole)
    if given.write:
        write_part("footprint", whole)
    return 0


if __name__ == "__main__":
    sys.exit(main())
