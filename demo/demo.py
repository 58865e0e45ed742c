"""See Agentic Flywheel work, in a few seconds: `make demo`.

No Redis, no service, no network: an embedded server in a temporary directory, and a flow that answers from a copy of
the project's own documentation. Everything that is printed is checked; the program ends with status 1 if anything is
not as it says. It leaves neither a process nor a file behind.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from agentic_flywheel import Answer, Flywheel, __version__
from agentic_flywheel.durations import show_age, show_duration
from agentic_flywheel.search.embedders.builds import cache_folder
from agentic_flywheel.settings import load_settings
from agentic_flywheel.store.embedded import EmbeddedServer

DOCUMENTS = Path(__file__).resolve().parent.parent / "docs"
REGISTRY = """\
flows:
  documents:
    kind: documents
    folder: ../documents
    name: Documentation
"""
#: What the commands and servers started here need of the environment; everything else could name another Redis.
KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "TMPDIR", "TERM", "COLUMNS", "NO_COLOR", "VIRTUAL_ENV")
LABEL = 16


class NotAsClaimed(Exception):
    """Something turned out differently from what the demo says."""


class Page:
    """What a person reads: headings, text and aligned facts, wrapped to the terminal."""

    def __init__(self) -> None:
        self.width = max(48, min(shutil.get_terminal_size((88, 24)).columns, 88))
        self.colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self.checked = 0
        self._chapter = 0
        self._apart = False  # whether the last line was empty

    def chapter(self, title: str) -> None:
        """Begin the next part."""
        self._chapter += 1
        print(f"\n\n{self._style('1', f'{self._chapter}  {title}')}\n")
        self._apart = True

    def text(self, text: str) -> None:
        """A paragraph."""
        print(self._wrapped(text, "   "))
        self._apart = False

    def asked(self, who: str, question: str) -> None:
        """A question, as it was asked."""
        if not self._apart:
            print()
        self.fact(who, self._style("1", f"“{question}”"))

    def fact(self, name: str, value: str) -> None:
        """One line of facts; long ones go on below themselves."""
        first = f"   {name:<{LABEL}}"
        wrapped = self._wrapped(value, " " * len(first), first)
        print(wrapped.replace(first, self._style("2", first), 1))
        self._apart = False

    def answer(self, answer: Answer | dict[str, Any]) -> None:
        """The answer's beginning: its heading and what stands below it."""
        text = answer["text"] if isinstance(answer, dict) else answer.text
        heading, _, rest = text.partition("\n\n")
        body = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", rest.partition("\n\n")[0])
        lines = textwrap.wrap(" ".join(body.split()), self.width - 7)
        if body.lstrip().startswith("|"):
            lines = [line.replace("`", "") for line in body.splitlines() if "---" not in line]
        more = len(lines) > 4 or "\n\n" in rest
        shown = lines[:4]
        print()
        print(f"   {self._style('2', '|')} {self._style('1', heading.strip('*'))}")
        for line in shown:
            print(f"   {self._style('2', '|')} {line[: self.width - 5]}")
        if more:
            print(f"   {self._style('2', '| ...')}")
        print()

    def claim(self, claim: str, holds: bool, seen: object = "") -> None:
        """State something and check it. Raises `NotAsClaimed`."""
        if not holds:
            raise NotAsClaimed(f"{claim} -- not so: {seen}" if seen != "" else f"{claim} -- not so")
        self.checked += 1
        self.fact("checked", claim)

    def table(self, rows: list[list[str]]) -> None:
        """Rows under a heading, numbers to the right."""
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        print()
        for number, row in enumerate(rows):
            cells = [
                cell.rjust(width) if i else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            line = "   " + "   ".join(cells)
            print(self._style("2", line) if not number else line)
        print()

    def _wrapped(self, text: str, indent: str, first: str | None = None) -> str:
        return textwrap.fill(
            text,
            self.width,
            initial_indent=indent if first is None else first,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )

    def _style(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colours else text


def milliseconds(value: float) -> str:
    """A time with the digits that matter."""
    return f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms"


async def run(page: Page, place: Path) -> None:
    """The whole demonstration."""
    # A busy machine compares a question with similar ones more slowly than people should have to wait for.
    async with Flywheel.open(similar_patience_seconds=10) as flywheel:
        first = await first_question(page, flywheel)
        await same_question(page, flywheel, first)
        await other_words(page, flywheel)
        approved = await stand_behind(page, flywheel)
        session = await follow_up(page, flywheel)
        await kill_the_server(page, flywheel, session)
        await change_a_document(page, flywheel, first, approved, place / "documents")
        await key_and_lifetime(page, flywheel, first)
        await figures(page, flywheel)


async def first_question(page: Page, flywheel: Flywheel) -> Answer:
    """Ask something that nobody has asked before."""
    page.chapter("A question that nobody has asked before")
    began = time.perf_counter()
    await flywheel.doctor()  # connects, so that the embedded server's start is not counted as part of the answer
    page.text(f"An embedded Redis server is started: {milliseconds((time.perf_counter() - began) * 1000)}.")
    question = "How long are answers kept?"
    page.asked("ada asks", question)
    answer = await flywheel.ask(question, user="ada")
    page.answer(answer)
    page.fact("outcome", f"{answer.outcome}: {answer.reason}, so the flow was asked")
    page.fact("time", f"{milliseconds(answer.elapsed_ms)}, of which the flow took {milliseconds(answer.flow_ms or 0)}")
    page.fact("source", answer.sources[0].uri)
    page.fact("trace", answer.trace_id)
    page.claim("it was a miss, and the answer is stored", answer.outcome == "miss" and answer.key is not None, answer)
    return answer


async def same_question(page: Page, flywheel: Flywheel, first: Answer) -> None:
    """Ask it again as somebody else."""
    page.chapter("The same question, from somebody else")
    question = "  how long ARE answers kept "
    page.asked("grace asks", question)
    answer = await flywheel.ask(question, user="grace")
    age = show_age(timedelta(seconds=answer.age_seconds))
    print()
    page.fact("outcome", f"{answer.outcome}: {answer.reason}, shared with the {answer.scope}")
    page.fact("time", f"{milliseconds(answer.elapsed_ms)}; the flow was not asked")
    page.fact("age", age)
    page.fact("computed in", f"trace {answer.origin_trace_id}")
    page.claim(
        "it was a hit, word for word the same answer", answer.outcome == "hit" and answer.text == first.text, answer
    )
    page.claim("it names the trace it was computed in", answer.origin_trace_id == first.trace_id, answer)


async def other_words(page: Page, flywheel: Flywheel) -> None:
    """Ask what was asked before in other words, and what only looks like it."""
    page.chapter("The same question in other words")
    if not await flywheel.similar.ready():
        page.text("Left out: there is no embedder here, so only the same words count. `make embedder` fetches one.")
        return
    stored, reworded, opposite = (
        "How do I turn the near cache on?",
        "How can I turn the near cache on?",
        "How do I turn the near cache off?",
    )
    await flywheel.similar.set("documents", mode="fixed")
    page.asked("ada asks", stored)
    first = await flywheel.ask(stored, user="ada")
    page.asked("grace asks", reworded)
    answer = await flywheel.ask(reworded, user="grace")
    print()
    page.fact("outcome", f"{answer.outcome}: {answer.similarity or 0:.1%} like “{answer.matched_question}”")
    page.claim("it was answered from memory", answer.outcome == "similar" and answer.text == first.text, answer)
    page.asked("grace asks", opposite)
    other = await flywheel.ask(opposite, user="grace")
    near = [candidate for candidate in other.considered if candidate.similarity is not None]
    print()
    page.fact("outcome", f"{other.outcome}: the flow was asked")
    page.fact("near as well", f"{near[0].similarity or 0:.1%} like “{near[0].question}”, but {near[0].refusals[0]}")
    page.claim("what only looks alike is not answered from memory", other.outcome == "miss", other)


async def stand_behind(page: Page, flywheel: Flywheel) -> str:
    """Put an answer into the FAQ; the id of its entry."""
    page.chapter("An answer that somebody stands behind")
    question, words = "How long are answers kept?", "As long as their kind: technical 7 days, documents 3."
    draft = await flywheel.faq.add(question, words, flow="documents", by="ada")
    entry = await flywheel.faq.approve(draft.id, owner="ada", by="ada")
    page.fact("approved", f"by ada, who is its owner: {words}")
    page.asked("grace asks", question)
    answer = await flywheel.ask(question, user="grace")
    print()
    page.fact("outcome", f"{answer.outcome}: {answer.reason}, entry {answer.faq} of the FAQ")
    page.claim("the approved words were served", (answer.source, answer.text) == ("faq", words), answer)
    return entry.id


async def follow_up(page: Page, flywheel: Flywheel) -> str:
    """Ask something that only makes sense after what was said before."""
    page.chapter("A follow-up, with what was said before")
    session = "planning"
    page.asked("ada asks", "Where is the data stored?")
    opening = await flywheel.ask("Where is the data stored?", session=session, user="ada")
    page.asked("ada goes on", "And on macOS?")
    answer = await flywheel.ask("And on macOS?", session=session, user="ada")
    page.answer(answer)
    turns = {turn.id: turn for turn in (await flywheel.sessions.show(session)).turns}
    for turn_id in answer.context:
        page.fact("enriched by", f"“{turns[turn_id].question}” (turn {turn_id[:8]})")
    page.claim("the turn before it went with the question", answer.context == (opening.turn_id,), answer.context)
    page.claim("the answer knows the place on macOS", "Application Support" in answer.text, answer.text)

    page.asked("grace asks", "How do I stop the embedded server?")
    await flywheel.ask("How do I stop the embedded server?", session="cleaning up", user="grace")
    page.asked("grace goes on", "And on macOS?")
    other = await flywheel.ask("And on macOS?", session="cleaning up", user="grace")
    print()
    page.fact("outcome", f"{other.outcome}: {other.reason}")
    page.claim("the same words in another conversation are not answered from ada's", other.outcome == "miss", other)
    return session


async def kill_the_server(page: Page, flywheel: Flywheel, session: str) -> None:
    """End the server as a crash would, and go on in another process."""
    page.chapter("The server is killed, and a new process goes on")
    embedded = flywheel.embedded
    if embedded is None or (before := await embedded.status()) is None:
        raise NotAsClaimed("the embedded server runs -- not so")
    known = (await flywheel.sessions.show(session)).turns
    # While a disk is busy, Redis holds its writes back for up to two seconds; a crash in that time would take them.
    while (now := await embedded.status()) is not None and now.unwritten_bytes:  # noqa: ASYNC110 (Redis tells nobody)
        await asyncio.sleep(0.05)
    os.kill(before.pid, signal.SIGKILL)
    page.fact("killed", f"{before.server} {before.version}, process {before.pid} (kill -9)")
    question = "How do I stop it there?"
    page.fact("new process", f"afw ask --session {session} --user ada “{question}”")
    answer = await command("ask", "--session", session, "--user", "ada", question)
    page.answer(answer)
    thread = await command("session", "show", session)
    for turn in thread["turns"]:
        page.fact("in the session", f"“{turn['question']}”")
    after = await embedded.status()
    page.claim("another server serves the same data", after is not None and after.pid != before.pid, after)
    asked = [turn["question"] for turn in thread["turns"]]
    page.claim("no turn was lost", asked == [*(turn.question for turn in known), question], asked)
    page.claim(
        "the new process enriched the question with both turns",
        answer["context"] == [turn.id for turn in known],
        answer,
    )


async def change_a_document(page: Page, flywheel: Flywheel, first: Answer, approved: str, documents: Path) -> None:
    """Change what the flow answers from, and ask again."""
    page.chapter("A document changes")
    edit_documents(documents, "7 days", "10 days")
    page.text("In the copy of the documentation, “7 days” becomes “10 days”. The stored answer is still there.")
    page.asked("ada asks", "How long are answers kept?")
    answer = await flywheel.ask("How long are answers kept?", user="ada")
    page.answer(answer)
    page.fact("outcome", f"{answer.outcome}: {answer.reason}")
    page.fact("fingerprint", f"{first.fingerprint[:12]} before, {answer.fingerprint[:12]} now")
    page.claim("the old answer was not served", answer.outcome == "miss" and answer.reason == "flow_changed", answer)
    page.claim("the new answer says 10 days", "10 days" in answer.text and "7 days" in first.text, answer.text)
    entry = await flywheel.faq.show(approved)
    page.claim("what was approved waits for a person again", entry.state == "stale", entry)
    again = await flywheel.ask("How long are answers kept?", user="grace")
    page.claim(
        "the new answer is what everybody gets from now on", again.outcome == "hit" and again.text == answer.text
    )


def edit_documents(documents: Path, old: str, new: str) -> None:
    """Write the documents anew with one wording in place of another."""
    for document in documents.glob("*.md"):
        document.write_text(document.read_text("utf-8").replace(old, new), "utf-8")


async def key_and_lifetime(page: Page, flywheel: Flywheel, first: Answer) -> None:
    """Where the answer is kept, and for how long."""
    page.chapter("Where the answer is kept, and for how long")
    key = await command("cache", "key", "How long are answers kept?")
    stored = await flywheel.cache.show(first.key or "")
    page.fact("command", "afw cache key “How long are answers kept?”")
    page.fact("key", key["key"])
    page.fact("size", f"{stored.size_bytes} bytes")
    page.fact("lifetime", f"{show_duration(timedelta(seconds=stored.ttl_seconds))} left (documents: 3 days, ±5 %)")
    page.claim("the key is predictable", key["key"] == first.key, key)
    life = 3 * 86400  # 5 % more or less, and an hour in which it may stand in for a flow that fails
    page.claim("Redis will remove it by itself", 0.94 * life < stored.ttl_seconds < 1.06 * life + 3600, stored)

    page.fact("command", "afw ttl set documents 1s")
    await command("ttl", "set", "documents", "1s")
    await asyncio.sleep(max(0.0, 1.1 - (time.time() - stored.entry.created_at)))
    answer = await flywheel.ask("How long are answers kept?")
    page.claim("a shorter lifetime holds at once, in every process", answer.reason == "expired", answer)
    await command("ttl", "reset", "documents")


async def figures(page: Page, flywheel: Flywheel) -> None:
    """What it came to."""
    page.chapter("What it came to")
    total = (await flywheel.cache.stats(days=1)).total
    page.table(
        [
            ["questions", "hits", "similar", "misses", "hit rate", "a hit took", "the flow took", "stored"],
            [
                str(total.questions),
                str(total.outcomes["hit"]),
                str(total.outcomes["similar"]),
                str(total.outcomes["miss"]),
                f"{total.hit_rate:.0%}",
                milliseconds(total.hit_ms or 0),
                milliseconds(total.flow_ms or 0),
                str(total.entries),
            ],
        ]
    )
    page.text("This flow reads a few files. One that asks a model takes seconds, and a hit takes no longer than here.")
    reworded = total.outcomes["similar"]  # with an embedder, three questions more were asked
    asked = (total.questions, total.outcomes["hit"]) == (11 + 3 * reworded, 3)
    page.claim("every question was counted once", asked and reworded in {0, 1}, total)


async def command(*words: str) -> Any:
    """Run `afw` in a process of its own and read its JSON."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "agentic_flywheel.interfaces.cli.main", *words, "--json", stdout=subprocess.PIPE
    )
    out, _ = await process.communicate()
    if process.returncode:
        raise NotAsClaimed(f"`afw {' '.join(words)}` ends well -- not so: {out.decode()}")
    return json.loads(out)


def furnish(place: Path) -> None:
    """Put documents and a registry into the temporary place, and make it all that this process knows."""
    shutil.copytree(DOCUMENTS, place / "documents")
    (place / "config").mkdir()
    (place / "config" / "flow-registry.yaml").write_text(REGISTRY)
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    model = cache_folder(load_settings())
    os.environ.clear()
    os.environ.update(
        kept,
        HOME=str(place),
        AFW_CONFIG_DIR=str(place / "config"),
        AFW_DATA_DIR=str(place / "data"),
        AFW_EMBEDDER_CACHE_DIR=str(model),
        AFW_REDIS_COMMAND_TIMEOUT_SECONDS="5",  # a machine that is busy otherwise shall not change what is shown
        AFW_EMBEDDED_IDLE_SECONDS="60",  # should this process be killed, the server ends all the same
    )
    os.chdir(place)


def stop_server(place: Path) -> None:
    """End the embedded server and wait until it and its watcher are gone."""
    folder = place / "data" / "redis"
    if not folder.is_dir():
        return
    subprocess.run(
        [sys.executable, "-m", "agentic_flywheel.interfaces.cli.main", "redis", "stop"], check=True, capture_output=True
    )
    deadline = time.monotonic() + 20
    for name in ("alive.lock", "watcher.lock"):
        with (folder / name).open("ab") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise NotAsClaimed(f"no process is left behind -- not so: {name} is held") from None
                    time.sleep(0.02)
    socket = EmbeddedServer(load_settings()).socket
    if place not in socket.parents:  # a temporary directory too deep for a socket: it stood in one of its own
        shutil.rmtree(socket.parent)


def main() -> int:
    """Run the demonstration; 0 if everything was as claimed."""
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal that lacks a character shows ?
    page = Page()
    began = time.monotonic()
    place = Path(tempfile.mkdtemp(prefix="afw-demo-")).resolve()
    home = Path.cwd()
    failed = ""
    try:
        furnish(place)
        page.text(
            f"Agentic Flywheel {__version__}: a memory for AI flows. "
            f"All of this happens in {place}, with a server of its own."
        )
        asyncio.run(run(page, place))
    except NotAsClaimed as problem:
        failed = str(problem)
    finally:
        stop_server(place)
        os.chdir(home)
        shutil.rmtree(place)
    print("\n")
    if failed:
        print(f"Not as claimed: {failed}", file=sys.stderr)
        return 1
    page.text(
        f"All {page.checked} claims hold, after {time.monotonic() - began:.1f} s. "
        "No process and no file is left behind."
    )
    page.text("Go on with: .venv/bin/afw ask “How do I use my own Redis?”")
    return 0


if __name__ == "__main__":
    sys.exit(main())
