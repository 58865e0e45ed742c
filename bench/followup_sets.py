"""Conversations in which each question is given twice: as it was asked, and rewritten so that it stands alone.

Two public sets are read, each as its authors publish it; nothing of them is kept here.

    CAsT    github.com/daltonj/treccastweb (MIT): topics of 2019 (JSON and resolved TSV), 2020, 2021, 2022
    CANARD  github.com/aagohary/canard (CC BY-SA 4.0): dev.json
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec


class Asked(msgspec.Struct, frozen=True):
    """One question: as it was asked, and as its authors rewrote it to stand alone."""

    raw: str
    rewrite: str


class Conversation(msgspec.Struct, frozen=True):
    """Questions of one conversation, in order."""

    source: str
    name: str
    questions: tuple[Asked, ...]


def read_conversations(folders: list[Path]) -> list[Conversation]:
    """Every conversation in the files under `folders` that have the name and form of one of the sets."""
    found: list[Conversation] = []
    for file in sorted({file for folder in folders for file in folder.rglob("*")}):
        if file.suffix != ".json":
            continue
        if "canard" in str(file).lower() and "dev" in file.name:
            found += _canard(file)
        elif "automatic" not in file.name and "topic" in file.name:
            found += _cast(file)
    return [conversation for conversation in found if conversation.questions]


def _canard(file: Path) -> Iterator[Conversation]:
    dialogs: dict[str, list[Any]] = {}
    for row in json.loads(file.read_text("utf-8")):
        dialogs.setdefault(row["QuAC_dialog_id"], []).append(row)
    for name, rows in dialogs.items():
        rows.sort(key=lambda row: row["Question_no"])
        questions = tuple(Asked(row["Question"], row["Rewrite"]) for row in rows)
        yield Conversation("CANARD dev", f"canard {name}", questions)


def _cast(file: Path) -> Iterator[Conversation]:
    resolved = _resolved_2019(file)
    topics = json.loads(file.read_text("utf-8"))
    if not isinstance(topics, list) or not topics or "turn" not in topics[0]:
        return
    year = next((year for year in ("2020", "2021", "2022") if file.name.startswith(year)), "2019")
    for index, topic in enumerate(topics):
        questions = []
        for turn in topic["turn"]:
            raw = turn.get("raw_utterance") or turn.get("utterance")
            rewrite = turn.get("manual_rewritten_utterance") or resolved.get(f"{topic['number']}_{turn['number']}")
            if raw and rewrite:
                questions.append(Asked(raw.strip(), rewrite.strip()))
        yield Conversation(f"CAsT {year}", f"cast {year} {topic['number']}#{index}", tuple(questions))


def _resolved_2019(file: Path) -> dict[str, str]:
    """The rewrites of 2019 lie in a TSV beside the topics, under the name of the same set."""
    kind = file.name.split("_")[0]
    rewrites: dict[str, str] = {}
    for table in file.parent.glob(f"{kind}_*resolved*.tsv"):
        with table.open(encoding="utf-8", newline="") as lines:
            rewrites |= {row[0]: row[1] for row in csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE) if row[1:]}
    return rewrites
