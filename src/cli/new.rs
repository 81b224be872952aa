//! `trunkline new`: begins a definition from a catalogue entry.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};

use super::deployment::gateway_file;
use super::output::Output;
use super::{Common, Ended};
use crate::definition::catalogue;
use crate::definition::suggest::nearest;

/// Which definition.
#[derive(Debug, Args)]
pub struct New {
    /// The catalogue entry to start from; `trunkline catalog list` lists them
    entry: String,
    /// The integration's own id [default: the entry's]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// The directory to write `ID.yaml` to; an existing file is never overwritten [default: `integrations`
    /// beside the gateway file]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print it instead of writing it
    #[arg(long)]
    print: bool,
}

/// Runs the command.
pub fn run(common: &Common, arguments: &New, output: &mut Output) -> anyhow::Result<Ended> {
    let Some(entry) = catalogue::entry(&arguments.entry) else {
        match nearest(&arguments.entry, catalogue::ids()) {
            Some(near) => bail!("the catalogue has no `{}`; did you mean `{near}`?", arguments.entry),
            None => bail!("the catalogue has no `{}`: see `trunkline catalog list`", arguments.entry),
        }
    };
    let id = arguments.id.as_deref().unwrap_or(&arguments.entry);
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if id.is_empty() || id.len() > 64 || !id.chars().all(known) {
        bail!("`{id}` is not an id: expected at most 64 of a-z, 0-9, `-` and `_`");
    }
    let draft = Draft::of(&arguments.entry, id, &entry.document().value);
    if arguments.print && output.json {
        output.value(&json!({ "text": draft.text, "variables": draft.variables }))?;
        return Ok(Ended::Done);
    }
    if arguments.print {
        output.raw(draft.text.as_bytes())?;
        return Ok(Ended::Done);
    }
    let beside = || gateway_file(&common.config).parent().unwrap_or(Path::new("")).join("integrations");
    let dir = arguments.dir.clone().unwrap_or_else(beside);
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let path = dir.join(format!("{id}.yaml"));
    let mut file =
        OpenOptions::new().write(true).create_new(true).open(&path).with_context(|| path.display().to_string())?;
    file.write_all(draft.text.as_bytes())?;
    if output.json {
        output.value(&json!({ "file": path, "variables": draft.variables }))?;
    } else {
        output.line(format_args!("wrote {}", path.display()))?;
    }
    if !draft.variables.is_empty() {
        output.note(format_args!("Set {} before `trunkline check`.", draft.variables.join(", ")));
    }
    Ok(Ended::Done)
}

/// A definition's first text, and the variables it reads.
struct Draft {
    text: String,
    variables: Vec<String>,
    /// What the variables' names begin with.
    prefix: String,
}

impl Draft {
    fn of(entry: &str, id: &str, value: &Value) -> Self {
        let prefix = id.to_ascii_uppercase().replace('-', "_");
        let mut draft =
            Self { text: format!("trunkline: 1\nid: {id}\nextends: {entry}\n"), variables: Vec::new(), prefix };
        let auth = value.get("auth").and_then(Value::as_object).and_then(|kinds| kinds.iter().next());
        match auth.map(|(kind, written)| (kind.as_str(), written)) {
            Some(("oauth2", oauth2)) => draft.oauth2(oauth2),
            Some(("oauth1", _)) => {
                draft.text += "auth:\n  oauth1:\n    client:\n";
                draft.variable(6, "id", "CLIENT_ID");
                draft.variable(6, "secret", "CLIENT_SECRET");
            }
            Some(("jwt", _)) => {
                draft.text += "auth:\n  jwt:\n";
                draft.variable(4, "key", "SIGNING_KEY");
            }
            Some(("api_key", _)) => draft.connection(value, &[("api_key", "API_KEY")]),
            Some(("basic", _)) => draft.connection(value, &[("username", "USERNAME"), ("password", "PASSWORD")]),
            _ => {}
        }
        if value.get("webhook").is_some() {
            draft.text += "webhook:\n";
            draft.variable(2, "secrets", "WEBHOOK_SECRET");
        }
        draft
    }

    /// The application's own credentials, as its way of proving itself needs them.
    fn oauth2(&mut self, oauth2: &Value) {
        let way = oauth2.get("client_auth").and_then(Value::as_str).unwrap_or("form");
        let has_assertion = oauth2.get("assertion").is_some();
        self.text += "auth:\n  oauth2:\n";
        if has_assertion {
            self.text += "    assertion:\n";
            self.variable(6, "key", "SIGNING_KEY");
        }
        self.text += "    client:\n";
        self.variable(6, "id", "CLIENT_ID");
        if matches!(way, "form" | "basic" | "basic_raw") {
            self.variable(6, "secret", "CLIENT_SECRET");
        }
    }

    /// A connection with its credential, and with the inputs that it must tell.
    fn connection(&mut self, value: &Value, credential: &[(&str, &str)]) {
        self.text += "connections:\n  - id: default\n";
        for (field, name) in credential {
            self.variable(4, field, name);
        }
        let needed = |input: &Value| input.get("default").is_none() && input.get("optional").is_none();
        let inputs = value.get("inputs").and_then(Value::as_object).into_iter().flatten();
        let mut inputs = inputs.filter(|(_, input)| needed(input)).peekable();
        if inputs.peek().is_some() {
            self.text += "    inputs:\n";
        }
        for (name, _) in inputs {
            self.variable(6, name, &name.to_ascii_uppercase());
        }
    }

    /// A field that takes its value from a variable.
    fn variable(&mut self, indent: usize, field: &str, name: &str) {
        let name = format!("{}_{name}", self.prefix);
        self.text.extend([&*" ".repeat(indent), field, ": \"${env:", &name, "}\"\n"]);
        self.variables.push(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::load::environment::Environment;
    use crate::definition::workspace::{Reading, Selection};
    use std::collections::HashMap;
    use std::sync::Arc;

    /// Values that inputs and keys of the catalogue take; the first that a pattern matches is used.
    const VALUES: [&str; 6] = ["sk_test_0123456789abcdef", "example", "example.com", "1234567", "us1", "US"];

    /// A value for what a variable stands for.
    fn value(document: &Value, variable: &str) -> &'static str {
        let inputs = document.get("inputs").and_then(Value::as_object).into_iter().flatten();
        let mut input = inputs.filter(|(name, _)| variable.ends_with(&format!("_{}", name.to_ascii_uppercase())));
        let pattern = input.find_map(|(_, input)| input.get("pattern")?.as_str());
        let pattern = pattern.and_then(|pattern| regex::Regex::new(pattern).ok());
        let fits = |value: &&&str| pattern.as_ref().is_none_or(|pattern| pattern.is_match(value));
        VALUES.iter().find(fits).copied().unwrap_or("no value fits")
    }

    #[test]
    fn every_entry_gives_a_definition_that_counts() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut files = Vec::new();
        let mut variables = HashMap::new();
        for id in catalogue::ids() {
            let entry = catalogue::entry(id).expect("listed");
            let document = entry.document();
            let document = &document.value;
            let draft = Draft::of(id, &format!("my-{id}"), document);
            variables.extend(draft.variables.iter().map(|name| (name.clone(), value(document, name).to_owned())));
            let path = directory.path().join(format!("my-{id}.yaml"));
            std::fs::write(&path, &draft.text).expect("written");
            files.push(Arc::new(path));
        }
        let environment: &dyn Environment = &variables;
        let selection = Selection { files, ..Selection::default() };
        let mut report = Reading { environment, previous: None, keep_documents: false }.read(&selection).report();
        // A key to sign with must be a real one, and each algorithm has its own.
        report.problems.retain(|problem| problem.is_error() && !problem.place.pointer.ends_with("/key"));
        assert!(report.problems.is_empty(), "{}", report.text(false));
    }

    #[test]
    fn a_draft_asks_for_what_the_way_of_signing_in_needs() {
        let drafted = |value: Value| Draft::of("a", "a", &value).variables.join(" ");
        assert_eq!(drafted(json!({ "auth": { "oauth2": {} } })), "A_CLIENT_ID A_CLIENT_SECRET");
        assert_eq!(drafted(json!({ "auth": { "oauth2": { "client_auth": "none" } } })), "A_CLIENT_ID");
        let signed = json!({ "oauth2": { "client_auth": "private_key_jwt", "assertion": { "algorithm": "RS256" } } });
        assert_eq!(drafted(json!({ "auth": signed })), "A_SIGNING_KEY A_CLIENT_ID");
        let inputs = json!({ "site": {}, "region": { "default": "eu" }, "note": { "optional": true } });
        assert_eq!(drafted(json!({ "auth": { "basic": {} }, "inputs": inputs })), "A_USERNAME A_PASSWORD A_SITE");
    }
}
