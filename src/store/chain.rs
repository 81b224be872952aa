//! The chain of the audit log: each entry's hash covers the hash before it, so that none can be changed,
//! left out or put in without every later one telling.
//!
//! Called by the engines, which write it, and by whoever reads the log and wants to know that it is whole.

use sha2::{Digest, Sha256};

use super::model::{AuditEntry, AuditRecord};

/// What the first entry's hash covers in place of a hash before it.
pub const BEGINNING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The hash of an entry: lower-case hex SHA-256 over the hash before it, its sequence number and its
/// JSON text.
pub fn hash(previous: &str, sequence: u64, entry: &AuditEntry) -> String {
    let mut hasher = Sha256::new();
    hasher.update(previous.as_bytes());
    hasher.update(sequence.to_be_bytes());
    hasher.update(serde_json::to_vec(entry).unwrap_or_default());
    hasher.finalize().iter().fold(String::with_capacity(64), |text, byte| text + &format!("{byte:02x}"))
}

/// Whether an entry is the one after another; after none it is the first of all.
pub fn continues(record: &AuditRecord, previous: Option<&AuditRecord>) -> bool {
    let (before, hash_before) = previous.map_or((0, BEGINNING), |previous| (previous.sequence, previous.hash.as_str()));
    record.sequence == before + 1 && record.hash == hash(hash_before, record.sequence, &record.entry)
}

/// Where the chain is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Break {
    /// Entries were left out, put in twice or put in another order.
    #[error("entry {found} stands where entry {expected} should be: entries are missing or in another order")]
    Order {
        /// What should stand there.
        expected: u64,
        /// What does.
        found: u64,
    },
    /// An entry is not what was recorded, or the one before it is not.
    #[error("entry {0} is not what was recorded, or does not follow the entry before it")]
    Changed(u64),
}

/// Reads a log in order and finds where its chain is broken.
#[derive(Debug, Default)]
pub struct Reading {
    last: Option<AuditRecord>,
    /// How many entries were read.
    pub read: u64,
}

impl Reading {
    /// Reads the next entry.
    ///
    /// # Errors
    /// How it does not continue the chain. The reading goes on behind it, so that a second break is found as well.
    pub fn next(&mut self, record: AuditRecord) -> Result<(), Break> {
        self.read += 1;
        let expected = self.last.as_ref().map_or(1, |last| last.sequence + 1);
        let found = if record.sequence != expected {
            Err(Break::Order { expected, found: record.sequence })
        } else if continues(&record, self.last.as_ref()) {
            Ok(())
        } else {
            Err(Break::Changed(record.sequence))
        };
        self.last = Some(record);
        found
    }

    /// The last entry's sequence number and hash.
    pub fn end(&self) -> Option<(u64, &str)> {
        self.last.as_ref().map(|last| (last.sequence, last.hash.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;

    fn record(sequence: u64, previous: &str) -> AuditRecord {
        let entry = AuditEntry {
            at: Timestamp::from_seconds(1),
            actor: "operator".to_owned(),
            action: "config.reload".to_owned(),
            target: "gateway".to_owned(),
            detail: serde_json::Value::Null,
        };
        AuditRecord { sequence, hash: hash(previous, sequence, &entry), entry }
    }

    #[test]
    fn an_entry_that_was_changed_or_left_out_is_noticed() {
        let first = record(1, BEGINNING);
        let second = record(2, &first.hash);
        let third = record(3, &second.hash);
        assert!(continues(&first, None) && continues(&second, Some(&first)) && continues(&third, Some(&second)));
        assert!(!continues(&third, Some(&first)) && !continues(&second, None));
        let mut changed = second.clone();
        changed.entry.actor = "caller:other".to_owned();
        assert!(!continues(&changed, Some(&first)));
    }

    fn log() -> Vec<AuditRecord> {
        let mut log: Vec<AuditRecord> = Vec::new();
        for sequence in 1..=6 {
            let next = record(sequence, log.last().map_or(BEGINNING, |last| &last.hash));
            log.push(next);
        }
        log
    }

    fn breaks(log: Vec<AuditRecord>) -> Vec<Break> {
        let mut reading = Reading::default();
        log.into_iter().filter_map(|record| reading.next(record).err()).collect()
    }

    #[test]
    fn what_was_done_to_a_log_is_located() {
        assert_eq!(breaks(log()), []);
        let mut changed = log();
        changed[2].entry.target = "elsewhere".to_owned();
        assert_eq!(breaks(changed.clone()), [Break::Changed(3)]);
        // Whoever makes the hash fit breaks the link to the next entry.
        changed[2].hash = hash(&changed[1].hash, 3, &changed[2].entry);
        assert_eq!(breaks(changed), [Break::Changed(4)]);
        let mut cut = log();
        cut.remove(3);
        assert_eq!(breaks(cut), [Break::Order { expected: 4, found: 5 }]);
        let mut swapped = log();
        swapped.swap(2, 3);
        assert_eq!(breaks(swapped)[0], Break::Order { expected: 3, found: 4 });
        let beheaded = log().split_off(2);
        assert_eq!(breaks(beheaded), [Break::Order { expected: 1, found: 3 }]);
    }
}
