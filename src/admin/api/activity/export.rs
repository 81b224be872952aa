//! `/api/activity/export.csv` and `.ndjson`: all that is wanted, newest first, written while it is read.
//!
//! What is in memory for one export is a place, a filter and a few hundred rows. A cell of CSV that a spreadsheet would
//! take for a formula gets an apostrophe before it.

use std::io;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, header};

use super::{Wanted, describe};
use crate::activity::entry::Entry;
use crate::activity::filter::Filter;
use crate::activity::ring::Snapshot;
use crate::admin::Parts;
use crate::admin::api::Shared;
use crate::admin::api::query::Asked;
use crate::admin::refusal::Refused;
use crate::base::id::ActivityId;

/// Entries that are looked at for one piece of an answer.
const PIECE: usize = 2_000;

const COLUMNS: [&str; 22] = [
    "id",
    "timestamp",
    "eventType",
    "status",
    "duration",
    "summary",
    "integration",
    "connection",
    "direction",
    "endpoint",
    "method",
    "origin",
    "path",
    "response_status",
    "error",
    "errorMessage",
    "attempts",
    "waited_ms",
    "cache",
    "request_bytes",
    "response_bytes",
    "asker",
];

/// All that is wanted as CSV (RFC 4180), with a line of names.
#[utoipa::path(get, path = "/api/activity/export.csv", tag = "activity", params(Wanted),
    responses((status = 200, body = String, content_type = "text/csv")))]
pub async fn csv(State(parts): Shared, Asked(wanted): Asked<Wanted>) -> Result<Response, Refused> {
    let export = Export::of(&parts, &wanted, csv_rows)?;
    Ok(answer(export, "text/csv; charset=utf-8", "activity.csv"))
}

/// All that is wanted as JSON, an entry a line.
#[utoipa::path(get, path = "/api/activity/export.ndjson", tag = "activity", params(Wanted),
    responses((status = 200, body = String, content_type = "application/x-ndjson",
        description = "An `ActivityEntry` a line")))]
pub async fn ndjson(State(parts): Shared, Asked(wanted): Asked<Wanted>) -> Result<Response, Refused> {
    let export = Export::of(&parts, &wanted, json_rows)?;
    Ok(answer(export, "application/x-ndjson", "activity.ndjson"))
}

type Write = fn(&[&Entry], bool) -> io::Result<Vec<u8>>;

struct Export {
    snapshot: Snapshot,
    filter: Filter,
    before: ActivityId,
    left: usize,
    write: Write,
    first: bool,
}

impl Export {
    fn of(parts: &Parts, wanted: &Wanted, write: Write) -> Result<Self, Refused> {
        Ok(Self {
            snapshot: parts.activity.snapshot(),
            filter: wanted.filter(parts.clock.now())?,
            before: wanted.after.unwrap_or(ActivityId::from_u64(u64::MAX)),
            left: wanted.limit.unwrap_or(usize::MAX),
            write,
            first: true,
        })
    }

    /// The next piece; `None` after the last.
    fn piece(&mut self) -> Option<io::Result<Bytes>> {
        let looked: Vec<_> = self.snapshot.before(self.before).take(PIECE).collect();
        let last = looked.last().map(|entry| entry.id);
        if last.is_none() && !self.first {
            return None;
        }
        let rows: Vec<_> =
            looked.iter().map(|entry| &***entry).filter(|entry| self.filter.selects(entry)).take(self.left).collect();
        self.left -= rows.len();
        let written = (self.write)(&rows, self.first);
        self.first = false;
        // After the last row nothing is looked at any more.
        self.before = last.filter(|_| self.left > 0).unwrap_or_default();
        Some(written.map(Bytes::from))
    }
}

fn answer(export: Export, kind: &'static str, name: &'static str) -> Response {
    let pieces = stream::unfold(export, |mut export| async move {
        let piece = export.piece()?;
        // Others have a turn between pieces.
        tokio::task::yield_now().await;
        Some((piece, export))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    response
}

fn json_rows(rows: &[&Entry], _: bool) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(rows.len() * 800);
    for entry in rows {
        serde_json::to_writer(&mut out, &describe(entry))?;
        out.push(b'\n');
    }
    Ok(out)
}

fn csv_rows(rows: &[&Entry], with_names: bool) -> io::Result<Vec<u8>> {
    let mut out = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    if with_names {
        out.write_record(COLUMNS)?;
    }
    for entry in rows {
        out.write_record(cells(entry).map(safe))?;
    }
    out.into_inner().map_err(csv::IntoInnerError::into_error)
}

fn cells(entry: &Entry) -> [String; COLUMNS.len()] {
    let optional = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let asker = match &entry.asker {
        crate::activity::Asker::Caller(id) => id.to_string(),
        crate::activity::Asker::Delivery(id) | crate::activity::Asker::Event(id) => id.clone(),
        _ => String::new(),
    };
    let direction = match entry.direction() {
        crate::activity::entry::Direction::In => "in",
        crate::activity::entry::Direction::Out => "out",
    };
    [
        entry.id.to_string(),
        entry.at.to_string(),
        entry.kind().as_str().to_owned(),
        if entry.has_failed() { "error" } else { "success" }.to_owned(),
        entry.duration_ms.to_string(),
        entry.summary(),
        entry.integration.to_string(),
        entry.connection.to_string(),
        direction.to_owned(),
        optional(entry.endpoint.as_deref()),
        entry.method.to_string(),
        entry.origin.to_string(),
        entry.path.clone(),
        entry.status.map(|status| status.to_string()).unwrap_or_default(),
        optional(entry.error.as_deref()),
        entry.error_message().unwrap_or_default(),
        entry.attempts.to_string(),
        entry.waited_ms.to_string(),
        optional(entry.cache.as_deref()),
        entry.sent_bytes.to_string(),
        entry.received_bytes.to_string(),
        asker,
    ]
}

/// A cell that no spreadsheet takes for a formula.
fn safe(cell: String) -> String {
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{cell}") } else { cell }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_a_formula_is_text() {
        for cell in ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx"] {
            assert_eq!(safe(cell.to_owned()), format!("'{cell}"));
        }
        assert_eq!(safe("a=1".to_owned()), "a=1");
    }
}
