//! `trunkline store check`: reads everything, changes nothing in the journals, and tells all it finds.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::ops::ControlFlow;

use serde::Serialize;

use super::super::audit;
use super::super::index::{Index, ItemKind};
use super::super::lock::Lock;
use super::super::op::{self, MATCH, Op};
use super::super::open::{JOURNALS, Options, emptied, emptied_error, holds_nothing, read_format, unavailable};
use super::super::records::Write;
use crate::base::id::EventId;
use crate::store::journal::segment::Checked;
use crate::store::journal::{Pointer, salt, segment};
use crate::store::{StoreError, chain};

/// The most problems that are told; more are only counted.
const TOLD: usize = 100;

/// What a store holds, and what is wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Frames that are whole, in all journals.
    pub frames: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// Events whose content is there.
    pub events: u64,
    /// Records that are live.
    pub records: u64,
    /// Audit entries.
    pub audit_entries: u64,
    /// Entries of the index.
    pub index_entries: u64,
    /// Operations that the index does not have yet; opening brings it up to date.
    pub index_lag: u64,
    /// What is worth knowing and nothing wrong.
    pub notes: Vec<String>,
    /// What is wrong, in words, each with its place; at most 100 are told.
    pub problems: Vec<String>,
    /// How many problems there are.
    pub problem_count: usize,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.problem_count == 0
    }

    fn tell(&mut self, problem: impl Into<String>) {
        self.problem_count += 1;
        if self.problems.len() < TOLD {
            self.problems.push(problem.into());
        }
    }

    fn tell_all(&mut self, problems: Vec<impl ToString>) {
        for problem in problems {
            self.tell(problem.to_string());
        }
    }

    fn take_in(&mut self, found: Checked) {
        self.tell_all(found.problems);
        self.notes.extend(found.notes);
    }

    fn count(&mut self, payload: &[u8]) {
        self.frames += 1;
        self.bytes += payload.len() as u64;
    }
}

/// Reads every frame, every index entry and the audit chain.
///
/// # Errors
/// [`StoreError::InUse`] while a gateway runs on the store, [`StoreError::NotFound`] where there is
/// none, [`StoreError::NewerFormat`]. Damage is not an error but in the report.
pub fn check(options: &Options) -> Result<Report, StoreError> {
    let _lock = Lock::take_existing(&options.directory)?;
    let mut report = Report::default();
    let format = options.directory.join("format");
    match std::fs::read(&format) {
        Ok(bytes) => match read_format(&bytes, &format) {
            Err(error @ StoreError::NewerFormat { .. }) => return Err(error),
            Err(error) => report.tell(error.to_string()),
            Ok(_) => {}
        },
        Err(error) if error.kind() == ErrorKind::NotFound && holds_nothing(&options.directory) => {
            report.notes.push("nothing is in it yet: its first start did not end, and the next goes on".to_owned());
            return Ok(report);
        }
        Err(error) => report.tell(unavailable(&format, &error).to_string()),
    }
    for name in JOURNALS.iter().filter(|name| !options.directory.join(name).is_dir()) {
        report.tell(format!("the directory {} is missing", options.directory.join(name).display()));
    }
    if let Some(part) = emptied(options) {
        report.tell(emptied_error(&part).to_string());
    }
    let events = check_events(options, &mut report);
    check_records(options, &mut report);
    check_audit(options, &mut report);
    if let Err(error) = check_index(options, &events, &mut report) {
        report.tell(error.to_string());
    }
    Ok(report)
}

/// What the events journal holds: where each event's content stands, and where the journal ends.
#[derive(Default)]
struct Found {
    events: BTreeMap<u128, (u64, Pointer)>,
    forgotten: BTreeSet<u128>,
    last: u64,
}

fn check_events(options: &Options, report: &mut Report) -> Found {
    let (mut found, mut unreadable) = (Found::default(), Vec::new());
    let directory = options.directory.join("events");
    let checked = segment::check(&*options.disk, &directory, &mut |sequence, pointer, payload| {
        report.count(payload);
        found.last = sequence;
        match op::decode(payload) {
            Ok((Op::Accepted { head, .. }, _)) => drop(found.events.insert(head.id, (sequence, pointer))),
            Ok((Op::Carried { row, .. }, _)) => drop(found.events.insert(row.head.id, (sequence, pointer))),
            Ok((Op::Forgotten { events, .. }, _)) => found.forgotten.extend(events),
            Ok(_) => {}
            Err(error) => unreadable.push(format!("sequence {sequence} of {}: {error}", directory.display())),
        }
        Ok(ControlFlow::Continue(()))
    });
    report.take_in(checked);
    report.tell_all(unreadable);
    report.events = found.events.len() as u64;
    found
}

fn check_records(options: &Options, report: &mut Report) {
    let (mut live, mut unreadable) = (BTreeSet::new(), Vec::new());
    let directory = options.directory.join("records");
    let checked = segment::check(&*options.disk, &directory, &mut |sequence, _, payload| {
        report.count(payload);
        match postcard::from_bytes::<Write>(payload) {
            Ok(Write { key, value: Some(_), .. }) => drop(live.insert(key)),
            Ok(Write { key, value: None, .. }) => drop(live.remove(&key)),
            Err(error) => unreadable.push(format!("sequence {sequence} of {}: {error}", directory.display())),
        }
        Ok(ControlFlow::Continue(()))
    });
    report.take_in(checked);
    report.tell_all(unreadable);
    report.records = live.len() as u64;
}

fn check_audit(options: &Options, report: &mut Report) {
    let (mut reading, mut broken, mut entries) = (chain::Reading::default(), Vec::new(), 0);
    let journal = options.journal("audit", &salt::Current::default());
    let checked = segment::check(&*options.disk, &journal.directory, &mut |sequence, pointer, payload| {
        report.count(payload);
        let record = match audit::decode(&journal, pointer.offset, payload) {
            Ok(record) => record,
            Err(error) => {
                broken.push(error.to_string());
                return Ok(ControlFlow::Continue(()));
            }
        };
        entries += 1;
        if record.sequence != sequence {
            broken.push(format!("audit entry {sequence} is recorded as entry {}", record.sequence));
        }
        broken.extend(reading.next(record).err().map(|found| format!("audit: {found}")));
        Ok(ControlFlow::Continue(()))
    });
    report.take_in(checked);
    report.tell_all(broken);
    report.audit_entries = entries;
}

fn check_index(options: &Options, found: &Found, report: &mut Report) -> Result<(), StoreError> {
    let directory = options.directory.join("index");
    if !directory.exists() {
        report.notes.push("there is no index yet, as after a restore: it is made when the store is opened".to_owned());
        return Ok(());
    }
    let index = Index::open(&directory, options.cache_bytes)?;
    while index.scrub(4_096)? {}
    report.index_entries = index.entries()?;
    report.index_lag = found.last.saturating_sub(index.applied());
    if index.applied() > found.last {
        report.tell("the index is ahead of the journal; it is made anew when the store is opened");
    }
    let mut known = BTreeSet::new();
    for row in index.events_before(None)? {
        let row = row?;
        known.insert(row.head.id);
        if found.events.get(&row.head.id).is_none_or(|(_, pointer)| *pointer != row.pointer) {
            report.tell(format!("the content of {} is not in the journal", EventId::from_u128(row.head.id)));
        }
        for ordinal in 0..row.deliveries {
            if index.delivery((row.head.id, ordinal))?.is_none() {
                report.tell(format!("delivery {}.{ordinal} is missing", EventId::from_u128(row.head.id)));
            }
        }
    }
    for (event, (sequence, _)) in &found.events {
        if *sequence <= index.applied() && !known.contains(event) && !found.forgotten.contains(event) {
            report.tell(format!("{} is not in the index", EventId::from_u128(*event)));
        }
    }
    for key in index.items(ItemKind::Active)? {
        let (event, ordinal) = key?;
        if ordinal != MATCH && index.delivery((event, ordinal))?.is_none() {
            report.tell(format!("work on {}.{ordinal} has no delivery", EventId::from_u128(event)));
        }
    }
    Ok(())
}
