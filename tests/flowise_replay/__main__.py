"""`python -m tests.flowise_replay --port 0`: the replaying Flowise as a process; prints its URL, ends on SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import signal

from .server import ReplayFlowise


async def serve(port: int) -> None:
    over = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, over.set)
    async with ReplayFlowise(port=port) as server:
        print(server.url, flush=True)
        await over.wait()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--port", type=int, default=0)
    asyncio.run(serve(arguments.parse_args().port))
