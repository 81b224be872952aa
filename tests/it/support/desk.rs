//! An account of one definition, and the token calls that are made for it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value};
use trunkline::activity::Activity;
use trunkline::base::clock::{Clock, Timestamp};
use trunkline::base::random::SystemRandom;
use trunkline::connection::flow::{Parts, TokenCalls};
use trunkline::connection::grant::Account;
use trunkline::connection::turn::Turnstile;
use trunkline::definition::compile;
use trunkline::definition::document::Document;
use trunkline::definition::live::Generation;
use trunkline::definition::plan::gateway::Mode;
use trunkline::definition::plan::{Fingerprint, Integration};
use trunkline::definition::templates::Templates;
use trunkline::net::resolve::Resolver;
use trunkline::net::{Clients, Dialer, Redirect, Trust};
use trunkline::outbound::policy::Policies;
use trunkline::telemetry::metrics::Metrics;

use crate::calls::world::{Names, gateway};

/// A definition, an account of it, and what makes token calls.
pub struct Desk {
    pub calls: TokenCalls,
    pub generation: Generation,
    pub integration: Arc<Integration>,
    pub inputs: Map<String, Value>,
    pub saved: Map<String, Value>,
}

/// A policy that nobody else knows.
pub fn turns(clock: &Arc<dyn Clock>) -> Arc<dyn Turnstile> {
    Arc::new(Policies::new(Arc::clone(clock), Arc::new(Metrics::new().unwrap())))
}

impl Desk {
    /// For this integration, in development mode; `mock` is where its services are played.
    pub fn new(integration: Arc<Integration>, mock: Option<SocketAddr>, clock: &Arc<dyn Clock>) -> Self {
        let resolver = Resolver::new(Arc::new(Names), Arc::clone(clock));
        let dialer = Arc::new(Dialer::new(resolver, mock.map(|address| Redirect { address })));
        let parts = Parts {
            clients: Clients::new(dialer, Trust::of(&[])),
            clock: Arc::clone(clock),
            random: Arc::new(SystemRandom::default()),
            metrics: Arc::new(Metrics::new().unwrap()),
            activity: Arc::new(Activity::default()),
            turns: turns(clock),
        };
        let generation = Generation {
            number: 1,
            since: Timestamp::default(),
            fingerprint: Fingerprint([0; 32]),
            gateway: Arc::new(gateway(Mode::Development, Vec::new())),
            integrations: HashMap::from([(Arc::clone(&integration.id), Arc::clone(&integration))]),
            files: Vec::new(),
        };
        let calls = TokenCalls::new(parts);
        Self { calls, generation, integration, inputs: Map::new(), saved: Map::new() }
    }

    /// For a definition written here.
    pub fn of(definition: Value, clock: &Arc<dyn Clock>) -> Self {
        let document = Document::unplaced(PathBuf::from("svc.yaml"), definition);
        let integration = compile::integration(&document, &Templates::new());
        Self::new(Arc::new(integration.unwrap_or_else(|fault| panic!("{fault:?}"))), None, clock)
    }

    pub fn account(&self) -> Account<'_> {
        Account {
            generation: &self.generation,
            integration: &self.integration,
            connection: "it",
            inputs: &self.inputs,
            saved: &self.saved,
        }
    }
}
