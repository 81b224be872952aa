//! The audit log: entries in order, each with the SHA-256 of the one before.

use std::ops::ControlFlow;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Mutex;

use super::Embedded;
use super::lock::Lock;
use crate::store::journal::{Counts, Durability, Journal, JournalOptions, mark, segment};
use crate::store::model::{AuditEntry, AuditRecord};
use crate::store::{Audit, StoreError, chain};

/// The audit journal and the end of its chain.
#[derive(Debug)]
pub struct AuditLog {
    journal: Journal<()>,
    /// The last entry's sequence number and hash. Held while an entry is written, so that the chain has
    /// one order.
    tip: Mutex<(u64, String)>,
    options: JournalOptions,
}

impl AuditLog {
    /// Opens the audit journal.
    pub fn open(options: JournalOptions, lock: Arc<Lock>) -> Result<Self, StoreError> {
        let mut tip = (0, chain::BEGINNING.to_owned());
        // Whole segments before the durable mark need not be read to find the chain's end.
        let bounds = mark::read(&*options.disk, &options.directory).ok().flatten().unwrap_or_default();
        let end =
            segment::walk(&*options.disk, &options.directory, bounds.durable, &mut |sequence, pointer, payload| {
                let record = decode(&options, pointer.offset, payload)?;
                tip = (sequence, record.hash);
                Ok(ControlFlow::Continue(()))
            })?;
        let journal = Journal::open(options.clone(), end, Box::new(drop), lock)?;
        Ok(Self { journal, tip: Mutex::new(tip), options })
    }

    async fn append(&self, entry: AuditEntry) -> Result<AuditRecord, StoreError> {
        let mut tip = self.tip.lock().await;
        let sequence = tip.0 + 1;
        let record = AuditRecord { sequence, hash: chain::hash(&tip.1, sequence, &entry), entry };
        let payload = serde_json::to_vec(&record)
            .map_err(|error| StoreError::Read(Arc::from(format!("an audit entry does not encode: {error}"))))?;
        self.journal.append(payload, (), Durability::Synced).await?;
        *tip = (sequence, record.hash.clone());
        Ok(record)
    }

    fn read(&self, from: u64, max: usize) -> Result<Vec<AuditRecord>, StoreError> {
        let mut records = Vec::new();
        segment::walk(&*self.options.disk, &self.options.directory, from, &mut |_, pointer, payload| {
            if records.len() >= max {
                return Ok(ControlFlow::Break(()));
            }
            records.push(decode(&self.options, pointer.offset, payload)?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(records)
    }

    /// Whether entries can be written.
    pub fn state(&self) -> Result<(), StoreError> {
        self.journal.state()
    }

    /// What was written since the opening.
    pub fn counts(&self) -> &Counts {
        self.journal.counts()
    }

    /// Ends the journal's thread.
    pub async fn close(&self) {
        self.journal.close().await;
    }
}

pub(super) fn decode(options: &JournalOptions, offset: u64, payload: &[u8]) -> Result<AuditRecord, StoreError> {
    serde_json::from_slice(payload)
        .map_err(|_| segment::damaged("an audit entry does not decode", &options.directory, offset))
}

#[async_trait]
impl Audit for Embedded {
    async fn append(&self, entry: AuditEntry) -> Result<AuditRecord, StoreError> {
        // In a task of its own: a caller that goes away while its entry is written must not leave the
        // chain's end behind.
        let audit = Arc::clone(&self.audit);
        tokio::spawn(async move { audit.append(entry).await }).await.map_err(super::records::ended)?
    }

    async fn read(&self, from: u64, max: usize) -> Result<Vec<AuditRecord>, StoreError> {
        let audit = Arc::clone(&self.audit);
        tokio::task::spawn_blocking(move || audit.read(from, max)).await.map_err(super::records::ended)?
    }

    async fn newest(&self) -> u64 {
        self.audit.tip.lock().await.0
    }
}
