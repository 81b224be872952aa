//! Sample events for managed endpoints: made by `mock` as their service would make them, sent through the public door.
//!
//! They have a client of their own: the one for calls to services never dials the gateway's own doors.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use crate::base::clock::Clock;
use crate::base::random::Random;
use crate::connection::endpoints::Endpoint;
use crate::definition::live::Live;
use crate::definition::plan::gateway::DoorName;
use crate::mock::trigger::Trigger;
use crate::net::Clients;
use crate::server::Address;
use crate::webhook::managed::{Sample, Sampled};

/// What makes and sends them.
pub struct Samples {
    pub live: Arc<Live>,
    pub clients: Clients,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    /// Where the public door listens.
    pub door: Address,
}

impl Samples {
    /// Where the door is reached without what stands before it: at its own address, unless it expects something that
    /// only what stands before it sends, or shows a certificate that is for its name.
    fn origin(&self) -> String {
        let gateway = Arc::clone(&self.live.load().gateway);
        let behind = !gateway.doors.get(DoorName::Public).proxy_protocol.is_empty();
        match self.door {
            Address::Tcp(address) if !behind => {
                let ip = if address.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { address.ip() };
                format!("http://{}", std::net::SocketAddr::new(ip, address.port()))
            }
            _ => gateway.public_url.as_str().trim_end_matches('/').to_owned(),
        }
    }
}

#[async_trait]
impl Sample for Samples {
    async fn send(&self, endpoint: &Endpoint, event_type: Option<&str>) -> Result<Sampled, String> {
        let generation = self.live.load();
        let integration = generation.integration(&endpoint.integration).ok_or("its integration is not loaded")?;
        let declared = integration.webhook.as_ref().map(|webhook| webhook.events.as_slice()).unwrap_or_default();
        let first = || declared.iter().find(|event| endpoint.takes(event)).map(String::as_str);
        let event_type =
            event_type.or_else(first).ok_or("the definition lists no event that this endpoint takes: name one")?;
        let public = generation.gateway.public_url.as_str().trim_end_matches('/');
        let trigger = Trigger {
            integration,
            event_type,
            secrets: &endpoint.secrets,
            body: None,
            url: &format!("{public}{}", endpoint.path()),
            forged: false,
        };
        let made = trigger.make(self.clock.now(), &*self.random).map_err(|error| error.to_string())?;
        let outgoing = made.outgoing(&format!("{}{}", self.origin(), endpoint.path()));
        let began = self.clock.monotonic();
        let received = self.clients.send(outgoing.map_err(|error| error.to_string())?).await;
        let received = received.map_err(|error| format!("the public door did not answer: {error}"))?;
        let text = || Value::from(String::from_utf8_lossy(&received.body));
        Ok(Sampled {
            event_type: event_type.to_owned(),
            status: received.status.as_u16(),
            answer: serde_json::from_slice(&received.body).unwrap_or_else(|_| text()),
            took: self.clock.monotonic().saturating_sub(began),
        })
    }
}
