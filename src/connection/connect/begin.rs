//! The form of the permission page: what was entered is read, and the person goes on to the service.
//!
//! From here on the link belongs to this browser.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use oauth2::{PkceCodeChallenge, PkceCodeVerifier};
use serde_json::{Map, json};

use super::browser::{Browser, digest};
use super::door::Visit;
use super::drawer::{Drawer, Enclosed, KeepError};
use super::failure::Failure;
use super::finish::Grown;
use super::link::Link;
use super::outcome::{Failed, Outcome, Standing, State, Step};
use super::page::Page;
use super::pending::{self, Flow, LIFE, fresh_state};
use super::permission::{self, Entered, Form, Seen, Way};
use super::provider::{Ask, Held};
use super::tell::Tampering;
use super::trial::Confirmed;
use super::{Connect, LinkRefused, nothing_done, refused, spent, unable};
use crate::base::random::{Random, RandomUnavailable};
use crate::base::secret::Secret;
use crate::connection::grant::{Account, redirect_uri};
use crate::definition::live::Generation;
use crate::definition::plan::Integration;
use crate::respond::{Answer, Refusal};

/// A flow as it begins.
pub(super) struct Beginning<'a> {
    pub generation: &'a Arc<Generation>,
    pub integration: &'a Arc<Integration>,
    pub link: Link,
    pub browser: String,
}

impl Connect {
    /// Takes the form and sends the person on.
    pub(super) async fn begin(&self, integration: &str, visit: &Visit) -> Answer {
        let generation = self.live.load();
        let url = &generation.gateway.public_url;
        if !is_own_form(visit, url) {
            let known = generation.integration(integration).map(|_| integration);
            self.teller.refused(known, Tampering::Origin, None).await;
            return nothing_done(url);
        }
        let Some(browser) = Browser::of(&visit.headers, url) else { return no_cookie(url) };
        let asked = (integration, visit.query.as_str());
        let (link, integration, drawer) = match self.admitted(&generation, asked, Some(&browser.digest)).await {
            Ok(admitted) => admitted,
            Err(refused) => return refused,
        };
        let way = Way::of(integration);
        let form = Form::of(&visit.body);
        let entered = match permission::read(&form, way, &link, integration) {
            Ok(entered) => entered,
            Err(wrong) => {
                let before = self.before(&integration.id, &link.connection).await;
                let seen = Seen { generation: &generation, integration, link: &link, query: &visit.query, before };
                return permission::faulty(&seen, way, &form, &wrong);
            }
        };
        let beginning = Beginning { generation: &generation, integration, link, browser: browser.digest };
        let begun = match way {
            Way::Provider { pkce, .. } => self.depart(beginning, drawer, Pkce::of(pkce), entered).await,
            Way::Device { .. } => self.show_code(beginning, drawer, entered).await,
            Way::Itself => self.grant_itself(beginning, drawer, entered).await,
            Way::Key | Way::Password | Way::AccessKey | Way::Login | Way::Nothing => {
                self.take_entered(beginning, drawer, entered, (&form, &visit.query)).await
            }
        };
        begun.unwrap_or_else(|error| unable(url, &LinkRefused::Keep(error)))
    }

    /// Keeps the flow, and then sends the person to the service.
    async fn depart(
        &self,
        beginning: Beginning<'_>,
        drawer: &Drawer,
        pkce: Pkce,
        entered: Entered,
    ) -> Result<Answer, KeepError> {
        let Beginning { generation, integration, link, browser } = beginning;
        let url = &generation.gateway.public_url;
        self.clear(drawer).await?;
        if drawer.count(pending::COLLECTION).await? >= pending::MOST {
            self.teller.metrics.connect_flows.with_label_values(&[&*integration.id, "too_many"]).inc();
            return Ok(too_many(url));
        }
        let (state, verifier) = (fresh_state(&link, &*self.random)?, pkce.verifier(&*self.random)?);
        let challenge = verifier.as_ref().map(challenge_of);
        let redirect_uri = redirect_uri(generation, &integration.id);
        let saved = Map::new();
        let account =
            Account { generation, integration, connection: &link.connection, inputs: &entered.inputs, saved: &saved };
        let ask = Ask {
            state: &state,
            redirect_uri: &redirect_uri,
            scopes: &entered.scopes,
            challenge: challenge.as_deref(),
        };
        let departure = match self.provider.depart(account, ask).await {
            Ok(departure) => departure,
            Err(error) => {
                let failed = Failed { failure: Failure::of_departure(&error), words: Some(error.to_string()) };
                let Some(claim) = self.claim_link(drawer, link, browser).await? else { return Ok(spent(url)) };
                return self.end(drawer, claim, State::Failed(failed)).await;
            }
        };
        let (issuer, held, origin) = (departure.issuer, departure.held.map(Held::enclosed), link.origin.clone());
        let (Entered { scopes, inputs, .. }, verifier) = (entered, verifier.map(Enclosed));
        let (id, ends) = (digest(state.expose()), self.clock.now().after(LIFE));
        let flow = Flow { id, ends, link, browser, scopes, inputs, verifier, redirect_uri, issuer, held };
        if !self.start(drawer, &flow).await? {
            return Ok(spent(url));
        }
        let view = json!({ "service": integration.title });
        let page = Page::new("departure", format!("Connect: {}", integration.title), url).told_to(origin.as_deref());
        Ok(page.departing(departure.url).show(view))
    }

    /// Makes the flow the one of its link that may go on; `false` when its browser may not use the link.
    async fn start(&self, drawer: &Drawer, flow: &Flow) -> Result<bool, KeepError> {
        // Of two forms sent at once, the flow that is kept and the flow that counts must be the same one.
        let _one_by_one = self.order.lock().await;
        let (link, browser, state) =
            (flow.link.clone(), flow.browser.clone(), State::Started { flow: flow.id.clone() });
        let outcome = Outcome { link, browser, state, at: self.clock.now() };
        if self.settle(drawer, &outcome, Step::Begin).await? != Standing::Free {
            return Ok(false);
        }
        self.teller.started(&flow.link, &flow.scopes).await?;
        flow.keep(drawer).await?;
        Ok(true)
    }

    /// Gets what the application signs in with for itself, which is also the proof that it works.
    async fn grant_itself(
        &self,
        beginning: Beginning<'_>,
        drawer: &Drawer,
        entered: Entered,
    ) -> Result<Answer, KeepError> {
        let Beginning { generation, integration, link, browser } = beginning;
        let Some(claim) = self.claim_link(drawer, link, browser).await? else {
            return Ok(spent(&generation.gateway.public_url));
        };
        self.teller.started(&claim.link, &entered.scopes).await?;
        let work = async {
            let saved = Map::new();
            let connection = claim.link.connection.as_str();
            let account = Account { generation, integration, connection, inputs: &entered.inputs, saved: &saved };
            let grant = match self.provider.grant_itself(account).await {
                Ok(grant) => grant,
                Err(error) => {
                    let (failure, words) = (Failure::of_token_call(&error), Some(error.to_string()));
                    return State::Failed(Failed { failure, words });
                }
            };
            let mut grown = Grown { grant, ..Grown::entered(claim.clone(), entered) };
            match self.identify(generation, integration, &mut grown).await {
                Ok(()) => self.discover(generation, integration, drawer, grown).await,
                Err(state) => state,
            }
        };
        self.finish(drawer, claim.clone(), Box::pin(work)).await
    }

    /// Tries what a person entered here, for services that send nobody anywhere, and keeps it if it works. What does
    /// not is told on the same page; nothing is stored then, and the link is as it was.
    async fn take_entered(
        &self,
        beginning: Beginning<'_>,
        drawer: &Drawer,
        entered: Entered,
        (form, query): (&Form, &str),
    ) -> Result<Answer, KeepError> {
        let confirmed = if form.one(permission::UNTRIED) == "yes" { Confirmed::Yes } else { Confirmed::No };
        let proof = match Box::pin(self.prove(&beginning, &entered, confirmed)).await? {
            Ok(proof) => proof,
            Err(not_kept) => {
                let Beginning { generation, integration, link, .. } = &beginning;
                let before = self.before(&integration.id, &link.connection).await;
                let seen = Seen { generation, integration, link, query, before };
                return Ok(permission::not_kept(&seen, Way::of(integration), form, &not_kept));
            }
        };
        let Beginning { generation, integration, link, browser } = beginning;
        let Some(claim) = self.claim_link(drawer, link, browser).await? else {
            return Ok(spent(&generation.gateway.public_url));
        };
        self.teller.started(&claim.link, &entered.scopes).await?;
        let grown = Grown { proof, ..Grown::entered(claim.clone(), entered) };
        self.finish(drawer, claim, Box::pin(self.keep_connection(integration, drawer, grown))).await
    }
}

/// Whether codes are bound to this gateway (RFC 7636).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pkce {
    S256,
    Off,
}

impl Pkce {
    const fn of(on: bool) -> Self {
        if on { Self::S256 } else { Self::Off }
    }

    /// A fresh verifier of 256 bits in 43 characters (RFC 7636 §4.1).
    fn verifier(self, random: &dyn Random) -> Result<Option<Secret>, RandomUnavailable> {
        if self == Self::Off {
            return Ok(None);
        }
        let mut bytes = [0; 32];
        random.fill(&mut bytes)?;
        Ok(Some(Secret::new(URL_SAFE_NO_PAD.encode(bytes))))
    }
}

/// The S256 challenge of a verifier (RFC 7636 §4.2). There is no other: `plain` protects nothing.
fn challenge_of(verifier: &Secret) -> String {
    let verifier = PkceCodeVerifier::new(verifier.expose().clone());
    PkceCodeChallenge::from_code_verifier_sha256(&verifier).as_str().to_owned()
}

/// Whether a form was sent from a page of ours. Pages here send no referrer, so that browsers may call the
/// origin `null`; those that say where a request comes from are believed, and for the rest the cookie, which
/// no other site's form carries, decides.
pub(super) fn is_own_form(visit: &Visit, public_url: &url::Url) -> bool {
    let text = |name: &str| visit.headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let site = text("sec-fetch-site").is_none_or(|site| site == "same-origin");
    let own = public_url.origin().ascii_serialization();
    let origin = text("origin").is_none_or(|origin| origin == "null" || origin == own);
    let kind = text("content-type").is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
    site && origin && kind
}

fn no_cookie(url: &url::Url) -> Answer {
    refused(
        url,
        Refusal::FlowUnknown,
        [
            "Cookies are needed here",
            "Your browser did not send back the cookie that keeps others from ending this sign-in in your place.",
            "Allow cookies for this address, then open the link again.",
        ],
    )
}

pub(super) fn too_many(url: &url::Url) -> Answer {
    refused(
        url,
        Refusal::Unavailable,
        [
            "Too many sign-ins at once",
            "More people are connecting accounts than this gateway takes at a time.",
            "Try again in ten minutes.",
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_that_of_the_rfc() {
        // RFC 7636, appendix B.
        let verifier = Secret::from("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        assert_eq!(challenge_of(&verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }
}
