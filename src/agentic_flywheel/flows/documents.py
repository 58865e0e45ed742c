"""Flow kind `documents`: a folder of Markdown and text, answered with extracts and their sources.

Invariant: an answer is made of the files as they are when it is asked for; `revision` changes with every change of
their content, names or number, and with nothing else. Nothing leaves the machine and nothing is made up: where the
documents say nothing, the answer says so and is not stored.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import msgspec

from agentic_flywheel.errors import FlowMissing, FlowTimeout
from agentic_flywheel.flows.extract import compose, fit
from agentic_flywheel.flows.passage_index import Found, PassageIndex, pairs_of, terms_of
from agentic_flywheel.flows.passages import Passage, passages_of
from agentic_flywheel.flows.protocol import (
    AnswerDone,
    FlowEvent,
    FlowHealth,
    FlowQuestion,
    FlowSpec,
    Revision,
    SourcesFound,
    TextPart,
)
from agentic_flywheel.flows.registry_file import PACKAGE_FOLDER
from agentic_flywheel.model import Exchange, Source

#: Changes whenever the same files would be answered differently, so that answers of older code are not served.
_METHOD = b"documents/1"
_ENDINGS = (".md", ".markdown", ".txt", ".rst")
_LARGEST = 4_000_000  # bytes; a larger file is a dump, not a document
_ANSWER_CHARACTERS = 1200
_EXCERPT_CHARACTERS = 240
#: Words of the question before count this much beside those of a follow-up.
_HISTORY = 0.35
#: Least share of the question's weight (rare words weigh more) that a passage must hold to be an answer.
_LEAST_COVERAGE = 0.34
_LEAST_ALONE = 0.5  # where it holds one word of the question only
#: Up to so many files a look at the folder takes less than handing it to a thread.
_FILES_INLINE = 64
#: A file changed less than this before it was read may change again with the same stamp; it is then read again.
_RACY_NS = 100_000_000

_T = TypeVar("_T")


def documents_folder(folder: str) -> Path:
    """The folder that a registry names; `package:documentation` is what ships with this package.

    In a checkout the documentation is not copied into the package: it is the `docs` folder beside `src`.
    """
    if not folder.startswith(PACKAGE_FOLDER):
        return Path(folder)
    package = Path(__file__).resolve().parents[1]
    name = folder.removeprefix(PACKAGE_FOLDER)
    installed, checkout = package / name, package.parents[1] / "docs"
    return checkout if name == "documentation" and not installed.is_dir() and checkout.is_dir() else installed


class _File(msgspec.Struct):
    stamp: tuple[int, int, int, int]
    settled: bool
    digest: bytes
    text: str | None
    passages: list[Passage] | None = None


class Folder:
    """The documents of one folder, read again file by file as they change. Safe to use from several threads.

    >>> Folder(documents_folder("package:nothing-of-this-name")).exists
    False
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.skipped: dict[str, str] = {}
        self._files: dict[str, _File] = {}
        self._index: PassageIndex | None = None
        self._digest = ""
        self._lock = threading.Lock()

    @property
    def exists(self) -> bool:
        """Whether there is such a folder."""
        return self.path.is_dir()

    @property
    def count(self) -> int:
        """How many documents there were at the last look."""
        return len(self._files)

    def digest(self) -> str:
        """Digest of all documents as they are now. Raises `OSError` where the folder cannot be read."""
        with self._lock:
            self._look()
            return self._digest

    def index(self) -> PassageIndex:
        """The passages as they are now. Raises `OSError` where the folder cannot be read."""
        with self._lock:
            self._look()
            if self._index is None:
                passages: list[Passage] = []
                for name in sorted(self._files):
                    file = self._files[name]
                    if file.passages is None:
                        file.passages, file.text = passages_of(file.text or "", name), None
                    passages.extend(file.passages)
                self._index = PassageIndex(passages)
            return self._index

    def _look(self) -> None:
        before = {name: file.digest for name, file in self._files.items()}
        files: dict[str, _File] = {}
        self.skipped = {}
        for name, path, found in _documents(self.path, self.skipped):
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns)
            known = self._files.get(name)
            if known is not None and known.stamp == stamp and known.settled:
                files[name] = known
                continue
            read = self._read(name, path, stamp, known)
            if read is not None:
                files[name] = read
        self._files = files
        if not self._digest or {name: file.digest for name, file in files.items()} != before:
            digest = hashlib.blake2b(_METHOD, digest_size=16)
            for name in sorted(files):
                digest.update(msgspec.msgpack.encode((name, files[name].digest)))
            self._digest, self._index = digest.hexdigest(), None

    def _read(self, name: str, path: str, stamp: tuple[int, int, int, int], known: _File | None) -> _File | None:
        if stamp[1] > _LARGEST:
            self.skipped[name] = f"larger than {_LARGEST // 1_000_000} MB"
            return None
        settled = time.time_ns() - max(stamp[0], stamp[3]) > _RACY_NS
        try:
            raw = Path(path).read_bytes()
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            self.skipped[name] = "not UTF-8"
            return None
        except OSError as error:
            self.skipped[name] = error.strerror or type(error).__name__
            return None
        digest = hashlib.blake2b(raw, digest_size=16).digest()
        if known is not None and known.digest == digest:
            known.stamp, known.settled = stamp, settled
            return known
        return _File(stamp, settled, digest, text)


def _documents(folder: Path, skipped: dict[str, str]) -> Iterator[tuple[str, str, os.stat_result]]:
    """Every document below the folder: relative name with `/`, path, stat; hidden ones and linked folders left out."""
    pending = [(str(folder), "")]
    while pending:
        place, prefix = pending.pop()
        try:
            with os.scandir(place) as entries:
                found = list(entries)
        except OSError as error:
            if not prefix:
                raise
            skipped[prefix] = error.strerror or type(error).__name__
            continue
        for entry in found:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                pending.append((entry.path, f"{prefix}{entry.name}/"))
            elif entry.name.lower().endswith(_ENDINGS):
                try:
                    status = entry.stat()
                except OSError as error:  # a link to nothing, or gone since
                    skipped[prefix + entry.name] = error.strerror or type(error).__name__
                    continue
                if stat.S_ISREG(status.st_mode):
                    yield prefix + entry.name, entry.path, status


class DocumentsClient:
    """A folder of documents that answers questions. `options`: `folder`, and `answer_characters` (default 1200).

    >>> client = DocumentsClient(FlowSpec(key="d", id="d", kind="documents", options={"folder": "/nonexistent"}))
    >>> client.address, client.revision_is_remote
    ('/nonexistent', False)
    """

    accepts_history = True
    accepts_instructions = True  # a search follows none
    revision_is_remote = False

    def __init__(
        self,
        spec: FlowSpec,
        *,
        environ: Mapping[str, str] | None = None,  # noqa: ARG002 (every kind is made with the same arguments)
        timeout: timedelta = timedelta(seconds=30),
        check_timeout: timedelta = timedelta(seconds=10),
    ) -> None:
        self.spec = spec
        self._folder = Folder(documents_folder(str(spec.options.get("folder") or spec.id)))
        self._limit = int(spec.options.get("answer_characters", _ANSWER_CHARACTERS))
        self._timeout = timeout
        self._check_timeout = check_timeout
        self._looked = False

    @property
    def address(self) -> str:
        """The folder."""
        return str(self._folder.path)

    async def stream(self, question: FlowQuestion) -> AsyncIterator[FlowEvent]:
        """Find the passages that answer, and quote them."""
        index = await self._in_time(self._folder.index, self._timeout, in_thread=True)
        done = answer(index, question.text, question.history, self._limit)
        yield TextPart(done.text)
        if done.sources:
            yield SourcesFound(done.sources)
        yield done

    async def revision(self, known: Revision) -> Revision:
        """Digest of the documents' names and contents, as they are now."""
        in_thread = not self._looked or self._folder.count > _FILES_INLINE
        digest = await self._in_time(self._folder.digest, self._check_timeout, in_thread=in_thread)
        self._looked = True
        return known if known.digest == digest else Revision(digest=digest)

    async def check(self) -> FlowHealth:
        """Whether the folder can be read, how many documents it has, and which were left out."""
        start = time.monotonic()
        try:
            index = await self._in_time(self._folder.index, self._timeout, in_thread=True)
        except (FlowMissing, FlowTimeout) as error:
            return FlowHealth(ok=False, notes=(error.message,), elapsed_ms=(time.monotonic() - start) * 1000)
        count = self._folder.count
        notes = [f"{count} documents, {len(index.passages)} passages in {self.address}"]
        notes += [f"left out: {name} ({why})" for name, why in sorted(self._folder.skipped.items())]
        return FlowHealth(ok=bool(index.passages), notes=tuple(notes), elapsed_ms=(time.monotonic() - start) * 1000)

    async def aclose(self) -> None:
        """Nothing is held open."""

    async def _in_time(self, work: Callable[[], _T], limit: timedelta, *, in_thread: bool) -> _T:
        try:
            if not in_thread:
                return work()
            async with asyncio.timeout(limit.total_seconds()):
                return await asyncio.to_thread(work)
        except TimeoutError as error:
            seconds = limit.total_seconds()
            raise FlowTimeout(
                f"reading {self.address} took longer than {seconds:g} s",
                flow=self.spec.key,
                address=self.address,
                timeout_seconds=seconds,
            ) from error
        except OSError as error:
            raise FlowMissing(
                f"the folder of flow {self.spec.key!r} cannot be read: {self.address} ({error.strerror or error})",
                suggestions=(
                    "Create the folder, or correct `folder` in the registry; relative paths are relative to its file.",
                    "Check that this user may read the folder.",
                    "Deactivate or remove the flow if the documents are gone for good.",
                ),
                flow=self.spec.key,
                address=self.address,
            ) from error


def answer(
    index: PassageIndex, question: str, history: tuple[Exchange, ...] = (), limit: int = _ANSWER_CHARACTERS
) -> AnswerDone:
    """What the passages say to the question; a follow-up is also searched with the words of the question before it."""
    own = _weights(question, 1.0)
    before = _weights(history[-1].question, _HISTORY) if history else {}
    query = {**before, **own}
    pairs = pairs_of(question)
    found = index.search(query, pairs)
    enough = [item for item in found if _suffices(item)]
    if not enough and history:  # the words of before may only help: on their own, the new ones may be answered well
        enough = [item for item in index.search(own, pairs) if _suffices(item)]
    if not enough:
        return AnswerDone(text=_nothing(question, found), complete=False, metadata={"passages": 0})
    text, used = compose(enough, set(query), limit)
    sources = tuple(_source(item, set(query)) for item in used)
    return AnswerDone(text=text, sources=sources, metadata={"passages": len(used)})


def _suffices(item: Found) -> bool:
    return item.coverage >= (_LEAST_COVERAGE if item.matched > 1 else _LEAST_ALONE)


def _weights(text: str, weight: float) -> dict[str, float]:
    weights: dict[str, float] = {}
    for term, share in terms_of(text):
        weights[term] = max(weights.get(term, 0.0), share * weight)
    return weights


def _nothing(question: str, found: list[Found]) -> str:
    asked = " ".join(question.split())
    asked = asked if len(asked) <= 120 else asked[:117] + "..."
    text = f"The documents say nothing about “{asked}”."
    titles = list(dict.fromkeys(f"{item.passage.title} ({item.passage.file})" for item in found))[:3]
    return f"{text} The nearest sections: {'; '.join(titles)}." if titles else text


def _source(item: Found, terms: set[str]) -> Source:
    passage = item.passage
    uri = f"{passage.file}#{passage.anchor}" if passage.anchor else passage.file
    excerpt = fit(passage.text, terms, _EXCERPT_CHARACTERS)
    return Source(" › ".join(passage.titles), uri, excerpt, round(item.coverage, 3))
