//! Which entries are meant: one type for lists, counts, the live stream and exports.

use super::entry::{Direction, Entry, Kind};
use crate::base::clock::Timestamp;

/// Which entries. What is `None` selects all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this integration.
    pub integration: Option<String>,
    /// Of the connection of this name.
    pub connection: Option<String>,
    /// Of this kind.
    pub kind: Option<Kind>,
    /// That went this way.
    pub direction: Option<Direction>,
    /// Those that failed, or those that did not.
    pub failed: Option<bool>,
    /// Of this endpoint.
    pub endpoint: Option<String>,
    /// Whose path begins so.
    pub path: Option<String>,
    /// Of this application.
    pub caller: Option<String>,
    /// With a status in this range, both ends among it.
    pub status: Option<(u16, u16)>,
    /// With this error code.
    pub error: Option<String>,
    /// Of this trace.
    pub trace: Option<String>,
    /// That began then or later.
    pub since: Option<Timestamp>,
    /// That began before then.
    pub until: Option<Timestamp>,
    /// That took at least so many milliseconds.
    pub min_ms: Option<u64>,
    /// That took at most so many milliseconds.
    pub max_ms: Option<u64>,
    /// That have this text in what a row shows, however it is capitalised (ASCII).
    pub text: Option<String>,
    /// That carried this text in a header or a body, as far as that is kept; likewise.
    pub body: Option<String>,
}

impl Filter {
    /// Whether an entry is meant.
    pub fn selects(&self, entry: &Entry) -> bool {
        let is = |wanted: &Option<String>, is: Option<&str>| wanted.as_deref().is_none_or(|wanted| Some(wanted) == is);
        is(&self.integration, Some(&entry.integration))
            && is(&self.connection, Some(&entry.connection))
            && is(&self.endpoint, entry.endpoint.as_deref())
            && is(&self.caller, entry.caller())
            && is(&self.error, entry.error.as_deref())
            && is(&self.trace, entry.trace.as_deref())
            && self.kind.is_none_or(|kind| kind == entry.kind())
            && self.direction.is_none_or(|direction| direction == entry.direction())
            && self.failed.is_none_or(|failed| failed == entry.has_failed())
            && self.path.as_deref().is_none_or(|path| entry.path.starts_with(path))
            && self.is_in_range(entry)
            && self.text.as_deref().is_none_or(|text| has(entry, text))
            && self.body.as_deref().is_none_or(|text| entry.content.get().is_some_and(|content| content.has(text)))
    }

    fn is_in_range(&self, entry: &Entry) -> bool {
        let status = |(least, most): (u16, u16)| entry.status.is_some_and(|status| (least..=most).contains(&status));
        self.status.is_none_or(status)
            && self.since.is_none_or(|since| entry.at >= since)
            && self.until.is_none_or(|until| entry.at < until)
            && self.min_ms.is_none_or(|least| entry.duration_ms >= least)
            && self.max_ms.is_none_or(|most| entry.duration_ms <= most)
    }
}

/// Statuses as people write them: `404`, or `5xx` for all from 500 to 599.
pub fn statuses(text: &str) -> Option<(u16, u16)> {
    if let Some(class) = text.strip_suffix("xx") {
        let class: u16 = class.parse().ok().filter(|class| (1..=9).contains(class))?;
        return Some((class * 100, class * 100 + 99));
    }
    let status = text.parse().ok().filter(|status| (100..=999).contains(status))?;
    Some((status, status))
}

fn has(entry: &Entry, text: &str) -> bool {
    let asker = match &entry.asker {
        super::Asker::Caller(id) => id,
        super::Asker::Delivery(id) | super::Asker::Event(id) => id.as_str(),
        _ => "",
    };
    let shown = [&entry.path, &*entry.integration, &entry.connection, asker, &entry.origin];
    let optional = [entry.endpoint.as_deref(), entry.error.as_deref(), entry.request_id.as_deref()];
    shown.into_iter().chain(optional.into_iter().flatten()).any(|shown| contains(shown, text))
        || entry.causes.iter().any(|cause| contains(cause, text))
        || (text.len() > 4 && contains(&entry.id.to_string(), text))
}

/// Whether a text holds another, whatever case their ASCII letters have.
pub fn contains(text: &str, wanted: &str) -> bool {
    let (text, wanted) = (text.as_bytes(), wanted.as_bytes());
    let Some(first) = wanted.first() else { return true };
    // The first byte is looked at before the whole: most places end there.
    text.windows(wanted.len()).any(|part| {
        part.first().is_some_and(|byte| byte.eq_ignore_ascii_case(first)) && part.eq_ignore_ascii_case(wanted)
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::call;
    use super::super::{Asker, CallRecord};
    use super::*;
    use crate::base::id::ActivityId;

    fn entry() -> Entry {
        let record = CallRecord {
            asker: Asker::Caller("shop".into()),
            path: "/v1/Charges/ch_1".to_owned(),
            endpoint: Some("charge".into()),
            status: Some(402),
            duration_ms: 30,
            ..call(100)
        };
        Entry::of(ActivityId::from_u64(1), record)
    }

    #[test]
    fn each_part_selects_by_itself() {
        let some = |text: &str| Some(text.to_owned());
        let all = Filter::default;
        let at = |seconds| Some(Timestamp::from_seconds(seconds));
        for (fits, filter) in [
            (true, all()),
            (true, Filter { integration: some("a"), connection: some("default"), ..all() }),
            (false, Filter { integration: some("b"), ..all() }),
            (true, Filter { kind: Some(Kind::Call), direction: Some(Direction::Out), ..all() }),
            (false, Filter { kind: Some(Kind::Webhook), ..all() }),
            (false, Filter { direction: Some(Direction::In), ..all() }),
            (true, Filter { failed: Some(true), ..all() }),
            (false, Filter { failed: Some(false), ..all() }),
            (true, Filter { endpoint: some("charge"), path: some("/v1/"), caller: some("shop"), ..all() }),
            (false, Filter { path: some("/v1/charges"), ..all() }),
            (false, Filter { caller: some("other"), ..all() }),
            (true, Filter { status: statuses("4xx"), ..all() }),
            (false, Filter { status: statuses("404"), ..all() }),
            (false, Filter { error: some("rate_limited"), ..all() }),
            (false, Filter { trace: some("4bf92f3577b34da6a3ce929d0e0e4736"), ..all() }),
            (true, Filter { since: at(100), until: at(101), ..all() }),
            (false, Filter { until: at(100), ..all() }),
            (false, Filter { since: at(101), ..all() }),
            (true, Filter { min_ms: Some(30), max_ms: Some(30), ..all() }),
            (false, Filter { min_ms: Some(31), ..all() }),
            (false, Filter { max_ms: Some(29), ..all() }),
            (true, Filter { text: some("CHARGES/CH"), ..all() }),
            (true, Filter { text: some("act_0000000000001"), ..all() }),
            (false, Filter { text: some("ch_2"), ..all() }),
        ] {
            assert_eq!(filter.selects(&entry()), fits, "{filter:?}");
        }
    }

    #[test]
    fn statuses_are_numbers_or_classes() {
        let read: Vec<_> = ["404", "5xx", "99", "0xx", "xx", "1000", "4XX", ""].map(statuses).into_iter().collect();
        assert_eq!(read, [Some((404, 404)), Some((500, 599)), None, None, None, None, None, None]);
    }

    #[test]
    fn texts_are_found_whatever_their_case() {
        assert!(contains("aBc", "Bc") && contains("abc", "") && contains("abc", "ABC"));
        assert!(!contains("ab", "abc") && !contains("", "a"));
    }
}
