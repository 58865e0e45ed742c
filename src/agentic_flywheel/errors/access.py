"""What stands between a caller and the service. The tree is drawn in `errors`."""

from __future__ import annotations

from agentic_flywheel.errors.root import FlywheelError, InputError, NotFound


class AccessError(FlywheelError):
    """The service does not let this caller do this."""

    code = "access_error"


class CredentialsMissing(AccessError):
    """Nothing says who calls, and this address is not open."""

    code = "credentials_missing"
    default_suggestions = (
        "Send an API key: `Authorization: Bearer afw_...`, or `X-API-Key: afw_...`.",
        "Have one made by whoever runs the service: `afw key create NAME --scope ask`.",
        "Read docs/server.md: it says which address needs which scope.",
    )


class CredentialsRefused(AccessError):
    """A key or token that is unknown, malformed, expired or revoked."""

    code = "credentials_refused"
    default_suggestions = (
        "Check that the whole key was sent, and no other in its place.",
        "Ask whoever runs the service whether it expired or was revoked: `afw key list`.",
        "Have a new one made: `afw key create NAME`.",
    )


class CredentialsUnchecked(AccessError):
    """Nobody can say now whether a key or token is right: Redis, or the issuer of tokens, does not answer."""

    code = "credentials_unchecked"
    default_retry_after = 5.0
    default_suggestions = (
        "Try again after the time given in Retry-After.",
        "Tell whoever runs the service: `/readyz` says what is away.",
        "Check `jwt.jwks` (AFW_JWT_JWKS) if it is the keys of tokens that cannot be read.",
    )


class NotAllowed(AccessError):
    """The caller is known, and may not do this: a scope, a user or a tenant of its key forbids it."""

    code = "not_allowed"
    default_suggestions = (
        "Use a key with the scope that the message names.",
        "Leave the user out: a key that is bound to one speaks for that one alone.",
        "See what the key may do with `afw key list`.",
    )


class OriginRefused(AccessError):
    """A web page of an origin that is not on the list."""

    code = "origin_refused"
    default_suggestions = (
        "Name the page's origin in `serve.origins` (AFW_SERVE_ORIGINS) if it may use the service.",
        "Open the page at the address of the service itself.",
        "Call the service from a program instead of from a page.",
    )


class HostRefused(AccessError):
    """The service was called by a name that is not its own."""

    code = "host_refused"
    default_suggestions = (
        "Name the host in `serve.hosts` (AFW_SERVE_HOSTS) if this machine is known by it.",
        "Have the reverse proxy pass the Host header on, or send one that is on the list.",
        "Call the service by the address that it names at its start.",
    )


class RateLimited(AccessError):
    """A key that calls more often than it may; carries `limit` (a minute)."""

    code = "rate_limited"
    default_retry_after = 1.0
    default_suggestions = (
        "Wait for the time given in Retry-After, then go on.",
        "Spread the calls: the rate is a bucket that fills evenly.",
        "Have a key with a higher rate made: `afw key create NAME --rate PER_MINUTE`.",
    )


class RequestTooLarge(InputError):
    """A request body beyond the limit; carries `limit_bytes`."""

    code = "request_too_large"
    default_suggestions = (
        "Send less: put long material where the flow can read it.",
        "Raise `serve.max_body_megabytes` (AFW_SERVE_MAX_BODY_MEGABYTES) if bodies of this size are meant.",
        "Split the request.",
    )


class RepeatMismatch(InputError):
    """An `Idempotency-Key` stands for another request already; nothing was done."""

    code = "repeat_mismatch"
    default_suggestions = (
        "Use another key: one for each thing that is to be done once.",
        "To repeat a request, send the same method, path, query and body.",
        "Keys are forgotten after a day.",
    )


class RepeatInProgress(FlywheelError):
    """The first request with this `Idempotency-Key` is still under way; nothing was done."""

    code = "repeat_in_progress"
    default_retry_after = 1.0
    default_suggestions = (
        "Try again after the time given in Retry-After: its answer comes then.",
        "Leave the key out if this is meant to be done besides.",
        "Where the process that did it died, the key is free again after five minutes.",
    )


class UnknownApiKey(NotFound):
    """No API key of this name or id."""

    code = "unknown_api_key"
    default_suggestions = (
        "List the keys: `afw key list`.",
        "Check the tenant: keys of other tenants are listed with `--all-tenants`.",
    )


class UnknownAddress(NotFound):
    """Nothing is served at this path."""

    code = "unknown_address"
    default_suggestions = (
        "Check the path and the method: docs/server.md lists what is served.",
        "Check that the part that serves it is installed: `afw serve` says at its start what is served.",
    )


class UnknownMethod(UnknownAddress):
    """What is served at this path does not know this method."""

    code = "unknown_method"


class ServiceBusy(FlywheelError):
    """The service is closing, or has more tenants at once than it may."""

    code = "service_busy"
    exit_code = 2
    default_retry_after = 1.0
    default_suggestions = (
        "Try again after the time given in Retry-After.",
        "Send the request to another process of the service.",
        "Raise `serve.max_tenants` (AFW_SERVE_MAX_TENANTS) if so many tenants are meant at once.",
    )


class ServiceFailed(FlywheelError):
    """The processes of the service cannot start, or end again and again."""

    code = "service_failed"
    exit_code = 2
    default_suggestions = (
        "Look at the log (standard error): it says what each of them failed with.",
        "Try one process alone: `afw serve --workers 1`.",
        "Run `afw doctor`.",
    )
