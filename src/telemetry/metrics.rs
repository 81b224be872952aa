//! The only list of metrics.
//!
//! Names begin with `trunkline_`, units are base units, counters end in `_total`. Labels are bounded:
//! `integration` (ids of loaded definitions, else `other`) and small enumerations; never a connection,
//! path, address, event id or error text. The process's own numbers (`process_…`) come with them. A `histogram` has the OpenTelemetry HTTP boundaries, a `fine` one finer ones.
//!
//! A counter that appears with its first count hides that count from `increase`, and an alert on what is rare would never
//! fire. Those that alerts name are therefore there at 0 before anything is counted: the ones without labels always, the
//! others where the list says `begins`, for whom, and with which values of their labels.

use std::sync::Arc;

use prometheus::core::{MetricVec, MetricVecBuilder};
use prometheus::{Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

use super::notice::Notices;
use super::trace::Traces;

/// The OpenTelemetry HTTP boundaries, in seconds.
const SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Boundaries for what takes a small part of a call, in seconds.
const FINE: &[f64] =
    &[0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];

/// A metric as documentation and dashboards know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its full name.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// What it tells.
    pub help: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// Whose series of it are there at 0 before anything is counted, and the values of its labels but `integration`.
    begins: Option<(Whose, &'static [&'static [&'static str]])>,
}

/// Whose series are there at 0 before anything is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The gateway's own, from its start.
    Gateway,
    /// Those of integrations that take webhooks.
    Webhooks,
    /// Those of integrations whose tokens are renewed.
    Tokens,
}

impl Entry {
    /// Whose series of it are there at 0 before anything is counted; `None` where each appears with its first count.
    pub fn begins_for(&self) -> Option<Whose> {
        let always = (self.kind == "counter" && self.labels.is_empty()).then_some(Whose::Gateway);
        self.begins.map(|(whose, _)| whose).or(always)
    }

    /// The values of the labels of these series, each as [`Self::labels`] are ordered.
    pub fn begun<'a>(&self, integration: &'a str) -> Vec<Vec<&'a str>> {
        if self.begins_for().is_none() {
            return Vec::new();
        }
        let own = [integration];
        let mut declared = self.begins.map(|(_, values)| values).unwrap_or_default().iter();
        self.labels.iter().fold(vec![Vec::new()], |series: Vec<Vec<&'a str>>, label| {
            let values = if *label == "integration" { &own[..] } else { declared.next().copied().unwrap_or_default() };
            let with = |begun: &Vec<&'a str>| -> Vec<Vec<&'a str>> {
                values.iter().map(|value| [begun.as_slice(), &[*value]].concat()).collect()
            };
            series.iter().flat_map(with).collect()
        })
    }
}

macro_rules! metrics {
    ($(
        $field:ident: $kind:ident $name:literal $help:literal [$($label:literal),*]
            $(begins $whose:ident [$($values:expr),*])?;
    )+) => {
        /// Every metric of the program, registered once.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            /// What is told to people and not only counted: whoever counts can tell.
            pub notices: Arc<Notices>,
            /// What of it belongs together.
            pub traces: Arc<Traces>,
            $(#[doc = $help] pub $field: metrics!(@type $kind),)+
        }

        /// The list of metrics, in the order they were declared.
        pub const CATALOGUE: &[Entry] = &[$(
            Entry {
                name: $name,
                kind: metrics!(@kind $kind),
                help: $help,
                labels: &[$($label),*],
                begins: metrics!(@begins $($whose [$($values),*])?),
            },
        )+];

        impl Metrics {
            /// Registers every metric in a registry of its own.
            ///
            /// # Errors
            /// When the list has one name twice: a fault of the program, found at start.
            pub fn new() -> Result<Self, prometheus::Error> {
                let registry = Registry::new();
                #[cfg(target_os = "linux")]
                registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
                $(
                    let $field = metrics!(@make $kind $name $help [$($label),*])?;
                    registry.register(Box::new($field.clone()))?;
                )+
                let metrics = Self { registry, notices: Arc::default(), traces: Arc::default(), $($field,)+ };
                metrics.begin(Whose::Gateway, "");
                Ok(metrics)
            }

            /// Makes the series that are there at 0 before anything is counted: the gateway's own, or those of an
            /// integration.
            pub fn begin(&self, whose: Whose, integration: &str) {
                let mut entries = CATALOGUE.iter();
                $(begin(&self.$field, entries.next(), (whose, integration));)+
            }

            /// Makes a series of each metric, with empty labels: for who looks at the names.
            pub fn touch(&self) {
                $({
                    let labels: &[&str] = &[$($label),*];
                    self.$field.with_label_values(&vec![""; labels.len()]);
                })+
            }
        }
    };
    (@begins) => { None };
    (@begins $whose:ident [$($values:expr),*]) => { Some((Whose::$whose, &[$($values),*])) };
    (@type counter) => { IntCounterVec };
    (@type gauge) => { IntGaugeVec };
    (@type histogram) => { HistogramVec };
    (@type fine) => { HistogramVec };
    (@kind fine) => { "histogram" };
    (@kind $kind:ident) => { stringify!($kind) };
    (@make counter $name:literal $help:literal [$($label:literal),*]) => { make_counter($name, $help, &[$($label),*]) };
    (@make gauge $name:literal $help:literal [$($label:literal),*]) => { make_gauge($name, $help, &[$($label),*]) };
    (@make histogram $name:literal $help:literal [$($label:literal),*]) => { make_histogram($name, $help, (&[$($label),*], SECONDS)) };
    (@make fine $name:literal $help:literal [$($label:literal),*]) => { make_histogram($name, $help, (&[$($label),*], FINE)) };
}

metrics! {
    build_info: gauge "trunkline_build_info" "Always 1; the labels tell the version." ["version"];
    development_mode: gauge "trunkline_development_mode" "1 while development mode is on." [];
    config_reloads: counter "trunkline_config_reloads_total" "Reloads by result: applied, unchanged, rejected, stalled (the files were not read within `limits.files_time`)." ["result"];
    config_last_success: gauge "trunkline_config_last_success_timestamp_seconds" "When a reload last ended without a rejected file." [];
    config_generation: gauge "trunkline_config_generation" "The number of the generation in force." [];
    definitions: gauge "trunkline_definitions" "Definitions by state: loaded; kept, of which an older version is in force; rejected, of which none is." ["state"];
    http_requests: counter "trunkline_http_requests_total" "Requests at a door." ["door", "integration", "code"];
    sign_ins: counter "trunkline_sign_ins_total" "Sign-ins at the admin door: `signed_in`, refused, locked (not even compared), abandoned (left before the answer), out." ["result"];
    http_request_duration: histogram "trunkline_http_request_duration_seconds" "Time from a request's head to the end of its answer." ["door", "integration"];
    idempotent_requests: counter "trunkline_idempotent_requests_total" "Requests of the admin API with an `Idempotency-Key`: made, replayed, `under_way`, reused (for another request), `not_kept` (made before, and the answer is gone), full (nothing more is kept)." ["result"];
    idempotent_answers: gauge "trunkline_idempotent_answers" "Answers of the admin API that are kept for their `Idempotency-Key`." [];
    admin_limits_reached: counter "trunkline_admin_limits_reached_total" "What the admin side cut short or refused for a bound of `limits`, by its name: `admin_answer_bytes` (an answer was not kept for its key), `replay_deliveries` (a plan has not all that fit), `config_history_bytes` (a file's text was not kept), `listed_faults` (a fault of a file was not kept, or not told in the log), `webhook_endpoints` (one was not made)." ["limit"];
    http_refusals: counter "trunkline_http_refusals_total" "Requests the gateway itself refused, by its error code." ["door", "code"];
    door_connections: gauge "trunkline_door_connections" "Open connections at a door." ["door"];
    door_connections_refused: counter "trunkline_door_connections_refused_total" "Connections closed at once because a cap was reached: total, source." ["door", "reason"]
        begins Gateway [&["public", "proxy", "admin"], &["total", "source"]];
    door_connections_broken: counter "trunkline_door_connections_broken_total" "Connections ended by what came on them: `proxy_protocol` (no header, or a wrong one), tls (no handshake), timeout (neither in time), flood (HTTP/2 frames that carry nothing)." ["door", "reason"];
    whole_body_bytes: gauge "trunkline_whole_body_bytes" "Bytes of the bodies of requests that are read whole, beyond the first 16 KiB of each over HTTP/1.1." ["door"];
    whole_answer_bytes: gauge "trunkline_whole_answer_bytes" "Memory that answers take which are read whole, but for the first 16 KiB of each." [];
    whole_answers_refused: counter "trunkline_whole_answers_refused_total" "Calls whose answers were not read because such answers take all of `limits.whole_answer_bytes`." [];
    whole_bodies_refused: counter "trunkline_whole_bodies_refused_total" "Requests refused because such bodies take all of `limits.whole_bytes`." ["door"];
    tls_not_after: gauge "trunkline_tls_certificate_not_after_timestamp_seconds" "When the certificate that a door shows ends." ["door"];
    upstream_requests: counter "trunkline_upstream_requests_total" "Calls to services by status; `error` when there was none." ["integration", "code"];
    upstream_request_duration: histogram "trunkline_upstream_request_duration_seconds" "Time from a call's start to the head of its answer." ["integration"];
    upstream_errors: counter "trunkline_upstream_errors_total" "Calls to services that got no answer, by reason." ["integration", "reason"];
    page_walks: counter "trunkline_page_walks_total" "Calls for all pages, by how they ended: whole, refused before the first page, broken at a later one, left by the caller." ["integration", "result"];
    cache_requests: counter "trunkline_cache_requests_total" "Requests that an answer may be kept for, by result: hit, stale, collapsed, revalidated, miss, bypass, refused." ["integration", "result"];
    cache_calls_saved: counter "trunkline_cache_calls_saved_total" "Calls that cost a service nothing: answered here (hit, stale, collapsed), or by its 304 (`not_modified`)." ["integration", "by"];
    cache_bytes: gauge "trunkline_cache_bytes" "Bytes of kept answers, and of those being read." [];
    cache_evictions: counter "trunkline_cache_evictions_total" "Kept answers that went to make room." [];
    cache_not_kept: counter "trunkline_cache_not_kept_total" "Answers that might have been kept and passed instead: `too_large`, `no_room`." ["reason"];
    added: fine "trunkline_added_duration_seconds" "Time from a request's head at the proxy door until its call was sent, without what it waited for its turn and between tries: what the gateway itself adds." ["integration"];
    activity_dropped: counter "trunkline_activity_dropped_total" "Calls that were made and are not written down: `audit` (no room for another group, or the audit log could not be written), `file` (the activity's files took no more; these are in memory alone), `content` (what they carried is not kept, because there were more than `activity.content.rate` in a second)." ["kind"]
        begins Gateway [&["audit", "file", "content"]];
    activity_entries: gauge "trunkline_activity_entries" "Entries of the activity that can be looked at." [];
    activity_bytes: gauge "trunkline_activity_bytes" "Bytes of the activity's files." [];
    activity_content_bytes: gauge "trunkline_activity_content_bytes" "Bytes of memory of the headers and bodies that are kept of calls." [];
    activity_viewers: gauge "trunkline_activity_viewers" "Who looks at the live activity." [];
    activity_viewers_cut: counter "trunkline_activity_viewers_cut_total" "Viewers of the live activity that were refused because there were too many (full), or let go because they took nothing (slow)." ["reason"];
    usage_bytes: gauge "trunkline_usage_bytes" "Bytes of memory that what is counted of calls takes." [];
    usage_dropped: counter "trunkline_usage_dropped_total" "What is missing in the usage: `calls` that could not be counted in time, `minutes` let go before `usage.retain` because `usage.bytes` were used up, `days` whose files were removed because they had too many bytes." ["kind"];
    calls_waiting: gauge "trunkline_calls_waiting" "Calls that wait for their turn under the limits of an integration." ["integration"];
    calls_waited: histogram "trunkline_calls_waited_seconds" "Time that calls waited for their turn, of those that had to." ["integration"];
    calls_held: counter "trunkline_calls_held_total" "Calls that were not made, by reason: a rate or the service's own quota (rate, quota), waiting in vain (waited), too many waiting (crowded), a failing service (open)." ["integration", "reason"];
    quota_refusals: counter "trunkline_quota_refusals_total" "Answers 429 of services, each of which pauses calls." ["integration"];
    breaker_circuits: gauge "trunkline_breaker_circuits" "Circuits of an integration that are not closed, by state: `open`, `half_open`; `held` is 1 while a person holds all of them open." ["integration", "state"];
    breaker_opened: counter "trunkline_breaker_opened_total" "Times that a circuit opened because the service failed." ["integration"];
    retries: counter "trunkline_retries_total" "Failed tries that might have been followed by another, by what came of it: made, or not because it was not safe (unsafe), there was no time (late), the budget was used up (budget), the body was not held any more (body)." ["integration", "result"];
    token_calls: counter "trunkline_token_calls_total" "Tokens asked for, by stage (token, refresh) and result (ok, permanent, passing, unsent, misconfigured)." ["integration", "stage", "result"];
    webhooks_received: counter "trunkline_webhooks_received_total" "Webhooks by result: accepted, duplicate, handshake, untold (accepted, but an expression of the definition failed), unsubscribed (acknowledged and not stored: its endpoint does not take this type), or the refusal's code." ["integration", "result"]
        begins Webhooks [&["accepted", "signature_invalid", "signature_stale"]];
    webhook_subscriptions: counter "trunkline_webhook_subscriptions_total" "Services told to send a connection's events here (register), or to stop (unregister), by result: ok, failed." ["integration", "step", "result"];
    webhook_ack_duration: histogram "trunkline_webhook_ack_duration_seconds" "Time from a webhook's head to its durable acknowledgement." ["integration"];
    connect_flows: counter "trunkline_connect_flows_total" "Connect flows by result: started, connected, the failure's code, why a callback was refused, `credential_refused` or `credential_untried` for what was entered, `rate_limited` for who asks too often." ["integration", "result"];
    revocations: counter "trunkline_revocations_total" "Attempts to take a removed connection's tokens back at its service: ok, failed." ["integration", "result"];
    queue_messages: gauge "trunkline_queue_messages" "Work by state: ready, leased, dead." ["state"];
    queue_oldest_age: gauge "trunkline_queue_oldest_message_age_seconds" "Age of the oldest event that is not finished." [];
    delivery_attempts: counter "trunkline_delivery_attempts_total" "Attempts at deliveries by action (call, deliver, log, run, `durable_call`) and result (done, retry, held, dead)." ["integration", "action", "result"];
    delivery_duration: histogram "trunkline_delivery_duration_seconds" "Time an attempt at a delivery took." ["integration", "action"];
    events_matched: counter "trunkline_events_matched_total" "Events whose rules were matched: planned, discarded, untold (an expression of the definition failed)." ["integration", "result"];
    token_refreshes: counter "trunkline_token_refreshes_total" "Token calls that renew a token, by why (due, expired, refused: the service answered 401, asked: a person did), by whether it was the first try or another after failures, and by result: renewed, superseded (another process had others first), late (the connection was gone or connected anew), unkept (they could not be stored), refused, failed, unsent, misconfigured." ["integration", "cause", "try", "result"];
    token_refreshes_failed: counter "trunkline_token_refreshes_failed_total" "Those of them after which the token is the same: unkept, refused, failed, unsent, misconfigured." ["integration"]
        begins Tokens [];
    token_retries: counter "trunkline_token_retries_total" "Calls made once more with another token, because the service refused (401) the one they carried." ["integration"];
    connections: gauge "trunkline_connections" "Connections in use by status: active, warning, error, `needs_reconnect`, paused." ["integration", "status"];
    tokens_ending: gauge "trunkline_tokens_ending" "Tokens that are renewed ahead of their end, by what is left of them: at most 0s, 5m, 1h, 1d, 7d, or more." ["left"];
    connection_tests: counter "trunkline_connection_tests_total" "Test requests of connections by result: passed, failed." ["integration", "result"];
    notices_told: counter "trunkline_notices_total" "Events of the gateway's own, by what became of them: told (stored as an event), known (told before the last start), grouped (told with the next of their kind), `over_rate` (beyond `notifications.rate`, told in one event once there is room), unstored (kept for another try), dropped (too many waited), undelivered (a delivery of one was given up)." ["result"]
        begins Gateway [&["told", "known", "grouped", "over_rate", "unstored", "dropped", "undelivered"]];
    spans: counter "trunkline_spans_total" "Spans of traces, by what became of them: exported, dropped (too many waited), failed (the collector did not take them), refused (it took the message, and not these)." ["result"];
    workers: gauge "trunkline_workers" "How many deliveries may run at once." [];
    workers_busy: gauge "trunkline_workers_busy" "How many deliveries run." [];
    store_bytes: gauge "trunkline_store_bytes" "Bytes the store takes on disk." [];
    store_free_bytes: gauge "trunkline_store_free_bytes" "Bytes that are free on the file system of the store." [];
    store_writable: gauge "trunkline_store_writable" "1 while the store accepts new facts." [];
    store_unread: counter "trunkline_store_unread_total" "Events that were due and could not be read from the store: each is looked at again later, and what is damaged stays so." [];
    records_older_key: gauge "trunkline_records_sealed_by_older_keys" "Sealed records that still need an older master key; 0 when a rotation has ended." [];
    secret_reads: counter "trunkline_secret_reads_total" "Reads of secrets from the secret store: ok, missing, denied, failed." ["result"];
    secrets: gauge "trunkline_secrets" "Secrets from the secret store: current, stale because they could not be read again, or unread because they never could be." ["state"];
    log_lines_dropped: counter "trunkline_log_lines_dropped_total" "Log lines that nobody read in time." [];
    panics: counter "trunkline_panics_total" "Panics that were caught." ["place"]
        begins Gateway [&["process", "public", "proxy", "admin", "delivery", "queue"]];
}

impl Metrics {
    /// The text exposition format, version 0.0.4.
    ///
    /// # Errors
    /// When a metric cannot be written; never for the ones declared here.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut out = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        Ok(out)
    }
}

/// Makes the series of a metric that are there at 0 before anything is counted, where they are of this kind.
fn begin<T: MetricVecBuilder>(metric: &MetricVec<T>, entry: Option<&Entry>, (whose, integration): (Whose, &str)) {
    let Some(entry) = entry.filter(|entry| entry.begins_for() == Some(whose)) else { return };
    for values in entry.begun(integration) {
        metric.with_label_values(&values);
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that makes metrics")]
fn make_counter(name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(Opts::new(name, help), labels)
}

#[expect(clippy::disallowed_methods, reason = "the one place that makes metrics")]
fn make_gauge(name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
    IntGaugeVec::new(Opts::new(name, help), labels)
}

#[expect(clippy::disallowed_methods, reason = "the one place that makes metrics")]
fn make_histogram(
    name: &str,
    help: &str,
    (labels, bounds): (&[&str], &[f64]),
) -> Result<HistogramVec, prometheus::Error> {
    HistogramVec::new(HistogramOpts::new(name, help).buckets(bounds.to_vec()), labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_keeps_the_naming_rules() {
        for entry in CATALOGUE {
            assert!(entry.name.starts_with("trunkline_"), "{}", entry.name);
            assert_eq!(entry.kind == "counter", entry.name.ends_with("_total"), "{}", entry.name);
            assert!(entry.kind != "histogram" || entry.name.ends_with("_seconds"), "{}", entry.name);
            assert!(entry.help.ends_with('.'), "{}", entry.name);
        }
    }

    fn lines(metrics: &Metrics, name: &str) -> Vec<String> {
        let text = String::from_utf8(metrics.render().expect("renders")).expect("UTF-8");
        text.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect()
    }

    #[test]
    fn what_begins_at_0_is_declared_for_each_label_of_a_counter() {
        for entry in CATALOGUE {
            let Some((whose, values)) = entry.begins else { continue };
            let known: Vec<_> = entry.labels.iter().filter(|label| **label != "integration").collect();
            assert_eq!((values.len(), entry.kind), (known.len(), "counter"), "{}", entry.name);
            assert_eq!(whose == Whose::Gateway, known.len() == entry.labels.len(), "{}", entry.name);
        }
    }

    #[test]
    fn what_has_not_happened_is_there_at_0() {
        let metrics = Metrics::new().expect("unique names");
        assert_eq!(lines(&metrics, "trunkline_store_unread_total"), ["trunkline_store_unread_total 0"]);
        assert_eq!(
            lines(&metrics, "trunkline_panics_total{place=\"queue\"}"),
            ["trunkline_panics_total{place=\"queue\"} 0"]
        );
        assert_eq!(lines(&metrics, "trunkline_door_connections_refused_total").len(), 3 * 2);
        assert_eq!(lines(&metrics, "trunkline_webhooks_received_total"), [""; 0]);
        metrics.begin(Whose::Webhooks, "shop");
        metrics.webhooks_received.with_label_values(&["shop", "signature_stale"]).inc();
        metrics.begin(Whose::Webhooks, "shop");
        assert_eq!(
            lines(&metrics, "trunkline_webhooks_received_total"),
            [
                "trunkline_webhooks_received_total{integration=\"shop\",result=\"accepted\"} 0",
                "trunkline_webhooks_received_total{integration=\"shop\",result=\"signature_invalid\"} 0",
                "trunkline_webhooks_received_total{integration=\"shop\",result=\"signature_stale\"} 1",
            ]
        );
        assert_eq!(lines(&metrics, "trunkline_token_refreshes"), [""; 0]);
        metrics.begin(Whose::Tokens, "shop");
        assert_eq!(
            lines(&metrics, "trunkline_token_refreshes"),
            ["trunkline_token_refreshes_failed_total{integration=\"shop\"} 0"]
        );
    }

    #[test]
    fn all_of_them_register_and_render() {
        let metrics = Metrics::new().expect("unique names");
        metrics.build_info.with_label_values(&["0"]).set(1);
        let text = String::from_utf8(metrics.render().expect("renders")).expect("UTF-8");
        assert!(text.contains("trunkline_build_info{version=\"0\"} 1"), "{text}");
    }
}
