//! Spans as an `ExportTraceServiceRequest` in OTLP's JSON: the mapping of Protocol Buffers, but for ids in hexadecimal.

use serde_json::{Value as Json, json};

use crate::telemetry::trace::{Kind, Span, Value};

/// `STATUS_CODE_ERROR`.
const ERROR: u8 = 2;

/// The message for some spans.
pub fn message(spans: &[Span]) -> Json {
    let version = env!("CARGO_PKG_VERSION");
    let resource = [value("service.name", &"trunkline".into()), value("service.version", &version.into())];
    json!({ "resourceSpans": [{
        "resource": { "attributes": resource },
        "scopeSpans": [{
            "scope": { "name": "trunkline", "version": version },
            "spans": spans.iter().map(span).collect::<Vec<_>>(),
        }],
    }] })
}

fn span(span: &Span) -> Json {
    let start = u128::from(span.at.millis()) * 1_000_000;
    let mut written = json!({
        "traceId": span.context.trace.to_string(),
        "spanId": span.context.span.to_string(),
        "flags": u8::from(span.context.sampled),
        "name": span.name,
        "kind": kind(span.kind),
        // Numbers of 64 bits are text: JavaScript cannot hold them.
        "startTimeUnixNano": start.to_string(),
        "endTimeUnixNano": (start + span.took.as_nanos()).to_string(),
        "attributes": span.values.iter().map(|(name, of)| value(name, of)).collect::<Vec<_>>(),
    });
    let Some(fields) = written.as_object_mut() else { return written };
    let mut put = |name: &str, value: Option<Json>| {
        if let Some(value) = value {
            fields.insert(name.to_owned(), value);
        }
    };
    put("parentSpanId", span.parent.map(|parent| Json::from(parent.to_string())));
    put("traceState", span.context.state.as_ref().and_then(|state| state.to_str().ok()).map(Json::from));
    let link = |(trace, of): (_, _)| json!([{ "traceId": format!("{trace}"), "spanId": format!("{of}") }]);
    put("links", span.link.map(|(trace, of)| link((trace.to_string(), of.to_string()))));
    put("status", span.error.as_ref().map(|why| json!({ "code": ERROR, "message": why })));
    written
}

const fn kind(kind: Kind) -> u8 {
    match kind {
        Kind::Internal => 1,
        Kind::Server => 2,
        Kind::Client => 3,
    }
}

fn value(name: &str, value: &Value) -> Json {
    let value = match value {
        Value::Text(text) => json!({ "stringValue": text }),
        Value::Number(number) => json!({ "intValue": number.to_string() }),
    };
    json!({ "key": name, "value": value })
}
