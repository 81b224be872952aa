//! What stands around every screen: navigation with counts, who is signed in and what they may not do, what of the
//! configuration does not count, the version.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::to_bytes;
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::request::Parts as Head;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{assets, render};
use crate::admin::Parts;
use crate::admin::api::connections::{Wanted, rows};
use crate::admin::api::webhooks;
use crate::admin::refusal::Refused;
use crate::admin::sign_in::{Identity, Proof};
use crate::connection::Status;
use crate::definition::live::{FileState, Generation};
use crate::definition::plan::gateway::{Gateway, Mode, Role};
use crate::definition::render::line;
use crate::respond::{ERROR_HEADER, Refusal};

/// How many faults of files stand above every screen.
const FAULTS: usize = 3;
/// The most bytes of a refusal that is made a page of.
const PROBLEM: usize = 64 << 10;
/// What htmx says of its requests: that they are its own, and which element the answer takes the place of.
pub const REQUEST: HeaderName = HeaderName::from_static("hx-request");
const TARGET: HeaderName = HeaderName::from_static("hx-target");
/// What htmx is told: whether the address that was asked for is the page's from now on.
const PUSH_URL: HeaderName = HeaderName::from_static("hx-push-url");

/// What a screen is shown in, and for whom.
pub struct Shell {
    parts: Arc<Parts>,
    generation: Arc<Generation>,
    who: Identity,
    /// The screen's path, without the base path.
    path: String,
    /// The query's parameters: the screen's filters.
    filters: BTreeMap<String, String>,
    told: Option<Told>,
}

/// What was just done, by a word that the template knows.
#[derive(Debug, Clone)]
pub struct Told(pub String);

/// What every page needs, also one for a stranger.
#[derive(Debug, Serialize)]
pub struct Ground {
    /// What stands before every address.
    pub base: String,
    css: String,
    js: String,
    version: &'static str,
}

impl Ground {
    /// What the settings say.
    pub fn of(gateway: &Gateway) -> Self {
        Self {
            base: gateway.admin.base_path().to_owned(),
            css: assets::version("page.css"),
            js: assets::version("page.js"),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

impl FromRequestParts<Arc<Parts>> for Shell {
    type Rejection = Refused;

    async fn from_request_parts(head: &mut Head, parts: &Arc<Parts>) -> Result<Self, Refused> {
        let who = head.extensions.get::<Identity>().cloned();
        let who = who.ok_or_else(|| Refused::new(Refusal::AdminUnknown, "nobody is signed in"))?;
        let query = url::form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes());
        Ok(Self {
            parts: Arc::clone(parts),
            generation: parts.live.load(),
            who,
            path: head.uri.path().to_owned(),
            filters: query.into_owned().collect(),
            told: head.extensions.get::<Told>().cloned(),
        })
    }
}

impl Shell {
    /// The address of another page of ours.
    pub fn address(&self, path: &str) -> String {
        format!("{}{path}", self.generation.gateway.admin.base_path())
    }

    /// Sends the browser on to another page, and tells there what was done.
    pub fn done(&self, path: &str, told: &str) -> Response {
        let mark = if path.contains('?') { '&' } else { '?' };
        render::see_other(&self.address(&format!("{path}{mark}told={told}")))
    }

    /// A screen with what it shows.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn page(&self, template: &str, title: &str, view: Value) -> Result<Response, Refused> {
        let mut all = match view {
            Value::Object(map) => map,
            other => Map::from_iter([("view".to_owned(), other)]),
        };
        all.insert("title".to_owned(), Value::from(title));
        all.insert("shell".to_owned(), self.describe().await?);
        Ok(render::page(StatusCode::OK, template, all))
    }

    async fn describe(&self) -> Result<Value, Refused> {
        let ground = Ground::of(&self.generation.gateway);
        let mut shown = serde_json::to_value(&ground).unwrap_or_default();
        let form = match &self.who.proof {
            Proof::Session { form } => form.as_str(),
            Proof::Near | Proof::Token => "",
        };
        let (faults, fault_lines) = self.faults();
        let more = json!({
            "form": form,
            "who": { "name": self.who.name, "role": self.who.role },
            "cannot": { "keep": self.why_not(Kind::Keep), "run": self.why_not(Kind::Run) },
            "nav": self.navigation(faults).await?,
            "generation": self.generation.number,
            "fingerprint": self.generation.fingerprint.to_string().get(..12),
            "since": self.generation.since.to_string(),
            "faults": faults,
            "fault_lines": fault_lines,
            "unserved": self.generation.rejected().filter(|file| file.state == FileState::Rejected).count(),
            "development": self.generation.gateway.fixed.mode == Mode::Development,
            "now": self.parts.clock.now().to_string(),
            "told": self.told.as_ref().map(|told| told.0.as_str()),
            "filters": self.filters,
            "path": self.path,
        });
        if let (Some(shown), Value::Object(more)) = (shown.as_object_mut(), more) {
            shown.extend(more);
        }
        Ok(shown)
    }

    /// How many faults keep files from counting, and the first ones: of each file one before others of the same.
    fn faults(&self) -> (usize, Vec<String>) {
        let count = self.generation.rejected().map(|file| file.errors().count() + file.left_out.errors).sum();
        let firsts = self.generation.rejected().filter_map(|file| file.errors().next());
        let others = self.generation.rejected().flat_map(|file| file.errors().skip(1));
        (count, firsts.chain(others).take(FAULTS).map(line).collect())
    }

    async fn navigation(&self, faults: usize) -> Result<Value, Refused> {
        let troubled = rows(&self.parts, &Wanted::default()).await?;
        let troubled = troubled.iter().filter(|row| matches!(row.facts.status, Status::Error | Status::NeedsReconnect));
        let alarm = |count: usize| (count, count > 0);
        let dead = usize::try_from(self.parts.store.depth().dead).unwrap_or(usize::MAX);
        let places = [
            ("/", "Overview", (0, false)),
            ("/integrations", "Integrations", (self.generation.integrations.len(), false)),
            ("/connections", "Connections", alarm(troubled.count())),
            ("/webhooks", "Webhooks", alarm(webhooks::troubled(&self.parts).len())),
            ("/events", "Events", (0, false)),
            ("/dead-letters", "Dead letters", alarm(dead)),
            ("/activity", "Activity", (0, false)),
            ("/usage", "Usage", (0, false)),
            ("/audit", "Audit log", (0, false)),
            ("/configuration", "Configuration", alarm(faults)),
        ];
        let place = |(path, title, (count, alarm)): &(&str, &str, (usize, bool))| {
            let below = self.path.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            let current = if *path == "/" { self.path == "/" } else { below };
            json!({ "path": path, "title": title, "count": count, "alarm": alarm, "current": current })
        };
        Ok(places.iter().map(place).collect())
    }

    /// Why who is signed in may not do something of a kind; the server refuses it as well.
    fn why_not(&self, kind: Kind) -> Option<&'static str> {
        match (self.who.role, kind) {
            (Role::Viewer, _) => Some("You are signed in as a viewer, who may see everything and change nothing."),
            (_, Kind::Keep) if self.generation.gateway.admin.read_only => {
                Some("This deployment is read-only: it is changed by its files.")
            }
            _ => None,
        }
    }
}

/// What kind of thing an action does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It changes what is kept.
    Keep,
    /// It runs something again.
    Run,
}

/// Makes a page of a refusal for whoever asked for a page, and a part of one for a script of ours that asked for a part.
pub async fn for_people(State(parts): State<Arc<Parts>>, request: Request, next: Next) -> Result<Response, Infallible> {
    let wants_page = accepts_html(request.headers());
    let place = place(request.headers());
    let response = next.run(request).await;
    if !wants_page || !response.headers().contains_key(ERROR_HEADER) || is_html(response.headers()) {
        return Ok(response);
    }
    let (head, body) = response.into_parts();
    let body = to_bytes(body, PROBLEM).await.unwrap_or_default();
    let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
    let ground = Ground::of(&parts.live.load().gateway);
    let title = problem["title"].as_str().unwrap_or("Refused").to_owned();
    let template = if place.is_some() { "refused_part.html" } else { "refused.html" };
    let view = json!({ "shell": ground, "title": title, "problem": problem, "place": place });
    let mut page = render::page(shown_as(head.status, place.as_deref()), template, view);
    if place.is_some() {
        // The address stays that of what was shown before: nobody wants to come back to a refusal.
        page.headers_mut().insert(PUSH_URL, HeaderValue::from_static("false"));
    }
    for name in [ERROR_HEADER, header::RETRY_AFTER, header::ALLOW] {
        if let Some(value) = head.headers.get(&name) {
            page.headers_mut().insert(name, value.clone());
        }
    }
    Ok(page)
}

/// The element that a script of ours asks to put the answer in place of, by its id.
fn place(headers: &HeaderMap) -> Option<String> {
    headers.get(REQUEST)?;
    let (_, id) = headers.get(TARGET)?.to_str().ok()?.split_once('#')?;
    Some(id.to_owned())
}

/// A filter that is half typed is refused where its results would stand. Browsers report every answer of 400 as an error
/// of the page, which this is not.
fn shown_as(status: StatusCode, place: Option<&str>) -> StatusCode {
    if place.is_some() && status == StatusCode::BAD_REQUEST { StatusCode::OK } else { status }
}

fn accepts_html(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
    accepted.any(|line| line.contains("text/html"))
}

fn is_html(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"))
}
