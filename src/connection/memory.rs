//! Records and audit in memory, and small definitions, for the tests of this room.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;

use crate::base::clock::Timestamp;
use crate::definition::live::Generation;
use crate::definition::plan::gateway::{Fixed, Gateway, KeySource, Limits, Listen, Mode, State};
use crate::definition::plan::{Auth, Fingerprint, Integration};
use crate::store::model::{AuditEntry, AuditRecord, RecordKey};
use crate::store::{Audit, Records, StoreError};

/// A store that forgets.
#[derive(Debug, Default)]
pub struct Memory {
    records: Mutex<BTreeMap<RecordKey, (Bytes, u64)>>,
    /// What was written to the audit log, with the number of stored connections at that moment.
    pub audit: Mutex<Vec<(String, usize)>>,
    unreadable: AtomicBool,
}

impl Memory {
    /// From here on reading a record fails, or does so no more.
    pub fn fail_reads(&self, fails: bool) {
        self.unreadable.store(fails, Ordering::Relaxed);
    }
}

#[async_trait]
impl Records for Memory {
    async fn put(&self, key: &RecordKey, value: Bytes, expected: Option<u64>) -> Result<u64, StoreError> {
        let mut records = self.records.lock().expect("no panic");
        let version = records.get(key).map_or(0, |(_, version)| *version);
        if expected.is_some_and(|expected| expected != version) {
            return Err(StoreError::Conflict("version".to_owned()));
        }
        records.insert(key.clone(), (value, version + 1));
        Ok(version + 1)
    }

    async fn get(&self, key: &RecordKey) -> Result<Option<(Bytes, u64)>, StoreError> {
        if self.unreadable.load(Ordering::Relaxed) {
            return Err(StoreError::Read(Arc::from("the disk does not answer")));
        }
        Ok(self.records.lock().expect("no panic").get(key).cloned())
    }

    async fn remove(&self, key: &RecordKey) -> Result<(), StoreError> {
        self.records.lock().expect("no panic").remove(key);
        Ok(())
    }

    async fn take(&self, key: &RecordKey) -> Result<Option<Bytes>, StoreError> {
        Ok(self.records.lock().expect("no panic").remove(key).map(|(value, _)| value))
    }

    async fn keys(&self, collection: &str) -> Result<Vec<RecordKey>, StoreError> {
        let records = self.records.lock().expect("no panic");
        Ok(records.keys().filter(|key| &*key.collection == collection).cloned().collect())
    }
}

#[async_trait]
impl Audit for Memory {
    async fn append(&self, entry: AuditEntry) -> Result<AuditRecord, StoreError> {
        let records = self.records.lock().expect("no panic");
        let records = records.keys().filter(|key| &*key.collection == super::stored::COLLECTION).count();
        self.audit.lock().expect("no panic").push((format!("{} {}", entry.action, entry.target), records));
        Ok(AuditRecord { sequence: 1, entry, hash: String::new() })
    }

    async fn read(&self, _from: u64, _max: usize) -> Result<Vec<AuditRecord>, StoreError> {
        Ok(Vec::new())
    }

    async fn newest(&self) -> u64 {
        0
    }
}

/// An integration with nothing but a way to sign in.
pub fn integration(id: &str, auth: Auth) -> Integration {
    Integration {
        id: Arc::from(id),
        title: id.to_owned(),
        about: crate::definition::plan::about::About::default(),
        fingerprint: Fingerprint([0; 32]),
        inputs: Vec::new(),
        auth,
        api: None,
        connections: Vec::new(),
        webhook: None,
        prompts: crate::definition::plan::Prompts::default(),
        rules: Vec::new(),
        referenced: Vec::new(),
    }
}

/// A generation of these integrations.
pub fn generation(integrations: Vec<Integration>) -> Generation {
    let listen = || Listen::unix("/nonexistent");
    let fixed = Fixed {
        mode: Mode::Production,
        public: listen(),
        proxy: listen(),
        admin: listen(),
        tls: Vec::new(),
        integrations: Vec::new(),
        state: State::Postgres,
        key: KeySource::Missing,
        previous: crate::definition::plan::gateway::PreviousKeys::default(),
        egress: crate::definition::plan::egress::Egress::default(),
        vault: None,
        trace: None,
        not_run: Vec::new(),
    };
    let gateway = Gateway {
        fixed,
        public_url: url::Url::parse("https://gateway.example").expect("a URL"),
        doors: crate::definition::plan::gateway::Doors::default(),
        admin: crate::definition::plan::gateway::Admin::default(),
        connect: crate::definition::plan::gateway::Connect::default(),
        destinations: Vec::new(),
        callers: Vec::new(),
        private_networks: Vec::new(),
        workers: 1,
        durable_calls: crate::definition::plan::rule::Retry::default(),
        upkeep: crate::definition::plan::gateway::Upkeep::default(),
        own: Arc::new(crate::definition::plan::Integration::own(Vec::new())),
        notifications: crate::definition::plan::notifications::Notifications::default(),
        activity: crate::definition::plan::gateway::Activity::default(),
        usage: crate::definition::plan::gateway::Usage::default(),
        limits: Limits::default(),
    };
    let integrations: HashMap<_, _> =
        integrations.into_iter().map(|integration| (Arc::clone(&integration.id), Arc::new(integration))).collect();
    Generation {
        number: 1,
        since: Timestamp::default(),
        fingerprint: Fingerprint([0; 32]),
        gateway: Arc::new(gateway),
        integrations,
        files: Vec::new(),
    }
}
