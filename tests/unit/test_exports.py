"""The public names are what they say, and naming them costs nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

import agentic_flywheel

#: What only parts of the program need; importing the package must not load any of it.
HEAVY = ("redis", "httpx2", "mcp", "ruamel", "msgspec", "zstandard", "click", "asyncio")


def test_public_names_are_sorted() -> None:
    assert list(agentic_flywheel.__all__) == sorted(agentic_flywheel.__all__)


@pytest.mark.parametrize("name", agentic_flywheel.__all__)
def test_public_names_can_be_imported(name: str) -> None:
    found = getattr(agentic_flywheel, name)
    if name != "__version__":
        assert found.__name__ == name
        assert found.__doc__


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Flywheels'"):
        _ = agentic_flywheel.Flywheels


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = f"import sys, agentic_flywheel; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    assert agentic_flywheel.__version__ == version("agentic-flywheel")
