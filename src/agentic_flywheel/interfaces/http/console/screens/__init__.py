"""The screens of the console; each module has its `SCREENS` and `ACTIONS`. The package says how to add one."""

from agentic_flywheel.interfaces.http.console.screens import (
    asking,
    faq,
    faq_entry,
    flow,
    flows,
    health,
    home,
    own_data,
    popular,
    privacy,
    proposals,
    report,
    search,
    session,
    sessions,
    settings,
    warming,
    why,
)

ALL = (
    *(home, search, sessions, session, why, report, asking),
    *(faq, faq_entry, popular, flows, flow, proposals, warming, privacy, own_data, health, settings),
)
