//! A service whose refresh tokens work once, and which takes everything back when one is used again. It keeps the
//! ledger of what it gave out.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use trunkline::base::random::SeededRandom;

use super::service::{self, Asked};
use super::up_to;

/// The service. Tokens are `a.NAME.NUMBER` and `r.NAME.NUMBER`.
pub struct Rotating {
    pub address: SocketAddr,
    ledger: Arc<Ledger>,
}

#[derive(Default)]
struct Ledger {
    families: Mutex<HashMap<String, Family>>,
    /// The longest that a token call waits before it takes effect, and after.
    slow: Mutex<Duration>,
    /// Token calls that are being answered.
    busy: AtomicUsize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Family {
    current: u64,
    revoked: bool,
}

impl Rotating {
    pub fn start(seed: u64) -> Self {
        let (ledger, random) = (Arc::new(Ledger::default()), SeededRandom::new(seed));
        let kept = Arc::clone(&ledger);
        let address = service::start(move |asked| match asked.path() {
            "/token" => kept.token(asked, &random),
            _ => kept.api(asked),
        });
        Self { address, ledger }
    }

    /// The definition of it, as `rotating`.
    pub fn definition(&self) -> String {
        let url = format!("http://{}", self.address);
        format!(
            "trunkline: 1\nid: rotating\ntitle: Rotating\nsummary: Renews tokens.\nauth:\n  oauth2:\n\
             \x20   authorize: {url}/authorize\n    token: {url}/token\n    refresh_tokens: rotate\n\
             \x20   client: {{ id: app, secret: \"${{env:SERVICE_SECRET}}\" }}\n\
             api: {{ base_url: \"{url}\", test: GET /me }}\n"
        )
    }

    /// A person consents: the credential of a connection of this name, whose token has ended already.
    pub fn consent(&self, name: &str) -> Value {
        let mut families = self.ledger.families.lock().unwrap();
        let family = families.entry(name.to_owned()).or_default();
        *family = Family { current: family.current + 1_000, revoked: false };
        let number = family.current;
        let token = json!({ "access": format!("a.{name}.{number}"), "refresh": format!("r.{name}.{number}"),
            "expires_at": 2_000, "issued_at": 1_000 });
        json!({ "issued": { "default": token } })
    }

    /// How long token calls may take from now on.
    pub fn slow_down(&self, most: Duration) {
        *self.ledger.slow.lock().unwrap() = most;
    }

    /// How many token calls are being answered.
    pub fn busy(&self) -> usize {
        self.ledger.busy.load(Ordering::SeqCst)
    }

    /// Whether it has taken back what a person consented to.
    pub fn has_revoked(&self, name: &str) -> bool {
        self.ledger.families.lock().unwrap()[name].revoked
    }
}

impl Ledger {
    fn token(&self, asked: &Asked, random: &SeededRandom) -> (u16, String) {
        self.busy.fetch_add(1, Ordering::SeqCst);
        let slow = *self.slow.lock().unwrap();
        std::thread::sleep(up_to(slow, random));
        let answer = self.renew(&asked.form("refresh_token"));
        std::thread::sleep(up_to(slow, random));
        self.busy.fetch_sub(1, Ordering::SeqCst);
        answer
    }

    fn renew(&self, refresh: &str) -> (u16, String) {
        let Some((name, number)) = parsed(refresh, "r") else { return (400, error("invalid_request")) };
        let mut families = self.families.lock().unwrap();
        let Some(family) = families.get_mut(name) else { return (400, error("invalid_grant")) };
        if family.revoked || family.current != number {
            // A token of an earlier consent is no reuse of this one.
            family.revoked |= family.current / 1_000 == number / 1_000;
            return (400, error("invalid_grant"));
        }
        family.current += 1;
        let (access, refresh) = (format!("a.{name}.{}", family.current), format!("r.{name}.{}", family.current));
        (
            200,
            json!({ "access_token": access, "refresh_token": refresh, "token_type": "Bearer", "expires_in": 1 })
                .to_string(),
        )
    }

    fn api(&self, asked: &Asked) -> (u16, String) {
        let bearer = asked.field("authorization").trim_start_matches("Bearer ");
        let known = parsed(bearer, "a").is_some_and(|(name, number)| {
            let families = self.families.lock().unwrap();
            families.get(name).is_some_and(|family| !family.revoked && family.current == number)
        });
        if known { (200, json!({ "token": bearer }).to_string()) } else { (401, error("invalid_token")) }
    }
}

fn parsed<'a>(token: &'a str, kind: &str) -> Option<(&'a str, u64)> {
    let mut parts = token.split('.');
    (parts.next()? == kind).then_some(())?;
    Some((parts.next()?, parts.next()?.parse().ok()?))
}

fn error(code: &str) -> String {
    json!({ "error": code }).to_string()
}
