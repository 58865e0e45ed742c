"""One embedder in a process of its own, which embeds what comes in on stdin, block by block; see bench_embedding.py.

    python bench/embedding_arms.py flywheel minilm|minilm-int8 REDIS_URL FOLDER
    python bench/embedding_arms.py torch MODEL_FOLDER

Each line of stdin is a JSON list of questions; each is answered by a line with their processor time (ms), what the
process has resident (MB), and the vectors. The second kind runs in an environment without Agentic Flywheel.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any


def resident_mb() -> float:
    """What this process has in memory now, in MB (10^6); its peak, where the system does not say."""
    statm = Path("/proc/self/statm")
    if statm.is_file():
        return int(statm.read_text().split()[1]) * resource.getpagesize() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS


def serve(embed: Callable[[str], Any], load_ms: float) -> None:
    """Answer blocks of questions until stdin ends."""
    print(json.dumps({"load_ms": load_ms, "resident_mb": resident_mb()}), flush=True)
    for line in sys.stdin:
        cpu, wall, vectors = [], [], []
        for question in json.loads(line):
            began, spent = perf_counter(), process_time()
            vector = embed(question)
            cpu.append((process_time() - spent) * 1000)
            wall.append((perf_counter() - began) * 1000)
            vectors.append([float(number) for number in vector])
        print(json.dumps({"cpu": cpu, "wall": wall, "resident_mb": resident_mb(), "vectors": vectors}), flush=True)


async def flywheel(model: str, url: str, folder: str) -> None:
    """A whole flywheel that has answered questions, with this embedder."""
    from agentic_flywheel import Flywheel
    from agentic_flywheel.search.embedding import embedder_of
    from agentic_flywheel.settings import load_settings

    registry = Path(folder, "flow-registry.yaml")
    registry.write_text(  # noqa: ASYNC240 - before anything else runs
        "flows:\n  documents: {kind: documents, folder: package:documentation}\n"
    )
    arguments = {"redis_url": url, "embedder.model": model, "data_dir": folder, "registry": str(registry)}
    settings = load_settings(arguments)
    began = perf_counter()
    embedder = embedder_of(settings).load_now()
    embedder.embed(["Where does this begin?"])
    load_ms = (perf_counter() - began) * 1000
    async with Flywheel.open(settings=settings, embedder=embedder) as opened:
        for question in ("How long do answers stay good?", "How long will an answer be good?", "What is a flow?"):
            await opened.ask(question)
        await asyncio.to_thread(serve, lambda text: embedder.embed([text])[0], load_ms)
    embedder.close()


def torch(model: str) -> None:
    """sentence-transformers, as its documentation uses it, on one thread."""
    began = perf_counter()
    import torch as library  # type: ignore[import-not-found,unused-ignore]
    from sentence_transformers import SentenceTransformer  # type: ignore[import-not-found,unused-ignore]

    library.set_num_threads(1)
    loaded = SentenceTransformer(model, device="cpu")

    def embed(text: str) -> Any:
        return loaded.encode(text, normalize_embeddings=True, show_progress_bar=False)

    embed("Where does this begin?")
    serve(embed, (perf_counter() - began) * 1000)


if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1"}
    if sys.argv[1] == "torch":
        torch(sys.argv[2])
    else:
        asyncio.run(flywheel(*sys.argv[2:]))
