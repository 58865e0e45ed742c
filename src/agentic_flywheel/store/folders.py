"""Where local state lives: the embedded server's data, and what waits for a Redis that cannot be reached."""

from __future__ import annotations

from pathlib import Path

from agentic_flywheel.settings import Settings


def data_folder(settings: Settings) -> Path:
    """This user's directory: `data_dir`, else the platform's place for it."""
    if named := settings.text("data_dir"):
        return (settings.directory / Path(named).expanduser()).resolve()
    import platformdirs

    return platformdirs.user_data_path("agentic-flywheel", appauthor=False)
