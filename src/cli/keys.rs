//! `trunkline keys`: the master keys, of a running gateway or of a store that nobody runs on.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::output::Output;
use super::remote::{self, Answer, Gateway, Remote};
use super::{Common, Ended};
use crate::app::offline::{self, Offline};
use crate::base::random::SystemRandom;
use crate::connection::MasterKey;
use crate::connection::keyring;
use crate::connection::rotation::{Progress, RotationState};

/// How often a running rotation is asked about.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Make a master key: 32 random bytes that stored credentials are sealed with
    ///
    /// To replace a key that is in use, let `trunkline keys rotate` do it. Where the key is in an
    /// environment variable, append the new one to it and keep the old: the last key seals, every key
    /// opens, and what older keys sealed is sealed anew in the background after the next start.
    Generate {
        /// Write it to this file (mode 0600, never overwritten) instead of printing it
        #[arg(short, long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// List the master keys, the newest first, and how many records each seals
    List(Where),
    /// Take a new master key into use, and seal everything anew by it
    ///
    /// A key that was appended to the key file is taken; else one is made there, or at Transit. Requests
    /// go on meanwhile. What is cut off goes on at the next start, or when this is run again.
    Rotate(Where),
    /// Open every sealed record, and name those that do not open
    Check(Where),
}

/// Whose keys.
#[derive(Debug, Args)]
pub struct Where {
    #[command(flatten)]
    gateway: Gateway,
    /// Open the store of a stopped gateway instead of asking a running one
    #[arg(long)]
    offline: bool,
}

/// Runs the command.
pub fn run(common: &Common, command: &Keys, output: &mut Output) -> anyhow::Result<Ended> {
    match command {
        Keys::Generate { out } => generate(out.as_ref(), output),
        Keys::List(place) => show(&list(common, place)?, output),
        Keys::Rotate(place) => rotate(common, place, output),
        Keys::Check(place) => check(common, place, output),
    }
}

fn generate(out: Option<&PathBuf>, output: &mut Output) -> anyhow::Result<Ended> {
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

fn list(common: &Common, place: &Where) -> anyhow::Result<Value> {
    if place.offline {
        return offline::run(common.config.clone(), async |offline: &Offline| {
            let keys = offline.keys()?;
            Ok(json!({ "keys": keys.list().await?, "rotation": keys.progress() }))
        });
    }
    let answer = remote::block_on(Remote::find(common, &place.gateway)?.get("/api/keys"))??;
    accepted(&answer)?.json()
}

fn show(listed: &Value, output: &mut Output) -> anyhow::Result<Ended> {
    if output.json {
        output.value(listed)?;
        return Ok(Ended::Done);
    }
    let row = |key: &Value| {
        let is = |name: &str| key[name].as_bool().unwrap_or_default();
        let use_of = match (is("newest"), is("held")) {
            (true, _) => "seals",
            (false, true) => "opens",
            (false, false) => "missing",
        };
        vec![key["id"].as_str().unwrap_or_default().to_owned(), use_of.to_owned(), key["records"].to_string()]
    };
    let rows: Vec<_> = listed["keys"].as_array().into_iter().flatten().map(row).collect();
    output.table(&["KEY", "USE", "RECORDS"], &rows)?;
    Ok(Ended::Done)
}

fn rotate(common: &Common, place: &Where, output: &mut Output) -> anyhow::Result<Ended> {
    let progress = if place.offline {
        offline::run(common.config.clone(), async |offline: &Offline| {
            let keys = offline.keys()?;
            keys.rotate("operator").await?;
            Ok(keys.settled().await)
        })?
    } else {
        let remote = Remote::find(common, &place.gateway)?;
        remote::block_on(rotate_remote(&remote, output))??
    };
    if output.json {
        output.value(&progress)?;
    } else {
        let to = progress.to.as_deref().unwrap_or_default();
        output.line(format_args!(
            "{} records are sealed by {to}, {} of them anew",
            progress.total - progress.failed,
            progress.resealed
        ))?;
    }
    if let Some(error) = &progress.error {
        output.note(format_args!("it stopped before its end, and goes on when it is run again: {error}"));
    }
    if progress.failed > 0 {
        output.note(format_args!(
            "{} records do not open: see `trunkline keys check`, and keep the older keys",
            progress.failed
        ));
    }
    let whole = progress.state == RotationState::Done && progress.failed == 0;
    if whole {
        output.note("Older keys are not needed any more, but by backups that were made before.");
    }
    Ok(if whole { Ended::Done } else { Ended::No })
}

async fn rotate_remote(remote: &Remote, output: &mut Output) -> anyhow::Result<Progress> {
    let answer = remote.post("/api/keys/rotate").await?;
    let mut progress = progress_of(&accepted(&answer)?.json()?)?;
    let mut told = None;
    while progress.state == RotationState::Running {
        let tenth = (progress.done * 10).checked_div(progress.total);
        if tenth != told {
            output.note(format_args!("{} of {} records", progress.done, progress.total));
            told = tenth;
        }
        tokio::time::sleep(ASK_EVERY).await;
        let answer = remote.get("/api/keys").await?;
        progress = progress_of(&accepted(&answer)?.json()?)?;
    }
    Ok(progress)
}

fn progress_of(answer: &Value) -> anyhow::Result<Progress> {
    serde_json::from_value(answer["rotation"].clone()).context("the gateway's answer tells no rotation")
}

fn check(common: &Common, place: &Where, output: &mut Output) -> anyhow::Result<Ended> {
    let checked = if place.offline {
        offline::run(common.config.clone(), async |offline: &Offline| {
            Ok(serde_json::to_value(offline.keys()?.check().await?)?)
        })?
    } else {
        let answer = remote::block_on(Remote::find(common, &place.gateway)?.post("/api/keys/check"))??;
        accepted(&answer)?.json()?
    };
    let failed: Vec<_> = checked["failed"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if output.json {
        output.value(&checked)?;
    } else {
        output.line(format_args!("{} records open, {} do not", checked["opened"], failed.len()))?;
        failed.iter().try_for_each(|line| output.line(line))?;
    }
    Ok(if failed.is_empty() { Ended::Done } else { Ended::No })
}

/// The answer, unless it is a refusal.
fn accepted(answer: &Answer) -> anyhow::Result<&Answer> {
    anyhow::ensure!(answer.status.is_success(), answer.refusal());
    Ok(answer)
}
