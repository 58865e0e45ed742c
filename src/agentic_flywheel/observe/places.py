"""Where traces go, by the settings and the variables that users of OpenTelemetry and Langfuse already have.

Invariant: with `trace.exporter` off nothing is read of them, and nothing is sent anywhere.
"""

from __future__ import annotations

import base64
from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec

from agentic_flywheel.errors import SettingsError
from agentic_flywheel.settings import Settings

OFF, OTLP, LANGFUSE = "off", "otlp", "langfuse"
LANGFUSE_CLOUD = "https://cloud.langfuse.com"
_COLLECTOR = "http://localhost:4318"
_TRACES = "/v1/traces"
#: Langfuse files spans at once, rather than after a while, where this says that its newer form is meant.
_INGESTION = {"x-langfuse-ingestion-version": "4"}


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where traces go. `scores` is Langfuse's address for them, "" for any other place: there a score is a span; `api`
    is what its other addresses begin with.

    `link` is what people look at a trace by, with `{trace_id}` in it; "" where nobody said. `shown` is the address
    without credentials.
    """

    kind: str
    url: str
    shown: str
    headers: dict[str, str]
    scores: str = ""
    api: str = ""
    link: str = ""
    service: str = ""
    environment: str = ""

    def link_to(self, trace: str) -> str:
        """Where a person looks at a trace; "" where nobody said."""
        return self.link.replace("{trace_id}", trace) if trace else ""


def place_of(settings: Settings) -> Place | None:
    """Where traces go, None where nowhere. Raises `SettingsError` for what cannot be meant."""
    kind = settings.text("trace.exporter")
    if kind == OFF:
        return None
    environ = settings.environ
    headers = _headers(settings.text("trace.headers") or environ.get("OTEL_EXPORTER_OTLP_HEADERS", ""))
    named = settings.text("trace.endpoint")
    link, scores, api = settings.text("trace.link"), "", ""
    if kind == LANGFUSE:
        base = settings.text("langfuse.url") or environ.get("LANGFUSE_BASE_URL") or environ.get("LANGFUSE_HOST")
        base = _address(base or LANGFUSE_CLOUD, "langfuse.url").rstrip("/")
        url = named or f"{base}/api/public/otel{_TRACES}"
        api = f"{base}/api/public"
        scores = f"{api}/scores"
        link = link or base + "/trace/{trace_id}"
        headers = {**_INGESTION, **_langfuse_credentials(settings), **headers}
    else:
        url = named or environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")
        if not url:
            url = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", _COLLECTOR).rstrip("/") + _TRACES
    url = _address(url, "trace.endpoint")
    return Place(
        kind=kind,
        url=url,
        shown=_shown(url),
        headers=headers,
        scores=scores,
        api=api,
        link=link,
        service=environ.get("OTEL_SERVICE_NAME", ""),
        environment=settings.text("trace.environment"),
    )


def _langfuse_credentials(settings: Settings) -> dict[str, str]:
    environ = settings.environ
    public = settings.text("langfuse.public_key") or environ.get("LANGFUSE_PUBLIC_KEY", "")
    secret = settings.text("langfuse.secret_key") or environ.get("LANGFUSE_SECRET_KEY", "")
    if not (public and secret):
        raise SettingsError(
            "trace.exporter is langfuse, and there are no keys of a project",
            suggestions=(
                "Set LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY (Langfuse: Settings, API keys).",
                "Or set langfuse.public_key and langfuse.secret_key.",
                "Or send no traces: AFW_TRACE_EXPORTER=off.",
            ),
            setting="langfuse.public_key",
        )
    return {"Authorization": "Basic " + base64.b64encode(f"{public}:{secret}".encode()).decode()}


def _headers(written: str) -> dict[str, str]:
    """`name=value,name=value`, values percent-encoded, as OpenTelemetry has it."""
    pairs = (part.partition("=") for part in written.split(",") if part.strip())
    return {name.strip(): unquote(value.strip()) for name, _, value in pairs}


def _address(written: str, setting: str) -> str:
    parts = urlsplit(written)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise SettingsError(f"setting {setting!r}: expected an http address, got {_shown(written)!r}", setting=setting)
    return written


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
