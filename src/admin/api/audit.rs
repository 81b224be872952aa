//! `/api/audit`: who did what, each entry checked against the one before it.

use axum::Json;
use axum::extract::State;
use http::{HeaderMap, Uri};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::query::{Asked, link_next, rows};
use crate::activity::filter::contains;
use crate::admin::Parts;
use crate::admin::refusal::Refused;
use crate::respond::Refusal;
use crate::store::StoreError;
use crate::store::chain;
use crate::store::model::{AuditEntry, AuditRecord};

/// The most entries that one request reads; a filter that selects few goes on with the next page.
const READ: usize = 10_000;
/// The most entries that one check reads.
const CHECKED: u64 = 100_000;
/// What happens all the time and changes nothing.
const ROUTINE: [&str; 10] = [
    "calls",
    "sign_in",
    "sign_in.refused",
    "sign_in.abandoned",
    "sign_in.link",
    "sign_out",
    "connect.try",
    "connect.refused",
    "connection.test",
    "keys.check",
];

/// Which entries.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The sequence number to begin at. Default: the first one in this order.
    pub from: Option<u64>,
    /// At most so many: 1 to 1,000, or 50 when nobody says.
    pub limit: Option<usize>,
    /// Who.
    pub actor: Option<String>,
    /// What.
    pub action: Option<String>,
    /// Only those with this text in actor, action, target or what else is known; upper and lower case are the same.
    pub q: Option<String>,
    /// Which way. Default: oldest first.
    #[param(inline)]
    pub order: Option<Order>,
    /// Only some kinds.
    #[param(inline)]
    pub only: Option<Only>,
}

/// Which entries come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AuditOrder)]
pub enum Order {
    /// The first that was written.
    Oldest,
    /// The last that was written.
    Newest,
}

/// Kinds of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AuditKinds)]
pub enum Only {
    /// Not the counts of calls, and not who signed in or tried to.
    Changes,
}

/// An entry of the audit log.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub struct Row {
    /// Its number, from one.
    pub sequence: u64,
    /// When.
    #[schema(format = DateTime)]
    pub at: String,
    /// Who.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// To what.
    pub target: String,
    /// What else is known.
    pub detail: Value,
    /// SHA-256 in lower-case hexadecimal, over this entry and the hash of the one before.
    pub hash: String,
    /// Whether it continues the entry before it.
    pub chained: bool,
}

/// What a check of the audit log found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = AuditCheck)]
pub struct Found {
    /// The first entry that was looked at.
    pub first: u64,
    /// How many were.
    pub entries: u64,
    /// Whether they are an unbroken chain.
    pub whole: bool,
    /// Those that do not continue the one before, by number.
    pub broken: Vec<u64>,
    /// The end of the log.
    pub end: Option<End>,
}

/// The end of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = AuditEnd)]
pub struct End {
    /// The number of the last entry.
    pub sequence: u64,
    /// Its hash.
    pub hash: String,
}

/// The entries from a sequence number on. `chained` says of each whether it continues the chain.
#[utoipa::path(get, path = "/api/audit", tag = "audit", params(Wanted), responses((status = 200, body = [Row])))]
pub async fn list(
    State(parts): Shared,
    uri: Uri,
    Asked(wanted): Asked<Wanted>,
) -> Result<(HeaderMap, Json<Vec<Row>>), Refused> {
    let page = page(&parts, &wanted, READ).await?;
    Ok((link_next(&uri, "from", page.next.map(|next| next.to_string())), Json(page.rows)))
}

/// Whether the newest 100,000 entries are an unbroken chain.
#[utoipa::path(get, path = "/api/audit/check", tag = "audit", responses((status = 200, body = Found)))]
pub async fn check(State(parts): Shared) -> Result<Json<Found>, Refused> {
    checked(&parts).await.map(Json)
}

/// As [`check`].
///
/// # Errors
/// When the log cannot be read.
pub async fn checked(parts: &Parts) -> Result<Found, Refused> {
    let newest = parts.store.newest().await;
    let first = newest.saturating_sub(CHECKED - 1).max(1);
    let (mut previous, mut broken, mut next) = (before(parts, first).await?, Vec::new(), first);
    while next <= newest {
        let read = parts.store.read(next, READ).await.map_err(|error| unread(&error))?;
        if read.is_empty() {
            break;
        }
        for record in read {
            if !chain::continues(&record, previous.as_ref()) {
                broken.push(record.sequence);
            }
            next = record.sequence + 1;
            previous = Some(record);
        }
    }
    let end = previous.map(|last| End { sequence: last.sequence, hash: last.hash });
    let whole = broken.is_empty() && next > newest;
    Ok(Found { first, entries: next - first, whole, broken, end })
}

/// The entry before one.
async fn before(parts: &Parts, sequence: u64) -> Result<Option<AuditRecord>, Refused> {
    match sequence {
        0 | 1 => Ok(None),
        _ => Ok(parts.store.read(sequence - 1, 1).await.map_err(|error| unread(&error))?.pop()),
    }
}

fn unread(error: &StoreError) -> Refused {
    Refused::new(Refusal::StoreUnavailable, &error.to_string())
}

/// A page of entries; at most `read` of the log are looked at.
///
/// # Errors
/// When the limit is out of bounds, or the log cannot be read.
pub async fn page(parts: &Parts, wanted: &Wanted, read: usize) -> Result<Page, Refused> {
    let limit = rows(wanted.limit)?;
    // One entry before the first, so that the first can be checked as well.
    if wanted.order == Some(Order::Newest) {
        let newest = parts.store.newest().await;
        let from = wanted.from.unwrap_or(newest).min(newest);
        let lowest = from.saturating_sub(u64::try_from(read).unwrap_or(u64::MAX)).saturating_add(1);
        let log = parts.store.read(lowest.saturating_sub(1).max(1), read + 1).await.map_err(|error| unread(&error))?;
        return Ok(Page::back(&log, (lowest, from), limit, wanted));
    }
    let from = wanted.from.unwrap_or(1).max(1);
    // And one more than is read, to know whether there are more.
    let log = parts.store.read(from.saturating_sub(1).max(1), read + 2).await.map_err(|error| unread(&error))?;
    Ok(Page::of(&log, from, limit, wanted))
}

/// What is answered, and where the next page begins.
#[derive(Debug, PartialEq)]
pub struct Page {
    /// The entries.
    pub rows: Vec<Row>,
    /// The sequence number that the next page begins at; `None` after the last.
    pub next: Option<u64>,
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

    /// The newest first, from `highest` down to `lowest`.
    fn back(read: &[AuditRecord], (lowest, highest): (u64, u64), limit: usize, wanted: &Wanted) -> Self {
        let mut page = Self { rows: Vec::new(), next: lowest.checked_sub(1).filter(|next| *next > 0) };
        for (place, record) in read.iter().enumerate().rev() {
            if !(lowest..=highest).contains(&record.sequence) {
                continue;
            }
            if page.rows.len() >= limit {
                page.next = Some(record.sequence);
                break;
            }
            let previous = place.checked_sub(1).and_then(|place| read.get(place));
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
        let entry = &record.entry;
        let is_kind = self.only.is_none() || !ROUTINE.contains(&entry.action.as_str());
        is_kind
            && fits(&self.actor, &entry.actor)
            && fits(&self.action, &entry.action)
            && self.q.as_deref().is_none_or(|text| has(entry, text))
    }
}

/// Whether an entry has a text in what its row shows, as the activity's `q` finds it.
fn has(entry: &AuditEntry, text: &str) -> bool {
    [&entry.actor, &entry.action, &entry.target].into_iter().any(|shown| contains(shown, text))
        || (!entry.detail.is_null() && contains(&entry.detail.to_string(), text))
}

fn described(record: &AuditRecord, chained: bool) -> Row {
    let entry = record.entry.clone();
    Row {
        sequence: record.sequence,
        at: entry.at.to_string(),
        actor: entry.actor,
        action: entry.action,
        target: entry.target,
        detail: entry.detail,
        hash: record.hash.clone(),
        chained,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;

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
        page.rows.iter().map(|row| row.sequence).collect()
    }

    #[test]
    fn pages_go_on_where_the_last_one_ended() {
        let log = log(5);
        let page = Page::of(&log, 1, 2, &Wanted::default());
        assert_eq!((sequences(&page), page.next), (vec![1, 2], Some(3)));
        let page = Page::of(&log[1..], 3, 3, &Wanted::default());
        assert_eq!((sequences(&page), page.next), (vec![3, 4, 5], None));
        assert!(page.rows.iter().all(|row| row.chained));
        let system = Wanted { actor: Some("system".to_owned()), ..Wanted::default() };
        assert_eq!(sequences(&Page::of(&log, 1, 10, &system)), [2, 4]);
    }

    #[test]
    fn the_newest_come_first_and_older_pages_follow() {
        let log = log(5);
        let page = Page::back(&log, (1, 5), 2, &Wanted::default());
        assert_eq!((sequences(&page), page.next), (vec![5, 4], Some(3)));
        let page = Page::back(&log[1..], (3, 4), 9, &Wanted::default());
        assert_eq!((sequences(&page), page.next), (vec![4, 3], Some(2)));
        assert!(page.rows.iter().all(|row| row.chained));
        assert_eq!(Page::back(&log, (1, 2), 2, &Wanted::default()).next, None);
        let mut log = log;
        log[3].entry.action = "calls".to_owned();
        let changes = Wanted { only: Some(Only::Changes), ..Wanted::default() };
        assert_eq!(sequences(&Page::back(&log, (1, 5), 9, &changes)), [5, 3, 2, 1]);
    }

    #[test]
    fn a_text_is_found_in_all_that_a_row_shows_whatever_its_case() {
        let mut log = log(4);
        log[2].entry.detail = serde_json::json!({ "name": "Anna's Shop" });
        let found = |text: &str| {
            let wanted = Wanted { q: Some(text.to_owned()), ..Wanted::default() };
            let page = Page::of(&log, 1, 9, &wanted);
            assert_eq!(sequences(&Page::back(&log, (1, 4), 9, &wanted)).len(), page.rows.len(), "{text}");
            sequences(&page)
        };
        assert_eq!(
            ["anna's shop", "SYSTEM", "Config.Re", "GateWay", "", "null", "nobody"].map(found),
            [vec![3], vec![2, 4], vec![1, 2, 3, 4], vec![1, 2, 3, 4], vec![1, 2, 3, 4], vec![], vec![]]
        );
    }

    #[test]
    fn a_changed_entry_is_told() {
        let mut log = log(4);
        log[1].entry.target = "elsewhere".to_owned();
        let page = Page::of(&log, 1, 10, &Wanted::default());
        let chained: Vec<_> = page.rows.iter().map(|row| row.chained).collect();
        assert_eq!(chained, [true, false, true, true]);
    }
}
