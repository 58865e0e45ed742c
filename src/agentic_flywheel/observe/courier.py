"""Brings traces to an OpenTelemetry collector or to Langfuse, over HTTP.

Invariant: one thread uses it, and nothing of it is imported before there is a trace to bring. Credentials stand in
headers alone, never in what is logged or raised.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx2

from agentic_flywheel.errors import ExtraMissing
from agentic_flywheel.observe.names import SCOPE, SERVICE, Attribute, Langfuse
from agentic_flywheel.observe.places import Place
from agentic_flywheel.observe.sending import Refused, Unreachable
from agentic_flywheel.observe.spans import ScoreRecord, SpanRecord

#: Other answers than these are about what was sent, and would be the same another time.
PASSING = frozenset({408, 429, 502, 503, 504})
#: Smaller requests are sent as they are.
_WORTH_PACKING = 1024

Record = SpanRecord | ScoreRecord


class HttpCourier:
    """Brings to one place. `spelling` makes the records of what was queued."""

    def __init__(
        self, place: Place, spelling: Callable[[Any], Sequence[Record]], *, timeout: float, version: str
    ) -> None:
        try:
            from agentic_flywheel.observe import otlp
        except ImportError as error:
            raise ExtraMissing("Handing over traces", "langfuse" if place.scores else "trace") from error
        self._otlp = otlp
        self._place = place
        self._version = version
        self._spelling = spelling
        self._client = httpx2.Client(timeout=timeout, headers=place.headers)
        self._resource: dict[str, Any] = {
            Attribute.SERVICE_NAME: place.service or SERVICE,
            Attribute.SERVICE_VERSION: version,
        }
        if place.environment:
            self._resource[Attribute.ENVIRONMENT] = place.environment
        if place.scores:
            self._resource[Langfuse.RELEASE] = version
            if place.environment:
                self._resource[Langfuse.ENVIRONMENT] = place.environment

    def spell(self, item: Any) -> Sequence[Record]:
        """The spans and scores of one thing that was queued."""
        return self._spelling(item)

    def deliver(self, spelt: Sequence[Sequence[Record]]) -> None:
        """Hand them over; scores after the spans that they are about. Raises `Unreachable` and `Refused`."""
        spans = [record for records in spelt for record in records if isinstance(record, SpanRecord)]
        if spans:
            self._hand_over(spans)
        for score in (record for records in spelt for record in records if isinstance(record, ScoreRecord)):
            self._post(self._place.scores, json.dumps(_score(score)).encode(), "application/json")

    def knock(self) -> None:
        """Ask whether traces would be taken, by handing over none. Raises `Unreachable` and `Refused`."""
        self._hand_over([])

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _hand_over(self, spans: Sequence[SpanRecord]) -> None:
        body = self._otlp.encode(spans, resource=self._resource, scope=SCOPE, version=self._version)
        answer = self._post(self._place.url, body, "application/x-protobuf")
        count, why = self._otlp.refused(answer)
        if count:
            raise Refused(f"{self._place.shown} took {len(spans) - count} of {len(spans)} spans: {why or 'no reason'}")

    def _post(self, url: str, body: bytes, kind: str) -> bytes:
        headers = {"Content-Type": kind}
        if len(body) >= _WORTH_PACKING:
            body, headers["Content-Encoding"] = gzip.compress(body, 1), "gzip"
        try:
            response = self._client.post(url, content=body, headers=headers)
        except httpx2.TimeoutException as error:
            raise Unreachable(f"{self._place.shown} did not answer in time") from error
        except httpx2.TransportError as error:
            raise Unreachable(f"{self._place.shown} cannot be reached: {error}") from error
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise Refused(f"{self._place.shown} is no address that traces could go to: {error}") from error
        if response.is_success:
            return response.content
        said = f"{self._place.shown} answered {response.status_code} {response.reason_phrase}"
        if response.status_code in {401, 403}:
            said += ": its credentials are not right"
        raise (Unreachable if response.status_code in PASSING else Refused)(said)


def _score(score: ScoreRecord) -> Mapping[str, Any]:
    """A score as Langfuse's interface takes it; the same `id` replaces what was said before."""
    return {
        "id": score.id,
        **({"traceId": score.trace, "observationId": score.span} if score.trace else {"sessionId": score.session}),
        "name": score.name,
        "value": score.value,
        "dataType": "BOOLEAN" if score.truth else "NUMERIC",
        "timestamp": datetime.fromtimestamp(score.at, UTC).isoformat().replace("+00:00", "Z"),
        **({"comment": score.why} if score.why else {}),
    }
