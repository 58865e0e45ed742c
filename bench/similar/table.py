"""The runs as a table, and what is claimed of them.

Invariant: every figure comes from the runs of one call. Errors are shares of similar hits, exact ones left out, unless
the column says requests.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import msgspec

from performance_page import circumstances, markdown_table
from similar.counts import Run, Share, pooled
from similar.policies import LEARN, STRICT, Ours
from similar.read_again import same_by_sense, unread
from similar.streams import REFERENCE_LENGTHS, Stream

PAGE = Path(__file__).resolve().parents[2] / "docs" / "similar-questions.md"
_BEGIN, _END = "<!-- similar -->\n", "<!-- /similar -->"
#: Hits that a cut found by audits had in a simulation on other intents of the same sets, by budget, at
#: `REFERENCE_LENGTHS` questions.
REFERENCE_HITS = {"banking": (0.130, 0.295, 0.465), "clinc": (0.143, 0.198, 0.256)}
MOST_STRICT_ERROR, MOST_TRAPS = 0.01, 0.01


class StreamRuns(msgspec.Struct, frozen=True, kw_only=True):
    """All policies on one stream, in the order of the table; `swept` are single cuts by their value."""

    stream: Stream
    others: list[Run]
    ours: list[Run]
    swept: dict[float, Run]

    def by_name(self, name: str) -> Run:
        return next(run for run in self.ours if run.policy == name)


class TrapRuns(msgspec.Struct, frozen=True, kw_only=True):
    """Pairs of questions that one edit makes different questions: what strict did, and how near the two of each are."""

    ours: Run
    similarities: list[float]

    def served_above(self, cut: float) -> Share:
        """What a cut alone would serve."""
        return Share(sum(similarity >= cut for similarity in self.similarities), len(self.similarities))


class Claim(msgspec.Struct, frozen=True):
    """Something said of the product, with its figure, and whether it holds."""

    text: str
    met: bool


def best_cut(swept: dict[float, Run], strict: Run) -> tuple[float, Run]:
    """The single cut that hits most among those with no larger share of wrong hits than ours; chosen afterwards, with
    the labels of this very stream, which nobody has who sets one."""
    within = {cut: run for cut, run in swept.items() if run.wrong_of_similar().value <= strict.wrong_of_similar().value}
    cut = max(within, key=lambda cut: (within[cut].hits.value, cut))
    return cut, within[cut]


def claims(found: list[StreamRuns], traps: TrapRuns) -> list[Claim]:
    """What is claimed, stream by stream."""
    said: list[Claim] = []
    for runs in found:
        strict = runs.by_name(STRICT.name)
        known = same_by_sense(strict)
        read = Share(strict.wrong - known, strict.similar)
        share = strict.wrong_of_similar(runs.stream.truly_wrong) if runs.stream.truly_wrong < 1 else read
        text = f"{runs.stream.title}: strict errs in {share.value:.2%} of its similar hits (at most 1 %)"
        if strict.wrong:
            text += (
                f"; {strict.wrong_of_similar().value:.2%} by the label, {read.value:.2%} when wrong hits are read again"
                f" ({known} of {strict.wrong} ask the same, {unread(strict)} unread)"
            )
        said.append(Claim(text, share.value <= MOST_STRICT_ERROR))
    said.append(_beats_one_cut(found))
    for runs in found:
        length = REFERENCE_LENGTHS.get(runs.stream.kind, 0)
        if length and len(runs.stream.asked) >= length:  # a shorter stream has not learnt as much
            for policy, least in zip(LEARN, REFERENCE_HITS[runs.stream.kind], strict=True):
                whole = runs.by_name(policy.name)
                said += [_learns(runs.stream, run, policy, least) for run in (whole.first(length), whole)]
    served = Share(traps.ours.similar, traps.ours.requests)
    alone = ", ".join(f"{traps.served_above(cut).value:.0%} at {cut:g}" for cut in (0.97, 0.90, 0.80))
    text = (
        f"{served.part:.0f} of {served.whole:,} one-edit traps served by strict, {served.value:.2%} (at most 1 %; "
        f"by the cosine alone {alone})"
    )
    return [*said, Claim(text, served.value <= MOST_TRAPS)]


def _beats_one_cut(found: list[StreamRuns]) -> Claim:
    """On all streams added up: whoever sets one cut sets it for questions with facts and without."""
    strict = pooled([runs.by_name(STRICT.name) for runs in found])
    swept = {cut: pooled([runs.swept[cut] for runs in found]) for cut in found[0].swept}
    cut, best = best_cut(swept, strict)
    error = strict.wrong_of_similar().value
    text = (
        f"all streams added up: strict hits {strict.hits.value:.2%} with {error:.2%} of similar hits wrong by the "
        f"label; the best single cut with no larger share, {cut:.4g}, chosen afterwards, hits {best.hits.value:.2%}"
    )
    return Claim(text, strict.hits.value >= best.hits.value)


def _learns(stream: Stream, run: Run, policy: Ours, least: float) -> Claim:
    error, budget = run.wrong_of_similar(), policy.max_error or 0.0
    text = (
        f"{stream.title}, {run.requests:,} questions, budget {budget:.0%}: {error.value:.2%} of similar hits wrong, "
        f"{run.hits.value:.1%} hits (at least {least:.1%})"
    )
    return Claim(text, error.value <= budget and run.hits.value >= least)


def _shown(share: Share, *, counts: bool = False, digits: int = 2) -> str:
    low, high = share.interval()
    text = f"{share.value * 100:.{digits}f} % ({low * 100:.{digits}f}-{high * 100:.{digits}f})"
    if not share.whole:
        return "-"
    return f"{share.part:,.0f}/{share.whole:,}: {text}" if counts else text


def stream_table(runs: StreamRuns) -> str:
    """One stream."""
    noisy = runs.stream.truly_wrong < 1
    head = ["", "hits", "of them similar", "wrong / similar hits", "wrong / requests"]
    if noisy:
        head.insert(4, "less label noise")
    cut, best = best_cut(runs.swept, runs.by_name(STRICT.name))
    named = msgspec.structs.replace(best, policy=f"best single cut with strict's error: {cut:.4g}, chosen afterwards")
    rows = []
    for run in (*runs.others, named, *runs.ours):
        row = [
            run.policy,
            _shown(run.hits, digits=1),
            f"{run.similar:,}",
            _shown(run.wrong_of_similar(), counts=True),
            _shown(run.wrong_of_requests()),
        ]
        if noisy:
            row.insert(4, _shown(run.wrong_of_similar(runs.stream.truly_wrong)))
        rows.append(row)
    return f"**{runs.stream.title}**: {len(runs.stream.asked):,} questions\n\n{markdown_table(head, rows)}"


def plain(runs: StreamRuns) -> dict[str, object]:
    """One stream for programs: what became of every question by policy, without the questions."""
    stream = {name: getattr(runs.stream, name) for name in ("kind", "name", "title", "truly_wrong")}
    rows = [msgspec.structs.replace(run, mistakes=[]) for run in (*runs.others, *runs.ours)]
    return {"stream": stream, "rows": rows, "swept": [(cut, run.wrong, run.similar) for cut, run in runs.swept.items()]}


def page(found: list[StreamRuns], traps: TrapRuns, server: str, embedder: str, seconds: float) -> str:
    """All of it, as docs/similar-questions.md shows it."""
    parts = [stream_table(runs) for runs in found]
    said = [f"- {'met' if claim.met else '**missed**'}: {claim.text}" for claim in claims(found, traps)]
    compared = sum(run.compared for runs in found for run in runs.ours)
    misjudged = sum(run.misjudged for runs in found for run in runs.ours)
    judged = (
        f"{compared:,} pairs of answers were compared to learn from them, {misjudged:,} judged otherwise than labelled."
    )
    below = f"{circumstances(server)} Vectors by {embedder}. {seconds / 60:.0f} minutes."
    return "\n\n".join([*parts, _wrapped(said), _wrapped([judged, below])])


def _wrapped(lines: Sequence[str]) -> str:
    return "\n".join(
        textwrap.fill(line, 118, subsequent_indent="  " if line.startswith("- ") else "", break_long_words=False)
        for line in lines
    )


def write(text: str) -> None:
    """Put the table in its place in docs/similar-questions.md."""
    whole = PAGE.read_text("utf-8")
    if _BEGIN not in whole or _END not in whole:
        raise SystemExit(f"{PAGE} has no place for the table")
    PAGE.write_text(f"{whole.split(_BEGIN)[0]}{_BEGIN}{text}\n{_END}{whole.split(_END)[1]}", "utf-8")
