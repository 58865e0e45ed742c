"""The screens of the console; each module has its `SCREENS` and `ACTIONS`. The package says how to add one."""

from agentic_flywheel.interfaces.http.console.screens import asking, home, report, search, session, sessions, why

ALL = (home, search, sessions, session, why, report, asking)
