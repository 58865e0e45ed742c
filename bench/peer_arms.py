"""What bench_peers.py measures: every arm finds the same stored answers on the same server, each by its own means.

An arm is made with all answers already in its store. Its `hit` finds the answer of a question and checks it: what does
not come back word for word ends the benchmark, so no arm wins by answering wrongly.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from time import perf_counter_ns
from typing import Any

import msgspec

from agentic_flywheel import Flywheel, Outcome
from agentic_flywheel.flows.registry import Registry
from private_server import private_settings

#: Length of the vectors that are given where a peer looks by vector: that of all-MiniLM-L6-v2.
DIMENSIONS = 384
Texts = dict[str, str]


class Arm(msgspec.Struct):
    """One way to find a stored answer: by an async function, or by one that must have a thread for concurrency.

    `settle` ends what was begun and is not done when a hit returns; its time counts in the throughput.
    """

    name: str
    hit: Callable[[str], Awaitable[None]] | None = None
    blocking_hit: Callable[[str], None] | None = None
    settle: Callable[[], Awaitable[None]] | None = None
    note: str = ""


def expect(found: object, wanted: str, who: str) -> None:
    """The stored answer, or the end of the benchmark."""
    if found != wanted:
        raise SystemExit(f"{who} found {str(found)[:60]!r} instead of the stored answer")


def vector_of(text: str) -> list[float]:
    """A unit vector of the text's own; costs a few hashes, so that looking is measured and not embedding."""
    drawn = b"".join(hashlib.blake2b(text.encode(), key=bytes([i])).digest() for i in range(DIMENSIONS // 64))
    raw = [byte - 127.5 for byte in drawn]
    length = sum(x * x for x in raw) ** 0.5
    return [x / length for x in raw]


async def bare_sync(url: str, texts: Texts, stack: AsyncExitStack) -> Arm:
    from redis import Redis

    client = Redis.from_url(url)
    stack.callback(client.close)

    def hit(question: str) -> None:
        expect(client.get(f"bare:{question}"), encoded[question], "GET")

    encoded = {question: text.encode() for question, text in texts.items()}
    client.mset({f"bare:{question}": text for question, text in texts.items()})
    return Arm("redis-py GET", blocking_hit=hit)


async def bare_async(url: str, texts: Texts, stack: AsyncExitStack) -> Arm:
    from redis.asyncio import Redis

    client = Redis.from_url(url)
    stack.push_async_callback(client.aclose)
    encoded = {question: text.encode() for question, text in texts.items()}
    await client.mset({f"bare:{question}": text for question, text in texts.items()})

    async def hit(question: str) -> None:
        expect(await client.get(f"bare:{question}"), encoded[question], "GET")

    return Arm("redis-py asyncio GET", hit)


async def flywheel(url: str, texts: Texts, stack: AsyncExitStack, folder: str, name: str, **named: object) -> Arm:
    def answered(question: str) -> str:
        return texts[question]

    settings = private_settings(url, folder, tenant="peers", **named)
    registry = Registry(settings)
    registry.register("bench", answered)
    ours = await stack.enter_async_context(Flywheel.open(settings=settings, registry=registry))

    async def hit(question: str) -> None:
        answer = await ours.ask(question, flow="bench")
        if answer.outcome is not Outcome.HIT or answer.text != texts[question]:
            raise SystemExit(f"{name}: {question!r} is a {answer.outcome} ({answer.reason}): {answer.warnings}")

    for question in texts:
        await ours.ask(question, flow="bench")
    return Arm(name, hit, settle=ours.flush, note="turn remembered, counted and explained")


async def langchain_redis(url: str, texts: Texts, stack: AsyncExitStack) -> Arm:
    from langchain_core.outputs import Generation
    from langchain_redis import RedisCache

    cache = RedisCache(redis_url=url, ttl=3600, prefix="langchain")
    stack.callback(cache.redis.close)
    for question, text in texts.items():
        cache.update(question, "bench", [Generation(text=text)])

    def hit(question: str) -> None:
        found = cache.lookup(question, "bench")
        expect(found and found[0].text, texts[question], "langchain-redis")

    return Arm("langchain-redis RedisCache", blocking_hit=hit, note="exact, no async lookup of its own")


async def redisvl(url: str, texts: Texts, stack: AsyncExitStack) -> Arm:
    from redisvl.extensions.cache.llm import SemanticCache
    from redisvl.utils.vectorize import CustomVectorizer

    vectors = {question: vector_of(question) for question in texts}
    cache = SemanticCache(name="redisvl", redis_url=url, vectorizer=CustomVectorizer(embed=vector_of), ttl=3600)
    stack.push_async_callback(cache.adisconnect)
    for question, text in texts.items():
        await cache.astore(question, text, vector=vectors[question])
    await _indexed(url, "redisvl", len(texts))

    async def hit(question: str) -> None:
        found = await cache.acheck(vector=vectors[question])
        expect(found and found[0]["response"], texts[question], "redisvl")

    return Arm("redisvl SemanticCache", hit, note="vector given")


async def gptcache(url: str, texts: Texts, stack: AsyncExitStack, folder: str) -> Arm:
    from urllib.parse import urlsplit

    import numpy as np
    from gptcache import Cache
    from gptcache.adapter.api import get, put
    from gptcache.manager import manager_factory
    from gptcache.processor.pre import get_prompt
    from gptcache.similarity_evaluation import ExactMatchEvaluation

    def embedding(text: str, **_: Any) -> Any:
        return vectors[text]

    vectors = {question: np.array(vector_of(question), "float32") for question in texts}
    logging.disable(logging.ERROR)  # it writes its index once more when all is gone, and says that it could not
    parts = urlsplit(url)
    manager = manager_factory(
        "redis,faiss",
        data_dir=folder,
        scalar_params={
            "redis_host": parts.hostname,
            "redis_port": parts.port,
            "global_key_prefix": "gptcache",
            "protocol": 2,
        },
        vector_params={"dimension": DIMENSIONS},
    )
    cache = Cache()
    cache.init(
        pre_embedding_func=get_prompt,
        embedding_func=embedding,
        data_manager=manager,
        similarity_evaluation=ExactMatchEvaluation(),
    )
    for question, text in texts.items():
        put(question, text, cache_obj=cache)
    stack.callback(manager.close)

    def hit(question: str) -> None:
        expect(get(question, cache_obj=cache), texts[question], "GPTCache")

    return Arm("GPTCache redis,faiss", blocking_hit=hit, note="vector given, exact match, no async API")


async def _indexed(url: str, index: str, count: int) -> None:
    """Wait until the query engine lists all documents."""
    from redis.asyncio import Redis

    async with Redis.from_url(url, decode_responses=True) as client:
        for _ in range(2000):
            info = await client.ft(index).info()
            if int(info["num_docs"]) >= count:
                return
            await asyncio.sleep(0.01)
    raise RuntimeError(f"{index} does not list {count} documents")


async def concurrently(
    arm: Arm, questions: Iterator[str], tasks: int, hits: int, pool: ThreadPoolExecutor
) -> list[int]:
    """`hits` hits by `tasks` tasks at once, or by as many threads; what each took, in nanoseconds."""
    took: list[int] = []

    def work_in_thread(share: list[str]) -> None:
        assert arm.blocking_hit is not None
        for question in share:
            start = perf_counter_ns()
            arm.blocking_hit(question)
            took.append(perf_counter_ns() - start)

    async def work(share: list[str]) -> None:
        assert arm.hit is not None
        for question in share:
            start = perf_counter_ns()
            await arm.hit(question)
            took.append(perf_counter_ns() - start)

    shares = [[next(questions) for _ in range(hits // tasks)] for _ in range(tasks)]
    if arm.hit is not None:
        await asyncio.gather(*(work(share) for share in shares))
    else:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(pool, work_in_thread, share) for share in shares))
    if arm.settle is not None:
        await arm.settle()
    return took


async def one_by_one(arm: Arm, questions: Iterator[str], hits: int) -> list[int]:
    """`hits` hits one after the other; what each took, in nanoseconds."""
    took: list[int] = []
    for question in itertools.islice(questions, hits):
        start = perf_counter_ns()
        if arm.hit is not None:
            await arm.hit(question)
        elif arm.blocking_hit is not None:
            arm.blocking_hit(question)
        took.append(perf_counter_ns() - start)
    if arm.settle is not None:
        await arm.settle()
    return took
