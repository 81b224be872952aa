//! The callback: what the browser brings back from the service.
//!
//! The state is taken before anything else is looked at, so that it is used up whatever is wrong with the rest (but for
//! a definition that is out of force because of its errors); then each thing that was promised is compared. Only after
//! that does anything leave the gateway.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value as Json};

use super::browser::{Browser, same};
use super::claim::Claim;
use super::door::Visit;
use super::drawer::{Drawer, KeepError};
use super::failure::Failure;
use super::finish::Grown;
use super::outcome::{Failed, Outcome, State};
use super::pending::{self, Flow, Issuer, Taken};
use super::permission::Way;
use super::provider::Code;
use super::tell::Tampering;
use super::{Connect, LinkRefused, nothing_done, refused, spent, unable};
use crate::base::secret::Secret;
use crate::connection::grant::Account;
use crate::definition::live::Generation;
use crate::definition::plan::Integration;
use crate::respond::{Answer, Refusal};

/// When to come again to an integration whose definition has to be mended first.
const MENDED: Duration = Duration::from_secs(30);
/// The most characters of a service's words that are shown.
const WORDS: usize = 500;

/// A callback's query. A name that is there twice has the first value here, and is told.
struct Query {
    all: Map<String, Json>,
    repeated: bool,
}

impl Query {
    fn of(query: &str) -> Self {
        let (mut all, mut repeated) = (Map::new(), false);
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let told = matches!(&*name, "state" | "code" | "iss" | "error");
            match all.entry(name.into_owned()) {
                serde_json::map::Entry::Vacant(place) => _ = place.insert(Json::from(value.into_owned())),
                serde_json::map::Entry::Occupied(_) => repeated |= told,
            }
        }
        Self { all, repeated }
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.all.get(name).and_then(Json::as_str).filter(|text| !text.is_empty())
    }
}

impl Connect {
    /// Takes a callback: state, promises, code, outcome.
    pub(super) async fn callback(&self, integration: &str, visit: &Visit) -> Answer {
        let generation = self.live.load();
        let url = &generation.gateway.public_url;
        let Some(drawer) = &self.drawer else { return unable(url, &LinkRefused::NoKey) };
        // The key is needed for the outcome's address, and after a restart not there yet.
        if let Err(refused) = self.tools().await {
            return unable(url, &refused);
        }
        let known = generation.integration(integration);
        if known.is_none() && generation.is_faulty(integration) {
            // Before the state is taken: how the code is exchanged stands in a file that does not count now, and the
            // person can come back with all of this once it is mended.
            return not_in_force(url);
        }
        let query = Query::of(&visit.query);
        let flow = match query.text("state") {
            None => Ok(Taken::Unknown),
            Some(state) => Flow::take(drawer, state, self.clock.now()).await,
        };
        let flow = match flow {
            Ok(Taken::Flow(flow)) => Some(flow),
            Ok(Taken::Unknown) => None,
            Ok(Taken::Older(newer)) => {
                self.teller.refused(known.map(|known| &*known.id), Tampering::StateUnknown, Some(&newer.link)).await;
                // Only its own browser is told that the link is in use.
                let own = Browser::of(&visit.headers, url).is_some_and(|browser| same(&browser.digest, &newer.browser));
                return if own { spent(url) } else { nothing_done(url) };
            }
            Err(error) => return unable(url, &error.into()),
        };
        let browser = Browser::of(&visit.headers, url);
        let broken = match &flow {
            None if query.text("state").is_none() => Some(Tampering::StateMissing),
            None => Some(Tampering::StateUnknown),
            Some(flow) => broken_promise(flow, integration, browser.as_ref(), &query),
        };
        match (broken, flow) {
            (None, Some(flow)) => {
                let ended = self.conclude(&generation, known, *flow, query).await;
                ended.unwrap_or_else(|error| unable(url, &LinkRefused::Keep(error)))
            }
            (why, flow) => {
                let why = why.unwrap_or(Tampering::StateUnknown);
                let link = flow.as_ref().map(|flow| &flow.link);
                self.teller.refused(known.map(|known| &*known.id), why, link).await;
                let used = query.text("state").filter(|_| why == Tampering::StateUnknown);
                match used.zip(browser.as_ref()) {
                    Some((state, browser)) => self.told_again(drawer, (integration, state), browser).await,
                    None => nothing_done(url),
                }
            }
        }
    }

    /// The answer to a callback whose state was used before: to the browser that it was of, what came of it, because
    /// people load pages again.
    async fn told_again(&self, drawer: &Drawer, (integration, state): (&str, &str), browser: &Browser) -> Answer {
        let generation = self.live.load();
        let found = match pending::link_of(state) {
            Some(link) => Outcome::get(drawer, link).await.unwrap_or_default(),
            None => None,
        };
        let own = |found: &Outcome| found.link.integration == integration && same(&found.browser, &browser.digest);
        let told = found.filter(own).filter(|found| !matches!(found.state, State::Started { .. }));
        told.map_or_else(|| nothing_done(&generation.gateway.public_url), |outcome| self.led_to(&outcome))
    }

    /// From a callback that is what it says to the page of its outcome, unless the link is no longer this
    /// flow's.
    async fn conclude(
        &self,
        generation: &Arc<Generation>,
        integration: Option<&Arc<Integration>>,
        flow: Flow,
        query: Query,
    ) -> Result<Answer, KeepError> {
        let url = &generation.gateway.public_url;
        let Some(drawer) = &self.drawer else { return Ok(unable(url, &LinkRefused::NoKey)) };
        let whose = (flow.link.clone(), flow.browser.clone());
        let Some(claim) = self.claim(drawer, whose, flow.id.clone()).await? else { return Ok(spent(url)) };
        let work = self.brought(generation, integration, (claim.clone(), flow), query);
        self.finish(drawer, claim, Box::pin(work)).await
    }

    /// From what a callback brought to what came of it.
    async fn brought(
        &self,
        generation: &Arc<Generation>,
        integration: Option<&Arc<Integration>>,
        (claim, flow): (Claim, Flow),
        query: Query,
    ) -> State {
        let Some((integration, Way::Provider { code, .. })) = integration.map(|known| (known, Way::of(known))) else {
            return failed(Failure::DefinitionChanged, None);
        };
        // OAuth 1.0a has no word for it; services that tell send the token back under this name.
        let denied = query.text("denied").filter(|_| flow.held.is_some()).map(|_| "access_denied");
        if let Some(error) = query.text("error").or(denied) {
            let words = query.text("error_description").unwrap_or(error);
            return failed(Failure::of_callback(error), Some(plain(words)));
        }
        let Some(code) = query.text(code).map(Secret::from) else {
            return failed(Failure::NoCode, None);
        };
        self.exchange(generation, integration, (claim, flow), (&code, &query.all)).await
    }

    async fn exchange(
        &self,
        generation: &Arc<Generation>,
        integration: &Arc<Integration>,
        (claim, flow): (Claim, Flow),
        (code, callback): (&Secret, &Map<String, Json>),
    ) -> State {
        let Some(drawer) = &self.drawer else { return failed(Failure::NotKept, None) };
        let saved = Map::new();
        let connection = flow.link.connection.as_str();
        let account = Account { generation, integration, connection, inputs: &flow.inputs, saved: &saved };
        let held = flow.held.as_ref().map(|(token, secret)| (&token.0, &secret.0));
        let brought = Code {
            held,
            code,
            redirect_uri: &flow.redirect_uri,
            verifier: flow.verifier.as_ref().map(|verifier| &verifier.0),
            callback,
        };
        let grant = match self.provider.exchange(account, brought).await {
            Ok(grant) => grant,
            Err(error) => return failed(Failure::of_token_call(&error), Some(plain(&error.to_string()))),
        };
        let mut grown = Grown::granted(claim, flow, grant);
        match self.identify(generation, integration, &mut grown).await {
            Ok(()) => self.discover(generation, integration, drawer, grown).await,
            Err(state) => {
                self.give_up(integration, grown).await;
                state
            }
        }
    }
}

/// The page for who comes, or comes back, while the definition has errors.
pub(super) fn not_in_force(url: &url::Url) -> Answer {
    let page = refused(
        url,
        Refusal::Unavailable,
        [
            "This sign-in cannot be completed just now",
            "The gateway cannot read how this service is connected. Nothing is lost: a sign-in waits for up to 10 minutes.",
            "Wait a minute, then load this page again.",
        ],
    );
    page.after(MENDED)
}

/// What of a flow's promises a callback breaks.
fn broken_promise(flow: &Flow, integration: &str, browser: Option<&Browser>, query: &Query) -> Option<Tampering> {
    if query.repeated {
        return Some(Tampering::Repeated);
    }
    if !browser.is_some_and(|browser| same(&browser.digest, &flow.browser)) {
        return Some(Tampering::Browser);
    }
    if flow.link.integration != integration {
        return Some(Tampering::Integration);
    }
    let token = query.text("oauth_token").or(query.text("denied"));
    if flow.held.as_ref().is_some_and(|(held, _)| token != Some(held.0.expose().as_str())) {
        return Some(Tampering::Token);
    }
    match (&flow.issuer, query.text("iss")) {
        (Some(Issuer { name, .. }), Some(given)) if name != given => Some(Tampering::Issuer),
        (Some(Issuer { always: true, .. }), None) => Some(Tampering::Issuer),
        _ => None,
    }
}

fn failed(failure: Failure, words: Option<String>) -> State {
    State::Failed(Failed { failure, words })
}

/// A service's words on one line, and not too many of them.
pub(super) fn plain(words: &str) -> String {
    let visible = words.chars().map(|c| if c.is_control() { ' ' } else { c });
    visible.take(WORDS).collect::<String>().trim().to_owned()
}
