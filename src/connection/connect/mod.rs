//! Connecting an account in a browser: link, permission, service, callback, outcome.
//!
//! ```text
//! link ─▶ permission page ─▶ (form) begin ─▶ service ─▶ callback ─▶ exchange ─▶ choose? ─▶ kept ─▶ outcome
//! ```
//!
//! [`link`] says who may connect what; [`browser`] ties the flow to one browser; [`pending`] keeps what must
//! come back; [`callback`] takes it; [`claim`] says who of several may finish it; [`outcome`] is the server's word for how it ended, which windows,
//! applications and operators ask for. [`removal`] takes a connection away again, and tells services of what is out of use ([`revocations`]). Nothing here knows a token call: that is behind [`Provider`]. Called
//! by the public door through [`Welcome`], and by the admin door.

mod address;
mod begin;
mod browser;
mod callback;
mod calls;
mod choose;
mod claim;
mod device;
pub mod door;
mod drawer;
mod failure;
mod finish;
pub mod link;
pub mod outcome;
mod page;
pub mod pending;
mod permission;
pub mod provider;
pub(crate) mod removal;
mod result;
pub mod return_to;
pub(crate) mod revocations;
mod sessions;
mod tell;
pub mod trial;

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderValue, Method, header};
use tokio::sync::{Mutex, Notify, OnceCell, Semaphore, watch};

use crate::activity::Activity;
use crate::base::budgets::{self, Budgets};
use crate::base::clock::{Clock, Timestamp};
use crate::base::random::Random;
use crate::base::secret::Secret;
use crate::connection::Connections;
use crate::connection::sign_in::login::Logins;
use crate::connection::vault::{Sealed, Vault};
use crate::definition::live::{Generation, Live};
use crate::definition::plan::Integration;
use crate::respond::{Answer, Refusal};
use crate::store::{Audit, Records, StoreError};
use crate::telemetry::metrics::Metrics;
use door::{Place, Visit, Welcome, place};
use drawer::{Drawer, key};
use link::{Link, LinkError, LinkKey};
use outcome::{Outcome, Standing, Step};
use page::Page;
use provider::Provider;
use tell::{Tampering, Teller};
use trial::Trial;

pub use calls::Calls;
pub use device::{DeviceRefused, DeviceShown};
pub use drawer::KeepError;
pub use failure::{Failure, Told};
pub use finish::{account_email_of, account_id_of, account_of};
pub use removal::RemoveError;
pub use result::{Progress, Shown};
pub use revocations::{Revocation, RevocationState, Revocations, What};

/// The collection of the key that links are signed with.
const KEYS: &str = "connect";

/// The most sources that are remembered; beyond that the unknown ones share one budget.
const SOURCES: usize = 65_536;

/// Collections of sealed records that this room keeps.
pub const SEALED: [Sealed; 6] = [
    Sealed { collection: KEYS, field: drawer::FIELD },
    Sealed { collection: pending::COLLECTION, field: drawer::FIELD },
    Sealed { collection: outcome::COLLECTION, field: drawer::FIELD },
    Sealed { collection: choose::COLLECTION, field: drawer::FIELD },
    Sealed { collection: device::COLLECTION, field: drawer::FIELD },
    Sealed { collection: revocations::COLLECTION, field: drawer::FIELD },
];
/// What the flow is made of.
#[derive(Clone)]
pub struct Parts {
    /// The definitions in force.
    pub live: Arc<Live>,
    /// Where connections are kept.
    pub connections: Arc<Connections>,
    /// What flows and outcomes are sealed with; none without a master key, and then nothing is connected.
    pub vault: Option<Arc<Vault>>,
    /// Where they are kept.
    pub records: Arc<dyn Records>,
    /// Where it is written who did what.
    pub audit: Arc<dyn Audit>,
    /// Where people see what happened.
    pub activity: Arc<Activity>,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness for states, verifiers and keys.
    pub random: Arc<dyn Random>,
    /// Makes the calls.
    pub provider: Arc<dyn Provider>,
    /// What services are to be told of tokens out of use; none without a master key.
    pub revocations: Option<Arc<Revocations>>,
}

/// Connects accounts.
pub struct Connect {
    live: Arc<Live>,
    connections: Arc<Connections>,
    drawer: Option<Drawer>,
    clock: Arc<dyn Clock>,
    /// When this process began: whoever claimed a flow before it has ended.
    since: Timestamp,
    random: Arc<dyn Random>,
    provider: Arc<dyn Provider>,
    teller: Teller,
    key: OnceCell<LinkKey>,
    /// Held where two records must change as one: a flow and its link, a connection and the links to it.
    order: Mutex<()>,
    /// Changes when an outcome does.
    changed: watch::Sender<u64>,
    /// Places for those who wait for an outcome.
    waiting: Semaphore,
    /// Told when someone waits for a person at another device.
    awaited: Notify,
    /// What services are to be told of removed connections and other tokens out of use.
    revocations: Option<Arc<Revocations>>,
    /// What has the sessions of services that are signed in to by requests of their own.
    logins: Option<Arc<Logins>>,
    /// What tries credentials before they are kept.
    trial: Option<Arc<dyn Trial>>,
    /// What each source may still ask for.
    sources: std::sync::Mutex<Budgets<Option<IpAddr>>>,
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect").field("drawer", &self.drawer).finish_non_exhaustive()
    }
}

/// What is wanted of a link.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The integration's id.
    pub integration: String,
    /// The connection's name.
    pub connection: String,
    /// Where the person goes afterwards.
    pub return_to: Option<String>,
    /// The origin of the page that opens the link. Default: that of `return_to`, where it has one.
    pub origin: Option<String>,
    /// The scopes that are asked for in any case.
    pub scopes: Option<Vec<String>>,
    /// The scopes that the person may add.
    pub optional: Option<Vec<String>>,
}

/// A link that was made.
#[derive(Debug, Clone)]
pub struct Made {
    /// The address to open.
    pub url: String,
    /// The id under which its outcome can be asked for.
    pub result: String,
    /// The link.
    pub link: Link,
}

/// Why there is no link.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LinkRefused {
    /// There is no such integration.
    #[error("there is no integration `{0}`")]
    Integration(String),
    /// What is wanted does not fit.
    #[error("{0}")]
    Invalid(String),
    /// There is no key to keep anything with.
    #[error("there is no master key to keep credentials with: name one under `secrets.key` in trunkline.yaml")]
    NoKey,
    /// It could not be kept.
    #[error(transparent)]
    Keep(#[from] KeepError),
}

impl LinkRefused {
    /// What the gateway answers because of it.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Integration(_) => Refusal::NotFound,
            Self::Invalid(_) => Refusal::InvalidInput,
            Self::NoKey => Refusal::ConnectionUnusable,
            Self::Keep(_) => Refusal::StoreUnavailable,
        }
    }
}

impl Connect {
    /// A flow over these parts.
    pub fn new(parts: Parts) -> Self {
        let Parts { live, connections, vault, records, audit, activity, metrics, clock, random, .. } = parts;
        let (provider, revocations) = (parts.provider, parts.revocations);
        Self {
            live,
            connections,
            drawer: vault.map(|vault| Drawer { records, vault }),
            teller: Teller::new(audit, activity, metrics, Arc::clone(&clock)),
            since: clock.now(),
            clock,
            random,
            provider,
            key: OnceCell::new(),
            order: Mutex::new(()),
            changed: watch::Sender::new(0),
            waiting: Semaphore::new(result::WAITERS),
            awaited: Notify::new(),
            revocations,
            logins: None,
            trial: None,
            sources: std::sync::Mutex::new(Budgets::new(SOURCES)),
        }
    }

    /// The same, which tells services of the sessions of `logins` that are over.
    #[must_use]
    pub fn with_logins(self, logins: Arc<Logins>) -> Self {
        Self { logins: Some(logins), ..self }
    }

    /// The same, which tries credentials with `trial` before it keeps them.
    #[must_use]
    pub fn with_trial(self, trial: Arc<dyn Trial>) -> Self {
        Self { trial: Some(trial), ..self }
    }

    /// Makes a link. The audit log has it first; `actor` is who wants it.
    ///
    /// # Errors
    /// When what is wanted does not fit the definition or the settings, or nothing can be kept.
    pub async fn link(&self, actor: &str, wanted: Wanted) -> Result<Made, LinkRefused> {
        let generation = self.live.load();
        let integration = generation
            .integration(&wanted.integration)
            .ok_or_else(|| LinkRefused::Integration(wanted.integration.clone()))?;
        permission::check_wanted(&generation, integration, &wanted)?;
        let (key, drawer) = self.tools().await?;
        let expires = self.clock.now().after(generation.gateway.connect.link_ttl);
        let id = link::fresh_id(expires, &*self.random).map_err(KeepError::from)?;
        let origin = wanted.origin.or_else(|| permission::origin_of(wanted.return_to.as_deref(), &generation));
        let link = Link {
            integration: wanted.integration,
            connection: wanted.connection,
            return_to: wanted.return_to,
            origin,
            scopes: wanted.scopes,
            optional: wanted.optional,
            id,
        };
        let query = link.query(key);
        if query.len() > link::MAX_QUERY {
            return Err(LinkRefused::Invalid("the link would be too long: ask for fewer scopes".to_owned()));
        }
        self.teller.made(actor, &link).await.map_err(KeepError::from)?;
        self.clear(drawer).await?;
        let base = generation.gateway.public_url.as_str().trim_end_matches('/');
        let url = format!("{base}/api/connect/{}?{query}", link.integration);
        Ok(Made { url, result: key.result_of(&link.id), link })
    }

    /// Removes what has ended.
    async fn clear(&self, drawer: &Drawer) -> Result<(), KeepError> {
        let now = self.clock.now();
        // A flow's record is that of its link, and may outlive it.
        drawer.clear(pending::COLLECTION, now, pending::LIFE).await?;
        // What waits for a choice is let go of by whoever tells services of it.
        drawer.clear(device::COLLECTION, now, std::time::Duration::ZERO).await?;
        drawer.clear(outcome::COLLECTION, now, outcome::KEPT).await
    }

    /// The key of links and the place of records.
    async fn tools(&self) -> Result<(&LinkKey, &Drawer), LinkRefused> {
        let drawer = self.drawer.as_ref().ok_or(LinkRefused::NoKey)?;
        let key = self.key.get_or_try_init(|| self.link_key(drawer)).await?;
        Ok((key, drawer))
    }

    /// The key from the store, made at the first use. It is sealed like credentials are, and so is no part
    /// of the master key: a link tells nothing of that.
    async fn link_key(&self, drawer: &Drawer) -> Result<LinkKey, KeepError> {
        let place = key(KEYS, "link-key");
        loop {
            if let Some((bytes, _)) = drawer.get::<Vec<u8>>(&place).await? {
                return Ok(LinkKey::new(&Secret::new(bytes)));
            }
            let mut fresh = vec![0; link::KEY];
            self.random.fill(&mut fresh)?;
            let fresh = Secret::new(fresh);
            match drawer.put(&place, fresh.expose(), Some(0)).await {
                Ok(_) => return Ok(LinkKey::new(&fresh)),
                // Someone else made one at the same time: use theirs.
                Err(KeepError::Store(StoreError::Conflict(_))) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The link that a query is, whose integration is there and which this browser may use.
    async fn admitted<'a>(
        &'a self,
        generation: &'a Generation,
        (integration, query): (&str, &str),
        browser: Option<&str>,
    ) -> Result<(Link, &'a Arc<Integration>, &'a Drawer), Answer> {
        let url = &generation.gateway.public_url;
        let known = generation.integration(integration);
        let (key, drawer) = match self.tools().await {
            Ok(tools) => tools,
            Err(refused) => return Err(unable(url, &refused)),
        };
        let link = match Link::read(integration, query, key, self.clock.now()) {
            Ok(link) => link,
            Err(LinkError::Expired) => return Err(over(url)),
            Err(LinkError::Invalid) => {
                self.teller.refused(known.map(|_| integration), Tampering::Link, None).await;
                return Err(no_link(url));
            }
        };
        let Some(known) = known else {
            let faulty = generation.is_faulty(integration);
            return Err(if faulty { callback::not_in_force(url) } else { over(url) });
        };
        let found = match Outcome::get(drawer, &link.id).await {
            Ok(found) => found,
            Err(error) => return Err(unable(url, &error.into())),
        };
        match Outcome::standing(found.as_ref(), browser, self.clock.now()) {
            Standing::Free => Ok((link, known, drawer)),
            Standing::Spent => Err(spent(url)),
            Standing::Taken => {
                self.teller.refused(Some(integration), Tampering::LinkTaken, Some(&link)).await;
                Err(spent(url))
            }
        }
    }

    /// Keeps an outcome and tells everyone who waits for it.
    async fn settle(&self, drawer: &Drawer, outcome: &Outcome, step: Step<'_>) -> Result<Standing, KeepError> {
        let standing = outcome.keep(drawer, step).await?;
        if standing == Standing::Free {
            self.teller.ended(outcome).await;
            self.changed.send_modify(|number| *number = number.wrapping_add(1));
        }
        Ok(standing)
    }
}

/// The flow at the public door.
#[derive(Debug, Clone)]
pub struct Reception(pub Arc<Connect>);

#[async_trait]
impl Welcome for Reception {
    async fn answer(&self, visit: Visit) -> Answer {
        let connect = Arc::clone(&self.0);
        // In a task of its own: a browser that goes away must not leave a code used and its token lost.
        let answered = tokio::spawn(async move { connect.visited(visit).await }).await;
        answered.unwrap_or_else(|_| Refusal::Internal.answer("this page could not be shown"))
    }
}

impl Connect {
    async fn visited(&self, visit: Visit) -> Answer {
        let Some(place) = place(&visit.path) else {
            return Refusal::NotFound.answer("there is nothing at this path");
        };
        if let Err(refused) = self.within_rate(place, &visit) {
            return refused;
        }
        let looks = matches!(visit.method, Method::GET | Method::HEAD);
        match place {
            Place::Asset(name) if looks => {
                page::asset(name).unwrap_or_else(|| Refusal::NotFound.answer("there is no such file"))
            }
            Place::Permission(integration) if looks => self.looked_at(integration, &visit).await,
            Place::Permission(integration) if visit.method == Method::POST => {
                Box::pin(self.begin(integration, &visit)).await
            }
            // Not for HEAD: whoever only looks must not use up the state.
            Place::Callback(integration) if visit.method == Method::GET => {
                Box::pin(self.callback(integration, &visit)).await
            }
            Place::Outcome(integration) if looks => self.outcome_page(integration, &visit).await,
            Place::Device(integration) if looks => self.device_page(integration, &visit).await,
            Place::Choose(integration) if looks => self.choices(integration, &visit).await,
            Place::Choose(integration) if visit.method == Method::POST => {
                Box::pin(self.choose(integration, &visit)).await
            }
            Place::Result(integration) if visit.method == Method::GET => self.result(integration, &visit).await,
            _ => Refusal::MethodNotAllowed
                .answer("this page is not asked for like that")
                .with(header::ALLOW, HeaderValue::from_static(place.methods())),
        }
    }
}

impl Connect {
    /// Takes one of what a source may ask for. Whoever asks too often learns when to come again.
    fn within_rate(&self, place: Place<'_>, visit: &Visit) -> Result<(), Answer> {
        if matches!(place, Place::Asset(_)) {
            return Ok(());
        }
        let generation = self.live.load();
        let (rate, source) = (generation.gateway.connect.rate_per_source, visit.source.map(budgets::source));
        let now = self.clock.monotonic();
        let taken = self.sources.lock().unwrap_or_else(PoisonError::into_inner).take(source, None, rate, now);
        taken.map_err(|wait| {
            let known = place.integration().filter(|id| generation.integration(id).is_some()).unwrap_or("other");
            self.teller.metrics.connect_flows.with_label_values(&[known, "rate_limited"]).inc();
            too_often(&generation.gateway.public_url).with(header::RETRY_AFTER, seconds(wait))
        })
    }
}

/// Whole seconds, rounded up.
fn seconds(wait: Duration) -> HeaderValue {
    HeaderValue::from(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
}

fn too_often(url: &url::Url) -> Answer {
    refused(
        url,
        Refusal::RateLimited,
        [
            "Too many requests",
            "More requests for pages like this one came from your network than this gateway takes.",
            "Wait a minute, then open the page again.",
        ],
    )
}

fn refused(url: &url::Url, refusal: Refusal, [heading, meaning, step]: [&str; 3]) -> Answer {
    let view = serde_json::json!({ "heading": heading, "meaning": meaning, "step": step });
    Page::new("refused", heading, url).refuse(refusal, view)
}

/// The one page for whatever is wrong with a callback.
fn nothing_done(url: &url::Url) -> Answer {
    refused(
        url,
        Refusal::FlowUnknown,
        [
            "This sign-in could not be completed",
            "It was begun in another browser, took longer than 10 minutes, or has been completed already. Nothing was connected.",
            "Start again from your application, in this browser, and allow cookies for this address.",
        ],
    )
}

fn no_link(url: &url::Url) -> Answer {
    refused(
        url,
        Refusal::LinkInvalid,
        [
            "This link is not valid",
            "It is incomplete, or was changed on its way to you.",
            "Open it again from where you got it, whole, or ask for a new one.",
        ],
    )
}

fn over(url: &url::Url) -> Answer {
    refused(
        url,
        Refusal::LinkOver,
        [
            "This link has expired",
            "Links like this one can be used for a short time only.",
            "Ask for a new one where you got this one.",
        ],
    )
}

fn spent(url: &url::Url) -> Answer {
    refused(
        url,
        Refusal::LinkOver,
        [
            "This link has been used",
            "It connects one account, once, from the browser that opened it first.",
            "If you have just connected your account, everything is done. Otherwise ask for a new link.",
        ],
    )
}

/// What the operator has to mend.
fn unable(url: &url::Url, why: &LinkRefused) -> Answer {
    tracing::error!("a connect page could not be shown: {why}");
    refused(
        url,
        why.refusal(),
        [
            "Accounts cannot be connected at the moment",
            "The gateway has a problem of its own. You did nothing wrong.",
            "Try again in a few minutes; if it happens again, tell whoever runs this application.",
        ],
    )
}
