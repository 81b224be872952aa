//! An account of a definition whose service is on this machine.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use trunkline::activity::Activity;
use trunkline::base::clock::{Clock, ManualClock, SystemClock, Timestamp};
use trunkline::base::random::SystemRandom;
use trunkline::connection::Connections;
use trunkline::connection::flow::{Parts, Purpose, TokenCalls};
use trunkline::connection::grant::{Account, Grant, Issued, TokenError, TokenSource};
use trunkline::definition::compile;
use trunkline::definition::document::Document;
use trunkline::definition::live::Generation;
use trunkline::definition::plan::gateway::{Gateway, Mode, Network};
use trunkline::definition::plan::{Fingerprint, Integration};
use trunkline::definition::templates::Templates;
use trunkline::net::resolve::Resolver;
use trunkline::net::{Clients, Dialer, Trust};
use trunkline::telemetry::metrics::Metrics;

use crate::calls::service::Service;
use crate::calls::world::{Names, gateway};
use crate::support::desk::turns;

pub struct World {
    pub calls: TokenCalls,
    pub generation: Generation,
    pub integration: Arc<Integration>,
    pub activity: Arc<Activity>,
    pub metrics: Arc<Metrics>,
    pub inputs: Map<String, Value>,
    pub saved: Map<String, Value>,
}

/// Where the service is, under a name that only these tests know.
pub fn at(service: &Service, path: &str) -> String {
    format!("http://svc.example:{}{path}", service.port())
}

/// A definition with this `oauth2` block and an API at the service; `SVC` in its texts is the service.
pub fn world(service: &Service, oauth2: &Value) -> World {
    world_with(service, oauth2, &json!({}))
}

/// The same with more blocks.
pub fn world_with(service: &Service, oauth2: &Value, more: &Value) -> World {
    world_at(&at(service, ""), oauth2, more)
}

/// The same for a service at an address.
pub fn world_at(base: &str, oauth2: &Value, more: &Value) -> World {
    let mut definition = json!({
        "trunkline": 1, "id": "svc", "auth": { "oauth2": oauth2 },
        "api": { "base_url": "SVC/api", "allow_private": true, "allow_plain_http": true, "timeouts": { "response": "1s" } },
    });
    definition.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let text = definition.to_string().replace("SVC", base);
    let document = Document::unplaced(PathBuf::from("svc.yaml"), serde_json::from_str(&text).unwrap());
    let integration = compile::integration(&document, &Templates::new());
    let integration =
        Arc::new(integration.unwrap_or_else(|fault| panic!("{}: {}", fault.place.pointer, fault.message)));
    let generation = Generation {
        number: 7,
        since: Timestamp::default(),
        fingerprint: Fingerprint([0; 32]),
        gateway: Arc::new(reachable()),
        integrations: HashMap::from([(Arc::from("svc"), Arc::clone(&integration))]),
        files: Vec::new(),
    };
    let (activity, metrics) = (Arc::new(Activity::default()), Arc::new(Metrics::new().unwrap()));
    let parts = parts(Arc::new(SystemClock::new()), &metrics, &activity);
    let calls = TokenCalls::new(parts);
    World { calls, generation, integration, activity, metrics, inputs: Map::new(), saved: Map::new() }
}

/// Settings by which this machine is reached.
pub fn reachable() -> Gateway {
    gateway(Mode::Production, vec![Network { address: [127, 0, 0, 0].into(), prefix: 8 }])
}

fn parts(clock: Arc<dyn Clock>, metrics: &Arc<Metrics>, activity: &Arc<Activity>) -> Parts {
    let dialer = Dialer::new(Resolver::new(Arc::new(Names), Arc::new(SystemClock::new())), None);
    let turns = turns(&clock);
    Parts {
        clients: Clients::new(Arc::new(dialer), Trust::of(&[])),
        clock,
        turns,
        random: Arc::new(SystemRandom::default()),
        metrics: Arc::clone(metrics),
        activity: Arc::clone(activity),
    }
}

/// The same on a clock of the test's own, keeping registrations beside these connections.
pub fn at_time(world: World, clock: &Arc<ManualClock>, connections: Arc<Connections>) -> World {
    let clock: Arc<dyn Clock> = clock.clone();
    let parts = parts(clock, &world.metrics, &world.activity);
    World { calls: TokenCalls::new(parts).keeping(connections), ..world }
}

impl World {
    pub fn account(&self) -> Account<'_> {
        Account {
            generation: &self.generation,
            integration: &self.integration,
            connection: "acme",
            inputs: &self.inputs,
            saved: &self.saved,
        }
    }

    pub async fn obtain(&self, purpose: Purpose<'_>) -> Result<Grant, TokenError> {
        self.calls.obtain(self.account(), purpose).await
    }

    /// A code becomes tokens.
    pub async fn code(&self) -> Result<Grant, TokenError> {
        self.code_with(&json!({ "code": "canary-code" })).await
    }

    pub async fn code_with(&self, callback: &Value) -> Result<Grant, TokenError> {
        let callback = callback.as_object().unwrap();
        let redirect_uri = "https://gateway.example/api/auth/callback/svc";
        let verifier = Some("canary-verifier");
        self.obtain(Purpose::Code { code: "canary-code", redirect_uri, verifier, callback }).await
    }

    pub async fn renew(&self, name: &str, held: &Issued) -> Result<Grant, TokenError> {
        self.calls.renew(self.account(), name, held).await
    }
}

/// A token as it is held.
pub fn held(access: &str, refresh: Option<&str>) -> Issued {
    let scopes = Some(vec!["read".to_owned()]);
    Issued { refresh: refresh.map(Into::into), scopes, ..Issued::bare(access.into(), Timestamp::from_seconds(1)) }
}

/// The body of a request.
pub fn body(request: &str) -> &str {
    request.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

/// A header of a request.
pub fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    let lines = request.lines().take_while(|line| !line.is_empty());
    let mut pairs = lines.filter_map(|line| line.split_once(": "));
    pairs.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// Access and refresh token of a name.
pub fn pair<'a>(grant: &'a Grant, name: &str) -> (&'a str, Option<&'a str>) {
    let token = &grant.tokens[name];
    (token.access.expose(), token.refresh.as_ref().map(|refresh| refresh.expose().as_str()))
}
