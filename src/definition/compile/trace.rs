//! The `trace` block, compiled.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::gateway::{address, millionths};
use super::place::{Fault, Place};
use crate::definition::plan::trace::Trace;
use crate::definition::problem::Code;
use crate::definition::raw::scalar::SecretText;
use crate::definition::raw::trace as raw;

/// The share that is recorded, of a million.
const SAMPLE: u32 = 10_000;
/// How long an answer of the collector may take.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn trace(raw: Option<&raw::Trace>, place: &Place<'_>) -> Result<Option<Trace>, Fault> {
    let Some(raw) = raw else { return Ok(None) };
    let place = place.at("otlp");
    let headers = place.at("headers");
    let header = |(name, value): (&str, &SecretText)| {
        let bad = |what: &str| headers.at(name).problem(Code::BadFormat, format!("this is no {what} of a header"));
        let written = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad("name"))?;
        let mut value = HeaderValue::from_str(value.0.expose()).map_err(|_| bad("value"))?;
        value.set_sensitive(true);
        Ok((written, value))
    };
    Ok(Some(Trace {
        endpoint: address(&raw.otlp.endpoint, &place.at("endpoint"))?,
        headers: raw.otlp.headers.iter().map(header).collect::<Result<_, Fault>>()?,
        timeout: raw.otlp.timeout.map_or(TIMEOUT, |time| time.0),
        sample_millionths: raw.sample.map_or(SAMPLE, millionths),
    }))
}
