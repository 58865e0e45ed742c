"""How often the default comparer of answers errs: what it says of pairs whose truth is known.

    python bench/bench_comparer.py [--embedder minilm|minilm-int8|FOLDER] [--pairs N] [--json] [--write]

Pairs that say the same: GPTCache's statements and their paraphrases (examples/benchmark/mock_data.json, MIT), alone, as
passages of three and six in another order, and as two within four; the paraphrases of PAWS-X (Google); a few of our own
in English and French. Pairs that differ: the statements that follow in the same documentation, statements from
elsewhere, PAWS-X's word-order adversaries, and one-word edits (number, negation, opposite, name) of a statement, of its
paraphrase, and of one statement in a passage. Both public sets are read from ../shared/data/questions beside the
project; without them only our own pairs are left, and this says so.

The two bounds of the comparer are chosen on the pairs of even number, over all kinds but PAWS-X; the table has the
others. `--write` puts both tables into docs/comparer.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from agentic_flywheel.comparing import _BOUNDS, EmbeddingComparer, Said, Verdict
from agentic_flywheel.policy.similarity.budget import interval
from agentic_flywheel.search.embedding import Embedding, embedder_of
from agentic_flywheel.settings import load_settings
from performance_page import DOCS, circumstances, markdown_table

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "questions"
PAGE = DOCS / "comparer.md"
QUESTION = "How does this work?"
#: The share of pairs that say the same which may lie below the lower bound, and of other subjects above the upper one.
MOST_BELOW, MOST_ABOVE = 0.005, 0.02
STEP = 0.05

OWN = [
    ("Returns are accepted for 30 days.", "You can send an item back within 30 days."),
    ("Your password can be reset under Settings, Security.", "Go to Settings, then Security, to reset your password."),
    ("The office in Lyon opens at 9 in the morning.", "Our Lyon office is open from 9 in the morning."),
    ("Backups run every night and are kept for a week.", "Every night a backup is made, which is kept for a week."),
    ("It costs 12 euros a month for each user.", "Each user costs 12 euros a month."),
    ("Restart the server after changing the file.", "After you change the file, the server must be restarted."),
    ("Les retours sont acceptés pendant 30 jours.", "Vous pouvez retourner un article pendant 30 jours."),
    ("Le mot de passe se change dans les paramètres.", "Changez le mot de passe dans les paramètres."),
    ("La sauvegarde a lieu chaque nuit à 2 heures.", "Chaque nuit à 2 heures, une sauvegarde est faite."),
    ("Le bureau de Lyon ouvre à 9 heures.", "À Lyon, le bureau est ouvert à partir de 9 heures."),
    ("L'abonnement coûte 12 euros par mois.", "Comptez 12 euros par mois pour l'abonnement."),
    ("Redémarrez le serveur après la modification.", "Après la modification, il faut redémarrer le serveur."),
]
OWN_OTHER = [
    ("Returns are accepted for 30 days.", "Returns are accepted for 14 days."),
    ("Your password can be reset under Settings.", "Your password can be reset by the administrator only."),
    ("The office in Lyon opens at 9 in the morning.", "The office in Paris opens at 9 in the morning."),
    ("Backups are kept for a week.", "Backups are not kept for a week."),
    ("The option is enabled by default.", "The option is disabled by default."),
    ("Yes, it works without a network.", "No, it needs a network."),
    ("Les retours sont acceptés pendant 30 jours.", "Les retours sont acceptés pendant 14 jours."),
    ("Le mot de passe se change dans les paramètres.", "Le mot de passe ne se change pas dans les paramètres."),
    ("La sauvegarde a lieu avant la mise à jour.", "La sauvegarde a lieu après la mise à jour."),
    ("Le bureau de Lyon ouvre à 9 heures.", "Le bureau de Nantes ouvre à 9 heures."),
    ("Oui, cela fonctionne hors ligne.", "Non, cela ne fonctionne pas hors ligne."),
    ("L'abonnement coûte 12 euros par mois.", "L'abonnement coûte 15 euros par mois."),
]

_SWAPS = (
    "before/after always/never increase/decrease enable/disable enabled/disabled minimum/maximum first/last more/less"
    " with/without allows/prevents faster/slower large/small load/save add/remove input/output required/optional"
    " public/private start/end same/different true/false upload/download high/low new/old"
)
_OPPOSITE = {word: other for pair in _SWAPS.split() for word, other in (pair.split("/"), reversed(pair.split("/")))}
_NAMES = "Berlin Oracle Toronto Pascal Kubernetes Toyota Norway".split()


class Pair(msgspec.Struct, frozen=True):
    """Two answers, whether they say the same, and what kind of pair they are."""

    kind: str
    same: bool
    one: str
    other: str


class Row(msgspec.Struct, frozen=True):
    """What the comparer said of the pairs of one kind."""

    kind: str
    same: bool
    pairs: int
    said_same: int
    cannot_tell: int
    said_different: int

    @property
    def wrong(self) -> int:
        """Same pairs called different; different pairs not called so."""
        return self.said_different if self.same else self.pairs - self.said_different


def edited(kind: str, text: str, draw: random.Random) -> str | None:
    """The text with one word changed so that it says something else; None where it has none to change."""
    pattern = {
        "number": r"(?<![\w.-])\d+(?:\.\d+)*(?![\w-])",
        "negation": r"\b(?:is|are|was|were|should|must|may)\b(?: not)?",
        "opposite": r"\b(?:" + "|".join(_OPPOSITE) + r")\b",
        "name": r"(?<=[a-z,] )[A-Z][a-z]{3,}\b",
    }[kind]
    found = list(re.finditer(pattern, text))
    if not found:
        return None
    match = found[0] if kind == "negation" else draw.choice(found)
    word = match[0]
    head, _, tail = word.rpartition(".")
    changed: dict[str, Callable[[], str]] = {
        "number": lambda: f"{head}.{int(tail) + 2}" if head else str(int(tail) + 2),
        "negation": lambda: word.removesuffix(" not") if word.endswith(" not") else f"{word} not",
        "opposite": lambda: _OPPOSITE[word],
        "name": lambda: draw.choice([name for name in _NAMES if name != word]),
    }
    return text[: match.start()] + changed[kind]() + text[match.end() :]


def pairs_of(most: int, draw: random.Random) -> list[Pair]:
    """At most `most` pairs of each kind."""
    found = [Pair("our own", True, one, other) for one, other in OWN]
    found += [Pair("our own", False, one, other) for one, other in OWN_OTHER]
    if not DATA.is_dir():
        return found
    mock = [
        (row["origin"], row["similar"]) for row in json.loads((DATA / "gptcache_mock_data.json").read_text("utf-8"))
    ]
    paws = [json.loads(line) for line in (DATA / "pawsx_en_dev.jsonl").read_text("utf-8").splitlines()]

    def sample(kind: str, same: bool, pairs: list[tuple[str, str]]) -> None:
        chosen = draw.sample(pairs, min(most, len(pairs)))
        found.extend(Pair(kind, same, one, other) for one, other in chosen)

    def passage(at: int, count: int, side: int) -> str:
        return " ".join(row[side] for row in mock[at : at + count])

    sample("statement, reworded", True, mock)
    for count in (3, 6):
        same, other, edits = [], [], []
        for at in range(0, len(mock) - 2 * count, count):
            shuffled = [row[1] for row in mock[at : at + count]]
            draw.shuffle(shuffled)
            same.append((passage(at, count, 0), " ".join(shuffled)))
            other.append((passage(at, count, 0), passage(at + count, count, 1)))
            kind = draw.choice(("number", "negation", "opposite", "name"))
            if (first := edited(kind, shuffled[0], draw)) is not None:
                edits.append((same[-1][0], " ".join([first, *shuffled[1:]])))
        sample(f"passage of {count}, reworded and reordered", True, same)
        sample(f"passage of {count}, the next of its subject", False, other)
        sample(f"passage of {count}, reworded, one word edited", False, edits)
    sample("two statements within four", True, [(passage(a, 2, 0), passage(a, 4, 1)) for a in range(len(mock) - 4)])
    apart = [(mock[at][0], mock[(at + 400) % len(mock)][1]) for at in range(len(mock))]
    sample("statement from elsewhere", False, apart)
    sample("statement, the next of its subject", False, [(mock[a][0], mock[a + 1][1]) for a in range(len(mock) - 1)])
    for kind in ("number", "negation", "opposite", "name"):
        for side, words in ((0, "edited"), (1, "reworded and edited")):
            changed = [(row[0], text) for row in mock if (text := edited(kind, row[side], draw)) is not None]
            sample(f"statement, {kind} {words}", False, changed)
    for same in (True, False):
        sample("PAWS-X", same, [(row["a"], row["b"]) for row in paws if bool(row["same"]) is same])
    return found


async def judged(pairs: list[Pair], embedding: Embedding) -> list[Verdict]:
    comparer = EmbeddingComparer(embedding)
    return [await comparer.compare(Said(QUESTION, pair.one), Said(QUESTION, pair.other)) for pair in pairs]


def chosen_bounds(pairs: list[Pair], verdicts: list[Verdict]) -> tuple[float, float]:
    """The highest lower bound and the lowest upper one that keep to `MOST_BELOW` and `MOST_ABOVE`."""
    same, other = [], []
    for pair, verdict in zip(pairs, verdicts, strict=True):
        if verdict.similarity is not None and pair.kind != "PAWS-X":
            if pair.same:
                same.append(verdict.similarity)
            elif "edited" not in pair.kind and pair.kind != "our own":
                other.append(verdict.similarity)
    steps = [round(step * STEP, 2) for step in range(1, 20)]
    below = [step for step in steps if sum(found < step for found in same) <= MOST_BELOW * len(same)]
    above = [step for step in steps if sum(found >= step for found in other) <= MOST_ABOVE * len(other)]
    return max(below, default=0.0), min(above, default=1.0)


def rows_of(pairs: list[Pair], verdicts: list[Verdict]) -> list[Row]:
    """One row per kind, in order, those that say the same first."""
    kinds = dict.fromkeys((pair.same, pair.kind) for pair in pairs)
    rows = []
    for same, kind in sorted(kinds, key=lambda key: not key[0]):
        said = [v.same for p, v in zip(pairs, verdicts, strict=True) if (p.same, p.kind) == (same, kind)]
        rows.append(Row(kind, same, len(said), said.count(True), said.count(None), said.count(False)))
    return rows


def table(rows: list[Row], same: bool) -> str:
    """The rows of one truth, with the share of errors and its 95 % interval."""
    head = ["pairs that say the same" if same else "pairs that differ", "pairs", "same", "cannot tell", "different"]
    head.append("called different" if same else "not called different")
    lines = []
    for row in rows:
        if row.same is same:
            low, high = interval(row.wrong, row.pairs)
            share = f"{row.wrong / row.pairs:.1%} ({low:.1%} to {high:.1%})"
            counts = (row.pairs, row.said_same, row.cannot_tell, row.said_different)
            lines.append([row.kind, *map(str, counts), share])
    return markdown_table(head, lines)


def circumstances_of(found: dict[str, Any]) -> str:
    """What the tables rest on, in a sentence or two."""
    low, high = found["shipped"] or ("none", "none")
    chosen_low, chosen_high = found["chosen"]
    return (
        f"Bounds in use for {found['calibration'] or 'this embedder'}: {low} and {high}; the other half of the pairs "
        f"gives {chosen_low} and {chosen_high}. {circumstances('no Redis')}"
    )


async def measure(named: str, most: int) -> dict[str, Any]:
    embedding = embedder_of(load_settings({"embedder.model": named}))
    try:
        if not await embedding.ready(120):
            raise SystemExit(f"No embedder: {embedding.why}")
        calibration = embedding.embedder.calibration
        pairs = pairs_of(most, random.Random(4))
        verdicts = await judged(pairs, embedding)
        # Every second pair of each kind is for choosing.
        seen: dict[tuple[bool, str], int] = {}
        halves: tuple[list[int], list[int]] = [], []
        for index, pair in enumerate(pairs):
            number = seen[pair.same, pair.kind] = seen.get((pair.same, pair.kind), -1) + 1
            halves[number % 2].append(index)
        choosing, kept = ([(pairs[i], verdicts[i]) for i in half] for half in halves)
        return {
            "calibration": calibration,
            "embedder": embedding.embedder.name,
            "shipped": _BOUNDS.get(calibration),
            "chosen": chosen_bounds([p for p, _ in choosing], [v for _, v in choosing]),
            "rows": rows_of([p for p, _ in kept], [v for _, v in kept]),
            "data": DATA.is_dir(),
        }
    finally:
        await embedding.aclose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embedder", default="minilm", help="as the setting embedder.model")
    parser.add_argument("--pairs", type=int, default=200, help="most pairs of each kind, half of them for choosing")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/comparer.md")
    asked = parser.parse_args()
    found = asyncio.run(measure(asked.embedder, asked.pairs))
    if not found["data"]:
        print(f"{DATA} is not there: only our own pairs are compared.", file=sys.stderr)
    if asked.json:
        print(msgspec.json.encode(found).decode())
        return
    text = "\n\n".join(
        [
            table(found["rows"], same=True),
            table(found["rows"], same=False),
            textwrap.fill(circumstances_of(found), 116),
        ]
    )
    print(text)
    if asked.write:
        before, rest = PAGE.read_text("utf-8").split("<!-- figures -->\n", 1)
        after = rest.split("<!-- /figures -->", 1)[1]
        PAGE.write_text(f"{before}<!-- figures -->\n{text}\n<!-- /figures -->{after}", "utf-8")


if __name__ == "__main__":
    main()
