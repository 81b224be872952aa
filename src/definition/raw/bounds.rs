//! The bounds of a deployment (`limits` of the gateway file).

use schemars::JsonSchema;
use serde::Deserialize;

use super::scalar::{DurationText, SizeText};

/// Bounds of what the doors take in, and of what the gateway's own calls take back. What is beyond is
/// refused and counted.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The largest head of a request; more is refused with 431. Default 16KiB.
    pub header_bytes: Option<SizeText>,
    /// The most fields of a head. Default 64.
    #[schemars(range(min = 8, max = 256))]
    pub header_fields: Option<u32>,
    /// The longest target; more is refused with 414. Default 8KiB.
    pub uri_bytes: Option<SizeText>,
    /// How long a head may take. Default 10s.
    pub header_timeout: Option<DurationText>,
    /// The least bytes a second of a body after its first 10 s. Default 1KiB.
    pub min_body_rate: Option<SizeText>,
    /// How long a connection may be idle. Default 60s.
    pub idle_timeout: Option<DurationText>,
    /// Open connections at one door, and at the public one as many requests of HTTP/2 under way. Default 10000, and never
    /// more than half of the file descriptors.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections: Option<u32>,
    /// Open connections at the public door from one address, as many requests of HTTP/2 under way there, and requests under
    /// way from one that a trusted proxy names; IPv6 addresses count by their /64. Default 200.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_per_source: Option<u32>,
    /// Open connections at the proxy door from one address, for a gateway that several hosts call; IPv6 addresses count
    /// by their /64, and connections over a Unix socket not at all. Default: as many as `connections`, since the callers
    /// of a gateway that stands beside its application all come from one address.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub proxy_connections_per_source: Option<u32>,
    /// Open connections at the admin door; `connections` is for the others. Default 256.
    #[schemars(range(min = 2, max = 1_000_000))]
    pub admin_connections: Option<u32>,
    /// Open connections at the admin door from one address; IPv6 addresses count by their /64, and trusted proxies
    /// (`listen.admin.forwarded`) not at all. Always less than `admin_connections`, so that one address does not shut
    /// probes out. Default 64.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub admin_connections_per_source: Option<u32>,
    /// The largest body of a request at the admin door; a larger one is refused with 413. Default 256KiB.
    pub admin_body_bytes: Option<SizeText>,
    /// The same of `POST /api/import`, which takes connections of a whole deployment. Default 64MiB.
    pub import_bytes: Option<SizeText>,
    /// Answers of the admin API that are kept for a day for who sends a request with the same `Idempotency-Key` again.
    /// When there are so many, requests with a new key are refused. Default 10000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub admin_answers: Option<u32>,
    /// The largest answer that is kept so: whoever sends a request again whose answer is larger is told 409. Default
    /// 128KiB.
    pub admin_answer_bytes: Option<SizeText>,
    /// The most deliveries of one plan to try dead ones again; where more fit, the plan has those of the newest events
    /// and says so (`more`). Default 10000.
    #[schemars(range(min = 1, max = 100_000))]
    pub replay_deliveries: Option<u32>,
    /// The memory for texts of files, what was in force before and what is refused, to show how they differ; a file
    /// that does not fit has no difference to show. Counts for what is read from then on. Default 16MiB.
    pub config_history_bytes: Option<SizeText>,
    /// How many faults of all files together the running gateway keeps, and tells in its log, `/readyz?verbose`,
    /// `/api/config` and on the page: errors before warnings and notices, and of each file at least the first of both.
    /// Each file says how many more it has; `trunkline check` shows all. What is left out because others have much to say
    /// stays so until that file changes. Default 2000.
    #[schemars(range(min = 1, max = 100_000))]
    pub listed_faults: Option<u32>,
    /// The most managed webhook endpoints of a deployment, about 2 KiB of memory each; one more is refused with 409.
    /// Those that there are stay. Default 20000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub webhook_endpoints: Option<u32>,
    /// How long reading the files again may take before the log, `/readyz?verbose` and `/api/config` tell that it
    /// does, as on a file system that hangs. What was read last stays in force meanwhile, and what is read at last
    /// counts then. Default 10s.
    pub files_time: Option<DurationText>,
    /// Deliveries that may wait, of events and of durable calls together, when a durable call is taken in; with more it
    /// is refused with 503 (`unavailable`). How many bytes they take is bounded by the disk: below
    /// `state.sled.min_free` nothing is taken in. Default 100000.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub durable_calls: Option<u32>,
    /// Requests under way at once on one HTTP/2 connection. Default 100.
    #[schemars(range(min = 1, max = 10_000))]
    pub http2_streams: Option<u32>,
    /// HTTP/2 frames in a row that ask for work and carry nothing (`RST_STREAM`, `PING`, `SETTINGS`, `PRIORITY`,
    /// `CONTINUATION`, `DATA` that is empty or may be all padding, kinds that nobody knows); a tenth of them comes back
    /// each second, and a connection that sends more is closed. Default 200.
    #[schemars(range(min = 20, max = 100_000))]
    pub http2_control_frames: Option<u32>,
    /// The largest answer that a call of the gateway's own takes (an endpoint by name, an action, a test); a
    /// larger one fails the call. Answers to the application's calls are streamed and not bounded. Default
    /// 10MiB.
    pub answer_bytes: Option<SizeText>,
    /// The largest answer that a call of signing in takes: token calls, registrations, the metadata of issuers,
    /// whose account it is, steps of `login`. A larger one fails the call, and is counted as `too_large` in
    /// `trunkline_upstream_errors_total`. At least 4KiB. Default 256KiB.
    pub sign_in_answer_bytes: Option<SizeText>,
    /// How many pages a call for all pages follows; more end it. Default 1000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub pages: Option<u32>,
    /// How many bytes such pages may have together. Default 256MiB.
    pub pages_bytes: Option<SizeText>,
    /// How long they may take together. Default 10m.
    pub pages_time: Option<DurationText>,
    /// The memory for answers that are used again (`api.cache`), of all integrations together: what was used
    /// longest ago goes first. Default 64MiB.
    pub cache_bytes: Option<SizeText>,
    /// The memory for bodies of requests that are read whole, at each of the public and the proxy door: webhooks, durable
    /// calls, endpoints by name, calls that are changed or signed. The first 16 KiB of each over HTTP/1.1 are not
    /// counted. Where it is used up, a request with such a body is refused with 503 (`unavailable`). At the proxy door
    /// one application has half of what the others leave. At the public door the body that comes the slowest is given up.
    /// Default 256MiB.
    pub whole_bytes: Option<SizeText>,
    /// The memory for answers that are read whole: of endpoints by name, durable calls, calls that are changed or signed, pages of
    /// collections, deliveries and calls for tokens. The first 16 KiB of each are not counted. Beyond its first answer an
    /// integration has half of what the others leave, and so has an application; the gateway's own calls together have as much
    /// as one. Where there is no room, a call is not made; where an answer outgrows it, it is not given (503, `unavailable`), and
    /// the service may have carried the call out. Default 256MiB.
    pub whole_answer_bytes: Option<SizeText>,
    /// How many redirects such a call follows; one more fails it. Each counts against the limits as a call. Default 5.
    #[schemars(range(min = 0, max = 20))]
    pub redirects: Option<u32>,
    /// How many calls to one integration may wait for their turn under its `api.limits`; more are refused with
    /// 429. Default 1000.
    #[schemars(range(min = 0, max = 100_000))]
    pub waiting_calls: Option<u32>,
}
