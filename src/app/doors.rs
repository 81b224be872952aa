//! What stands behind the doors, made in order: credentials, the way out, the receiver, the doors, the
//! workers.

use std::sync::Arc;

use super::samples::Samples;
use super::{Options, Seams, StartError, state};
use crate::action::Actions;
use crate::activity::Activity;
use crate::admin::readiness::Readiness;
use crate::admin::sign_in::{self, SignIn};
use crate::admin::{self, Reload};
use crate::base::random::RandomUnavailable;
use crate::connection::connect::{self, Calls, Connect, Reception, Revocations};
use crate::connection::endpoints::{self, Endpoints};
use crate::connection::flow::{self, TokenCalls};
use crate::connection::sign_in::oauth1::ThreeLegs;
use crate::connection::{Connections, Neighbours, Opening, Refresher, Wrap, refresh, sign_in as steps};
use crate::definition::live::Live;
use crate::definition::plan::gateway::{Fixed, Gateway, KeySource, Listen};
use crate::net::resolve::Resolver;
use crate::net::{Clients, Dialer, Redirect};
use crate::outbound::policy::Policies;
use crate::outbound::{self, Outbound};
use crate::proxy::{self, ProxyDoor};
use crate::queue;
use crate::reload::Reloader;
use crate::secrets::{SecretStore, Transit};
use crate::server::{self, Listener, Shared};
use crate::store::Store;
use crate::store::embedded::Embedded;
use crate::webhook::managed::{self, Managed};
use crate::webhook::refused::RefusedList;
use crate::webhook::silence::Silence;
use crate::webhook::tally::Tallies;
use crate::webhook::{self, Receiver};

/// The doors, open, and what is behind them.
pub struct Opened {
    pub public: server::Running,
    pub proxy: server::Running,
    /// The admin door's listener; nobody answers at it yet.
    pub admin: Listener,
    pub workers: queue::Running,
    pub activity: Arc<Activity>,
    pub outbound: Arc<Outbound>,
    pub connections: Arc<Connections>,
    pub connect: Arc<Connect>,
    tokens: Arc<TokenCalls>,
    refused: Arc<RefusedList>,
    pub silence: Arc<Silence>,
    pub clients: Clients,
    pub webhooks: Arc<Managed>,
    samples: Arc<Samples>,
    secrets: Option<Arc<SecretStore>>,
    store: Arc<dyn Store>,
    pub sign_in: Arc<SignIn>,
}

/// Opens the public and the proxy door and starts the workers.
pub async fn open(
    options: &Options,
    live: &Arc<Live>,
    store: Arc<Embedded>,
    secrets: Option<&Arc<SecretStore>>,
) -> Result<Opened, StartError> {
    let seams = &options.seams;
    let gateway = Arc::clone(&live.load().gateway);
    // Doors are bound before anything is made, so that a port in use is told at once.
    let listeners = Listeners::bind(&gateway.fixed)?;
    let connections = Arc::new(connections(&gateway, seams, &store, secrets).await?);
    let (dialer, clients) = outward(options, live, &listeners);
    let activity = Arc::new(state::activity(&gateway, seams).await);
    let policies = Arc::new(Policies::new(Arc::clone(&seams.clock), Arc::clone(&seams.metrics)));
    let (tokens, legs) = signing_in(&clients, &policies, (&connections, &activity), seams);
    let revocations = revocations(&connections, &store, seams);
    let refresher = Arc::new(refresher(live, (&connections, revocations.as_ref()), &tokens, seams)?);
    let parts = way_out((&connections, refresher), &clients, &activity, seams);
    let outbound = Arc::new(Outbound::sharing(parts, policies, Some(Arc::clone(&tokens) as _)));
    let door = Arc::new(proxy_door(live, &store, (&outbound, &clients, dialer), seams)?);
    let (endpoints, tallies, holds) = endpoints(&connections, &store, seams).await?;
    let receiver = Arc::new(receiver(live, (&store, &activity), (&endpoints, &tallies), seams));
    let (refused, silence) = (receiver.refused(), receiver.silence());
    let shared =
        Shared { live: Arc::clone(live), metrics: Arc::clone(&seams.metrics), clock: Arc::clone(&seams.clock) };
    let calls = Calls { tokens: Arc::clone(&tokens), legs, logins: Arc::clone(outbound.logins()) };
    let connect = connect(live, &store, (&connections, &activity, calls, revocations), seams);
    let connect = Arc::new(connect.with_logins(Arc::clone(outbound.logins())).with_trial(Arc::clone(&outbound) as _));
    let actions = Actions {
        outbound: Arc::clone(&outbound),
        clients: clients.clone(),
        clock: Arc::clone(&seams.clock),
        calls: Arc::clone(&door) as _,
        events: Arc::clone(&store) as _,
    };
    let webhooks = managed(live, (endpoints, tallies), (&connections, &outbound), seams);
    let samples = samples(live, listeners.public.address().clone(), seams);
    let reception = Arc::new(Reception(Arc::clone(&connect)));
    // Nothing after this refuses the start.
    state::begin(&store).await?;
    Ok(Opened {
        public: server::open_public(listeners.public, shared.clone(), receiver, reception),
        proxy: server::open_proxy(listeners.proxy, shared, door),
        admin: listeners.admin,
        workers: queue::start(work(live, &store, (actions, holds), seams)),
        activity,
        outbound,
        connections,
        connect,
        tokens,
        refused,
        silence,
        clients,
        webhooks,
        samples: Arc::new(samples),
        secrets: secrets.cloned(),
        sign_in: Arc::new(sign_in(&store, seams)),
        store,
    })
}

/// What dials, and what sends our own calls by it.
fn outward(options: &Options, live: &Arc<Live>, listeners: &Listeners) -> (Arc<Dialer>, Clients) {
    let seams = &options.seams;
    let redirect = options.mock.map(|address| Redirect { address });
    let resolver = Resolver::new(Arc::clone(&seams.lookup), Arc::clone(&seams.clock));
    let egress = live.load().gateway.fixed.egress.clone();
    let dialer = Arc::new(Dialer::new(resolver, redirect).leaving_by(egress));
    dialer.guard().set_own(listeners.addresses());
    let clients = Clients::new(Arc::clone(&dialer), seams.trust.clone()).tracing(&seams.metrics.traces);
    (dialer, clients.bounded(live, &seams.metrics))
}

/// The proxy door.
fn proxy_door(
    live: &Arc<Live>,
    store: &Arc<Embedded>,
    (outbound, clients, dialer): (&Arc<Outbound>, &Clients, Arc<Dialer>),
    seams: &Seams,
) -> Result<ProxyDoor, RandomUnavailable> {
    ProxyDoor::new(proxy::Parts {
        live: Arc::clone(live),
        outbound: Arc::clone(outbound),
        clients: clients.clone(),
        dialer,
        metrics: Arc::clone(&seams.metrics),
        clock: Arc::clone(&seams.clock),
        random: Arc::clone(&seams.random),
        events: Arc::clone(store) as _,
        backlog: Arc::clone(store) as _,
    })
}

struct Listeners {
    public: Listener,
    proxy: Listener,
    admin: Listener,
}

impl Listeners {
    fn bind(fixed: &Fixed) -> Result<Self, StartError> {
        Ok(Self {
            public: Listener::bind(&fixed.public)?,
            proxy: Listener::bind(&fixed.proxy)?,
            admin: Listener::bind(&fixed.admin)?,
        })
    }

    /// Our own addresses, which no call may dial.
    fn addresses(&self) -> Vec<std::net::SocketAddr> {
        [&self.public, &self.proxy, &self.admin].iter().filter_map(|listener| listener.address().tcp()).collect()
    }
}

async fn connections(
    gateway: &Gateway,
    seams: &Seams,
    store: &Arc<Embedded>,
    secrets: Option<&Arc<SecretStore>>,
) -> Result<Connections, StartError> {
    let environment = Arc::clone(&seams.environment);
    let opening = Opening {
        source: gateway.fixed.key.clone(),
        previous: gateway.fixed.previous.clone(),
        wrap: wrap(gateway, secrets),
        mode: gateway.fixed.mode,
        environment: Arc::new(move |name: &str| environment.variable(name).ok()),
        random: Arc::clone(&seams.random),
        clock: Arc::clone(&seams.clock),
        records: Arc::clone(store) as _,
        audit: Arc::clone(store) as _,
    };
    Ok(Connections::open(opening).await?.telling(&seams.metrics.notices))
}

/// What wraps the master key, where the settings want it.
pub fn wrap(gateway: &Gateway, secrets: Option<&Arc<SecretStore>>) -> Option<Arc<dyn Wrap>> {
    match (&gateway.fixed.key, secrets) {
        (KeySource::Transit(key), Some(secrets)) => Some(Arc::new(Transit::new(Arc::clone(secrets), key.clone()))),
        _ => None,
    }
}

fn connect(
    live: &Arc<Live>,
    store: &Arc<Embedded>,
    (connections, activity, calls, revocations): (&Arc<Connections>, &Arc<Activity>, Calls, Option<Arc<Revocations>>),
    seams: &Seams,
) -> Connect {
    Connect::new(connect::Parts {
        live: Arc::clone(live),
        connections: Arc::clone(connections),
        vault: connections.vault(),
        records: Arc::clone(store) as _,
        audit: Arc::clone(store) as _,
        activity: Arc::clone(activity),
        metrics: Arc::clone(&seams.metrics),
        clock: Arc::clone(&seams.clock),
        random: Arc::clone(&seams.random),
        provider: Arc::new(calls),
        revocations,
    })
}

/// What services are to be told of tokens out of use; none without a master key.
fn revocations(connections: &Connections, store: &Arc<Embedded>, seams: &Seams) -> Option<Arc<Revocations>> {
    let (clock, random) = (Arc::clone(&seams.clock), Arc::clone(&seams.random));
    let over = |vault| Arc::new(Revocations::new(vault, Arc::clone(store) as _, clock, random));
    connections.vault().map(over)
}

/// What asks services for tokens, under the same policy as all other calls.
fn signing_in(
    clients: &Clients,
    policies: &Arc<Policies>,
    (connections, activity): (&Arc<Connections>, &Arc<Activity>),
    seams: &Seams,
) -> (Arc<TokenCalls>, ThreeLegs) {
    let tokens = TokenCalls::new(flow::Parts {
        clients: clients.clone(),
        clock: Arc::clone(&seams.clock),
        random: Arc::clone(&seams.random),
        metrics: Arc::clone(&seams.metrics),
        activity: Arc::clone(activity),
        turns: Arc::clone(policies) as _,
    });
    let legs = ThreeLegs::new(steps::Parts {
        clients: clients.clone(),
        clock: Arc::clone(&seams.clock),
        random: Arc::clone(&seams.random),
        metrics: Arc::clone(&seams.metrics),
        activity: Arc::clone(activity),
        turns: Arc::clone(policies) as _,
    });
    (Arc::new(tokens.keeping(Arc::clone(connections))), legs)
}

fn sign_in(store: &Arc<Embedded>, seams: &Seams) -> SignIn {
    SignIn::new(sign_in::Parts {
        store: Arc::clone(store) as _,
        clock: Arc::clone(&seams.clock),
        random: Arc::clone(&seams.random),
        metrics: Arc::clone(&seams.metrics),
    })
}

/// One process has the embedded store to itself, so that leases of others are those of processes that ended.
fn refresher(
    live: &Arc<Live>,
    (connections, revocations): (&Arc<Connections>, Option<&Arc<Revocations>>),
    tokens: &Arc<TokenCalls>,
    seams: &Seams,
) -> Result<Refresher, StartError> {
    let parts = refresh::Parts {
        live: Arc::clone(live),
        connections: Arc::clone(connections),
        source: Arc::clone(tokens) as _,
        revocations: revocations.cloned(),
        clock: Arc::clone(&seams.clock),
        random: Arc::clone(&seams.random),
        metrics: Arc::clone(&seams.metrics),
    };
    Ok(Refresher::new(parts, Neighbours::None)?)
}

/// The managed endpoints, what came to them, and what holds their events back; as they were when the process before
/// this one ended.
async fn endpoints(
    connections: &Connections,
    store: &Arc<Embedded>,
    seams: &Seams,
) -> Result<(Arc<Endpoints>, Arc<Tallies>, Arc<queue::Holds>), StartError> {
    let holds = Arc::new(queue::Holds::default());
    let endpoints = Arc::new(Endpoints::new(endpoints::Parts {
        vault: connections.vault(),
        records: Arc::clone(store) as _,
        audit: Arc::clone(store) as _,
        clock: Arc::clone(&seams.clock),
        random: Arc::clone(&seams.random),
        holding: Arc::clone(&holds) as _,
    }));
    let tallies = Arc::new(Tallies::new(Arc::clone(store) as _));
    endpoints.load().await?;
    tallies.load().await?;
    Ok((endpoints, tallies, holds))
}

fn way_out(
    (connections, refresher): (&Arc<Connections>, Arc<Refresher>),
    clients: &Clients,
    activity: &Arc<Activity>,
    seams: &Seams,
) -> outbound::Parts {
    outbound::Parts {
        random: Arc::clone(&seams.random),
        connections: Arc::clone(connections),
        refresher: Some(refresher),
        clients: clients.clone(),
        clock: Arc::clone(&seams.clock),
        metrics: Arc::clone(&seams.metrics),
        activity: Arc::clone(activity),
    }
}

fn managed(
    live: &Arc<Live>,
    (endpoints, tallies): (Arc<Endpoints>, Arc<Tallies>),
    (connections, outbound): (&Arc<Connections>, &Arc<Outbound>),
    seams: &Seams,
) -> Arc<Managed> {
    Arc::new(Managed::new(managed::Parts {
        live: Arc::clone(live),
        endpoints,
        tallies,
        connections: Arc::clone(connections),
        outbound: Arc::clone(outbound),
        clock: Arc::clone(&seams.clock),
        random: Arc::clone(&seams.random),
        metrics: Arc::clone(&seams.metrics),
    }))
}

/// What sends sample events to our own public door, which no other client of ours may dial.
fn samples(live: &Arc<Live>, door: server::Address, seams: &Seams) -> Samples {
    let resolver = Resolver::new(Arc::clone(&seams.lookup), Arc::clone(&seams.clock));
    let clients = Clients::new(Arc::new(Dialer::new(resolver, None)), seams.trust.clone());
    let (clock, random) = (Arc::clone(&seams.clock), Arc::clone(&seams.random));
    Samples { live: Arc::clone(live), clients, clock, random, door }
}

fn receiver(
    live: &Arc<Live>,
    (store, activity): (&Arc<Embedded>, &Arc<Activity>),
    (endpoints, tallies): (&Arc<Endpoints>, &Arc<Tallies>),
    seams: &Seams,
) -> Receiver {
    Receiver::new(webhook::Parts {
        live: Arc::clone(live),
        events: Arc::clone(store) as _,
        clock: Arc::clone(&seams.clock),
        random: Arc::clone(&seams.random),
        metrics: Arc::clone(&seams.metrics),
        endpoints: Arc::clone(endpoints),
        tallies: Arc::clone(tallies),
        activity: Arc::clone(activity),
    })
}

fn work(
    live: &Arc<Live>,
    store: &Arc<Embedded>,
    (actions, holds): (Actions, Arc<queue::Holds>),
    seams: &Seams,
) -> queue::Parts {
    queue::Parts {
        clocks: Arc::default(),
        live: Arc::clone(live),
        events: Arc::clone(store) as _,
        work: Arc::clone(store) as _,
        act: Arc::new(actions),
        holds,
        clock: Arc::clone(&seams.clock),
        random: Arc::clone(&seams.random),
        metrics: Arc::clone(&seams.metrics),
    }
}

impl Opened {
    /// What the admin door is made of.
    pub fn admin_parts(
        &self,
        live: &Arc<Live>,
        reloader: &Arc<Reloader>,
        readiness: &Arc<Readiness>,
        seams: &Seams,
    ) -> admin::Parts {
        let listen = match self.admin.address() {
            server::Address::Tcp(address) | server::Address::Tls(address) => Listen::Tcp(*address),
            server::Address::Unix(path) => Listen::unix(path),
        };
        admin::Parts {
            live: Arc::clone(live),
            store: Arc::clone(&self.store),
            metrics: Arc::clone(&seams.metrics),
            activity: Arc::clone(&self.activity),
            refused: Arc::clone(&self.refused),
            webhooks: Arc::clone(&self.webhooks),
            samples: Arc::clone(&self.samples) as _,
            tried: Arc::default(),
            replays: Arc::default(),
            connections: Arc::clone(&self.connections),
            connect: Arc::clone(&self.connect),
            tokens: Arc::clone(&self.tokens),
            outbound: Arc::clone(&self.outbound),
            sign_in: Arc::clone(&self.sign_in),
            readiness: Arc::clone(readiness),
            secrets: self.secrets.clone(),
            reload: Arc::new(super::admin::ByHand(Arc::clone(reloader))) as Arc<dyn Reload>,
            clock: Arc::clone(&seams.clock),
            listen,
        }
    }
}
