//! `trunkline keys`: the master key.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use super::Ended;
use super::output::Output;
use crate::base::random::SystemRandom;
use crate::config::key::{MasterKey, write_new};

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Make a master key: 32 random bytes that stored credentials are sealed with
    ///
    /// To replace a key, put the new one on the first line of the key file and keep the old one on the
    /// second: the first seals, both open.
    Generate {
        /// Write it to this file (mode 0600, never overwritten) instead of printing it
        #[arg(short, long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// Makes a key.
pub fn run(command: &Keys, output: &mut Output) -> anyhow::Result<Ended> {
    let Keys::Generate { out } = command;
    let key = MasterKey::generate(&SystemRandom::default())?;
    let Some(path) = out else {
        if output.json {
            output.value(&json!({ "id": key.id(), "key": key.text().expose() }))?;
        } else {
            output.line(key.text().expose())?;
        }
        return Ok(Ended::Done);
    };
    write_new(path, &key)?;
    if output.json {
        output.value(&json!({ "id": key.id(), "file": path }))?;
    } else {
        output.line(format_args!("wrote key {} to {}", key.id(), path.display()))?;
    }
    output.note("Keep a copy apart from your backups: without it the credentials in the store cannot be opened.");
    Ok(Ended::Done)
}
