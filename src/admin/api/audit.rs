//! `/api/audit`: who did what, oldest first, each entry checked against the one before it.

use axum::Json;
use axum::extract::State;
use http::{HeaderMap, Uri};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Shared;
use super::query::{Asked, link_next, rows};
use crate::admin::refusal::Refused;
use crate::respond::Refusal;
use crate::store::chain;
use crate::store::model::AuditRecord;

/// The most entries that one request reads; a filter that selects few goes on with the next page.
const READ: usize = 10_000;

/// Which entries.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The first sequence number. Default 1.
    from: Option<u64>,
    limit: Option<usize>,
    /// Who.
    actor: Option<String>,
    /// What.
    action: Option<String>,
}

/// The entries from a sequence number on. `chained` says of each whether it continues the chain.
pub async fn list(
    State(parts): Shared,
    uri: Uri,
    Asked(wanted): Asked<Wanted>,
) -> Result<(HeaderMap, Json<Value>), Refused> {
    let (from, limit) = (wanted.from.unwrap_or(1).max(1), rows(wanted.limit)?);
    // One entry before the first, so that the first can be checked as well, and one more than is read, to
    // know whether there are more.
    let begin = from.saturating_sub(1).max(1);
    let read = parts.store.read(begin, READ + 2).await;
    let read = read.map_err(|error| Refused::new(Refusal::StoreUnavailable, &error.to_string()))?;
    let page = Page::of(&read, from, limit, &wanted);
    Ok((link_next(&uri, "from", page.next.map(|next| next.to_string())), Json(Value::Array(page.rows))))
}

/// What is answered, and where the next page begins.
#[derive(Debug, PartialEq)]
struct Page {
    rows: Vec<Value>,
    next: Option<u64>,
}

impl Page {
    fn of(read: &[AuditRecord], from: u64, limit: usize, wanted: &Wanted) -> Self {
        let mut page = Self { rows: Vec::new(), next: None };
        for (place, record) in read.iter().enumerate() {
            let previous = place.checked_sub(1).and_then(|place| read.get(place));
            if record.sequence < from {
                continue;
            }
            if page.rows.len() >= limit || place > READ {
                page.next = Some(record.sequence);
                break;
            }
            if wanted.selects(record) {
                page.rows.push(described(record, chain::continues(record, previous)));
            }
        }
        page
    }
}

impl Wanted {
    fn selects(&self, record: &AuditRecord) -> bool {
        let fits = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        fits(&self.actor, &record.entry.actor) && fits(&self.action, &record.entry.action)
    }
}

fn described(record: &AuditRecord, chained: bool) -> Value {
    let entry = &record.entry;
    json!({
        "sequence": record.sequence,
        "at": entry.at.to_string(),
        "actor": entry.actor,
        "action": entry.action,
        "target": entry.target,
        "detail": entry.detail,
        "hash": record.hash,
        "chained": chained,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;
    use crate::store::model::AuditEntry;

    fn log(length: u64) -> Vec<AuditRecord> {
        let mut log: Vec<AuditRecord> = Vec::new();
        for sequence in 1..=length {
            let actor = if sequence % 2 == 0 { "system" } else { "operator" }.to_owned();
            let (action, target) = ("config.reload".to_owned(), "gateway".to_owned());
            let entry = AuditEntry { at: Timestamp::from_seconds(0), actor, action, target, detail: Value::Null };
            let previous = log.last().map_or(chain::BEGINNING, |last| last.hash.as_str());
            log.push(AuditRecord { sequence, hash: chain::hash(previous, sequence, &entry), entry });
        }
        log
    }

    fn sequences(page: &Page) -> Vec<u64> {
        page.rows.iter().filter_map(|row| row["sequence"].as_u64()).collect()
    }

    #[test]
    fn pages_go_on_where_the_last_one_ended() {
        let log = log(5);
        let page = Page::of(&log, 1, 2, &Wanted::default());
        assert_eq!((sequences(&page), page.next), (vec![1, 2], Some(3)));
        let page = Page::of(&log[1..], 3, 3, &Wanted::default());
        assert_eq!((sequences(&page), page.next), (vec![3, 4, 5], None));
        assert!(page.rows.iter().all(|row| row["chained"] == true));
        let system = Wanted { actor: Some("system".to_owned()), ..Wanted::default() };
        assert_eq!(sequences(&Page::of(&log, 1, 10, &system)), [2, 4]);
    }

    #[test]
    fn a_changed_entry_is_told() {
        let mut log = log(4);
        log[1].entry.target = "elsewhere".to_owned();
        let page = Page::of(&log, 1, 10, &Wanted::default());
        let chained: Vec<_> = page.rows.iter().map(|row| row["chained"] == true).collect();
        assert_eq!(chained, [true, false, true, true]);
    }
}
