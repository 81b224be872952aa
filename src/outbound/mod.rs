//! The one policy for every call to a service, whoever asks.
//!
//! [`Outbound::prepare`] gathers what all calls of a connection have in common: where they go, the
//! API's headers, the placed credential, what may be dialled. The proxy door puts these on the calls it
//! streams; the gateway's own calls go through [`Outbound::run`]. Stages, a file each: [`prepare`],
//! [`credential`], [`sign`], [`call`] (fill, place, admit, send, read), [`record`]; [`trial`] tries a connection,
//! [`retest`] does so now and then. [`cache`] answers from what is kept, for the proxy door and for endpoints by
//! name (`kept`). What every call meets between `place` and `send`, whichever transport takes it, is [`policy`]:
//! the [`breaker`], [`limit`] with the [`quota`] that it learns from what is [`told`], and [`retry`] when it failed;
//! calls of signing in meet it through `turn`.

pub mod cache;
pub mod breaker;
pub mod call;
pub mod credential;
pub mod diagnosis;
pub mod error;
mod kept;
pub mod limit;
pub mod policy;
pub mod prepare;
pub mod quota;
pub mod retest;
pub mod retry;
mod record;
pub mod sign;
pub mod told;
mod turn;
pub mod trial;
mod tries;
mod underway;
pub mod visible;
mod way;

use std::sync::Arc;

use http::HeaderMap;

use crate::activity::Activity;
use crate::base::clock::{Clock, Timestamp};
use crate::base::random::Random;
use crate::connection::grant::Grants;
use crate::connection::sign_in::{self, login::Logins};
use crate::connection::{Connection, Connections, PerConnection, Refresher};
use crate::definition::live::Generation;
use crate::definition::plan::{Auth, Integration};
use crate::net::Clients;
use crate::request::moment::Skew;
use crate::request::skew::{self, Skews};
use crate::telemetry::metrics::Metrics;
use policy::{Policies, Policy};

use cache::Cache;
pub use call::Call;
pub use credential::{PlaceError, Placed};
pub use diagnosis::{Cause, Diagnosis};
pub use error::{OutboundError, Unsuccessful, Why};
pub use limit::{Ask, Lane};
pub use policy::{Held, Pass};
pub use prepare::{Prepared, SignedOut};
pub use trial::{test, try_out};

/// The way out. One for the whole program.
#[derive(Debug)]
pub struct Outbound {
    parts: Parts,
    policies: Arc<Policies>,
    prepared: PerConnection<Arc<Prepared>>,
    logins: Arc<Logins>,
    /// Clocks by which calls are signed.
    skews: Skews,
    cache: Arc<Cache>,
}

/// Now, and where randomness comes from.
pub type Moment<'a> = (Timestamp, &'a Arc<dyn Random>);

/// What the way out is made of.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The connections there are.
    pub connections: Arc<Connections>,
    /// What renews their tokens; without it tokens are used as they are.
    pub refresher: Option<Arc<Refresher>>,
    /// What sends the gateway's own calls.
    pub clients: Clients,
    /// Randomness, for nonces.
    pub random: Arc<dyn Random>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What happened.
    pub activity: Arc<Activity>,
}

impl Outbound {
    /// The way out over these parts, with a policy that nobody else knows.
    pub fn new(parts: Parts) -> Self {
        let policies = Arc::new(Policies::new(Arc::clone(&parts.clock), Arc::clone(&parts.metrics)));
        Self::sharing(parts, policies, None)
    }

    /// The way out over these parts, under the same policy as the calls of signing in. With `grants` it gets
    /// tokens that need no person, for connections that keep none.
    pub fn sharing(parts: Parts, policies: Arc<Policies>, grants: Option<Arc<dyn Grants>>) -> Self {
        let logins = Logins::new(sign_in::Parts {
            clients: parts.clients.clone(),
            clock: Arc::clone(&parts.clock),
            random: Arc::clone(&parts.random),
            metrics: Arc::clone(&parts.metrics),
            activity: Arc::clone(&parts.activity),
            turns: Arc::clone(&policies) as _,
        });
        let logins = match grants {
            Some(grants) => logins.granted_by(grants),
            None => logins,
        };
        let cache = Arc::new(Cache::new(Arc::clone(&parts.metrics), Arc::clone(&parts.clock)));
        let (prepared, logins, skews) = (PerConnection::default(), Arc::new(logins), Skews::default());
        Self { parts, policies, prepared, logins, skews, cache }
    }

    /// Answers that are used again.
    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// Now, and where randomness comes from.
    pub fn moment(&self) -> Moment<'_> {
        (self.parts.clock.now(), &self.parts.random)
    }

    /// Now on the clock of a connection's service, and where randomness comes from: for signatures.
    pub fn signing_moment(&self, connection: &Connection) -> Moment<'_> {
        let now = self.skews.theirs((&connection.integration, &connection.id), self.parts.clock.now());
        (now, &self.parts.random)
    }

    /// What an answer says of a service's clock where calls are signed with the time. True when the call was refused
    /// and that clock is not the one it was signed by, so that signing it once more may help.
    pub fn hear_clock(
        &self,
        integration: &Integration,
        prepared: &Prepared,
        (status, headers): (u16, &HeaderMap),
    ) -> bool {
        let least = match &integration.auth {
            Auth::SigV4(_) | Auth::OAuth1(_) => skew::SIGNATURE,
            Auth::Jwt(_) => skew::ASSERTION,
            _ => return false,
        };
        let account = (&*prepared.connection.integration, &*prepared.connection.id);
        if status < 400 {
            self.skews.confirm(account);
        }
        if !matches!(status, 400 | 401 | 403) {
            return false;
        }
        let learned = self.skews.learn(account, self.parts.clock.now(), headers, least);
        if learned || self.skews.doubt(account) {
            // A token that is signed here has the time in it.
            self.prepared.forget(account.0, account.1);
        }
        learned
    }

    /// What is believed of the clock of a connection's service.
    fn believed_clock(&self, connection: &Connection) -> Option<Skew> {
        self.skews.of((&connection.integration, &connection.id))
    }

    /// What happened.
    pub fn activity(&self) -> &Arc<Activity> {
        &self.parts.activity
    }

    /// What signs in to services that have requests of their own for it.
    pub fn logins(&self) -> &Arc<Logins> {
        &self.logins
    }

    /// The policy of an integration.
    pub fn policy(&self, generation: &Generation, integration: &Arc<Integration>) -> Arc<Policy> {
        self.policies.of(generation, integration)
    }

    /// What renews tokens.
    pub fn refresher(&self) -> Option<&Arc<Refresher>> {
        self.parts.refresher.as_ref()
    }

    /// The connections there are.
    pub fn connections(&self) -> &Arc<Connections> {
        &self.parts.connections
    }
}
