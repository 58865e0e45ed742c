"""The root of the tree, what the caller can mend, and what is not there. The tree is drawn in `errors`."""

from __future__ import annotations

import re
import secrets
from typing import Any, ClassVar

#: Details that say where something is: the operator's alone.
PLACES = frozenset({"address", "file", "path", "folder"})


class FlywheelError(Exception):
    """The root: catch this to catch everything that Agentic Flywheel raises on purpose.

    >>> error = UnknownSession("no session 's1'", session_id="s1")
    >>> error.details["session_id"], error.exit_code, len(error.suggestions) >= 3
    ('s1', 1, True)
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    #: What fits every error of this kind.
    default_suggestions: ClassVar[tuple[str, ...]] = ()
    #: What fills up to three where fewer fit.
    general_suggestions: ClassVar[tuple[str, ...]] = (
        "Run `afw doctor` to see what is fine and what is not.",
        "Run the command again with `--json` for the details of the attempt.",
        "Look at `afw config show`: it says where every setting came from.",
    )

    def __init__(
        self,
        message: str,
        *,
        suggestions: tuple[str, ...] = (),
        retry_after_seconds: float | None = None,
        **details: Any,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = {name: value for name, value in details.items() if value is not None}
        own = (*suggestions, *(s for s in self.default_suggestions if s not in suggestions))
        spare = tuple(s for s in self.general_suggestions if s not in own)
        self.suggestions: tuple[str, ...] = (*own, *spare[: max(0, 3 - len(own))])
        self.retry_after_seconds: float = (
            self.default_retry_after if retry_after_seconds is None else retry_after_seconds
        )
        self.error_id = secrets.token_hex(6)

    default_retry_after: ClassVar[float] = 0.0

    @property
    def outline(self) -> str:
        """The message without the addresses and paths in it, and without what a function of the operator's own raised:
        what is told to whoever asked, of whatever rights.

        >>> FlywheelError("Redis at redis://cache:6379/0 is away", address="redis://cache:6379/0").outline
        'Redis is away'
        """
        if "callable" in self.details:
            return f"the flow {self.details.get('flow')!r} failed"
        said = self.message
        for place in {str(value) for name, value in self.details.items() if name in PLACES and value}:
            exact = re.escape(place)
            said = re.sub(rf" (?:at|in) {exact}(?!\w)| \({exact}\)", "", said)
            said = re.sub(rf"(?<!\w){exact}(?!\w)", "…", said)
        return said

    def as_dict(self) -> dict[str, Any]:
        """The error as every interface shows it: what failed, details, suggestions, when to retry, an id."""
        return {
            "error": self.message,
            "error_type": self.code,
            "details": self.details,
            "suggestions": list(self.suggestions),
            "retry_after_seconds": self.retry_after_seconds,
            "error_id": self.error_id,
        }


class InputError(FlywheelError, ValueError):
    """What was given cannot be used; nothing was done."""

    code = "invalid_input"
    exit_code = 2
    general_suggestions = (
        "Correct what the message names: `afw COMMAND --help` (MCP: the tool's schema) says what is accepted.",
        "Leave it out if it is optional: its default holds then.",
        "Compare it with the examples in docs/cli.md, docs/mcp.md and docs/rest.md.",
    )


class QuestionError(InputError):
    """The question is empty or longer than the limit."""

    code = "invalid_question"
    default_suggestions = (
        "Ask one question of at least one visible character.",
        "Shorten it: put long material where the flow can read it and ask about it.",
        "Raise `question.max_characters` (AFW_QUESTION_MAX_CHARACTERS) if long questions are meant.",
    )


class IdError(InputError):
    """An id that is empty, too long or holds control characters."""

    code = "invalid_id"
    default_suggestions = (
        "Use 1 to 256 visible characters; letters, digits, '-', '_' and '.' read best.",
        "Leave an optional id out: without a session a new one is begun, and its id is in the answer.",
        "See which there are: `afw session list` has sessions, their owners and their tags.",
    )


class SettingsError(InputError):
    """A setting that is unknown, has the wrong type or an impossible value."""

    code = "invalid_setting"
    default_suggestions = (
        "See every setting, its value and where it came from with `afw config show`.",
        "Correct the name or the value where the message says it was found.",
        "Remove the setting to fall back to its default.",
    )


class RegistryError(InputError):
    """The flow registry cannot be read or is wrong; carries `file`, and `line` (1-based) where it is known."""

    code = "invalid_registry"
    default_suggestions = (
        "Open the file at the line named and compare it with docs/configuration.md.",
        "Run `afw flow list` after the correction: the registry is read again by itself.",
        "Move the file away to fall back to the next registry in the cascade.",
    )


class NotFound(FlywheelError, LookupError):
    """What was named does not exist (any more)."""

    code = "not_found"
    general_suggestions = (
        "Check how it is written: ids and names are exact.",
        "Check the tenant: what another one has is never visible (`afw config show`).",
        "It may have been removed meanwhile.",
    )


class UnknownFlow(NotFound):
    """No such flow in the registry; `nearest` names the closest keys."""

    code = "unknown_flow"
    default_suggestions = (
        "List the flows with `afw flow list` (MCP: flowise_list_flows).",
        "Add it with `afw flow add` (MCP: flowise_add_flow); no restart is needed.",
        "Leave the flow out and let the question be routed.",
    )


class UnknownSession(NotFound):
    """No such session for this tenant."""

    code = "unknown_session"
    default_suggestions = (
        "List the sessions with `afw session list` (MCP resource: flowise://sessions).",
        "Check the tenant: sessions of other tenants are never visible (`afw config show`).",
        "Ask with this session id to begin it.",
    )


class UnknownKey(NotFound):
    """No value under this key or id."""

    code = "unknown_key"
    default_suggestions = (
        "It may have expired: `afw cache list` shows what is stored.",
        "Print the key of a question with `afw cache key`.",
        "Ask the question again to store its answer.",
    )


class UnknownTurn(NotFound):
    """No turn with this id."""

    code = "unknown_turn"
    default_suggestions = (
        "Every answer comes with its turn's id; `afw session show SESSION` lists those of a session.",
        "To report an answer or see its trace, `last` names the newest turn of a session.",
    )


class UnknownProposal(NotFound):
    """No open proposal with this id."""

    code = "unknown_proposal"
    default_suggestions = ("List the open ones: `afw proposals`.",)


class UnknownFaqEntry(NotFound):
    """Neither the FAQ nor what asks for a place in it has anything of this id."""

    code = "unknown_faq_entry"
    default_suggestions = (
        "List the FAQ with `afw faq list --all` (MCP: flowise_faq); ids may be shortened to 4 characters or more.",
        "What asks for a place in the FAQ is counted over 30 days: it may not be asked any more.",
        "Write an entry of your own with `afw faq add`.",
    )


class EditConflict(FlywheelError):
    """Somebody else changed it since it was read; nothing was done. `revision`, `by` and `at` tell of that change."""

    code = "edit_conflict"
    default_suggestions = (
        "Look at it as it is now: `afw faq show ID`; its history says what was changed.",
        "Make your change again on that revision.",
        "Settle with the other person whose words are to stay.",
    )


class PreconditionFailed(EditConflict):
    """It is not what `If-Match` names any more; nothing was done."""

    code = "precondition_failed"


class UnknownWarmUp(NotFound):
    """No warm-up with this id; they are forgotten after 30 days."""

    code = "unknown_warm_up"
    default_suggestions = (
        "List the last ones: `afw warm show --list`.",
        "Begin one: `afw warm FILE`, `afw warm --popular 20`.",
    )


class NotCached(NotFound):
    """`only-if-cached` was asked and nothing may be served; `reason` says why."""

    code = "not_cached"
    default_suggestions = (
        "Ask again without only-if-cached: the flow will answer and the answer is kept.",
        "Accept an older answer with max-stale.",
        "See why with `--explain`.",
    )


class IndexUnusable(FlywheelError):
    """An index of history could not be read or written; `damaged` where only making it anew helps."""

    code = "index_unusable"
    exit_code = 2
    default_retry_after = 1.0
    default_suggestions = (
        "Make it anew from Redis: `afw index rebuild`.",
        "Check that the directory named is writable and its disk not full (`data_dir`).",
        "Look at it with `afw index show`.",
    )

    def __init__(self, message: str, *, damaged: bool = False, **details: Any) -> None:
        super().__init__(message, **details)
        self.damaged = damaged


class ExtraMissing(FlywheelError, ImportError):
    """An optional part is not installed; `extra` names what to install."""

    code = "extra_missing"
    exit_code = 2

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs the extra '{extra}': pip install 'agentic-flywheel[{extra}]'",
            suggestions=(
                f"Install it: pip install 'agentic-flywheel[{extra}]'.",
                "Install everything at once: pip install 'agentic-flywheel[all]'.",
            ),
            extra=extra,
        )
