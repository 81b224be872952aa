//! `trunkline export` and `trunkline import`: connections carried to another deployment.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use age::armor::ArmoredReader;
use age::x25519::Identity;
use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use http::{Request, header};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::output::Output;
use super::remote::{self, Answer, Gateway, Remote};
use super::{Common, Ended};

/// What an encrypted export begins with.
const ARMOUR: &[u8] = b"-----BEGIN AGE ENCRYPTED FILE-----";
/// The most bytes of an export that is read.
const MOST: u64 = 64 << 20;

/// Export a running gateway's connections: without secrets, or with them encrypted
#[derive(Debug, Args)]
pub struct Export {
    #[command(flatten)]
    gateway: Gateway,
    /// Put the secrets in, and encrypt all of it to this age public key; may be given several times
    #[arg(short, long, value_name = "AGE1…")]
    recipient: Vec<String>,
    /// Write it to this file (mode 0600, never overwritten) instead of printing it
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Import connections into a running gateway: tells what would be done, and does it with --apply
#[derive(Debug, Args)]
pub struct Import {
    #[command(flatten)]
    gateway: Gateway,
    /// The export
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The age identity that opens an encrypted export: a file as `age-keygen` writes it
    #[arg(short, long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// Replace connections that are there and differ, unless they are newer than the export's
    #[arg(long)]
    replace: bool,
    /// Replace also connections that are newer than the export's, whose tokens may be used up
    #[arg(long)]
    replace_newer: bool,
    /// Do what the plan says
    #[arg(long)]
    apply: bool,
}

/// Runs `export`.
pub fn export(common: &Common, arguments: &Export, output: &mut Output) -> anyhow::Result<Ended> {
    let remote = Remote::find(common, &arguments.gateway)?;
    let answer = if arguments.recipient.is_empty() {
        remote::block_on(remote.get("/api/export"))??
    } else {
        let body = json!({ "recipients": arguments.recipient });
        remote::block_on(remote.send(json_post("/api/export"), Bytes::from(body.to_string())))??
    };
    let Some(answer) = accepted(&answer, output) else { return Ok(Ended::No) };
    let unreadable = answer.headers.get("trunkline-export-unreadable").and_then(|count| count.to_str().ok());
    let ended = if unreadable.is_some() { Ended::No } else { Ended::Done };
    if let Some(count) = unreadable {
        output.note(format_args!("{count} connections do not open and are left out: the export names them"));
    }
    let Some(path) = &arguments.out else {
        output.raw(&answer.body)?;
        return Ok(ended);
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = file.as_mut().map_err(|error| std::io::Error::new(error.kind(), error.to_string()));
    written
        .and_then(|file| file.write_all(&answer.body).and_then(|()| file.sync_all()))
        .with_context(|| format!("{} was not written", path.display()))?;
    output.note(format_args!("wrote {}", path.display()));
    Ok(ended)
}

/// Runs `import`.
pub fn import(common: &Common, arguments: &Import, output: &mut Output) -> anyhow::Result<Ended> {
    let export = read(&arguments.file, arguments.identity.as_deref())?;
    let remote = Remote::find(common, &arguments.gateway)?;
    let replace = match (arguments.replace_newer, arguments.replace) {
        (true, _) => "&replace_newer=1",
        (false, true) => "&replace=1",
        (false, false) => "",
    };
    let ask = |target: String| {
        let body = Bytes::copy_from_slice(&export);
        remote::block_on(remote.send(json_post(&target), body))
    };
    let answer = ask(format!("/api/import?{}", replace.trim_start_matches('&')))??;
    let Some(answer) = accepted(&answer, output) else { return Ok(Ended::No) };
    let mut told = answer.json()?;
    if arguments.apply {
        let digest = told["plan"]["digest"].as_str().unwrap_or_default().to_owned();
        let answer = ask(format!("/api/import?apply=1&plan={digest}{replace}"))??;
        let Some(answer) = accepted(&answer, output) else { return Ok(Ended::No) };
        told = answer.json()?;
    }
    show(&told, output)?;
    let rows = || told["plan"]["rows"].as_array().into_iter().flatten();
    let left = rows().any(|row| ["refuse", "conflict", "newer"].iter().any(|left| row["action"] == *left));
    let changes = rows().any(|row| row["action"] == "make" || row["action"] == "change");
    match (arguments.apply, left, changes) {
        (true, ..) => {}
        (false, false, _) => output.note("Nothing has changed: --apply does it."),
        (false, true, true) => {
            output.note("Nothing has changed: --apply does the rest, and leaves out what is refused.");
        }
        (false, true, false) => output.note("Nothing has changed, and --apply would change nothing."),
    }
    Ok(if left { Ended::No } else { Ended::Done })
}

fn show(told: &Value, output: &mut Output) -> anyhow::Result<()> {
    if output.json {
        output.value(told)?;
        return Ok(());
    }
    let row = |row: &Value| {
        ["action", "integration", "name", "reason"]
            .map(|name| row[name].as_str().unwrap_or_default().to_owned())
            .to_vec()
    };
    let rows: Vec<_> = told["plan"]["rows"].as_array().into_iter().flatten().map(row).collect();
    output.table(&["ACTION", "INTEGRATION", "CONNECTION", "REASON"], &rows)?;
    Ok(())
}

/// The export in clear. An encrypted one is opened here, so that its key does not leave this process.
fn read(path: &Path, identity: Option<&Path>) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let named = || path.display().to_string();
    let mut content = Zeroizing::new(Vec::new());
    let file = std::fs::File::open(path).with_context(named)?;
    file.take(MOST + 1).read_to_end(&mut content).with_context(named)?;
    if content.len() as u64 > MOST {
        bail!("{} has more than {MOST} bytes", path.display());
    }
    if !content.starts_with(ARMOUR) {
        return Ok(content);
    }
    let Some(identity) = identity else {
        bail!("{} is encrypted: name the age identity that opens it with --identity", path.display());
    };
    let identities = identities(identity)?;
    let decryptor = age::Decryptor::new(ArmoredReader::new(content.as_slice())).with_context(named)?;
    let known = identities.iter().map(|identity| identity as &dyn age::Identity);
    let opened =
        decryptor.decrypt(known).with_context(|| format!("{} does not open with this identity", path.display()));
    let mut plain = Zeroizing::new(Vec::new());
    opened?.take(MOST).read_to_end(&mut plain).with_context(named)?;
    Ok(plain)
}

fn identities(path: &Path) -> anyhow::Result<Vec<Identity>> {
    let text = Zeroizing::new(std::fs::read_to_string(path).with_context(|| path.display().to_string())?);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let read = |line: &str| {
        let fault =
            || anyhow::anyhow!("{} holds something else than age identities (`AGE-SECRET-KEY-1…`)", path.display());
        line.parse::<Identity>().map_err(|_| fault())
    };
    let identities = lines.map(read).collect::<Result<Vec<_>, _>>()?;
    anyhow::ensure!(!identities.is_empty(), "{} holds no age identity", path.display());
    Ok(identities)
}

fn json_post(target: &str) -> http::request::Builder {
    Request::post(target).header(header::CONTENT_TYPE, "application/json")
}

/// The answer, unless it is a refusal, which is then told.
fn accepted<'a>(answer: &'a Answer, output: &mut Output) -> Option<&'a Answer> {
    if answer.status.is_success() {
        return Some(answer);
    }
    output.note(answer.refusal());
    None
}
