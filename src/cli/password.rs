//! `trunkline password`: the hash of a password, for `admin.people` in the settings.

use std::io::{self, BufRead, IsTerminal};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;

use super::Ended;
use super::output::Output;
use crate::base::random::{Random, SystemRandom};
use crate::base::secret::Secret;
use crate::definition::password;

/// The fewest characters of a password.
const LEAST: usize = 12;
/// The most bytes: what is longer would be cut when someone signs in.
const MOST: usize = 1_024;

/// No more than a line of standard input.
#[derive(Debug, Args)]
pub struct Password {}

/// Runs the command: one line in, its argon2id hash out.
pub fn run(_: &Password, output: &mut Output) -> anyhow::Result<Ended> {
    if io::stdin().is_terminal() {
        output.note(
            "Type the password and press Enter; it is shown while you type. Or pipe it in: `… | trunkline password`",
        );
    }
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).context("no password could be read")?;
    let password = Secret::new(line.trim_end_matches(['\r', '\n']).to_owned());
    if password.expose().chars().count() < LEAST || password.expose().len() > MOST {
        bail!("a password has at least {LEAST} characters and at most {MOST} bytes");
    }
    let mut salt = [0; 16];
    SystemRandom::default().fill(&mut salt)?;
    let hash = password::hash(password.expose().as_bytes(), &salt);
    let hash = hash.map_err(|error| anyhow::anyhow!("the password could not be hashed: {error}"))?;
    if output.json {
        output.value(&json!({ "hash": &*hash }))?;
    } else {
        output.line(&hash)?;
    }
    Ok(Ended::Done)
}
