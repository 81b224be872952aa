//! Consent on another device (RFC 8628): a code is shown, and the gateway asks the service until a person has
//! typed it there.
//!
//! What is waited for is a sealed record, so that neither a closed window nor a restart ends the wait. One for
//! each link. Whoever shows the code, a page or a command, asks for the outcome as for any other link.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};
use tokio_util::sync::CancellationToken;

use super::begin::{Beginning, too_many};
use super::browser::{Browser, digest, same};
use super::claim::Claim;
use super::door::Visit;
use super::drawer::{Drawer, Enclosed, KeepError, key};
use super::failure::Failure;
use super::finish::Grown;
use super::link::{Fields, Link, fresh_id, moment};
use super::outcome::{Failed, Outcome, Standing, State, Step};
use super::page::{Page, prefix, see_other};
use super::pending::{self, LIFE, fresh_state};
use super::permission::{Entered, Offer, Way};
use super::result::described;
use super::{Connect, LinkRefused, Wanted, nothing_done, spent, unable};
use crate::base::clock::Timestamp;
use crate::base::secret::Secret;
use crate::connection::directory::checked_inputs;
use crate::connection::flow::{DeviceCode, Poll};
use crate::connection::grant::{Account, Grant, TokenError};
use crate::connection::{Content, Credential, Tokens};
use crate::definition::live::Generation;
use crate::definition::plan::Integration;
use crate::respond::{Answer, Refusal};
use crate::store::model::RecordKey;

/// The collection of what is waited for.
pub const COLLECTION: &str = "connect_devices";
/// How often is looked for what is to be waited for.
const LOOK: Duration = Duration::from_secs(20);
/// The longest nap between two looks at the clock.
const NAP: Duration = Duration::from_secs(1);
/// How long to wait for a store that refuses, before it is asked again to take what was granted.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// What is waited for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Waiting {
    link: Link,
    /// The digest of the cookie of the browser it began in; of no browser where it began at the admin door.
    browser: String,
    /// The flow that it is of its link.
    flow: String,
    scopes: Vec<String>,
    inputs: Map<String, Json>,
    code: Enclosed,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    ends: Timestamp,
    interval_s: u64,
}

/// What is shown to whoever asked for a code at the admin door.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct DeviceShown {
    /// The id under which the outcome can be asked for.
    pub result: String,
    /// `started`, or `failed` when the service gave no code.
    pub state: &'static str,
    /// The code that the person types.
    pub user_code: Option<String>,
    /// Where they type it.
    pub verification_uri: Option<String>,
    /// The same with the code in it.
    pub verification_uri_complete: Option<String>,
    /// When the code stops working.
    pub expires_at: Option<String>,
    /// Why there is no code.
    #[schema(value_type = Option<Object>)]
    pub error: Option<Json>,
}

/// Why no code was asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DeviceRefused {
    /// What is wanted does not fit.
    #[error(transparent)]
    Link(#[from] LinkRefused),
    /// The integration is connected in another way.
    #[error("`{0}` does not sign in by `grant: device_code`: make a link instead")]
    OtherWay(String),
    /// More people are connecting accounts than the gateway takes at a time.
    #[error("more people are connecting accounts than this gateway takes at a time: try again in ten minutes")]
    TooMany,
}

impl DeviceRefused {
    /// What the gateway answers because of it.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Link(refused) => refused.refusal(),
            Self::OtherWay(_) => Refusal::InvalidInput,
            Self::TooMany => Refusal::Unavailable,
        }
    }
}

/// The definitions by which a consent came, and what it granted.
type Consented = (Arc<Generation>, Arc<Integration>, Grant);

/// How a flow began.
enum Begun {
    Waiting(Box<Waiting>),
    Ended(State),
    Spent,
    TooMany,
}

fn place(link: &Link) -> RecordKey {
    key(COLLECTION, &format!("{}-{}", moment(link.expires_at().after(LIFE)), link.id))
}

fn failed(error: &TokenError) -> State {
    State::Failed(Failed { failure: Failure::of_token_call(error), words: Some(error.to_string()) })
}

/// How a flow ends whose service cannot be asked: its definition is gone, or was not mended in time.
fn not_asked(generation: &Generation, integration: &str) -> State {
    let faulty = generation.is_faulty(integration);
    let failure = if faulty { Failure::NotInTime } else { Failure::DefinitionChanged };
    let words = faulty.then(|| "the definition had errors until the code ended: begin again for a new code".to_owned());
    State::Failed(Failed { failure, words })
}

impl Waiting {
    fn code(&self) -> DeviceCode {
        DeviceCode {
            code: Secret::from(self.code.0.expose().as_str()),
            user_code: self.user_code.clone(),
            verification_uri: self.verification_uri.clone(),
            verification_uri_complete: self.verification_uri_complete.clone(),
            expires_at: self.ends,
            interval: Duration::from_secs(self.interval_s),
        }
    }
}

impl Connect {
    /// Asks for a code, and shows it on a page of its own.
    pub(super) async fn show_code(
        &self,
        beginning: Beginning<'_>,
        drawer: &Drawer,
        entered: Entered,
    ) -> Result<Answer, KeepError> {
        let (link, browser) = (beginning.link.clone(), beginning.browser.clone());
        let url = beginning.generation.gateway.public_url.clone();
        match self.ask_for_code(beginning, drawer, entered).await? {
            Begun::Waiting(_) => {
                let Some(key) = self.key.get() else { return Ok(nothing_done(&url)) };
                let result = key.result_of(&link.id);
                Ok(see_other(&format!("{}/api/connect/{}/device?result={result}", prefix(&url), link.integration)))
            }
            Begun::Ended(state) => match self.claim_link(drawer, link, browser).await? {
                Some(claim) => self.end(drawer, claim, state).await,
                None => Ok(spent(&url)),
            },
            Begun::Spent => Ok(spent(&url)),
            Begun::TooMany => Ok(too_many(&url)),
        }
    }

    /// Asks for a code for whoever is at the admin door: a command, or an application that shows it itself.
    ///
    /// # Errors
    /// When what is wanted does not fit the definition or the settings, or nothing can be kept. A service
    /// that gives no code is no error here but the link's outcome.
    pub async fn start_device(
        &self,
        actor: &str,
        wanted: Wanted,
        inputs: Map<String, Json>,
    ) -> Result<DeviceShown, DeviceRefused> {
        let generation = self.live.load();
        let known = generation.integration(&wanted.integration);
        let integration = known.ok_or_else(|| LinkRefused::Integration(wanted.integration.clone()))?;
        let way = Way::of(integration);
        if !matches!(way, Way::Device { .. }) {
            return Err(DeviceRefused::OtherWay(wanted.integration));
        }
        let inputs = checked_inputs(integration, &wanted.connection, inputs);
        let inputs = inputs.map_err(|error| LinkRefused::Invalid(error.to_string()))?;
        let made = self.link(actor, wanted).await?;
        let (_, drawer) = self.tools().await?;
        let scopes = Offer::of(way, &made.link).asked(&[]);
        // What no cookie can be: nobody continues this link in a browser.
        let nobody = fresh_state(&made.link, &*self.random).map_err(|error| LinkRefused::Keep(error.into()))?;
        let browser = digest(nobody.expose());
        let beginning =
            Beginning { generation: &generation, integration, link: made.link.clone(), browser: browser.clone() };
        let entered = Entered { scopes, inputs, credential: None };
        let begun = self.ask_for_code(beginning, drawer, entered).await.map_err(LinkRefused::Keep)?;
        let shown = DeviceShown {
            result: made.result,
            state: "failed",
            user_code: None,
            verification_uri: None,
            verification_uri_complete: None,
            expires_at: None,
            error: None,
        };
        match begun {
            Begun::Waiting(waiting) => Ok(DeviceShown {
                state: "started",
                user_code: Some(waiting.user_code),
                verification_uri: Some(waiting.verification_uri),
                verification_uri_complete: waiting.verification_uri_complete,
                expires_at: Some(waiting.ends.to_string()),
                ..shown
            }),
            Begun::Ended(state) => {
                let error = match &state {
                    State::Failed(failed) => Some(described(&integration.title, failed)),
                    _ => None,
                };
                if let Some(claim) = self.claim_link(drawer, made.link, browser).await.map_err(LinkRefused::Keep)? {
                    self.keep_end(drawer, claim, state).await.map_err(LinkRefused::Keep)?;
                }
                Ok(DeviceShown { error, ..shown })
            }
            Begun::Spent | Begun::TooMany => Err(DeviceRefused::TooMany),
        }
    }

    /// Asks for a code and keeps it, unless one for the same link is waited for already.
    async fn ask_for_code(
        &self,
        beginning: Beginning<'_>,
        drawer: &Drawer,
        entered: Entered,
    ) -> Result<Begun, KeepError> {
        let Beginning { generation, integration, link, browser } = beginning;
        self.clear(drawer).await?;
        let record = place(&link);
        if let Some((waiting, _)) = drawer.get::<Waiting>(&record).await? {
            return Ok(if same(&waiting.browser, &browser) { Begun::Waiting(Box::new(waiting)) } else { Begun::Spent });
        }
        if drawer.count(COLLECTION).await? >= pending::MOST {
            self.teller.metrics.connect_flows.with_label_values(&[&*integration.id, "too_many"]).inc();
            return Ok(Begun::TooMany);
        }
        let Entered { scopes, inputs, .. } = entered;
        let saved = Map::new();
        let account = Account { generation, integration, connection: &link.connection, inputs: &inputs, saved: &saved };
        let code = match self.provider.device_code(account, &scopes).await {
            Ok(code) => code,
            Err(error) => return Ok(Begun::Ended(failed(&error))),
        };
        let flow = fresh_id(self.clock.now().after(LIFE), &*self.random)?;
        // Of two forms sent at once, the code that is kept and the flow that counts must be of the same one.
        let _one_by_one = self.order.lock().await;
        if let Some((waiting, _)) = drawer.get::<Waiting>(&record).await? {
            return Ok(if same(&waiting.browser, &browser) { Begun::Waiting(Box::new(waiting)) } else { Begun::Spent });
        }
        let (state, at) = (State::Started { flow: flow.clone() }, self.clock.now());
        let started = Outcome { link: link.clone(), browser: browser.clone(), state, at };
        if self.settle(drawer, &started, Step::Begin).await? != Standing::Free {
            return Ok(Begun::Spent);
        }
        self.teller.started(&link, &scopes).await?;
        let ends = code.expires_at.min(link.expires_at().after(LIFE));
        let DeviceCode { code, user_code, verification_uri, verification_uri_complete, interval, .. } = code;
        let (code, interval_s) = (Enclosed(code), interval.as_secs());
        let waiting = Waiting {
            link,
            browser,
            flow,
            scopes,
            inputs,
            code,
            user_code,
            verification_uri,
            verification_uri_complete,
            ends,
            interval_s,
        };
        drawer.put(&record, &waiting, Some(0)).await?;
        self.awaited.notify_one();
        Ok(Begun::Waiting(Box::new(waiting)))
    }

    /// Shows the code to the browser that asked for it, until the flow has ended.
    pub(super) async fn device_page(&self, integration: &str, visit: &Visit) -> Answer {
        let generation = self.live.load();
        let url = &generation.gateway.public_url;
        let (link_key, drawer) = match self.tools().await {
            Ok(tools) => tools,
            Err(refused) => return unable(url, &refused),
        };
        let result = Fields::of(&visit.query).take("result").ok().flatten().unwrap_or_default();
        let (Ok(link), Some(browser)) = (link_key.link_of(&result), Browser::of(&visit.headers, url)) else {
            return nothing_done(url);
        };
        let found = match Outcome::get(drawer, link).await {
            Ok(found) => found.filter(|found| found.link.integration == integration),
            Err(error) => return unable(url, &error.into()),
        };
        let Some(outcome) = found.filter(|found| same(&found.browser, &browser.digest)) else {
            return nothing_done(url);
        };
        let base = format!("{}/api/connect/{integration}", prefix(url));
        let waiting = match drawer.get::<Waiting>(&place(&outcome.link)).await {
            Ok(waiting) => waiting.filter(|_| matches!(outcome.state, State::Started { .. })),
            Err(error) => return unable(url, &error.into()),
        };
        let Some((waiting, _)) = waiting else {
            let page = if matches!(outcome.state, State::Choosing { .. }) { "choose" } else { "outcome" };
            return see_other(&format!("{base}/{page}?result={result}"));
        };
        let title = generation.integration(integration).map_or(integration, |known| known.title.as_str());
        let view = json!({
            "service": title, "user_code": waiting.user_code, "uri": waiting.verification_uri,
            "complete": waiting.verification_uri_complete, "ends": waiting.ends.to_string(),
            "result": result, "base": base,
        });
        Page::new("device", format!("Connect: {title}"), url).told_to(outcome.link.origin.as_deref()).show(view)
    }

    /// Asks services whether people have consented, until it is stopped. What is waited for then goes on to be
    /// after the next start.
    pub async fn await_devices(&self, stop: CancellationToken) {
        let Some(drawer) = &self.drawer else { return };
        let (mut followed, mut known) = (FuturesUnordered::new(), HashSet::new());
        loop {
            match drawer.records.keys(COLLECTION).await {
                Ok(records) => {
                    for record in records {
                        if known.insert(record.clone()) {
                            let stop = &stop;
                            followed.push(async move {
                                if let Err(error) = self.follow(drawer, &record, stop).await {
                                    tracing::warn!("a consent on another device is not waited for now: {error}");
                                    stop.run_until_cancelled(tokio::time::sleep(LOOK)).await;
                                }
                                record
                            });
                        }
                    }
                }
                Err(error) => tracing::warn!("consents on other devices are not waited for now: {error}"),
            }
            tokio::select! {
                // A poll that is under way may bring what is given once: it ends, and what it brought is kept.
                () = stop.cancelled() => return while followed.next().await.is_some() {},
                () = self.awaited.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
                Some(record) = followed.next(), if !followed.is_empty() => {
                    known.remove(&record);
                }
            }
        }
    }

    /// Waits for one person.
    async fn follow(&self, drawer: &Drawer, record: &RecordKey, stop: &CancellationToken) -> Result<(), KeepError> {
        let Some((first, _)) = drawer.get::<Waiting>(record).await? else { return Ok(()) };
        let Some(state) = self.consented(&first, stop).await else { return Ok(()) };
        // Taken, so that of two who wait one goes on. What was granted may not be given twice: it waits for the store.
        let waiting = loop {
            match drawer.take::<Waiting>(record).await {
                Ok(waiting) => break waiting,
                Err(KeepError::Store(error)) if state.is_ok() => {
                    tracing::error!("a consent on another device waits for the store, which refuses: {error}");
                    tokio::time::sleep(STORE_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        };
        let Some(waiting) = waiting else { return Ok(()) };
        let owner = (waiting.link.clone(), waiting.browser.clone());
        let Some(claim) = self.claim(drawer, owner, waiting.flow.clone()).await? else {
            // Somebody removed the connection meanwhile.
            if let Ok((_, integration, grant)) = state {
                let content = Content {
                    credential: Credential::Tokens(Tokens(grant.tokens)),
                    inputs: waiting.inputs,
                    saved: grant.saved,
                };
                self.give_back(&integration, &waiting.link, content).await;
            }
            return Ok(());
        };
        let state = match state {
            Ok((generation, integration, grant)) => {
                self.grow(drawer, (&generation, &integration), (claim.clone(), waiting), grant).await
            }
            Err(state) => state,
        };
        self.keep_end(drawer, claim, state).await
    }

    /// Polls until a person has consented, or will not any more; `None` when it is stopped before.
    async fn consented(&self, first: &Waiting, stop: &CancellationToken) -> Option<Result<Consented, State>> {
        let (code, mut interval) = (first.code(), Duration::from_secs(first.interval_s));
        loop {
            let pause = self.pause(interval.min(code.expires_at.since(self.clock.now())));
            stop.run_until_cancelled(pause).await?;
            let generation = self.live.load();
            let Some(integration) = generation.integration(&first.link.integration).map(Arc::clone) else {
                if generation.is_faulty(&first.link.integration) && self.clock.now() < code.expires_at {
                    // How the service is asked stands in a file that does not count now. That ends no consent: what
                    // was consented to meanwhile is there to be asked for once the file is mended.
                    continue;
                }
                return Some(Err(not_asked(&generation, &first.link.integration)));
            };
            let saved = Map::new();
            let connection = first.link.connection.as_str();
            let account = Account {
                generation: &generation,
                integration: &integration,
                connection,
                inputs: &first.inputs,
                saved: &saved,
            };
            match self.provider.device_poll(account, &code, interval).await {
                Ok(Poll::Pending(next)) => interval = next,
                Ok(Poll::Granted(grant)) => return Some(Ok((generation, integration, grant))),
                Err(error) => return Some(Err(failed(&error))),
            }
        }
    }

    /// Keeps the outcome of a claimed flow that nobody waits for in a browser.
    async fn keep_end(&self, drawer: &Drawer, claim: Claim, state: State) -> Result<(), KeepError> {
        let flow = claim.flow().to_owned();
        let outcome = Outcome { link: claim.link, browser: claim.browser, state, at: self.clock.now() };
        self.settle(drawer, &outcome, Step::End(&flow)).await.map(drop)
    }

    /// From tokens to a connection, or to a choice.
    async fn grow(
        &self,
        drawer: &Drawer,
        (generation, integration): (&Generation, &Arc<Integration>),
        (claim, waiting): (Claim, Waiting),
        grant: Grant,
    ) -> State {
        let Waiting { scopes, inputs, .. } = waiting;
        let entered = Entered { scopes, inputs, credential: None };
        let mut grown = Grown { grant, ..Grown::entered(claim, entered) };
        match self.identify(generation, integration, &mut grown).await {
            Ok(()) => self.discover(generation, integration, drawer, grown).await,
            Err(state) => {
                self.give_up(integration, grown).await;
                state
            }
        }
    }

    /// Lets time pass on the gateway's own clock.
    async fn pause(&self, wait: Duration) {
        let until = self.clock.now().after(wait);
        loop {
            let left = until.since(self.clock.now());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(NAP)).await;
        }
    }
}
