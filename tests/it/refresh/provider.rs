//! A service that rotates refresh tokens, as a fake that keeps count: token `r7` gives `a8` and `r8`. The
//! thousands are the consent that the tokens are of.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, watch};
use trunkline::base::clock::{Clock as _, ManualClock, Timestamp};
use trunkline::connection::{Account, Grant, Issued, TokenError, TokenErrorKind, TokenSource};

use super::world::issued;
use crate::support::disk::FaultyDisk;

/// What the network does to a token call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Net {
    /// Nothing.
    Fine,
    /// The connection is refused.
    Unsent,
    /// The call is lost on its way there.
    LostCall,
    /// The answer is lost on its way back.
    LostAnswer,
    /// The service says 503 without looking.
    Busy,
    /// The service does not know the application.
    Stranger,
}

/// Where the power is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    BeforeIntent,
    AfterIntent,
    BeforeCommit,
    AfterCommit,
    BeforeTokens,
    AfterTokens,
    BeforeClose,
    AfterClose,
}

impl Step {
    pub const ALL: [Self; 8] = [
        Self::BeforeIntent,
        Self::AfterIntent,
        Self::BeforeCommit,
        Self::AfterCommit,
        Self::BeforeTokens,
        Self::AfterTokens,
        Self::BeforeClose,
        Self::AfterClose,
    ];
}

/// Cuts the power at a step: from then on nothing reaches the disk, and whoever passes never goes on. On a disk
/// that is not the store's it stops a process and nothing else.
#[derive(Debug, Default)]
pub struct Trap {
    planned: Mutex<Option<Step>>,
    /// The step from which on the disk fails, while the process goes on.
    breaks: Mutex<Option<Step>>,
    sprung: AtomicBool,
    pub crash: Notify,
    pub disk: FaultyDisk,
}

impl Trap {
    pub fn on(disk: FaultyDisk, planned: Option<Step>) -> Self {
        Self { planned: Mutex::new(planned), disk, ..Self::default() }
    }

    pub fn plan(&self, step: Option<Step>) {
        *self.planned.lock().unwrap() = step;
    }

    /// The disk fails from this step on.
    pub fn plan_failing_disk(&self, step: Step) {
        *self.breaks.lock().unwrap() = Some(step);
    }

    pub fn sprung(&self) -> bool {
        self.sprung.load(Ordering::SeqCst)
    }

    pub async fn pass(&self, step: Step) {
        if self.breaks.lock().unwrap().take_if(|planned| *planned == step).is_some() {
            self.disk.set_broken(true);
            self.crash.notify_one();
        }
        let hit = self.planned.lock().unwrap().take_if(|planned| *planned == step).is_some();
        if hit {
            self.disk.set_broken(true);
            self.sprung.store(true, Ordering::SeqCst);
            self.crash.notify_one();
        }
        if self.sprung() {
            std::future::pending::<()>().await;
        }
    }
}

/// The service.
#[derive(Debug)]
pub struct Provider {
    clock: Arc<ManualClock>,
    /// How long a refresh token that was used works on.
    grace: Duration,
    /// Whether the use of an old token ends all of them.
    detects_reuse: bool,
    families: Mutex<Vec<Family>>,
    net: Mutex<(Net, Duration)>,
    calls: AtomicUsize,
    /// How many calls are being made for each integration, and were at most.
    at_once: Mutex<HashMap<Arc<str>, (usize, usize)>>,
    /// The integration whose calls are not answered for now.
    held: watch::Sender<Option<&'static str>>,
    /// What is odd about its answers.
    odd: Mutex<Option<fn(&mut Grant)>>,
}

/// The refresh tokens that came of one consent.
#[derive(Debug, Default, Clone)]
struct Family {
    current: usize,
    previous: Option<(usize, Timestamp)>,
    revoked: bool,
}

impl Provider {
    pub fn new(clock: Arc<ManualClock>, grace: Duration, detects_reuse: bool) -> Self {
        Self {
            clock,
            grace,
            detects_reuse,
            families: Mutex::default(),
            net: Mutex::new((Net::Fine, Duration::ZERO)),
            calls: AtomicUsize::new(0),
            at_once: Mutex::default(),
            held: watch::Sender::new(None),
            odd: Mutex::new(None),
        }
    }

    fn families(&self) -> MutexGuard<'_, Vec<Family>> {
        self.families.lock().unwrap()
    }

    /// A new consent, whose first tokens have this number.
    pub fn consent(&self, number: usize) {
        self.families().push(Family { current: number, ..Family::default() });
    }

    pub fn revoke(&self) {
        self.families().iter_mut().for_each(|family| family.revoked = true);
    }

    /// The consent that these numbers are of is over.
    pub fn revoke_one(&self, number: usize) {
        let of = |family: &&mut Family| family.current / 1_000 == number / 1_000;
        self.families().iter_mut().filter(of).for_each(|family| family.revoked = true);
    }

    /// Its answers have something odd from now on.
    pub fn spoil(&self, odd: fn(&mut Grant)) {
        *self.odd.lock().unwrap() = Some(odd);
    }

    pub fn answer(&self, net: Net) {
        self.net.lock().unwrap().0 = net;
    }

    pub fn slow_down(&self, by: Duration) {
        self.net.lock().unwrap().1 = by;
    }

    /// How many calls reached it or would have.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// How many calls were being made at once for one integration, at most.
    pub fn most_at_once(&self) -> usize {
        self.at_once.lock().unwrap().values().map(|(_, most)| *most).max().unwrap_or(0)
    }

    /// How many calls are being made for an integration.
    pub fn busy(&self, integration: &str) -> usize {
        self.at_once.lock().unwrap().get(integration).map_or(0, |(now, _)| *now)
    }

    /// Answers no calls for this integration until it is told otherwise.
    pub fn hold(&self, integration: Option<&'static str>) {
        self.held.send_replace(integration);
    }

    /// The process that made calls is gone, and so are its calls.
    pub fn hang_up(&self) {
        self.at_once.lock().unwrap().values_mut().for_each(|(now, _)| *now = 0);
    }

    fn arrive(&self, integration: &Arc<str>) {
        let mut at_once = self.at_once.lock().unwrap();
        let (now, most) = at_once.entry(Arc::clone(integration)).or_default();
        *now += 1;
        *most = (*most).max(*now);
    }

    fn leave(&self, integration: &Arc<str>) {
        let mut at_once = self.at_once.lock().unwrap();
        let (now, _) = at_once.entry(Arc::clone(integration)).or_default();
        *now = now.saturating_sub(1);
    }

    /// Whether a refresh token would bring another now.
    pub fn honours(&self, refresh: &str) -> bool {
        let number = number(refresh);
        self.families().iter().any(|family| family.takes(number, self.clock.now(), self.grace))
    }

    /// Whether an access token is of a consent that is in force.
    pub fn knows(&self, access: &str) -> bool {
        let number: usize = access.trim_start_matches('a').parse().unwrap();
        let of = |family: &Family| family.current / 1_000 == number / 1_000 && number <= family.current;
        self.families().iter().any(|family| !family.revoked && of(family))
    }

    fn commit(&self, refresh: &str) -> Result<usize, TokenError> {
        let (number, now) = (number(refresh), self.clock.now());
        let mut families = self.families();
        let family = families.iter_mut().find(|family| family.current / 1_000 == number / 1_000);
        let family = family.ok_or_else(refused)?;
        if !family.takes(number, now, self.grace) {
            family.revoked |= self.detects_reuse;
            return Err(refused());
        }
        if number == family.current {
            *family = Family { current: number + 1, previous: Some((number, now)), revoked: false };
        }
        Ok(family.current)
    }
}

impl Family {
    fn takes(&self, number: usize, now: Timestamp, grace: Duration) -> bool {
        let in_grace =
            |(old, since): (usize, Timestamp)| old == number && !grace.is_zero() && now.since(since) <= grace;
        !self.revoked && (number == self.current || self.previous.is_some_and(in_grace))
    }
}

fn number(refresh: &str) -> usize {
    refresh.trim_start_matches('r').parse().unwrap()
}

fn refused() -> TokenError {
    TokenError {
        code: Some("invalid_grant".to_owned()),
        status: Some(400),
        ..TokenError::new(TokenErrorKind::Permanent, "the token was revoked")
    }
}

/// The service as a process sees it, with the trap of that process.
pub struct Line {
    pub provider: Arc<Provider>,
    pub trap: Arc<Trap>,
}

#[async_trait]
impl TokenSource for Line {
    async fn renew(&self, account: Account<'_>, name: &str, held: &Issued) -> Result<Grant, TokenError> {
        let (provider, integration) = (&self.provider, &account.integration.id);
        provider.calls.fetch_add(1, Ordering::SeqCst);
        provider.arrive(integration);
        let mut gate = provider.held.subscribe();
        drop(gate.wait_for(|held| *held != Some(&**integration)).await);
        let (net, slow) = *provider.net.lock().unwrap();
        if !slow.is_zero() {
            tokio::time::sleep(slow).await;
        }
        let failed = |kind, words: &str| Err(TokenError::new(kind, words));
        self.trap.pass(Step::BeforeCommit).await;
        let refresh = held.refresh.as_ref().unwrap().expose().clone();
        let answer = match net {
            Net::Unsent => failed(TokenErrorKind::Unsent, "connection refused"),
            Net::LostCall => failed(TokenErrorKind::Passing, "no answer"),
            Net::Busy => failed(TokenErrorKind::Passing, "503"),
            Net::Stranger => failed(TokenErrorKind::Misconfigured, "401, invalid_client"),
            Net::Fine | Net::LostAnswer => provider.commit(&refresh).map(|number| {
                let token = issued(number, provider.clock.now());
                let mut grant = Grant { tokens: [(Arc::from(name), token)].into(), ..Grant::default() };
                if let Some(odd) = *provider.odd.lock().unwrap() {
                    odd(&mut grant);
                }
                grant
            }),
        };
        self.trap.pass(Step::AfterCommit).await;
        provider.leave(integration);
        if net == Net::LostAnswer { failed(TokenErrorKind::Passing, "the answer broke off") } else { answer }
    }
}
