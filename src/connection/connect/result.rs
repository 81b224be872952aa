//! How a link ended, told to those who may know: the person on a page, the page that opened the window, and
//! the application.
//!
//! The person sees all of it, in the browser it happened in. The page that opened the window knows the
//! result id alone, and learns a word and an error code: no name, no scope, no connection's content.

use std::time::Duration;

use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Value as Json, json};

use super::browser::{Browser, same};
use super::door::Visit;
use super::link::{Fields, LinkError, expires};
use super::outcome::{Connected, Outcome, Standing, State};
use super::page::{Page, prefix};
use super::permission::Way;
use super::return_to;
use super::{Connect, LinkRefused, nothing_done, unable};
use crate::definition::live::Generation;
use crate::definition::plan::Integration;
use crate::respond::{Answer, Refusal};

/// How many may wait for an outcome at once. Whoever comes beyond is answered at once, and asks again.
pub(super) const WAITERS: usize = 512;
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(25);

/// What is shown of an outcome to the operator.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = ConnectResult)]
pub struct Shown {
    /// The result id.
    pub result: String,
    /// `waiting`, `started`, `choosing`, `connected`, `failed` or `expired`.
    pub state: &'static str,
    /// When the link ends.
    pub expires_at: String,
    /// The integration, once the link was used.
    pub integration: Option<String>,
    /// The connection, once the link was used.
    pub connection: Option<String>,
    /// What was connected.
    pub connected: Option<Connected>,
    /// Why nothing was: code, title, meaning, step, and the service's words.
    #[schema(value_type = Option<Object>)]
    pub error: Option<Json>,
    /// Whether it failed, and the page offers to try again.
    #[serde(skip)]
    pub again: bool,
}

/// What the page that opened the window is told of an outcome.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ConnectProgress)]
pub struct Progress {
    /// The result id.
    pub result: String,
    /// `waiting`, `started`, `choosing`, `connected`, `failed` or `expired`.
    pub state: &'static str,
    /// The code of a failure.
    pub error: Option<String>,
    /// Whether it failed, and the same browser may try again.
    pub again: bool,
    /// Whether this was waited for, where that was asked; if not, ask again later.
    pub waited: bool,
}

impl Connect {
    /// How the link of a result id ended.
    ///
    /// # Errors
    /// When the id is none of ours, or the store fails.
    pub async fn outcome(&self, result: &str) -> Result<Option<Shown>, LinkRefused> {
        let (key, drawer) = self.tools().await?;
        let link = match key.link_of(result) {
            Ok(link) => link,
            Err(LinkError::Invalid | LinkError::Expired) => return Ok(None),
        };
        let ends = expires(link).unwrap_or_default();
        let found = Outcome::get(drawer, link).await?;
        let over = ends <= self.clock.now();
        let state = match &found {
            Some(found) if found.state.is_final() => found.state.as_str(),
            // A flow that began in time may end a little later.
            Some(found) if ends.after(super::pending::LIFE) > self.clock.now() => found.state.as_str(),
            None if !over => "waiting",
            _ => "expired",
        };
        let again = found.as_ref().is_some_and(|found| self.offers_again(found));
        let (link, state_found) = found.map(|found| (found.link, found.state)).unzip();
        let (connected, error) = match state_found {
            Some(State::Connected(connected)) => (Some(connected), None),
            Some(State::Failed(failed)) => {
                let service = link.as_ref().map(|link| self.title(&link.integration)).unwrap_or_default();
                (None, Some(described(&service, &failed)))
            }
            _ => (None, None),
        };
        Ok(Some(Shown {
            result: result.to_owned(),
            state,
            expires_at: ends.to_string(),
            integration: link.as_ref().map(|link| link.integration.clone()),
            connection: link.map(|link| link.connection),
            connected,
            error,
            again,
        }))
    }

    /// Whether a link failed and may be used again by the same browser.
    fn offers_again(&self, outcome: &Outcome) -> bool {
        let now = self.clock.now();
        let free = Outcome::standing(Some(outcome), Some(&outcome.browser), now) == Standing::Free;
        matches!(&outcome.state, State::Failed(_)) && free && outcome.link.expires_at() > now
    }

    fn title(&self, integration: &str) -> String {
        let generation = self.live.load();
        generation.integration(integration).map_or_else(|| integration.to_owned(), |known| known.title.clone())
    }

    /// Answers the page that opened the window, at once or when something has changed. One that knows of a failure
    /// (`seen=failed`) is answered once that is not all that can come of it.
    pub(super) async fn result(&self, integration: &str, visit: &Visit) -> Answer {
        let fields = Fields::of(&visit.query);
        let (Ok(Some(result)), Ok(wait)) = (fields.take("result"), fields.take("wait")) else {
            return self.shared(visit, Refusal::InvalidInput.answer("`result` is missing"));
        };
        let knows_of_failure = fields.take("seen").ok().flatten().as_deref() == Some("failed");
        let wait = wait.and_then(|wait| wait.parse().ok()).map_or(Duration::ZERO, Duration::from_secs).min(LONGEST);
        let mut changes = self.changed.subscribe();
        let place = if wait.is_zero() { None } else { self.waiting.try_acquire().ok() };
        let told = async {
            loop {
                changes.mark_unchanged();
                let shown = self.outcome(&result).await?;
                let more = |shown: &Shown| match shown.state {
                    "failed" => knows_of_failure && shown.again,
                    state => !knows_of_failure && !matches!(state, "connected" | "expired"),
                };
                if place.is_none() || !shown.as_ref().is_some_and(more) {
                    return Ok(shown);
                }
                // An error means that the program is ending: answer what is known.
                if changes.changed().await.is_err() {
                    return Ok(shown);
                }
            }
        };
        let told = match tokio::time::timeout(wait.max(Duration::from_millis(1)), told).await {
            Ok(told) => told,
            Err(_elapsed) => self.outcome(&result).await,
        };
        let answer = match told {
            Ok(Some(shown)) if shown.integration.as_deref().is_none_or(|own| own == integration) => {
                let error = shown.error.as_ref().and_then(|error| error.get("code")?.as_str());
                let (error, waited) = (error.map(str::to_owned), place.is_some());
                let Shown { result, state, again, .. } = shown;
                Answer::json(StatusCode::OK, &json!(Progress { result, state, error, again, waited }))
            }
            Ok(_) => Refusal::NotFound.answer("there is no such result"),
            Err(refused) => refused.refusal().answer("the outcome cannot be read now"),
        };
        self.shared(visit, answer)
    }

    /// Lets pages of the configured origins read an answer; never with cookies.
    fn shared(&self, visit: &Visit, answer: Answer) -> Answer {
        let generation = self.live.load();
        let origin = visit.headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
        let allowed = origin.and_then(|origin| return_to::check_origin(origin, &generation.gateway).ok());
        let mut answer = answer
            .with(header::VARY, HeaderValue::from_static("Origin"))
            .with(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))
            .with(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(value) = allowed.and_then(|origin| HeaderValue::try_from(origin).ok()) {
            answer = answer.with(header::ACCESS_CONTROL_ALLOW_ORIGIN, value);
        }
        answer
    }

    /// Shows the person how it ended.
    pub(super) async fn outcome_page(&self, integration: &str, visit: &Visit) -> Answer {
        let generation = self.live.load();
        let url = &generation.gateway.public_url;
        let (key, drawer) = match self.tools().await {
            Ok(tools) => tools,
            Err(refused) => return unable(url, &refused),
        };
        let result = Fields::of(&visit.query).take("result").ok().flatten().unwrap_or_default();
        let Ok(link) = key.link_of(&result) else { return nothing_done(url) };
        let found = match Outcome::get(drawer, link).await {
            Ok(found) => found,
            Err(error) => return unable(url, &error.into()),
        };
        let browser = Browser::of(&visit.headers, url);
        let own = |found: &Outcome| {
            found.link.integration == integration
                && browser.as_ref().is_some_and(|browser| same(&browser.digest, &found.browser))
        };
        let Some(outcome) = found.filter(own) else { return nothing_done(url) };
        let retry = self
            .offers_again(&outcome)
            .then(|| format!("{}/api/connect/{integration}?{}", prefix(url), outcome.link.query(key)));
        let view = view(&generation, &outcome, (&result, retry));
        let service = self.title(integration);
        Page::new("outcome", format!("Connect: {service}"), url).told_to(outcome.link.origin.as_deref()).show(view)
    }
}

/// What the outcome page shows.
fn view(generation: &Generation, outcome: &Outcome, (result, retry): (&str, Option<String>)) -> Json {
    let (url, link) = (&generation.gateway.public_url, &outcome.link);
    let integration = generation.integration(&link.integration);
    let service = integration.map_or(link.integration.as_str(), |known| known.title.as_str());
    let back = link.return_to.as_ref().and_then(|text| return_to::check(text, &generation.gateway).ok());
    let back = back.map(|mut back| {
        back.query_pairs_mut()
            .append_pair("trunkline_result", result)
            .append_pair("trunkline_state", outcome.state.as_str());
        back.to_string()
    });
    // Looked at again: the origin may have been taken off the list since the link was made.
    let origin = link.origin.as_deref().and_then(|origin| return_to::check_origin(origin, &generation.gateway).ok());
    let (connected, failed) = match &outcome.state {
        State::Connected(connected) => (Some(granted(integration.map(|known| &**known), connected)), None),
        State::Failed(failed) => (None, Some(described(service, failed))),
        State::Started { .. } | State::Finishing { .. } | State::Choosing { .. } => (None, None),
    };
    json!({
        "service": service, "connection": link.connection, "result": result, "state": outcome.state.as_str(),
        "origin": origin, "back": back, "retry": retry, "connected": connected, "failed": failed,
        "gateway": super::page::host(url),
    })
}

fn granted(integration: Option<&Integration>, connected: &Connected) -> Json {
    let declared = integration.map(|integration| Way::of(integration).scopes()).unwrap_or_default();
    let (new, gone) = connected.difference().unwrap_or_default();
    let scope = |name: &String| {
        let grants = declared.iter().find(|scope| scope.name == *name).map(|scope| scope.grants.as_str());
        json!({ "name": name, "grants": grants, "new": new.contains(&name.as_str()) })
    };
    json!({
        "account": connected.account,
        "missing": connected.missing(),
        "scopes": connected.scopes().iter().map(scope).collect::<Vec<_>>(),
        "gone": gone,
        "notes": connected.notes,
    })
}

/// A failure in words, with the service's name in them.
pub(super) fn described(service: &str, failed: &super::outcome::Failed) -> Json {
    let told = failed.failure.told();
    let named = |text: &str| text.replace("{}", service);
    json!({
        "code": failed.failure.code(), "title": named(told.title), "meaning": named(told.meaning),
        "step": named(told.step), "words": failed.words,
    })
}
