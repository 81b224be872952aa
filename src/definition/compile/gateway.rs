//! The gateway file, compiled.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use url::Url;

use super::place::{Fault, Place};
use super::{admin, doors, egress, read, rule, secrets, trace};
use crate::base::path::normal;
use crate::base::secret::Secret;
use crate::base::units::Reserve;
use crate::definition::document::Document;
use crate::definition::not_yet;
use crate::definition::plan::Integration;
use crate::definition::plan::gateway::{
    Activity, Caller, Connect, Content, ContentOf, Destination, DoorName, Fixed, Gateway, Grant, KeySource, Limits,
    Mode, Network, State, Upkeep, Usage,
};
use crate::definition::plan::notifications::Notifications;
use crate::definition::plan::rule::Glob;
use crate::definition::problem::Code;
use crate::definition::raw::bounds::Limits as RawLimits;
use crate::definition::raw::gateway as raw;
use crate::definition::raw::notifications::Notifications as RawNotifications;
use crate::definition::raw::scalar::{Cidr, Method};
use crate::definition::raw::usage::Usage as RawUsage;
use crate::definition::templates::Templates;

const WORKERS: u32 = 10;
/// The least pause between tests of a connection that counts.
const LEAST_TEST_PAUSE: Duration = Duration::from_mins(1);
/// The audit log gets a line about calls no more often than this.
const LEAST_AUDIT_PAUSE: Duration = Duration::from_secs(1);
/// The files of the activity have room for this at least.
const LEAST_ACTIVITY: u64 = 1 << 20;
/// The least and the most bytes of a body that are kept of it.
const LEAST_CONTENT: usize = 64;
const MOST_CONTENT: usize = 64 << 10;
/// Usage is kept for this at least, and in this much memory.
const LEAST_USAGE: Duration = Duration::from_hours(1);
const LEAST_USAGE_BYTES: u64 = 64 << 10;
/// A viewer of the live activity may take nothing for this at least.
const LEAST_VIEWER_TIMEOUT: Duration = Duration::from_secs(1);
const CONCURRENCY: u32 = 10;
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(15);
const STORE_CACHE: u64 = 32 << 20;
/// Where state is kept when the file does not say.
pub const DEFAULT_STATE: &str = "./data";
const RETENTION: Duration = Duration::from_hours(7 * 24);

/// Compiles a gateway file. Paths in it are relative to the directory it is in.
///
/// # Errors
/// What is wrong, at its place.
pub fn gateway(document: &Document, templates: &Templates) -> Result<Gateway, Fault> {
    let place = Place::root(document, templates);
    let raw: raw::Gateway = read(document)?;
    let callers = raw.callers.iter();
    let networks = raw.private_networks.iter().enumerate();
    let destinations = place.at("destinations");
    Ok(Gateway {
        fixed: fixed(&raw, &place)?,
        doors: doors::doors(raw.listen.as_ref(), &place.at("listen"))?,
        public_url: address(&raw.public_url, &place.at("public_url"))?,
        admin: admin::admin(raw.admin.as_ref(), &place.at("admin"))?,
        connect: connect(raw.connect.as_ref(), &place.at("connect"))?,
        destinations: raw
            .destinations
            .iter()
            .map(|(id, raw)| destination(id, raw, &destinations.at(id)))
            .collect::<Result<_, _>>()?,
        callers: callers.map(caller).collect(),
        private_networks: networks
            .map(|(index, text)| network(text, &place.at("private_networks").item(index)))
            .collect::<Result<_, _>>()?,
        workers: count(raw.workers.unwrap_or(WORKERS)),
        durable_calls: raw.durable_calls.and_then(|calls| calls.retry).map(rule::retry).unwrap_or_default(),
        upkeep: upkeep(raw.upkeep.as_ref()),
        activity: activity(raw.activity.as_ref()),
        usage: usage(raw.usage.as_ref()),
        limits: limits(raw.limits.as_ref()),
        own: Arc::new(Integration::own(rule::compile_all(&raw.rules, &place.at("rules"))?)),
        notifications: notifications(raw.notifications.as_ref()),
    })
}

fn fixed(raw: &raw::Gateway, place: &Place<'_>) -> Result<Fixed, Fault> {
    let directory = place.document().file.parent().unwrap_or(Path::new("")).to_owned();
    let listen = |name| doors::listen(raw.listen.as_ref(), name, &directory, &place.at("listen"));
    Ok(Fixed {
        mode: match raw.mode {
            None | Some(raw::Mode::Production) => Mode::Production,
            Some(raw::Mode::Development) => Mode::Development,
        },
        public: listen(DoorName::Public)?,
        proxy: listen(DoorName::Proxy)?,
        admin: listen(DoorName::Admin)?,
        tls: doors::secure(raw.listen.as_ref()),
        integrations: raw.integrations.0.iter().map(|path| below(&directory, path)).collect(),
        state: state(raw.state.as_ref(), &directory),
        key: match &raw.secrets {
            None => KeySource::Missing,
            Some(secrets) => secrets::key_source(secrets, &directory, &place.at("secrets").at("key"))?,
        },
        previous: secrets::previous(raw.secrets.as_ref()),
        egress: egress::egress(raw.egress.as_ref(), &place.at("egress"))?,
        vault: secrets::vault(raw.secrets.as_ref(), &place.at("secrets").at("vault"))?,
        trace: trace::trace(raw.trace.as_ref(), &place.at("trace"))?,
        not_run: not_yet::gateway_refusals(&place.document().value),
    })
}

/// The store's directory, as a gateway file in `directory` means it.
pub fn state_directory(directory: &Path, path: &str) -> PathBuf {
    below(directory, path)
}

/// A path as the file means it, without `.` parts.
pub(super) fn below(directory: &Path, path: &str) -> PathBuf {
    directory.join(path).components().filter(|part| *part != std::path::Component::CurDir).collect()
}

fn state(raw: Option<&raw::State>, directory: &Path) -> State {
    let embedded = match raw {
        Some(raw::State::Postgres(_)) => return State::Postgres,
        Some(raw::State::Sled(embedded)) => Some(embedded),
        None => None,
    };
    State::Sled {
        path: state_directory(directory, embedded.map_or(DEFAULT_STATE, |embedded| &embedded.path)),
        cache: embedded.and_then(|embedded| embedded.cache).map_or(STORE_CACHE, |size| size.0),
        min_free: embedded.and_then(|embedded| embedded.min_free).map_or(Reserve::Usual, |size| Reserve::Bytes(size.0)),
        retention: embedded.and_then(|embedded| embedded.retention).map_or(RETENTION, |time| time.0),
    }
}

pub(super) fn address(text: &str, place: &Place<'_>) -> Result<Url, Fault> {
    let url = Url::parse(text).map_err(|error| place.problem(Code::BadFormat, format!("not a URL: {error}")))?;
    let plain = matches!(url.scheme(), "http" | "https") && url.host().is_some();
    let bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    if plain && bare {
        Ok(url)
    } else {
        Err(place.problem(Code::BadFormat, "expected an http or https address without name, password or fragment"))
    }
}

fn destination(id: &str, raw: &raw::Destination, place: &Place<'_>) -> Result<Destination, Fault> {
    Ok(Destination {
        id: id.into(),
        url: address(&raw.url, &place.at("url"))?,
        signing_secrets: raw.signing_secret.0.iter().map(|secret| Secret::new(secret.0.expose().clone())).collect(),
        headers: place.at("headers").headers(&raw.headers)?,
        concurrency: count(raw.concurrency.unwrap_or(CONCURRENCY)),
        timeout: raw.timeout.map_or(DELIVERY_TIMEOUT, |time| time.0),
        retry: raw.retry.map(rule::retry),
    })
}

fn caller(raw: &raw::Caller) -> Caller {
    let grant = |raw: &raw::Grant| Grant {
        integration: Glob::new(&raw.integration),
        connection: Glob::new(&raw.connection),
        methods: raw.methods.iter().copied().map(Method::to_http).collect(),
        paths: raw.paths.iter().map(|path| Glob::new(&normal(path))).collect(),
        tokens: raw.tokens.iter().map(|token| Glob::new(token)).collect(),
    };
    Caller {
        id: raw.id.0.as_str().into(),
        key_hash: Sha256::digest(raw.key.0.expose()).into(),
        allow: raw.allow.iter().map(grant).collect(),
    }
}

fn connect(raw: Option<&raw::Connect>, place: &Place<'_>) -> Result<Connect, Fault> {
    let usual = Connect::default();
    let Some(raw) = raw else { return Ok(usual) };
    let at = place.at("origins");
    let origins = raw.origins.iter().enumerate();
    let origins = origins.map(|(index, text)| {
        read_origin(text).ok_or_else(|| at.item(index).problem(Code::BadFormat, format!("`{text}` is not an origin")))
    });
    Ok(Connect {
        origins: origins.collect::<Result<_, _>>()?,
        link_ttl: raw.link_ttl.map_or(usual.link_ttl, |time| time.0),
        rate_per_source: raw.rate_per_source.map_or(usual.rate_per_source, |rate| rate.0),
    })
}

/// Reads an origin: scheme, host and port alone. Returns it as browsers write it.
pub fn read_origin(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let origin = url.origin().ascii_serialization();
    let known = matches!(url.scheme(), "http" | "https") && url.host().is_some();
    // What else an address can hold would be dropped without a word, and `*` would look like a pattern.
    (known && !origin.contains('*') && text.trim_end_matches('/').eq_ignore_ascii_case(&origin)).then_some(origin)
}

pub(super) fn network(text: &Cidr, place: &Place<'_>) -> Result<Network, Fault> {
    read_network(&text.0).ok_or_else(|| {
        place.problem(Code::BadFormat, format!("`{}` is not an address range, such as 10.0.0.0/8", text.0))
    })
}

/// Reads an address range in CIDR notation; the bits behind the prefix must be zero, as in the ranges
/// people mean.
pub fn read_network(text: &str) -> Option<Network> {
    let (address, prefix) = text.split_once('/')?;
    let (address, prefix): (IpAddr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
    let (bits, width) = match address {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, 32),
        IpAddr::V6(v6) => (u128::from(v6), 128),
    };
    let rest = bits.checked_shl(u32::from(prefix)).unwrap_or(0);
    (prefix <= width && rest == 0).then_some(Network { address, prefix })
}

fn upkeep(raw: Option<&raw::Upkeep>) -> Upkeep {
    let usual = Upkeep::default();
    let Some(raw) = raw else { return usual };
    let test_every = match raw.test_every {
        None => usual.test_every,
        Some(time) if time.0.is_zero() => None,
        Some(time) => Some(time.0.max(LEAST_TEST_PAUSE)),
    };
    Upkeep { refreshes_at_once: raw.refreshes_at_once.map_or(usual.refreshes_at_once, count), test_every }
}

fn notifications(raw: Option<&RawNotifications>) -> Notifications {
    let usual = Notifications::default();
    let Some(raw) = raw else { return usual };
    Notifications {
        group: raw.group.map_or(usual.group, |time| time.0),
        rate: raw.rate.map_or(usual.rate, |rate| rate.0),
        silent_after: raw.silent_after.map(|time| time.0).filter(|time| !time.is_zero()),
    }
}

/// A token's answer has some kilobytes; with less room no sign-in could work.
const SIGN_IN_LEAST: usize = 4 << 10;

/// A share from 0 to 1 as so many of a million.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1,000,000")]
pub(super) fn millionths(share: f64) -> u32 {
    (share.clamp(0.0, 1.0) * 1e6).round() as u32
}

fn activity(raw: Option<&raw::Activity>) -> Activity {
    let usual = Activity::default();
    let Some(raw) = raw else { return usual };
    Activity {
        keep: raw.keep.map_or(usual.keep, count),
        retain: raw.retain.map_or(usual.retain, |time| time.0),
        bytes: raw.bytes.map_or(usual.bytes, |size| size.0.max(LEAST_ACTIVITY)),
        sample_millionths: raw.sample.map_or(usual.sample_millionths, millionths),
        content: content(raw.content.as_ref()),
        audit_every: raw.audit_every.map_or(usual.audit_every, |time| time.0.max(LEAST_AUDIT_PAUSE)),
        viewers: raw.viewers.map_or(usual.viewers, count),
        viewer_timeout: raw.viewer_timeout.map_or(usual.viewer_timeout, |time| time.0.max(LEAST_VIEWER_TIMEOUT)),
    }
}

fn content(raw: Option<&raw::ActivityContent>) -> Content {
    let usual = Content::default();
    let Some(raw) = raw else { return usual };
    let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
    Content {
        of: raw.of.map_or(usual.of, |of| match of {
            raw::ContentOf::None => ContentOf::None,
            raw::ContentOf::Errors => ContentOf::Errors,
            raw::ContentOf::All => ContentOf::All,
        }),
        bytes: raw.bytes.map_or(usual.bytes, |size| bytes(size.0).clamp(LEAST_CONTENT, MOST_CONTENT)),
        memory: raw.memory.map_or(usual.memory, |size| bytes(size.0)),
        rate: raw.rate.unwrap_or(usual.rate),
    }
}

fn usage(raw: Option<&RawUsage>) -> Usage {
    let usual = Usage::default();
    let Some(raw) = raw else { return usual };
    Usage {
        retain: raw.retain.map_or(usual.retain, |time| time.0.max(LEAST_USAGE)),
        bytes: raw.bytes.map_or(usual.bytes, |size| size.0.max(LEAST_USAGE_BYTES)),
    }
}

fn limits(raw: Option<&RawLimits>) -> Limits {
    let usual = Limits::default();
    let Some(raw) = raw else { return usual };
    let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
    Limits {
        header_bytes: raw.header_bytes.map_or(usual.header_bytes, |size| bytes(size.0)),
        header_fields: raw.header_fields.map_or(usual.header_fields, count),
        uri_bytes: raw.uri_bytes.map_or(usual.uri_bytes, |size| bytes(size.0)),
        header_timeout: raw.header_timeout.map_or(usual.header_timeout, |time| time.0),
        min_body_rate: raw.min_body_rate.map_or(usual.min_body_rate, |size| size.0),
        idle_timeout: raw.idle_timeout.map_or(usual.idle_timeout, |time| time.0),
        connections: raw.connections.map_or(usual.connections, count),
        connections_per_source: raw.connections_per_source.map_or(usual.connections_per_source, count),
        proxy_connections_per_source: raw.proxy_connections_per_source.and_then(NonZeroU32::new),
        durable_calls: raw.durable_calls.unwrap_or(usual.durable_calls),
        admin_connections: raw.admin_connections.map_or(usual.admin_connections, count),
        admin_connections_per_source: raw
            .admin_connections_per_source
            .map_or(usual.admin_connections_per_source, count),
        admin_body_bytes: raw.admin_body_bytes.map_or(usual.admin_body_bytes, |size| bytes(size.0)),
        import_bytes: raw.import_bytes.map_or(usual.import_bytes, |size| bytes(size.0)),
        admin_answers: raw.admin_answers.map_or(usual.admin_answers, count),
        admin_answer_bytes: raw.admin_answer_bytes.map_or(usual.admin_answer_bytes, |size| bytes(size.0)),
        replay_deliveries: raw.replay_deliveries.map_or(usual.replay_deliveries, count),
        config_history_bytes: raw.config_history_bytes.map_or(usual.config_history_bytes, |size| bytes(size.0)),
        listed_faults: raw.listed_faults.map_or(usual.listed_faults, count),
        webhook_endpoints: raw.webhook_endpoints.map_or(usual.webhook_endpoints, count),
        files_time: raw.files_time.map_or(usual.files_time, |time| time.0),
        http2_streams: raw.http2_streams.unwrap_or(usual.http2_streams),
        http2_control_frames: raw.http2_control_frames.unwrap_or(usual.http2_control_frames),
        answer_bytes: raw.answer_bytes.map_or(usual.answer_bytes, |size| bytes(size.0)),
        sign_in_answer_bytes: raw
            .sign_in_answer_bytes
            .map_or(usual.sign_in_answer_bytes, |size| bytes(size.0).max(SIGN_IN_LEAST)),
        pages: raw.pages.map_or(usual.pages, |count| count as usize),
        pages_bytes: raw.pages_bytes.map_or(usual.pages_bytes, |size| usize::try_from(size.0).unwrap_or(usize::MAX)),
        pages_time: raw.pages_time.map_or(usual.pages_time, |time| time.0),
        cache_bytes: raw.cache_bytes.map_or(usual.cache_bytes, |size| usize::try_from(size.0).unwrap_or(usize::MAX)),
        whole_bytes: raw.whole_bytes.map_or(usual.whole_bytes, |size| bytes(size.0)),
        whole_answer_bytes: raw.whole_answer_bytes.map_or(usual.whole_answer_bytes, |size| bytes(size.0)),
        redirects: raw.redirects.map_or(usual.redirects, |hops| u8::try_from(hops).unwrap_or(u8::MAX)),
        waiting_calls: raw.waiting_calls.map_or(usual.waiting_calls, count),
    }
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::plan::gateway::Listen;
    use serde_json::{Value, json};

    fn compiled(more: &Value) -> Result<Gateway, Fault> {
        let mut value =
            json!({ "trunkline": 1, "public_url": "https://hooks.example.com", "integrations": ["./integrations"] });
        value.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        gateway(&Document::unplaced("/etc/trunkline/trunkline.yaml".into(), value), &Templates::new())
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let gateway = compiled(&json!({
            "secrets": { "key": "${file:./data/master.key}" }, "listen": { "proxy": "unix:run/proxy.sock" },
        }));
        let fixed = gateway.expect("compiles").fixed;
        assert_eq!(fixed.integrations, [PathBuf::from("/etc/trunkline/integrations")]);
        assert_eq!(fixed.key, KeySource::File("/etc/trunkline/data/master.key".into()));
        assert_eq!(fixed.proxy, Listen::unix("/etc/trunkline/run/proxy.sock"));
        assert!(matches!(fixed.state, State::Sled { path, .. } if path == Path::new("/etc/trunkline/data")));
    }

    #[test]
    fn the_master_key_is_a_reference() {
        let key = |text: &str| compiled(&json!({ "secrets": { "key": text } })).map(|gateway| gateway.fixed.key);
        assert_eq!(key("${env:KEY}"), Ok(KeySource::Environment("KEY".to_owned())));
        for bad in ["hunter2", "${env:A}${env:B}", "x${env:A}", "${env:A:-weak}"] {
            let problem = key(bad).expect_err(bad);
            assert!(problem.code == Code::LiteralSecret && !problem.message.contains("hunter2"));
        }
    }

    #[test]
    fn connections_are_tested_twice_a_day_unless_the_file_says_otherwise() {
        let every = |more: Value| compiled(&more).expect("compiles").upkeep.test_every.map(|every| every.as_secs());
        let set = |text: &str| every(json!({ "upkeep": { "test_every": text } }));
        assert_eq!((every(json!({})), set("1h"), set("1s"), set("0s")), (Some(43_200), Some(3_600), Some(60), None));
        let activity = json!({
            "keep": 5, "sample": 0.25, "retain": "1h", "audit_every": "0s", "bytes": "1KiB", "viewers": 2, "viewer_timeout": "0s",
        });
        let activity = compiled(&json!({ "activity": activity })).expect("compiles").activity;
        assert_eq!((activity.keep, activity.sample_millionths), (5, 250_000));
        assert_eq!((activity.retain, activity.audit_every), (Duration::from_hours(1), LEAST_AUDIT_PAUSE));
        assert_eq!((activity.bytes, activity.viewers, activity.viewer_timeout), (1 << 20, 2, Duration::from_secs(1)));
        let usage = compiled(&json!({ "usage": { "retain": "1s", "bytes": "1KiB" } })).expect("compiles").usage;
        assert_eq!((usage.retain, usage.bytes), (LEAST_USAGE, LEAST_USAGE_BYTES));
        let upkeep = compiled(&json!({ "upkeep": { "refreshes_at_once": 3 } })).expect("compiles").upkeep;
        assert_eq!((upkeep.refreshes_at_once, upkeep.test_every.is_some()), (3, true));
    }

    #[test]
    fn callers_keys_are_kept_as_digests() {
        let gateway = compiled(
            &json!({ "callers": [{ "id": "a", "key": "k", "allow": [{ "integration": "*", "connection": "*" }] }] }),
        );
        let caller = &gateway.expect("compiles").callers[0];
        assert_eq!(caller.key_hash, <[u8; 32]>::from(Sha256::digest("k")));
        assert!(caller.allow[0].integration.matches("github"));
    }

    #[test]
    fn ranges_are_read_strictly() {
        for (text, fits) in [
            ("10.0.0.0/8", true),
            ("10.1.2.3/32", true),
            ("0.0.0.0/0", true),
            ("fd00::/8", true),
            ("::1/128", true),
            ("10.1.2.3/8", false),
            ("10.0.0.0/33", false),
            ("fd00::1/8", false),
            ("ten/8", false),
        ] {
            assert_eq!(read_network(text).is_some(), fits, "{text}");
        }
    }

    #[test]
    fn origins_are_read_as_browsers_write_them() {
        for (text, origin) in [
            ("https://app.example.com", Some("https://app.example.com")),
            ("https://App.Example.com/", Some("https://app.example.com")),
            ("http://localhost:3000", Some("http://localhost:3000")),
            ("https://app.example.com/path", None),
            ("https://u@app.example.com", None),
            ("https://app.example.com?x", None),
            ("*", None),
            ("null", None),
            ("file:///etc", None),
            ("https://*.example.com", None),
        ] {
            assert_eq!(read_origin(text).as_deref(), origin, "{text}");
        }
    }

    #[test]
    fn addresses_of_destinations_are_plain() {
        let destination = |url: &str| compiled(&json!({ "destinations": { "app": { "url": url } } }));
        assert!(destination("http://127.0.0.1:3000/events").is_ok());
        for bad in ["ftp://a/b", "https://u:p@a/b", "/events", "https://a/b#c"] {
            assert!(destination(bad).is_err(), "{bad}");
        }
    }
}
