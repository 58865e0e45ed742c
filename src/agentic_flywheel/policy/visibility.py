"""Who may find a turn by searching: the same promise as for shared answers, kept for history.

Invariant: what nobody allowed is not shown. A turn's audience is the narrower of two: what the turn itself demands
(a private question, words about the asker's own things), which never changes, and what its flow's `sharing` says today.
A flow that is not in the registry any more allows nothing: its turns are left to those who asked. `sees` is the rule in
one line for each case; indexes apply the same rule while they look, and a test holds them to it.
"""

from __future__ import annotations

from collections.abc import Mapping

from agentic_flywheel.findings import Audience, Sight
from agentic_flywheel.model import Sharing
from agentic_flywheel.policy.sharing import personal

_WIDTH = {Audience.SESSION: 0, Audience.USER: 1, Audience.TEAM: 2}


def audience_of(question: str, *, private: bool, own: bool) -> Audience:
    """What a turn itself demands, whatever its flow. `own`: it follows one that is its user's alone.

    >>> audience_of("Where is my invoice?", private=False, own=False).value
    'user'
    >>> audience_of("And the last one?", private=False, own=True).value
    'user'
    >>> audience_of("Where is the API?", private=True, own=False).value
    'session'
    """
    if private:
        return Audience.SESSION
    return Audience.USER if own or personal(question) else Audience.TEAM


def counts_asker(sharing: Sharing, *, private: bool) -> bool:
    """Whether it may be counted who asked: not where a question is kept within its session.

    >>> counts_asker(Sharing.USER, private=False), counts_asker(Sharing.SESSION, private=False)
    (True, False)
    """
    return not private and sharing in {Sharing.TEAM, Sharing.USER}


def sight_of(caller: str, *, session: str, sharing: Mapping[str, Sharing]) -> Sight:
    """What `caller` ("" for the operator) may see; `sharing` is that of every flow of the registry."""
    return Sight(
        caller=caller,
        session=session,
        open_flows=tuple(sorted(flow for flow, shared in sharing.items() if shared is Sharing.TEAM)),
        closed_flows=tuple(
            sorted(flow for flow, shared in sharing.items() if shared in {Sharing.SESSION, Sharing.NONE})
        ),
    )


def sees(sight: Sight, *, audience: Audience, flow: str, user: str, session: str) -> bool:
    """Whether a turn may be shown.

    >>> sees(Sight(caller="ann", open_flows=("a",)), audience=Audience.USER, flow="a", user="bob", session="s")
    False
    """
    if flow in sight.closed_flows:
        of_flow = Audience.SESSION
    else:
        of_flow = Audience.TEAM if flow in sight.open_flows else Audience.USER
    match min(audience, of_flow, key=_WIDTH.__getitem__):
        case Audience.TEAM:
            return True
        case Audience.USER:
            return sight.caller in {"", user}
        case Audience.SESSION:
            return session == sight.session and (not sight.caller or user in {"", sight.caller})
