"""Where built models are kept: one folder for each, complete or not there at all.

Invariant: a folder appears under its name in one step, with everything in it flushed, and nobody writes into it
afterwards. Processes that build the same model take turns (`flock`), and the second finds it done. Every load looks at
size and time of each file; where they are not those of the build, at its SHA-256.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from agentic_flywheel.errors import FlywheelError, WeightsDamaged, WeightsMissing
from agentic_flywheel.search.embedders.graph import GRAPH_VERSION, Architecture, build, read_tensors
from agentic_flywheel.settings import Settings

TOKENIZER = "tokenizer.json"
_RECORD = "build.json"


class Stamp(msgspec.Struct, frozen=True):
    """What a file was when it was written."""

    size: int
    mtime_ns: int
    sha256: str


class Source(msgspec.Struct, frozen=True):
    """What a model is built from: files, their SHA-256, and where they came from, for people."""

    weights: Path
    tokenizer: Path
    weights_sha256: str
    tokenizer_sha256: str
    origin: str = ""


class Build(msgspec.Struct, frozen=True, kw_only=True):
    """A built model, as its folder describes it."""

    name: str
    int8: bool
    model: Architecture
    weights_sha256: str
    tokenizer_sha256: str
    files: dict[str, Stamp]
    origin: str = ""
    graph: int = GRAPH_VERSION

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits over all that decides a vector: weights, tokenizer, graph, precision, pooling."""
        told = msgspec.json.encode([self.weights_sha256, self.tokenizer_sha256, self.graph, self.int8, self.model])
        return hashlib.blake2b(told, digest_size=16).hexdigest()

    @property
    def size_bytes(self) -> int:
        """What it takes on disk."""
        return sum(stamp.size for stamp in self.files.values())


def cache_folder(settings: Settings) -> Path:
    """Where builds are kept: `embedder.cache_dir`, else the user's cache directory."""
    if named := settings.text("embedder.cache_dir"):
        return (settings.directory / Path(named).expanduser()).resolve()
    import platformdirs

    return platformdirs.user_cache_path("agentic-flywheel", appauthor=False) / "embedders"


def folder_name(name: str, *, int8: bool) -> str:
    """The folder of a build: another graph version is another folder, so releases can stand side by side."""
    return f"{name}-{'int8' if int8 else 'fp32'}-{GRAPH_VERSION}"


def is_there(folder: Path) -> bool:
    """Whether a build stands here; says nothing of its state."""
    return (folder / _RECORD).is_file()


def read_build(folder: Path, *, fully: bool = False) -> Build:
    """The build in `folder`, its files looked at (`fully`: read). Raises `WeightsMissing`, `WeightsDamaged`."""
    try:
        made = msgspec.json.decode((folder / _RECORD).read_bytes(), type=Build)
    except FileNotFoundError as error:
        raise WeightsMissing(f"no model in {folder}", folder=str(folder)) from error
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WeightsDamaged(f"cannot read {folder / _RECORD}: {error}", file=str(folder / _RECORD)) from error
    for name, stamp in made.files.items():
        file = folder / name
        try:
            found = file.stat()
            same = found.st_size == stamp.size
            if same and (fully or found.st_mtime_ns != stamp.mtime_ns):
                same = sha256(file) == stamp.sha256
        except OSError as error:
            raise WeightsDamaged(f"cannot read {file}: {error}", file=str(file)) from error
        if not same:
            raise WeightsDamaged(f"{file} is not what was built: it was cut off or changed", file=str(file))
    return made


def make_build(
    folder: Path, source: Callable[[], Source], model: Callable[[], Architecture], *, int8: bool, anew: bool = False
) -> Build:
    """The build in `folder`, made from `source()` unless it is there and whole (or `anew`).

    Raises `ExtraMissing`, `EmbedderError`.
    """
    with _turn(folder):
        if not anew and is_there(folder):
            try:
                return read_build(folder)
            except WeightsDamaged:
                pass  # built anew
        found = source()
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
            made = Path(scratch, "build")
            made.mkdir()
            build(read_tensors(found.weights), model(), made, int8=int8)
            shutil.copyfile(found.tokenizer, made / TOKENIZER)
            record = Build(
                name=folder.name,
                int8=int8,
                model=model(),
                weights_sha256=found.weights_sha256,
                tokenizer_sha256=found.tokenizer_sha256,
                origin=found.origin,
                files={file.name: _settled(file) for file in sorted(made.iterdir())},
            )
            (made / _RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(record)))
            _settled(made / _RECORD)
            if folder.exists():
                folder.rename(Path(scratch, "before"))
            made.rename(folder)
        return record


def _settled(file: Path) -> Stamp:
    """Flush a file and describe it. It is readable for all who may read the folder, however it was written."""
    file.chmod(0o644)
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    found = file.stat()
    return Stamp(found.st_size, found.st_mtime_ns, digest)


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Wait for whoever builds into `folder` now; the kernel lets go of the lock with its holder."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / f"{folder.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except FlywheelError:
        raise
    except OSError as error:
        raise WeightsMissing(
            f"cannot keep a model in {folder.parent}: {error}",
            suggestions=("Make room, or name another place: AFW_EMBEDDER_CACHE_DIR.",),
            folder=str(folder.parent),
        ) from error


def sha256(file: Path) -> str:
    """The SHA-256 of a file's bytes, hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
