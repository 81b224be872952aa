//! `trunkline schema`: the grammar as JSON Schema and the API as OpenAPI, for editors and for other programs.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::Ended;
use super::output::Output;
use crate::admin::api::document;
use crate::definition::schema::{self, manual, publish};

/// Print the grammar as JSON Schema (2020-12), or write it into a directory; or the API as OpenAPI
#[derive(Debug, Clone, Args)]
pub struct SchemaArgs {
    /// Which kind of file
    #[arg(value_enum, default_value_t = Which::Integration, value_name = "KIND")]
    pub kind: Which,
    /// Write all schemas and the manual's page below this directory instead, as `schemas/` and `docs/`
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Which kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Which {
    /// Definitions.
    Integration,
    /// The gateway file.
    Gateway,
    /// Both, as a page for people in Markdown.
    Manual,
    /// The API of the admin door, as an OpenAPI document.
    Api,
}

/// Runs the command.
pub fn run(args: &SchemaArgs, output: &mut Output) -> anyhow::Result<Ended> {
    let Some(directory) = &args.out else {
        let text = match args.kind {
            Which::Integration => format!("{:#}\n", publish::published(schema::integration())),
            Which::Gateway => format!("{:#}\n", publish::published(schema::gateway())),
            Which::Manual => manual::page(),
            Which::Api => document::text().to_owned(),
        };
        output.raw(text.as_bytes())?;
        return Ok(Ended::Done);
    };
    let api = ("schemas/openapi.json", document::text().to_owned());
    for (name, text) in publish::files().into_iter().chain([api]) {
        let path = directory.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("cannot make `{}`", parent.display()))?;
        }
        std::fs::write(&path, &text).with_context(|| format!("cannot write `{}`", path.display()))?;
        output.line(path.display())?;
    }
    Ok(Ended::Done)
}
