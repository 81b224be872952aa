//! `trunkline events`: what came in, and what became of it, at a running gateway.

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use url::form_urlencoded::Serializer;

use super::output::Output;
use super::remote::{self, Answer, Gateway, Remote};
use super::{Common, Ended};

/// How many a list shows where nothing is said.
const LISTED: u32 = 50;

/// What to do with events.
#[derive(Debug, Subcommand)]
pub enum Events {
    /// List events, newest first
    List(List),
    /// Show one event: its content, its deliveries and their attempts
    Show {
        /// The event's id, as `evt_…`
        id: String,
        #[command(flatten)]
        gateway: Gateway,
    },
    /// Run the rules of an event again, try one delivery again, or all that were given up
    Replay(Replay),
}

/// Which events.
#[derive(Debug, Args)]
pub struct Filter {
    /// Only this integration's
    #[arg(long, value_name = "ID")]
    integration: Option<String>,
    /// Only this type; `*` stands for any text
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Only since then: 2026-01-31T10:00:00Z, or so long ago, such as 2h
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only before then
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only those that hold this text in type, ids, query, headers or body, in upper or lower case
    #[arg(long, value_name = "TEXT")]
    q: Option<String>,
    /// At most so many; a list shows 50, a replay takes all
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
}

/// Which list.
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    filter: Filter,
    /// Only in this state: queued, delivering, done, discarded or dead
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// The deliveries that were given up, instead of events
    #[arg(long, conflicts_with = "state")]
    dead: bool,
    #[command(flatten)]
    gateway: Gateway,
}

/// What to replay.
#[derive(Debug, Args)]
pub struct Replay {
    /// An event (`evt_…`) or a delivery (`evt_….0`); it is not looked at through filters
    #[arg(
        required_unless_present = "dead",
        conflicts_with_all = ["integration", "event_type", "since", "until", "q", "limit"]
    )]
    id: Option<String>,
    /// All deliveries that were given up and that the filters select
    #[arg(long, conflicts_with = "id")]
    dead: bool,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    gateway: Gateway,
}

/// Runs the command.
pub fn run(common: &Common, command: &Events, output: &mut Output) -> anyhow::Result<Ended> {
    match command {
        Events::List(list) => {
            let path = if list.dead {
                list.filter.path("/api/deliveries", Some("dead"))
            } else {
                list.filter.path("/api/events", list.state.as_deref())
            };
            let answer = remote::block_on(Remote::find(common, &list.gateway)?.get(&path))??;
            show(&answer, output, if list.dead { dead_rows } else { event_rows })
        }
        Events::Show { id, gateway } => {
            let answer = remote::block_on(Remote::find(common, gateway)?.get(&format!("/api/events/{id}")))??;
            if !answer.status.is_success() {
                output.note(answer.refusal());
                return Ok(Ended::No);
            }
            output.value(&answer.json()?)?;
            Ok(Ended::Done)
        }
        Events::Replay(replay) => {
            let path = match &replay.id {
                Some(id) if id.contains('.') => format!("/api/deliveries/{id}/replay"),
                Some(id) => format!("/api/events/{id}/replay"),
                None => replay.filter.path("/api/deliveries/replay", Some("dead")),
            };
            let remote = Remote::find(common, &replay.gateway)?;
            let mut answer = remote::block_on(remote.post(&path))??;
            let mut replayed = Replayed::default();
            while replayed.add(&answer)? && replay.filter.limit.is_none() {
                let Some(next) = answer.next() else { break };
                answer = remote::block_on(remote.post(&next))??;
            }
            replayed.tell(&answer, output)
        }
    }
}

impl Filter {
    fn path(&self, resource: &str, state: Option<&str>) -> String {
        let mut query = Serializer::new(String::new());
        let filters = [
            ("integration", self.integration.as_deref()),
            ("type", self.event_type.as_deref()),
            ("since", self.since.as_deref()),
            ("until", self.until.as_deref()),
            ("q", self.q.as_deref()),
            ("state", state),
        ];
        query.extend_pairs(filters.iter().filter_map(|(name, value)| Some((name, (*value)?))));
        query.append_pair("limit", &self.limit.unwrap_or(LISTED).to_string());
        format!("{resource}?{}", query.finish())
    }
}

type Rows = fn(&Value) -> (&'static [&'static str], Vec<Vec<String>>);

fn show(answer: &Answer, output: &mut Output, rows: Rows) -> anyhow::Result<Ended> {
    if !answer.status.is_success() {
        output.note(answer.refusal());
        return Ok(Ended::No);
    }
    let list = answer.json()?;
    if output.json {
        output.value(&list)?;
    } else {
        let (headings, rows) = rows(&list);
        output.table(headings, &rows)?;
    }
    if answer.headers.get("trunkline-search").is_some_and(|how| how == "partial") {
        output.note("The search read as many of the newest as one may: narrow it by --until, --since or --type.");
    } else if answer.next().is_some() {
        output.note("There are more: raise --limit, or narrow the list.");
    }
    Ok(Ended::Done)
}

fn text(row: &Value, name: &str) -> String {
    match row.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

fn event_rows(list: &Value) -> (&'static [&'static str], Vec<Vec<String>>) {
    let row = |row: &Value| ["id", "received_at", "integration", "type", "state"].map(|name| text(row, name)).to_vec();
    let rows = list.as_array().into_iter().flatten().map(row).collect();
    (&["EVENT", "RECEIVED", "INTEGRATION", "TYPE", "STATE"], rows)
}

fn dead_rows(list: &Value) -> (&'static [&'static str], Vec<Vec<String>>) {
    let row = |row: &Value| {
        let latest = row.get("attempts").and_then(Value::as_array).and_then(|attempts| attempts.last());
        let mut cells = ["id", "integration", "rule", "summary"].map(|name| text(row, name)).to_vec();
        cells.push(latest.map(|attempt| text(attempt, "error")).unwrap_or_default());
        cells
    };
    let rows = list.as_array().into_iter().flatten().map(row).collect();
    (&["DELIVERY", "INTEGRATION", "RULE", "ACTION", "LAST ERROR"], rows)
}

/// What was replayed, over all pages of what a filter selects.
#[derive(Default)]
struct Replayed {
    ids: Vec<Value>,
}

impl Replayed {
    /// Takes in what one request replayed; `false` when it was a single thing, or refused.
    fn add(&mut self, answer: &Answer) -> anyhow::Result<bool> {
        if !answer.status.is_success() {
            return Ok(false);
        }
        match answer.json()?.get("replayed") {
            Some(Value::Array(ids)) => self.ids.extend(ids.iter().cloned()),
            Some(id) => {
                self.ids = vec![id.clone()];
                return Ok(false);
            }
            None => return Ok(false),
        }
        Ok(true)
    }

    fn tell(self, last: &Answer, output: &mut Output) -> anyhow::Result<Ended> {
        if !last.status.is_success() {
            if !self.ids.is_empty() {
                output.note(format_args!("replayed {} deliveries, and then:", self.ids.len()));
            }
            output.note(last.refusal());
            return Ok(Ended::No);
        }
        if output.json {
            let single = last.json()?.get("replayed").filter(|replayed| !replayed.is_array()).cloned();
            output.value(&json!({ "replayed": single.unwrap_or(Value::Array(self.ids)) }))?;
            return Ok(Ended::Done);
        }
        match self.ids.as_slice() {
            [] => output.line("nothing to replay")?,
            [Value::String(id)] => output.line(format_args!("replayed {id}"))?,
            ids => output.line(format_args!("replayed {} deliveries", ids.len()))?,
        }
        Ok(Ended::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use clap::error::ErrorKind;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        _events: Events,
    }

    #[test]
    fn what_would_not_be_looked_at_is_refused() {
        let read = |words: &[&str]| Line::try_parse_from([&["events", "replay"][..], words].concat()).map(drop);
        let refused = |words: &[&str]| read(words).map_err(|error| error.kind());
        let filters = [
            ["--integration", "a"],
            ["--type", "a"],
            ["--since", "1h"],
            ["--until", "1h"],
            ["--q", "a"],
            ["--limit", "1"],
        ];
        for filter in filters {
            assert_eq!(
                refused(&[&["evt_1"][..], &filter[..]].concat()),
                Err(ErrorKind::ArgumentConflict),
                "{filter:?}"
            );
            assert_eq!(refused(&[&["--dead"][..], &filter[..]].concat()), Ok(()), "{filter:?}");
        }
        assert_eq!(refused(&["evt_1"]), Ok(()));
        assert_eq!(refused(&["evt_1", "--dead"]), Err(ErrorKind::ArgumentConflict));
    }

    #[test]
    fn what_is_filtered_by_goes_along_to_the_gateway() {
        let some = |text: &str| Some(text.to_owned());
        let filter = Filter {
            integration: None,
            event_type: some("order.*"),
            since: None,
            until: some("2h"),
            q: some("a b&c"),
            limit: Some(3),
        };
        assert_eq!(filter.path("/api/events", None), "/api/events?type=order.*&until=2h&q=a+b%26c&limit=3");
    }
}
