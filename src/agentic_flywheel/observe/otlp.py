"""Spans as OTLP, the protocol of OpenTelemetry over HTTP.

Invariant: imports the messages' types (the extra `trace`) and nothing of OpenTelemetry's SDK: no provider is set for
the program, nothing is registered to run at its end, and no thread is started.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from agentic_flywheel.observe.spans import SpanRecord

#: The span belongs to a trace that is recorded; its parent, if any, may be in another process.
_SAMPLED = 1


def encode(spans: Iterable[SpanRecord], *, resource: Mapping[str, Any], scope: str, version: str) -> bytes:
    """One request that hands over these spans; none is a request, too, that asks whether one would be taken."""
    said = [_span(span) for span in spans]
    whole = ResourceSpans(
        resource=Resource(attributes=_pairs(resource)),
        scope_spans=[ScopeSpans(scope=InstrumentationScope(name=scope, version=version), spans=said)],
    )
    return bytes(ExportTraceServiceRequest(resource_spans=[whole] if said else []).SerializeToString())


def refused(body: bytes) -> tuple[int, str]:
    """How many of the spans the other side took none of, by its answer, and what it says of that."""
    try:
        partial = ExportTraceServiceResponse.FromString(body).partial_success
    except Exception:  # noqa: BLE001 -- protobuf raises what its implementation of the day raises; not every server answers so
        return 0, ""
    return partial.rejected_spans, partial.error_message


def _span(span: SpanRecord) -> Span:
    said = Span(
        trace_id=bytes.fromhex(span.trace),
        span_id=bytes.fromhex(span.span),
        parent_span_id=bytes.fromhex(span.parent),
        name=span.name,
        kind=Span.SPAN_KIND_INTERNAL,
        flags=_SAMPLED,
        start_time_unix_nano=round(span.start * 1e9),
        end_time_unix_nano=round(max(span.start, span.end) * 1e9),
        attributes=_pairs(span.attributes),
    )
    for link in span.links:
        said.links.append(
            Span.Link(
                trace_id=bytes.fromhex(link.trace),
                span_id=bytes.fromhex(link.span),
                attributes=_pairs(link.attributes),
                flags=_SAMPLED,
            )
        )
    if span.error:
        said.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR, message=span.error))
    return said


def _pairs(attributes: Mapping[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=name, value=_value(value)) for name, value in attributes.items()]


def _value(value: Any) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case tuple():
            return AnyValue(array_value=ArrayValue(values=[_value(one) for one in value]))
    return AnyValue(string_value=_text(str(value)))


def _text(text: str) -> str:
    """What protobuf takes as text: a lone surrogate is none."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
