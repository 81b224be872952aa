//! `trunkline keys`: the master key.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::json;

use super::Ended;
use super::output::Output;
use crate::base::random::SystemRandom;
use crate::connection::MasterKey;
use crate::connection::keyring;

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Make a master key: 32 random bytes that stored credentials are sealed with
    ///
    /// To replace a key, append the new one to the key file and keep the old line: the last key seals,
    /// every key opens.
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
            output.value(&json!({ "id": key.id().to_string(), "key": key.line().expose() }))?;
        } else {
            output.line(key.line().expose())?;
        }
        return Ok(Ended::Done);
    };
    keyring::make(path, &key).with_context(|| format!("{} was not written", path.display()))?;
    if output.json {
        output.value(&json!({ "id": key.id().to_string(), "file": path }))?;
    } else {
        output.line(format_args!("wrote key {} to {}", key.id(), path.display()))?;
    }
    output.note("Keep a copy apart from your backups: without it the credentials in the store cannot be opened.");
    Ok(Ended::Done)
}
