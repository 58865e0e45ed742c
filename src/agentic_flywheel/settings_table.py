"""Every setting: its name, its default, what it does; read with `settings.load_settings`."""

from __future__ import annotations

import msgspec


class Setting(msgspec.Struct, frozen=True):
    """One setting: dotted `name`, `default` (its type is the setting's type), one sentence of help."""

    name: str
    default: str | int | float | bool
    help: str
    secret: bool = False
    minimum: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def variable(self) -> str:
        """The environment variable of the setting."""
        return "AFW_" + self.name.replace(".", "_").upper()


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "redis_url", "", "Redis to use; empty: the variables of coaiapy users, else the embedded server.", secret=True
    ),
    Setting("tenant", "default", "Whose memory this is; nothing crosses tenants."),
    Setting("user", "", "Who asks, where no interface says so; empty: nobody in particular."),
    Setting("registry", "", "Path of the flow registry; empty: project, user, packaged registry in this order."),
    Setting("data_dir", "", "Directory of the embedded server and the outbox; empty: the user's data directory."),
    Setting("redis.connect_timeout_seconds", 0.5, "Longest wait for a connection to Redis.", minimum=0.01),
    Setting(
        "redis.command_timeout_seconds",
        0.04,
        "Longest wait for a reply of Redis on the way of a question.",
        minimum=0.01,
    ),
    Setting("redis.wait_replicas", 0, "Replicas that must confirm each turn of a session; 0: none.", minimum=0),
    Setting(
        "redis.wait_timeout_seconds",
        0.02,
        "Longest wait for these replicas, beyond that for a reply.",
        minimum=0.001,
    ),
    Setting("embedded.enabled", True, "Start the embedded server where no Redis is configured."),
    Setting("embedded.max_memory_mb", 256, "Memory limit of the embedded server, in MB (10^6 bytes).", minimum=16),
    Setting(
        "embedded.idle_seconds", 300, "The embedded server stops after so long without a client; 0: never.", minimum=0
    ),
    Setting(
        "encryption.keys",
        "",
        "Keys that values are encrypted with: ID:BASE64 of 32 bytes, several with commas, the current one first.",
        secret=True,
    ),
    Setting("encryption.key_file", "", "File of such keys instead, one a line."),
    Setting("encryption.key_command", "", "Command that prints such lines instead; run without a shell."),
    Setting("encryption.current", "", "Id of the key that encrypts; empty: the first one."),
    Setting("signing.key_file", "", "Key that signs receipts, made when it is missing; empty: in the data directory."),
    Setting("outbox.enabled", True, "Keep turns that Redis does not take on local disk until it does."),
    Setting("outbox.max_megabytes", 64, "Most that may wait in the outbox, in MB (10^6 bytes).", minimum=1),
    Setting(
        "policy.unknown",
        "wait",
        "While Redis is away and its privacy policies are not known: wait (turns wait in the outbox and are delivered "
        "only if a policy allows it), withhold (none is kept).",
        choices=("wait", "withhold"),
    ),
    Setting("session.turns", 5, "Earlier turns of a session that enrich a follow-up, besides its first.", minimum=0),
    Setting(
        "session.relevant_turns",
        3,
        "Turns further back that enrich a follow-up, those that bear on it most; 0: none.",
        minimum=0,
    ),
    Setting("session.context_tokens", 2000, "Most tokens (4 characters each) that earlier turns may take.", minimum=0),
    Setting("session.retention_days", 365, "Sessions without activity for so long are swept; 0: never.", minimum=0),
    Setting(
        "session.verbatim", True, "A question that was answered word for word without context may serve a follow-up."
    ),
    Setting("ttl.technical_seconds", 7 * 86400, "Lifetime of answers of technical flows.", minimum=1),
    Setting("ttl.creative_seconds", 30 * 86400, "Lifetime of answers of creative flows.", minimum=1),
    Setting("ttl.document_seconds", 3 * 86400, "Lifetime of answers of document flows.", minimum=1),
    Setting("ttl.jitter", 0.05, "Lifetimes vary by this share, so that entries do not expire together.", minimum=0),
    Setting(
        "ttl.refresh_after",
        0.8,
        "After this share of its lifetime, a hit refreshes the answer in the background; 1: never.",
        minimum=0,
    ),
    Setting(
        "ttl.stale_seconds",
        3600.0,
        "Answers are kept so long past their lifetime, to stand in for a flow that fails.",
        minimum=0,
    ),
    Setting("near.enabled", False, "Keep answers that were just served in this process, in front of Redis."),
    Setting("near.max_megabytes", 32, "Most memory (10^6 bytes) that the near cache takes.", minimum=1),
    Setting(
        "near.max_staleness_seconds",
        0.25,
        "The near cache never serves what it has not known to be true for longer than this.",
        minimum=0.01,
    ),
    Setting(
        "embedder.model",
        "auto",
        "What gives questions vectors: auto, off, minilm, minilm-int8, a folder, openai:MODEL, python:MODULE:NAME.",
    ),
    Setting("embedder.base_url", "", "Address of the OpenAI-compatible endpoint of an embedder openai:MODEL."),
    Setting("embedder.api_key_env", "OPENAI_API_KEY", "Name of the variable that holds that endpoint's key."),
    Setting("embedder.threads", 1, "Processor threads that one embedding uses.", minimum=1),
    Setting("embedder.cache_dir", "", "Where model weights are kept; empty: the user's cache directory."),
    Setting(
        "similar.mode",
        "learn",
        "Whether similar questions share answers: learn (once evidence allows), fixed (at the floor), shadow, off.",
        choices=("learn", "fixed", "shadow", "off"),
    ),
    Setting(
        "similar.profile",
        "strict",
        "How alike questions must be: strict, balanced, faq (for narrow flows).",
        choices=("strict", "balanced", "faq"),
    ),
    Setting(
        "similar.max_error",
        0.01,
        "Largest share of wrong answers among similar hits that evidence may allow (upper confidence bound).",
        minimum=0.0001,
    ),
    Setting(
        "similar.floor", 0.0, "Least similarity ever served, instead of the profile's; 0: the profile's.", minimum=0
    ),
    Setting(
        "similar.audit_share", 0.05, "Share of similar hits that is checked by asking the flow as well.", minimum=0
    ),
    Setting(
        "similar.patience_seconds", 0.05, "Longest that a question waits to be compared with similar ones.", minimum=0
    ),
    Setting(
        "similar.recall",
        "auto",
        "Where similar questions are found: local (in this process), server (FT.*), auto (local until it is too many).",
        choices=("auto", "local", "server"),
    ),
    Setting(
        "similar.comparer",
        "",
        "What judges whether two answers say the same: empty (embedding and guards), flow:KEY, python:MODULE:NAME.",
    ),
    Setting("faq.least_asked", 3, "A question asked so often in 30 days asks for a place in the FAQ.", minimum=1),
    Setting("faq.least_askers", 2, "By so many askers at least.", minimum=1),
    Setting("faq.review_days", 180, "An approved entry is to be looked at again after so long; 0: never.", minimum=0),
    Setting("usage.currency", "USD", "Currency of the prices in the registry; shown with what was spent and saved."),
    Setting("warm.concurrency", 2, "Questions that one warm-up asks at a time.", minimum=1),
    Setting(
        "warm.every_seconds",
        0.0,
        "Programs that run on warm popular questions and the FAQ so often, one program for all; 0: never.",
        minimum=0,
    ),
    Setting("warm.popular", 20, "Popular questions that such a warm-up asks.", minimum=0),
    Setting("warm.follow_ups", 2, "What is asked next that it asks as well, after each of them.", minimum=0),
    Setting("warm.faq", True, "Whether it asks the questions of the FAQ."),
    Setting(
        "warm.after_change",
        0,
        "Popular questions that are asked again after a flow changed or was cleared; flows may say otherwise (`warm`).",
        minimum=0,
    ),
    Setting("warm.max_calls", 100, "Most calls of flows that a warm-up makes by itself.", minimum=1),
    Setting("warm.max_seconds", 900.0, "Longest time that it takes.", minimum=1),
    Setting(
        "warm.look_seconds",
        60.0,
        "How often programs that run on look whether flows changed that have something to warm.",
        minimum=1,
    ),
    Setting(
        "search.index",
        "auto",
        "What finds turns: local (a file on this machine), engine (FT.* on the server), auto (engine once it is made).",
        choices=("auto", "local", "engine"),
    ),
    Setting(
        "privacy.redact",
        "",
        "Kinds of personal data taken out before anything is kept: email, phone, card, iban, ip, secret, name, or all.",
    ),
    Setting("privacy.names", "", "What finds names, for the kind name: python:MODULE:NAME; empty: none are found."),
    Setting("privacy.keep", "", "Values that are no personal data, with commas; * for anything: *@acme.com."),
    Setting(
        "privacy.sensitive",
        "private",
        "What a question in which personal data is found is: private (its answer is kept for its asker alone), off.",
        choices=("private", "off"),
    ),
    Setting("question.max_characters", 16000, "Longest question accepted.", minimum=1),
    Setting(
        "flow.timeout_seconds",
        120.0,
        "Longest wait for a flow's answer, unless the registry says otherwise.",
        minimum=0.1,
    ),
    Setting(
        "flow.join_seconds",
        60.0,
        "Longest wait for another asker's identical question; then the flow is asked.",
        minimum=0,
    ),
    Setting("flow.queue_seconds", 10.0, "Longest wait for a place where a flow's calls are limited.", minimum=0),
    Setting(
        "flow.check_every_seconds", 5.0, "Oldest knowledge of a flow's remote configuration that is trusted.", minimum=0
    ),
    Setting("flow.check_timeout_seconds", 2.0, "Longest wait when a flow's configuration is checked.", minimum=0.1),
    Setting(
        "flow.max_unverified_seconds",
        60.0,
        "A hit older than this check is called stale if the flow cannot be checked.",
        minimum=0,
    ),
    Setting(
        "trace.exporter",
        "off",
        "Where traces of questions go: off, otlp (OpenTelemetry over HTTP), langfuse.",
        choices=("off", "otlp", "langfuse"),
    ),
    Setting("trace.endpoint", "", "Full address that traces are sent to; empty: OTEL_EXPORTER_OTLP_..., langfuse.url."),
    Setting("trace.headers", "", "Headers for that address: name=value, with commas.", secret=True),
    Setting(
        "trace.text",
        "off",
        "What traces show of questions and answers: off, masked (patterns of addresses, numbers, keys), on.",
        choices=("off", "masked", "on"),
    ),
    Setting("trace.link", "", "Address at which people look at a trace, with {trace_id} in it; Langfuse's is known."),
    Setting("trace.environment", "", "Name of this deployment in traces (production, ...)."),
    Setting(
        "trace.queue", 1000, "Most traces that wait in a process to be sent; what comes then is dropped.", minimum=1
    ),
    Setting("trace.timeout_seconds", 5.0, "Longest wait, off the way of questions, for who takes them.", minimum=0.1),
    Setting("trace.close_seconds", 1.0, "Longest that the end of a program waits for traces to be taken.", minimum=0),
    Setting("langfuse.url", "", "Langfuse to use; empty: LANGFUSE_BASE_URL, LANGFUSE_HOST, else its cloud in the EU."),
    Setting("langfuse.public_key", "", "Public key of the project; empty: LANGFUSE_PUBLIC_KEY."),
    Setting("langfuse.secret_key", "", "Secret key of the project; empty: LANGFUSE_SECRET_KEY.", secret=True),
    Setting("serve.host", "127.0.0.1", "Address that `afw serve` listens on; any but loopback demands credentials."),
    Setting("serve.port", 8765, "Port that `afw serve` listens on; 0: any that is free.", minimum=0),
    Setting("serve.workers", 1, "Processes that serve, sharing one port.", minimum=1),
    Setting(
        "serve.credentials",
        "auto",
        "Who must say who they are: auto (nobody on loopback, everybody elsewhere), always.",
        choices=("auto", "always"),
    ),
    Setting("serve.hosts", "", "Names, besides those of loopback, by which this machine may be called; with commas."),
    Setting(
        "serve.origins", "", "Origins of web pages that may use the service (https://docs.example.com); * for all."
    ),
    Setting(
        "serve.rate_per_minute",
        0,
        "Calls a minute that each key or token may make, unless the key says; 0: no limit.",
        minimum=0,
    ),
    Setting(
        "serve.key_grace_seconds",
        600.0,
        "While Redis is away, a key that was right so long ago still opens what is not administration.",
        minimum=0,
    ),
    Setting("jwt.issuer", "", "Who signs the tokens (`iss`) that the service takes besides its keys; empty: none."),
    Setting("jwt.audience", "", "Whom these tokens must be meant for (`aud`)."),
    Setting("jwt.jwks", "", "Where the issuer's signing keys are: an https address, or a file."),
    Setting("jwt.algorithms", "RS256,ES256", "Algorithms that tokens may be signed with; with commas."),
    Setting("jwt.leeway_seconds", 30.0, "How far the issuer's clock may be off.", minimum=0),
    Setting("jwt.tenant_claim", "", "Claim that names the tenant; empty: every token is for the service's own."),
    Setting("jwt.user_claim", "sub", "Claim that names the user."),
    Setting("jwt.scope_claim", "scope", "Claim that lists what its bearer may do: words, or a list; dots go deeper."),
    Setting("jwt.scope_prefix", "afw:", "What our scopes begin with in that claim: afw:ask, afw:read, afw:admin."),
    Setting("serve.max_body_megabytes", 8.0, "Largest request body, in MB (10^6 bytes).", minimum=0.001),
    Setting("serve.max_import_megabytes", 1024.0, "Largest backup that REST puts back, in MB.", minimum=0.001),
    Setting("serve.flowise_url", "", "Flowise behind the service, whose clients are served at /api/v1; empty: none."),
    Setting("serve.client_seconds", 30.0, "Longest wait for a client that is sending a request.", minimum=0.1),
    Setting("serve.max_tenants", 32, "Tenants that one process keeps open at a time.", minimum=1),
    Setting("serve.drain_seconds", 0.0, "After SIGTERM, serve on for so long while /readyz says no.", minimum=0),
    Setting("serve.grace_seconds", 30.0, "Then, longest wait for requests under way.", minimum=0),
    Setting(
        "serve.log_format",
        "text",
        "How the service logs, on stderr: text (for people), json (one object a line).",
        choices=("text", "json"),
    ),
)
