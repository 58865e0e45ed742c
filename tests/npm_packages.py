"""Packages of the npm registry that tests run as they are, each set in a folder of its own in `.cache`.

No script of any package is run. Others may fetch the same set at the same time: it is put in place as a whole.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

CACHE = Path(__file__).resolve().parent.parent / ".cache"


class NotFetched(RuntimeError):
    """Packages are not there and cannot be fetched; `npm_missing` says whether for want of npm."""

    def __init__(self, message: str, *, npm_missing: bool = False) -> None:
        super().__init__(message)
        self.npm_missing = npm_missing


def install(packages: Sequence[str], directory: Path) -> None:
    """Install packages into a directory of their own and put that in place. Raises `NotFetched`."""

    def fetch(npm: str, scratch: Path) -> Path:
        tree = scratch / "tree"
        tree.mkdir()
        (tree / "package.json").write_text(json.dumps({"private": True}))
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        _run([npm, "install", *options, *packages], tree)
        return tree

    _put_in_place(fetch, directory, packages)


def unpack(package: str, directory: Path) -> None:
    """Put the files of one package, without any that it depends on, in place. Raises `NotFetched`."""

    def fetch(npm: str, scratch: Path) -> Path:
        _run([npm, "pack", "--silent", package], scratch)
        (archive,) = scratch.glob("*.tgz")
        shutil.unpack_archive(archive, scratch, "gztar", filter="data")
        return scratch / "package"

    _put_in_place(fetch, directory, [package])


def _put_in_place(fetch: Callable[[str, Path], Path], directory: Path, packages: Sequence[str]) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise NotFetched("npm is not installed", npm_missing=True)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{directory.name}.", dir=directory.parent) as scratch:
        try:
            tree = fetch(npm, Path(scratch))
        except subprocess.CalledProcessError as error:
            raise NotFetched(f"npm could not fetch {', '.join(packages)}: {error.stderr.strip()}") from error
        except subprocess.TimeoutExpired as error:
            raise NotFetched(f"npm did not fetch {', '.join(packages)} in ten minutes") from error
        if directory.is_dir():  # an older one
            directory.rename(Path(scratch, "old"))
        tree.rename(directory)


def _run(command: Sequence[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=600)
