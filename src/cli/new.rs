//! `trunkline new`: begins a definition from a catalogue entry.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};

use super::Ended;
use super::output::Output;
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
    /// The directory to write `ID.yaml` to; an existing file is never overwritten
    #[arg(long, default_value = "integrations", value_name = "DIR")]
    dir: PathBuf,
    /// Print it instead of writing it
    #[arg(long)]
    print: bool,
}

/// Runs the command.
pub fn run(arguments: &New, output: &mut Output) -> anyhow::Result<Ended> {
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
    let draft = Draft::of(&arguments.entry, id, &entry.document.value);
    if arguments.print {
        output.raw(draft.text.as_bytes())?;
        return Ok(Ended::Done);
    }
    std::fs::create_dir_all(&arguments.dir).with_context(|| arguments.dir.display().to_string())?;
    let path = arguments.dir.join(format!("{id}.yaml"));
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
}

impl Draft {
    fn of(entry: &str, id: &str, value: &Value) -> Self {
        let prefix = id.to_ascii_uppercase().replace('-', "_");
        let mut draft = Self { text: format!("trunkline: 1\nid: {id}\nextends: {entry}\n"), variables: Vec::new() };
        let kind = |name: &str| value.get("auth").and_then(|auth| auth.get(name)).is_some();
        if kind("oauth2") {
            let (id, secret) = (draft.variable(&prefix, "CLIENT_ID"), draft.variable(&prefix, "CLIENT_SECRET"));
            draft.text += "auth:\n  oauth2:\n    client:\n";
            draft.line(6, "id", &id);
            draft.line(6, "secret", &secret);
        } else if kind("api_key") {
            let key = draft.variable(&prefix, "API_KEY");
            draft.text += "connections:\n  - id: default\n";
            draft.line(4, "api_key", &key);
        }
        if value.get("webhook").is_some() {
            let secret = draft.variable(&prefix, "WEBHOOK_SECRET");
            draft.text += "webhook:\n";
            draft.line(2, "secrets", &secret);
        }
        draft
    }

    fn line(&mut self, indent: usize, name: &str, reference: &str) {
        self.text.extend([&*" ".repeat(indent), name, ": \"", reference, "\"\n"]);
    }

    fn variable(&mut self, prefix: &str, name: &str) -> String {
        let name = format!("{prefix}_{name}");
        let reference = format!("${{env:{name}}}");
        self.variables.push(name);
        reference
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::load::environment::Environment;
    use crate::definition::workspace::{Reading, Selection};
    use std::collections::HashMap;
    use std::sync::Arc;

    #[test]
    fn every_entry_gives_a_definition_that_counts() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut files = Vec::new();
        let mut variables = HashMap::new();
        for id in catalogue::ids() {
            let entry = catalogue::entry(id).expect("listed");
            let draft = Draft::of(id, &format!("my-{id}"), &entry.document.value);
            variables.extend(draft.variables.iter().map(|name| (name.clone(), "sk_test_0123456789abcdef".to_owned())));
            let path = directory.path().join(format!("my-{id}.yaml"));
            std::fs::write(&path, &draft.text).expect("written");
            files.push(Arc::new(path));
        }
        let environment: &dyn Environment = &variables;
        let selection = Selection { files, ..Selection::default() };
        let report = Reading { environment, previous: None, keep_documents: false }.read(&selection).report();
        assert!(!report.problems.iter().any(crate::definition::problem::Problem::is_error), "{}", report.text(false));
    }
}
