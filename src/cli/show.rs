//! `trunkline show`: a definition as it counts, and where each value comes from.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use serde_json::{Map, Value, json};

use super::deployment::with_secrets;
use super::output::Output;
use super::{Common, Ended};
use crate::definition::catalogue;
use crate::definition::document::{Below, Document, Spot, is_empty};
use crate::definition::load::environment::Environment;
use crate::definition::load::reference::says_itself;
use crate::definition::problem::Problem;
use crate::definition::resolve::Kind;
use crate::definition::shape::View;
use crate::definition::suggest::nearest;
use crate::definition::workspace::{Reading, select};

/// Show a definition as it counts: laid over its catalogue entry, each value with the place it was
/// written at
///
/// What comes from the environment or a file is shown as the reference, never as its value.
#[derive(Debug, Clone, Args)]
pub struct ShowArgs {
    /// The integration's id; else a catalogue entry's
    #[arg(value_name = "ID")]
    pub id: String,
    /// The deployment's directory or gateway file. Default: that of `--config`
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The whole definition, not only what it consists of
    #[arg(long)]
    pub resolved: bool,
}

/// What is shown in place of a secret.
const MASK: &str = "••••••";

/// Runs the command.
pub fn run(
    common: &Common,
    args: &ShowArgs,
    environment: &Arc<dyn Environment>,
    output: &mut Output,
) -> anyhow::Result<Ended> {
    let path = args.dir.clone().unwrap_or_else(|| common.config.clone());
    let mut ids: Vec<String> = catalogue::ids().map(str::to_owned).collect();
    for selection in if path.exists() { select(&[path]) } else { Vec::new() } {
        let gateway = selection.gateway.as_deref().map(PathBuf::as_path);
        let environment = &*with_secrets(gateway, environment)?;
        let reading = Reading { environment, previous: None, keep_documents: true };
        for read in reading.read(&selection).integrations {
            let Some((id, _)) = &read.id else { continue };
            ids.push(id.to_string());
            if **id != *args.id {
                continue;
            }
            let Some(document) = &read.document else { bail!("`{}` cannot be read; see `trunkline check`", args.id) };
            show(document, args.resolved, output)?;
            if read.problems.iter().any(Problem::is_error) {
                output.note("this file has errors and does not count; see `trunkline check`");
                return Ok(Ended::No);
            }
            return Ok(Ended::Done);
        }
    }
    match catalogue::entry(&args.id) {
        Some(entry) => show(&entry.document(), args.resolved, output).map(|()| Ended::Done),
        None => match nearest(&args.id, ids.iter().map(String::as_str)) {
            Some(near) => bail!("there is no integration `{}`; did you mean `{near}`?", args.id),
            None => bail!("there is no integration `{}`", args.id),
        },
    }
}

fn show(document: &Document, resolved: bool, output: &mut Output) -> anyhow::Result<()> {
    let view = Kind::Integration.schema().shape().root(&document.value);
    let root = Part { value: &document.value, spot: &document.places, view };
    if output.json && resolved {
        let mut places = Map::new();
        let definition = root.masked("", &mut places);
        return Ok(output.value(&json!({ "definition": definition, "places": places }))?);
    }
    if output.json {
        let shown = outline(document).into_iter().map(|(label, words)| (label.to_owned(), words.json()));
        return Ok(output.value(&shown.collect::<Map<_, _>>())?);
    }
    let mut page = Page { out: String::new(), lines: Vec::new() };
    if resolved {
        page.map(&root, 0);
    } else {
        let lines = outline(document).into_iter();
        page.lines = lines.map(|(label, words)| (format!("{label:<12} {}", words.text()), String::new())).collect();
    }
    output.raw(page.finish().as_bytes())?;
    Ok(())
}

/// What an outline says of a label.
enum Words {
    One(String),
    Many(Vec<String>),
}

impl Words {
    fn is_empty(&self) -> bool {
        match self {
            Self::One(word) => word.is_empty(),
            Self::Many(words) => words.is_empty(),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::One(word) => word.clone(),
            Self::Many(words) => words.join(", "),
        }
    }

    fn json(self) -> Value {
        match self {
            Self::One(word) => Value::from(word),
            Self::Many(words) => Value::from(words),
        }
    }
}

/// What a definition consists of; a label without words is left out.
fn outline(document: &Document) -> Vec<(&'static str, Words)> {
    // What a reference brought in may be secret anywhere, so the reference is shown.
    let text = |pointer: &str| {
        let value = || document.value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        document.written(pointer).unwrap_or_else(value).to_owned()
    };
    let one = |pointer: &str| Words::One(text(pointer));
    let names = |pointer: &str, key: &str| {
        let items = document.value.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
        let place = |(at, item): (usize, &Value)| match item.get(key) {
            Some(_) => format!("{pointer}/{at}/{key}"),
            None => format!("{pointer}/{at}"),
        };
        let names = items.enumerate().map(place).map(|place| text(&place));
        Words::Many(names.filter(|name| !name.is_empty()).collect())
    };
    let kinds = |pointer: &str| {
        let map = document.value.pointer(pointer).and_then(Value::as_object);
        Words::Many(map.map(|map| map.keys().cloned().collect()).unwrap_or_default())
    };
    let all = [
        ("id", one("/id")),
        ("title", one("/title")),
        ("file", Words::One(document.file.display().to_string())),
        ("extends", one("/extends")),
        ("auth", kinds("/auth")),
        ("api", one("/api/base_url")),
        ("endpoints", names("/api/endpoints", "id")),
        ("connections", names("/connections", "id")),
        ("verify", kinds("/webhook/verify")),
        ("events", names("/webhook/events", "")),
        ("rules", names("/rules", "id")),
        ("syncs", names("/syncs", "id")),
    ];
    all.into_iter().filter(|(_, words)| !words.is_empty()).collect()
}

/// YAML with a comment behind each value.
struct Page {
    out: String,
    lines: Vec<(String, String)>,
}

impl Page {
    fn map(&mut self, part: &Part<'_>, depth: usize) {
        let Some(map) = part.value.as_object() else { return };
        for (key, item) in map {
            let Some(spot) = part.spot.child(key) else { continue };
            let head = format!("{}{}:", "  ".repeat(depth), scalar(&Value::String(key.clone())));
            self.entry(head, &Part { value: item, spot, view: part.view.field(key, item) }, depth);
        }
    }

    fn entry(&mut self, head: String, part: &Part<'_>, depth: usize) {
        match (part.value, &part.spot.below) {
            (Value::Object(map), Below::Map(_)) if !map.is_empty() => {
                self.lines.push((head, String::new()));
                self.map(part, depth + 1);
            }
            (Value::Array(items), Below::List(spots)) if !items.is_empty() => {
                self.lines.push((head, String::new()));
                for (value, spot) in items.iter().zip(spots) {
                    self.item(&Part { value, spot, view: part.view.item(value) }, depth + 1);
                }
            }
            _ => {
                let place = format!("# {}:{}", part.spot.file.display(), part.spot.span.start.line);
                self.lines.push((format!("{head} {}", part.shown()), place));
            }
        }
    }

    /// An item of a list: a map's first key stands behind the dash.
    fn item(&mut self, part: &Part<'_>, depth: usize) {
        let dash = format!("{}-", "  ".repeat(depth));
        if part.value.as_object().is_none_or(serde_json::Map::is_empty) {
            return self.entry(dash, part, depth);
        }
        let first = self.lines.len();
        self.map(part, depth + 1);
        if let Some((text, _)) = self.lines.get_mut(first) {
            *text = format!("{dash} {}", text.trim_start());
        }
    }

    fn finish(mut self) -> String {
        let widest = |lines: &[(String, String)]| {
            let widths = lines.iter().map(|(text, _)| text.chars().count());
            widths.filter(|width| *width <= 72).max().unwrap_or(0)
        };
        let width = widest(&self.lines);
        for (text, place) in &self.lines {
            // Writing to a string cannot fail.
            let line = format!("{text:width$}  {place}");
            let written = writeln!(self.out, "{}", line.trim_end());
            debug_assert!(written.is_ok());
        }
        self.out
    }
}

/// A value, where it was written, and what the schema says of it.
struct Part<'a> {
    value: &'a Value,
    spot: &'a Spot,
    view: View<'a>,
}

impl Part<'_> {
    /// The value as YAML on one line.
    fn shown(&self) -> String {
        scalar(&self.said())
    }

    /// What may be told of the value; what references brought in as the reference, a secret not at all. Of what
    /// stands in a field that nobody knows, nobody knows whether it is one.
    fn said(&self) -> Value {
        let by_reference = self.value.as_str().is_some_and(|text| !says_itself(text));
        let hidden = self.view.is_secret() || (self.view.nodes().next().is_none() && !is_empty(self.value));
        match &self.spot.written {
            Some(written) if hidden && says_itself(written) => Value::from(MASK),
            Some(written) => Value::from(&**written),
            None if hidden && !by_reference => Value::from(MASK),
            None => self.value.clone(),
        }
    }

    /// All of it, as it may be told; `places` gets `FILE:LINE` of each value by its pointer.
    fn masked(&self, pointer: &str, places: &mut Map<String, Value>) -> Value {
        match (self.value, &self.spot.below) {
            (Value::Object(map), Below::Map(_)) if !map.is_empty() => {
                let mut all = Map::new();
                for (key, value) in map {
                    let Some(spot) = self.spot.child(key) else { continue };
                    let below = format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
                    let part = Part { value, spot, view: self.view.field(key, value) };
                    all.insert(key.clone(), part.masked(&below, places));
                }
                Value::Object(all)
            }
            (Value::Array(items), Below::List(spots)) if !items.is_empty() => {
                let mut all = Vec::new();
                for (at, (value, spot)) in items.iter().zip(spots).enumerate() {
                    let part = Part { value, spot, view: self.view.item(value) };
                    all.push(part.masked(&format!("{pointer}/{at}"), places));
                }
                Value::Array(all)
            }
            _ => {
                let place = format!("{}:{}", self.spot.file.display(), self.spot.span.start.line);
                places.insert(pointer.to_owned(), Value::from(place));
                self.said()
            }
        }
    }
}

fn scalar(value: &Value) -> String {
    let multiline = value.as_str().is_some_and(|text| text.contains('\n'));
    let yaml = if multiline { None } else { serde_yaml::to_string(value).ok() };
    // JSON is YAML; what has several lines as YAML is written that way.
    match yaml.as_deref().map(str::trim_end).filter(|yaml| !yaml.contains('\n')) {
        Some(yaml) => yaml.to_owned(),
        None => value.to_string(),
    }
}
