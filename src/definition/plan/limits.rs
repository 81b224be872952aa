//! Bounds of what the doors take in and of what is kept of it.

use std::num::NonZeroU32;
use std::time::Duration;

use super::gateway::DoorName;

/// Bounds of what is taken in at the doors. Defaults are those of the manual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's head. Default 16 KiB.
    pub header_bytes: usize,
    /// Fields of a request's head. Default 64.
    pub header_fields: usize,
    /// Bytes of a request's target. Default 8 KiB.
    pub uri_bytes: usize,
    /// How long a head may take. Default 10 s.
    pub header_timeout: Duration,
    /// The least bytes a second of a body, after 10 s. Default 1 KiB.
    pub min_body_rate: u64,
    /// How long a connection may be idle. Default 60 s.
    pub idle_timeout: Duration,
    /// Open connections at one door. Default 10,000, and never more than half of the file descriptors.
    pub connections: usize,
    /// Open connections at the public door from one address. Default 200.
    pub connections_per_source: usize,
    /// Deliveries that may wait when a durable call is taken in. Default 100,000.
    pub durable_calls: u32,
    /// Open connections at the proxy door from one address; `None`, the default, is as many as there are.
    pub proxy_connections_per_source: Option<NonZeroU32>,
    /// Open connections at the admin door. Default 256.
    pub admin_connections: usize,
    /// Open connections at the admin door from one address. Default 64, and always less than all.
    pub admin_connections_per_source: usize,
    /// Bytes of a request's body at the admin door. Default 256 KiB.
    pub admin_body_bytes: usize,
    /// Bytes of an import. Default 64 MiB.
    pub import_bytes: usize,
    /// Answers of the admin API that are kept for their `Idempotency-Key`. Default 10,000.
    pub admin_answers: usize,
    /// Bytes of such an answer. Default 128 KiB.
    pub admin_answer_bytes: usize,
    /// Deliveries of one plan to try dead ones again. Default 10,000.
    pub replay_deliveries: usize,
    /// Bytes of files' texts that are kept to compare them. Default 16 MiB.
    pub config_history_bytes: usize,
    /// Faults of files that are kept, of all files together. Default 2,000.
    pub listed_faults: usize,
    /// Managed webhook endpoints. Default 20,000.
    pub webhook_endpoints: usize,
    /// How long reading the files again may take before that is told. Default 10 s.
    pub files_time: Duration,
    /// Requests under way at once on one HTTP/2 connection. Default 100.
    pub http2_streams: u32,
    /// HTTP/2 frames in a row that carry nothing. Default 200; a tenth of them comes back each second.
    pub http2_control_frames: u32,
    /// Bytes of an answer to a call of the gateway's own. Default 10 MiB.
    pub answer_bytes: usize,
    /// Bytes of an answer to a call of signing in. Default 256 KiB.
    pub sign_in_answer_bytes: usize,
    /// Redirects that such a call follows. Default 5.
    pub redirects: u8,
    /// Bytes of answers that are used again, and of those being read to be. Default 64 MiB.
    pub cache_bytes: usize,
    /// Bytes of bodies that are read whole at one time, at each of the public and the proxy door. Default 256 MiB.
    pub whole_bytes: usize,
    /// The memory for answers that are read whole. Default 256 MiB.
    pub whole_answer_bytes: usize,
    /// Pages that a call for all pages follows. Default 1000.
    pub pages: usize,
    /// Bytes of such pages together. Default 256 MiB.
    pub pages_bytes: usize,
    /// How long they may take together. Default 10 minutes.
    pub pages_time: Duration,
    /// Calls to one integration that may wait for their turn. Default 1,000.
    pub waiting_calls: usize,
}

/// How many connections a door holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// In all.
    pub total: usize,
    /// From one address.
    pub per_source: usize,
}

impl Limits {
    /// How many connections a door holds. At the admin door one address never holds all, so that probes from
    /// another are answered.
    pub fn connections_at(&self, door: DoorName) -> Bounds {
        match door {
            DoorName::Public => Bounds { total: self.connections, per_source: self.connections_per_source },
            DoorName::Proxy => {
                let most = self.proxy_connections_per_source.map(|most| usize::try_from(most.get()));
                Bounds { total: self.connections, per_source: most.and_then(Result::ok).unwrap_or(usize::MAX) }
            }
            DoorName::Admin => {
                let others = self.admin_connections.saturating_sub(1).max(1);
                Bounds { total: self.admin_connections, per_source: self.admin_connections_per_source.min(others) }
            }
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 16 << 10,
            header_fields: 64,
            uri_bytes: 8 << 10,
            header_timeout: Duration::from_secs(10),
            min_body_rate: 1 << 10,
            idle_timeout: Duration::from_mins(1),
            connections: 10_000,
            connections_per_source: 200,
            proxy_connections_per_source: None,
            durable_calls: 100_000,
            admin_connections: 256,
            admin_connections_per_source: 64,
            admin_body_bytes: 256 << 10,
            import_bytes: 64 << 20,
            admin_answers: 10_000,
            admin_answer_bytes: 128 << 10,
            replay_deliveries: 10_000,
            config_history_bytes: 16 << 20,
            listed_faults: 2_000,
            webhook_endpoints: 20_000,
            files_time: Duration::from_secs(10),
            http2_streams: 100,
            http2_control_frames: 200,
            answer_bytes: 10 << 20,
            sign_in_answer_bytes: 256 << 10,
            redirects: 5,
            cache_bytes: 64 << 20,
            whole_bytes: 256 << 20,
            whole_answer_bytes: 256 << 20,
            pages: 1_000,
            pages_bytes: 256 << 20,
            pages_time: Duration::from_mins(10),
            waiting_calls: 1_000,
        }
    }
}
