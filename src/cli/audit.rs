//! `trunkline audit`: who did what at a running gateway, and whether the record of it is whole.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use url::form_urlencoded::Serializer;

use super::output::Output;
use super::remote::{self, Gateway, Remote};
use super::{Common, Ended};
use crate::base::clock::Timestamp;
use crate::base::plain::in_json;
use crate::store::chain::Reading;
use crate::store::model::{AuditEntry, AuditRecord};

/// What to do with the audit log.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// List entries, oldest first
    List(List),
    /// Write the whole log, one entry in JSON a line, to keep it elsewhere
    Export(Export),
    /// Read the whole log and check that each entry continues the chain of those before it
    ///
    /// Exits with 1 when one does not, and says which. Whoever can write the gateway's disk can also make a new chain,
    /// or cut the end off: note the end that is told, and give it to the next check.
    Verify(Verify),
}

/// Which entries.
#[derive(Debug, Args)]
pub struct List {
    /// The first sequence number
    #[arg(long, default_value_t = 1, value_name = "N")]
    from: u64,
    /// At most so many
    #[arg(long, default_value_t = 50, value_name = "N")]
    limit: u32,
    /// Only what this one did: operator, system or caller:ID
    #[arg(long, value_name = "ACTOR")]
    actor: Option<String>,
    /// Only this action, such as config.reload
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,
    /// Only those with this text in actor, action, target or details, in upper or lower case
    #[arg(long, value_name = "TEXT")]
    q: Option<String>,
    #[command(flatten)]
    gateway: Gateway,
}

/// Where to.
#[derive(Debug, Args)]
pub struct Export {
    /// The file to write, which is there when the export is whole; an existing one is never overwritten. Default: the
    /// standard output
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    #[command(flatten)]
    gateway: Gateway,
}

/// What is checked.
#[derive(Debug, Args)]
pub struct Verify {
    /// An export instead of a running gateway's log
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    /// An entry that must be in it, as an earlier check told it
    #[arg(long, value_name = "N:HASH", value_parser = known)]
    known: Option<(u64, String)>,
    #[command(flatten)]
    gateway: Gateway,
}

fn known(text: &str) -> Result<(u64, String), String> {
    let expected = || "expected an entry's number, a colon and its hash, as `audit verify` tells them".to_owned();
    let (number, hash) = text.split_once(':').ok_or_else(expected)?;
    let is_hash = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = number.parse().map_err(|_| expected())?;
    if is_hash { Ok((number, hash.to_ascii_lowercase())) } else { Err(expected()) }
}

/// Runs the command.
pub fn run(common: &Common, command: &Audit, output: &mut Output) -> anyhow::Result<Ended> {
    match command {
        Audit::List(list) => self::list(common, list, output),
        Audit::Export(export) => self::export(common, export, output),
        Audit::Verify(verify) => self::verify(common, verify, output),
    }
}

fn list(common: &Common, list: &List, output: &mut Output) -> anyhow::Result<Ended> {
    let mut query = Serializer::new(String::new());
    query.append_pair("from", &list.from.to_string()).append_pair("limit", &list.limit.to_string());
    let filters = [("actor", &list.actor), ("action", &list.action), ("q", &list.q)];
    query.extend_pairs(filters.iter().filter_map(|(name, value)| Some((name, value.as_deref()?))));
    let path = format!("/api/audit?{}", query.finish());
    let answer = remote::block_on(Remote::find(common, &list.gateway)?.get(&path))??;
    if !answer.status.is_success() {
        output.note(answer.refusal());
        return Ok(Ended::No);
    }
    let entries = answer.json()?;
    if output.json {
        output.value(&entries)?;
    } else {
        output.table(&["ENTRY", "AT", "ACTOR", "ACTION", "TARGET"], &rows(&entries))?;
    }
    if let Some(broken) = entries.as_array().into_iter().flatten().find(|entry| entry["chained"] != true) {
        output.note(format_args!("entry {} does not continue the chain of those before it", broken["sequence"]));
    }
    if answer.next().is_some() {
        output.note("There are more: go on with --from, or raise --limit.");
    }
    Ok(Ended::Done)
}

fn rows(entries: &Value) -> Vec<Vec<String>> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let row = |entry: &Value| ["sequence", "at", "actor", "action", "target"].map(|name| text(&entry[name])).to_vec();
    entries.as_array().into_iter().flatten().map(row).collect()
}

fn export(common: &Common, export: &Export, output: &mut Output) -> anyhow::Result<Ended> {
    let gateway = Remote::find(common, &export.gateway)?;
    let Some(path) = &export.to else {
        return each(&gateway, output, &mut |entry, output| Ok(output.raw(in_json(&line(entry)).as_bytes())?));
    };
    let name = || path.display().to_string();
    if path.symlink_metadata().is_ok() {
        return Err(io::Error::from(io::ErrorKind::AlreadyExists)).with_context(name);
    }
    let partial = path.with_extension(format!("partial-{}", std::process::id()));
    let mut file = File::create(&partial).with_context(name)?;
    let ended = each(&gateway, output, &mut |entry, _| file.write_all(line(entry).as_bytes()).with_context(name));
    let is_whole = matches!(ended, Ok(Ended::Done));
    let placed = if is_whole { file.sync_all().and_then(|()| place(&partial, path)) } else { Ok(()) };
    // It is gone where it was moved.
    drop(fs::remove_file(&partial));
    placed.with_context(name)?;
    ended
}

/// Gives a file its name, which must not be taken: it is moved only where the file system has no links.
fn place(partial: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(partial, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => fs::rename(partial, path),
        linked => linked,
    }
}

/// An entry as a line of an export. Whether it is chained is for whoever reads it to find out.
fn line(mut entry: Value) -> String {
    if let Some(entry) = entry.as_object_mut() {
        entry.shift_remove("chained");
    }
    format!("{entry}\n")
}

/// Does something with each entry of a running gateway's log, in order.
fn each(
    gateway: &Remote,
    output: &mut Output,
    work: &mut dyn FnMut(Value, &mut Output) -> anyhow::Result<()>,
) -> anyhow::Result<Ended> {
    let mut path = "/api/audit?limit=1000".to_owned();
    loop {
        let answer = remote::block_on(gateway.get(&path))??;
        if !answer.status.is_success() {
            output.note(answer.refusal());
            return Ok(Ended::No);
        }
        let Value::Array(entries) = answer.json()? else { bail!("the gateway's answer is no list of entries") };
        for entry in entries {
            work(entry, output)?;
        }
        match answer.next() {
            Some(next) => path = next,
            None => return Ok(Ended::Done),
        }
    }
}

/// What a check found.
#[derive(Default)]
struct Found {
    reading: Reading,
    broken: Vec<String>,
    known: bool,
}

impl Found {
    fn take(&mut self, entry: &Value, verify: &Verify) -> anyhow::Result<()> {
        let record =
            record(entry).with_context(|| format!("entry {} of the log cannot be read", self.reading.read + 1))?;
        self.known |=
            verify.known.as_ref().is_some_and(|(number, hash)| record.sequence == *number && record.hash == *hash);
        self.broken.extend(self.reading.next(record).err().map(|broken| broken.to_string()));
        Ok(())
    }
}

/// An entry as it was recorded.
fn record(entry: &Value) -> Option<AuditRecord> {
    let text = |name: &str| entry.get(name)?.as_str().map(str::to_owned);
    Some(AuditRecord {
        sequence: entry.get("sequence")?.as_u64()?,
        entry: AuditEntry {
            at: Timestamp::parse_rfc3339(&text("at")?)?,
            actor: text("actor")?,
            action: text("action")?,
            target: text("target")?,
            detail: entry.get("detail")?.clone(),
        },
        hash: text("hash")?,
    })
}

fn verify(common: &Common, verify: &Verify, output: &mut Output) -> anyhow::Result<Ended> {
    let mut found = Found::default();
    let read = if let Some(file) = &verify.export {
        exported(file, verify, &mut found)?
    } else {
        let gateway = Remote::find(common, &verify.gateway)?;
        each(&gateway, output, &mut |entry, _| found.take(&entry, verify))?
    };
    if let Some((number, _)) = verify.known.as_ref().filter(|_| !found.known) {
        found.broken.push(format!("entry {number} with the known hash is not in it: the log was cut or made anew"));
    }
    let whole = found.broken.is_empty() && read == Ended::Done;
    let (read, end) = (found.reading.read, found.reading.end());
    if output.json {
        let end = end.map(|(sequence, hash)| json!({ "sequence": sequence, "hash": hash }));
        output.value(&json!({ "entries": read, "whole": whole, "broken": found.broken, "end": end }))?;
    } else {
        for broken in &found.broken {
            output.line(broken)?;
        }
        let verdict = if whole { "the chain is whole" } else { "the chain is broken" };
        let end = end.map(|(sequence, hash)| format!("; it ends with {sequence}:{hash}")).unwrap_or_default();
        output.line(format_args!("{read} entries: {verdict}{end}"))?;
    }
    Ok(if whole { Ended::Done } else { Ended::No })
}

/// The names of an entry in an export, in the order of its lines.
const EXPORTED: [&str; 7] = ["sequence", "at", "actor", "action", "target", "detail", "hash"];

/// Reads an export. A line is taken only as `line` writes it: a name that stands twice, or is none of an entry's, could be
/// read otherwise by others and is in no hash.
fn exported(file: &Path, verify: &Verify, found: &mut Found) -> anyhow::Result<Ended> {
    let name = || file.display().to_string();
    for (at, text) in BufReader::new(File::open(file).with_context(name)?).lines().enumerate() {
        let (text, place) = (text.with_context(name)?, || format!("{}:{}", file.display(), at + 1));
        let entry: Value = serde_json::from_str(&text).with_context(place)?;
        let names = entry.as_object().map(|entry| entry.keys().all(|name| EXPORTED.contains(&name.as_str())));
        if names != Some(true) || line(entry.clone()).trim_end() != text {
            bail!("{}: this is not how an export writes an entry: names twice, unknown ones, or spaces", place());
        }
        // Its hash has the moment, however that is written.
        let at = entry["at"].as_str().unwrap_or_default();
        if Timestamp::parse_rfc3339(at).is_some_and(|moment| moment.to_string() != at) {
            bail!("{}: this is not how an export writes a time: `{at}`", place());
        }
        found.take(&entry, verify).with_context(place)?;
    }
    if found.reading.read == 0 {
        found.broken.push(format!("{} has no entry", file.display()));
    }
    Ok(Ended::Done)
}
