//! Activity: what happened, by filters; live; and one entry with all that is known of it.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::render;
use super::shell::Shell;
use crate::activity::Asker;
use crate::activity::entry::{Entry, Kind};
use crate::admin::api::activity::{Wanted, count, describe, describe_whole, one, page, stream};
use crate::admin::api::query::{Asked, Named};
use crate::admin::refusal::Refused;
use crate::admin::{Entered, Parts};
use crate::base::clock::Timestamp;
use crate::base::id::ActivityId;
use crate::definition::plan::gateway::{ContentOf, DoorName, Listen};

/// How far around an entry its neighbours are shown.
const AROUND: std::time::Duration = std::time::Duration::from_mins(1);

/// The newest entries that fit the filters.
pub async fn list(
    State(parts): State<Arc<Parts>>,
    shell: Shell,
    Asked(wanted): Asked<Wanted>,
) -> Result<Response, Refused> {
    show_list(&parts, &shell, (&wanted, "/activity")).await
}

/// The same, and what happens from now on above them.
pub async fn live(
    State(parts): State<Arc<Parts>>,
    shell: Shell,
    Asked(wanted): Asked<Wanted>,
) -> Result<Response, Refused> {
    show_list(&parts, &shell, (&wanted, "/activity/live")).await
}

async fn show_list(parts: &Parts, shell: &Shell, (wanted, path): (&Wanted, &str)) -> Result<Response, Refused> {
    let page = page(parts, wanted).await?;
    let gateway = Arc::clone(&parts.live.load().gateway);
    let fixed = &gateway.fixed;
    let view = json!({
        "newest": page.newest,
        "rows": page.rows,
        "next": page.next,
        "counts": count(parts, wanted).await?,
        "capacity": parts.activity.capacity(),
        "proxy": Proxy::of(&fixed.proxy, &fixed.tls),
        "integrations": integrations(parts),
        "kinds": Kind::ALL.map(Kind::as_str),
        "path": path,
        "live": path == "/activity/live",
    });
    shell.page("activity.html", "Activity", view).await
}

/// Rows of the list as they come.
pub async fn rows(
    State(parts): State<Arc<Parts>>,
    Extension(entered): Extension<Entered>,
    shell: Shell,
    head: HeaderMap,
    Asked(wanted): Asked<Wanted>,
) -> Result<Response, Refused> {
    let (base, clock) = (shell.address(""), Arc::clone(&parts.clock));
    stream::open(&parts, (&entered, &head), &wanted, move |entry| {
        render::part(
            "activity_row.html",
            json!({ "row": describe(entry), "shell": { "base": base, "now": clock.now().to_string() } }),
        )
    })
}

/// What is shown of an entry.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detail {
    #[serde(default)]
    tab: Tab,
}

/// A part of what is known of an entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Tab {
    #[default]
    Request,
    Response,
    Attempts,
    Timeline,
    Raw,
}

impl Tab {
    const ALL: [Self; 5] = [Self::Request, Self::Response, Self::Attempts, Self::Timeline, Self::Raw];
}

/// One entry.
pub async fn show(
    State(parts): State<Arc<Parts>>,
    shell: Shell,
    Named(id): Named<ActivityId>,
    Asked(Detail { tab }): Asked<Detail>,
) -> Result<Response, Refused> {
    let entry = one(&parts, id)?;
    let mut shown = json!(describe_whole(&entry));
    let raw = format!("{shown:#}");
    for way in ["request", "response"] {
        if let Some(content) = shown.pointer_mut(&format!("/{way}/content")) {
            open(content);
        }
    }
    let gateway = Arc::clone(&parts.live.load().gateway);
    let fixed = &gateway.fixed;
    let view = json!({
        "tab": tab,
        "tabs": Tab::ALL,
        "raw": raw,
        "kept_of": kept_of(&entry, gateway.activity.content.of),
        "entry": shown,
        "curl": curl(&entry, &Proxy::of(&fixed.proxy, &fixed.tls)),
        "timeline": timeline(&entry),
        "around": { "since": entry.at.before(AROUND).to_string(), "until": entry.at.after(AROUND).to_string() },
    });
    shell.page("activity_entry.html", "Activity", view).await
}

/// A body that is JSON, as JSON.
fn open(content: &mut Value) {
    let text = content.get("body").and_then(Value::as_str).unwrap_or_default();
    let value = serde_json::from_str::<Value>(text).ok().filter(|value| value.is_object() || value.is_array());
    if let (Some(value), Some(fields)) = (value, content.as_object_mut()) {
        fields.insert("json".to_owned(), value);
    }
}

/// Of which calls headers and bodies are kept, where there are none of this one.
fn kept_of(entry: &Entry, of: ContentOf) -> &'static str {
    match (&entry.asker, of) {
        (Asker::Event(_), _) => "its event has them",
        (Asker::Caller(_) | Asker::Delivery(_) | Asker::Test, ContentOf::None) => {
            "none are kept: `activity.content.of` is `none`"
        }
        (Asker::Caller(_) | Asker::Delivery(_) | Asker::Test, ContentOf::Errors) => {
            "they are kept of calls that failed (`activity.content.of`), for a while"
        }
        (Asker::Caller(_) | Asker::Delivery(_) | Asker::Test, ContentOf::All) => "they are kept for a while",
        _ => "none are kept of this kind: what such a call carries is secret",
    }
}

/// What happened when, as far as it is known.
fn timeline(entry: &Entry) -> Vec<Value> {
    let at = |millis: u64| entry.at.after(std::time::Duration::from_millis(millis));
    let line = |at: Timestamp, what: String| json!({ "at": at.to_string(), "what": what });
    let mut lines = vec![line(entry.at, "It began".to_owned())];
    if entry.waited_ms > 0 {
        lines.push(line(entry.at, format!("It waited for {} ms, for its turns and between tries", entry.waited_ms)));
    }
    let tries = if entry.attempts == 1 { "once".to_owned() } else { format!("{} times", entry.attempts) };
    match (entry.attempts, &entry.asker) {
        (0, Asker::Event(_) | Asker::Connect) => {}
        (0, _) => lines.push(line(entry.at, "Nothing was sent: it was answered here".to_owned())),
        _ => lines.push(line(entry.at, format!("It was sent {tries}"))),
    }
    let ended = entry.error_message().unwrap_or_else(|| "It ended well".to_owned());
    lines.push(line(at(entry.duration_ms), ended));
    lines
}

/// How a command on this machine reaches the proxy door.
#[derive(Debug, Serialize)]
struct Proxy {
    /// The argument that names its Unix socket, with a blank after it.
    socket: String,
    /// Scheme, host and port.
    origin: String,
}

impl Proxy {
    fn of(listen: &Listen, tls: &[DoorName]) -> Self {
        let scheme = if tls.contains(&DoorName::Proxy) { "https" } else { "http" };
        match listen {
            // What listens everywhere is asked here.
            Listen::Tcp(address) if address.ip().is_unspecified() => {
                Self { socket: String::new(), origin: format!("{scheme}://localhost:{}", address.port()) }
            }
            Listen::Tcp(address) => Self { socket: String::new(), origin: format!("{scheme}://{address}") },
            Listen::Unix(path, _) => Self {
                socket: format!("--unix-socket {} ", quoted(&path.display().to_string())),
                origin: format!("{scheme}://localhost"),
            },
        }
    }
}

/// The command that makes a call once more, for who has a caller's key. There is none for what no application asked
/// for. The query is not kept, and of headers and body not all.
fn curl(entry: &Entry, proxy: &Proxy) -> Option<String> {
    entry.caller()?;
    let Proxy { socket, origin } = proxy;
    let path = match &entry.endpoint {
        Some(endpoint) => format!("/-/{endpoint}"),
        None => entry.path.clone(),
    };
    // A method may have characters that a shell reads as something else.
    let method = quoted(if entry.endpoint.is_some() { "POST" } else { entry.method.as_str() });
    let address = quoted(&format!("{origin}/{}{path}", entry.integration));
    let connection = quoted(&format!("Trunkline-Connection: {}", entry.connection));
    Some(format!("curl {socket}-X {method} {address} -H {connection} -H \"Authorization: Bearer $CALLER_KEY\""))
}

/// A text that a shell takes as one word.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// The ids that a filter offers, in order.
pub fn integrations(parts: &Parts) -> Vec<Arc<str>> {
    let mut ids: Vec<_> = parts.live.load().integrations.keys().cloned().collect();
    ids.sort();
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_reach_the_proxy_door_where_it_is() {
        let at = |proxy: Listen, tls: &[DoorName]| {
            let Proxy { socket, origin } = Proxy::of(&proxy, tls);
            format!("curl {socket}{origin}")
        };
        let tcp = |address: &str| Listen::Tcp(address.parse().expect("an address"));
        assert_eq!(at(tcp("127.0.0.1:15081"), &[]), "curl http://127.0.0.1:15081");
        assert_eq!(at(tcp("0.0.0.0:443"), &[DoorName::Proxy]), "curl https://localhost:443");
        assert_eq!(at(tcp("[::]:80"), &[DoorName::Admin]), "curl http://localhost:80");
        let socket = Listen::Unix("/run/trunk line".into(), 0o600);
        assert_eq!(at(socket, &[]), "curl --unix-socket '/run/trunk line' http://localhost");
    }

    #[test]
    fn a_shell_takes_a_quoted_text_as_one_word() {
        assert_eq!(quoted("a'b $(c)"), "'a'\\''b $(c)'");
    }
}
