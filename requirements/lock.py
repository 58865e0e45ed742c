"""Write the lock files anew from pyproject.toml: every platform, every hash, no index named.

    make lock

`core.lock` is what the product and its installation from a checkout need; `semantic.lock` and `serve.lock` add the
extras of these names, `dev.lock` every extra and the tools, all at the same versions. All are for Python 3.11 and
later, whatever the machine they are made on. Newer releases are only taken with `make lock UPGRADE=1`.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

FOLDER = Path(__file__).parent


def compile_lock(name: str, *selection: str) -> None:
    """Resolve the selected parts of pyproject.toml into one file."""
    options = ["--universal", "--python-version", "3.11", "--generate-hashes"]
    options += ["--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
    if os.environ.get("UPGRADE"):
        options.append("--upgrade")
    subprocess.run(
        ["uv", "pip", "compile", "pyproject.toml", *options, *selection, "--quiet", "--output-file", FOLDER / name],
        check=True,
        cwd=FOLDER.parent,
    )


if __name__ == "__main__":
    compile_lock("core.lock", "--group", "build")
    compile_lock("semantic.lock", "--extra", "semantic", "--group", "build", "--constraint", str(FOLDER / "core.lock"))
    compile_lock("serve.lock", "--extra", "serve", "--group", "build", "--constraint", str(FOLDER / "core.lock"))
    constraints = ("--constraint", str(FOLDER / "semantic.lock"), "--constraint", str(FOLDER / "serve.lock"))
    compile_lock("dev.lock", "--all-extras", "--group", "dev", *constraints)
