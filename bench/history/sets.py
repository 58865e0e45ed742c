"""Conversations with questions about them, from two public sets: what was said, and which turns answer a question.

    LoCoMo     github.com/snap-research/LoCoMo (CC BY-NC 4.0), data/locomo10.json: long dialogues of two people. Each
               remark is a turn without an answer; questions name the remarks that hold their answer.
    BEAM-100K  github.com/mohammadtavakoli78/BEAM (no licence file), chats/100K/*: chats with an assistant. A message
               and its reply are a turn; questions name the messages that they rest on.

Invariant: turns are as their authors wrote them, in order; a question whose evidence names no turn is left out. No text
of these sets is kept in the project.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

#: Where the sets lie if nothing else is said.
FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "history"
#: LoCoMo's questions that have no answer are left out, as in published figures ("categories 1-4").
ADVERSARIAL = 5

_REMARK = re.compile(r"D\d+:\d+")
_MARKER = re.compile(r"\s*->->[^>\n]*$")


class Remembered(msgspec.Struct, frozen=True, gc=False):
    """One turn: what was asked or said, and what was answered."""

    question: str
    answer: str = ""


class Probe(msgspec.Struct, frozen=True, gc=False):
    """A question about a conversation, and the places of the turns that answer it."""

    text: str
    session: str
    evidence: frozenset[int]
    kind: str


class HistorySet(msgspec.Struct, frozen=True, kw_only=True):
    """Conversations by name, and the questions about them. `name` says what it is to the tables."""

    name: str
    title: str
    sessions: dict[str, tuple[Remembered, ...]]
    probes: tuple[Probe, ...]

    @property
    def turns(self) -> int:
        return sum(map(len, self.sessions.values()))

    def halves(self) -> list[int]:
        """For each question, the half that it is in: every other conversation, with all its questions."""
        half = {name: number % 2 for number, name in enumerate(sorted(self.sessions, key=_number))}
        return [half[probe.session] for probe in self.probes]


def read_sets(places: Sequence[Path], *, only: Sequence[str] = (), first: int | None = None) -> list[HistorySet]:
    """The sets in these folders and files: LoCoMo's are named `*locomo*.json`, BEAM's `chat.json` in numbered folders.

    `first` leaves so many questions of each.
    """
    found: list[HistorySet] = []
    for place in places:
        for file in [place] if place.is_file() else sorted(place.glob("*locomo*.json")):
            found += [_locomo(file, pictures=True), _locomo(file, pictures=False)]
        if chats := sorted(place.rglob("chat.json"), key=_number) if place.is_dir() else []:
            found.append(_beam(chats))
    chosen = [one for one in found if one.probes and (not only or one.name in only)]
    return [msgspec.structs.replace(one, probes=one.probes[:first]) for one in chosen]


def _locomo(file: Path, *, pictures: bool) -> HistorySet:
    """With `pictures`, a remark is given with who says it and what its picture shows; else the bare words."""
    sessions: dict[str, tuple[Remembered, ...]] = {}
    probes: list[Probe] = []
    for dialogue in json.loads(file.read_text("utf-8")):
        name, said = str(dialogue["sample_id"]), dialogue["conversation"]
        parts = sorted((key for key in said if re.fullmatch(r"session_\d+", key)), key=_number)
        remarks = [remark for part in parts for remark in said[part]]
        sessions[name] = tuple(Remembered(_spoken(remark) if pictures else remark["text"]) for remark in remarks)
        places = {remark["dia_id"]: place for place, remark in enumerate(remarks)}
        for row in dialogue["qa"]:
            named = _REMARK.findall(" ".join(row.get("evidence") or ()))
            evidence = frozenset(places[one] for one in named if one in places)
            if evidence and row["category"] != ADVERSARIAL:
                probes.append(Probe(row["question"], name, evidence, str(row["category"])))
    return HistorySet(
        name="locomo" if pictures else "locomo-bare",
        title="LoCoMo" if pictures else "LoCoMo without the speakers' names",
        sessions=sessions,
        probes=tuple(probes),
    )


def _spoken(remark: dict[str, Any]) -> str:
    picture = f" [{remark['blip_caption']}]" if remark.get("blip_caption") else ""
    return f"{remark['speaker']}: {remark['text']}{picture}"


def _beam(chats: Sequence[Path]) -> HistorySet:
    sessions: dict[str, tuple[Remembered, ...]] = {}
    probes: list[Probe] = []
    for chat in chats:
        name = f"beam-{chat.parent.name}"
        turns: list[Remembered] = []
        places: dict[int, int] = {}
        for message in _messages(json.loads(chat.read_text("utf-8"))):
            if message["role"] == "user":
                turns.append(Remembered(_MARKER.sub("", message["content"]).strip()))
            elif turns:
                last = turns[-1]
                turns[-1] = Remembered(last.question, f"{last.answer}\n{message['content']}".strip())
            places[message["id"]] = max(0, len(turns) - 1)
        sessions[name] = tuple(turns)
        asked = json.loads((chat.parent / "probing_questions.json").read_text("utf-8"))
        for kind, rows in asked.items():
            for row in rows:
                evidence = frozenset(places[one] for one in _numbers(row.get("source_chat_ids")) if one in places)
                if evidence:
                    probes.append(Probe(row["question"], name, evidence, kind))
    return HistorySet(name="beam", title="BEAM", sessions=sessions, probes=tuple(probes))


def _messages(chat: Any) -> Iterator[Any]:
    for batch in chat:
        for exchange in batch["turns"]:
            yield from exchange


def _numbers(value: Any) -> Iterator[int]:
    """All whole numbers in what may be a list, or lists by name."""
    if isinstance(value, int):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _numbers(each)
    elif isinstance(value, list):
        for each in value:
            yield from _numbers(each)


def _number(name: object) -> int:
    """The last number in a name: sorts 2 before 10."""
    found = re.findall(r"\d+", str(name))
    return int(found[-1]) if found else 0
