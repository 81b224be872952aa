//! What a door shows in TLS, read from the settings in force at each connection.
//!
//! A changed certificate counts from the next connection on. One that cannot be read, or does not go with
//! its key, is refused with its whole gateway file before it gets here, so the last good one stays. Called by
//! [`super::accept`] and, for the admin door, by `app`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::Shared;
use crate::base::clock::Timestamp;
use crate::definition::plan::gateway::DoorName;
use crate::definition::plan::identity::Identity;
use crate::telemetry::notice::{Kind, Notice};

/// How long before its end a certificate is warned about: this, or a fifth of its life where that is less.
const AHEAD: Duration = Duration::from_hours(14 * 24);
/// How often it is warned about.
const AGAIN: Duration = Duration::from_hours(24);

/// A door's certificates.
#[derive(Debug)]
pub struct Certificates {
    door: DoorName,
    shared: Shared,
    current: Mutex<Option<Current>>,
}

#[derive(Debug)]
struct Current {
    identity: Arc<Identity>,
    config: Arc<ServerConfig>,
    /// First and last second of the certificate's life.
    life: Option<(i64, i64)>,
    warned: Option<Timestamp>,
    told: Stage,
}

/// What people were told of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing.
    Well,
    /// That it ends soon.
    Ending,
    /// That it has ended.
    Ended,
}

impl Certificates {
    /// What a door shows; `None` when it speaks plain HTTP.
    pub fn of(door: DoorName, shared: &Shared) -> Option<Arc<Self>> {
        let secure = shared.live.load().gateway.fixed.tls.contains(&door);
        let certificates =
            secure.then(|| Arc::new(Self { door, shared: shared.clone(), current: Mutex::default() }))?;
        certificates.look();
        Some(certificates)
    }

    /// What the next connection gets; `None` when nothing that was ever in force can be shown.
    pub fn config(&self) -> Option<Arc<ServerConfig>> {
        let generation = self.shared.live.load();
        let wanted = generation.gateway.doors.get(self.door).tls.as_ref();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(identity) = wanted
            && !current.as_ref().is_some_and(|current| Arc::ptr_eq(&current.identity, identity))
        {
            self.replace(&mut current, identity);
        }
        current.as_ref().map(|current| Arc::clone(&current.config))
    }

    fn replace(&self, current: &mut Option<Current>, identity: &Arc<Identity>) {
        let door = self.door.as_str();
        // The same certificate in another generation: nothing to say.
        let same = current.as_ref().is_some_and(|current| current.identity.chain == identity.chain);
        match config(identity, self.door) {
            Ok(config) => {
                let life = life(identity);
                if let Some((_, end)) = life {
                    self.shared.metrics.tls_not_after.with_label_values(&[door]).set(end);
                }
                let before = current.as_ref().filter(|_| same);
                let warned = before.and_then(|current| current.warned);
                let told = before.map_or(Stage::Well, |current| current.told);
                *current = Some(Current { identity: Arc::clone(identity), config, life, warned, told });
                if !same {
                    tracing::info!(door, "the certificate of the {door} door is in force");
                }
            }
            Err(error) => tracing::error!(door, "the certificate of the {door} door cannot be used: {error}"),
        }
    }

    /// Takes what is in force, and warns once a day of a certificate that ends soon.
    pub fn look(&self) {
        drop(self.config());
        let now = self.shared.clock.now();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(current) = current.as_mut() else { return };
        let Some(left) = current.life.and_then(|life| ends_soon(life, now)) else { return };
        self.notify(current, left, now);
        let again = now.millis().saturating_sub(u64::try_from(AGAIN.as_millis()).unwrap_or(u64::MAX));
        if current.warned.is_some_and(|warned| warned.millis() > again) {
            return;
        }
        current.warned = Some(now);
        let door = self.door.as_str();
        if left <= 0 {
            tracing::error!(door, "the certificate of the {door} door has ended: clients refuse it; renew it now");
        } else {
            let hours = left / 3_600;
            tracing::warn!(door, tls.hours_left = hours, "the certificate of the {door} door ends in {hours} hours");
        }
    }
}

impl Certificates {
    /// Tells once that a certificate ends soon, and once that it has ended.
    fn notify(&self, current: &mut Current, left: i64, now: Timestamp) {
        let stage = if left <= 0 { Stage::Ended } else { Stage::Ending };
        if std::mem::replace(&mut current.told, stage) == stage {
            return;
        }
        let (door, end) = (self.door.as_str(), current.life.map(|(_, end)| end).unwrap_or_default());
        self.shared.metrics.notices.tell(|| {
            let at = Timestamp::from_seconds(u64::try_from(end).unwrap_or_default());
            let (what, word) = match stage {
                Stage::Ended => (format!("The certificate of the {door} door has ended: clients refuse it."), "ended"),
                Stage::Ending | Stage::Well => {
                    (format!("The certificate of the {door} door ends in {} hours.", left / 3_600), "ending")
                }
            };
            let step = "Renew it; a changed file counts from the next connection on.";
            Notice::new(Kind::CertificateExpiring, now, what, step)
                .with("door", door)
                .with("not_after", at.to_string())
                .once(format!("{}/{door}/{end}/{word}", Kind::CertificateExpiring.word()))
        });
    }
}

/// The seconds that are left of a life, where they are few.
fn ends_soon((start, end): (i64, i64), now: Timestamp) -> Option<i64> {
    let left = end - i64::try_from(now.seconds()).unwrap_or(i64::MAX);
    let ahead = i64::try_from(AHEAD.as_secs()).unwrap_or(i64::MAX).min((end - start) / 5);
    (left <= ahead).then_some(left)
}

fn life(identity: &Identity) -> Option<(i64, i64)> {
    let (_, certificate) = x509_parser::parse_x509_certificate(identity.chain.first()?).ok()?;
    let validity = certificate.validity();
    Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

fn config(identity: &Identity, door: DoorName) -> Result<Arc<ServerConfig>, rustls::Error> {
    let chain = identity.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    let key = PrivateKeyDer::try_from(identity.key.expose().clone())
        .map_err(|words| rustls::Error::General(words.to_owned()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = match door {
        DoorName::Public | DoorName::Proxy => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        DoorName::Admin => vec![b"http/1.1".to_vec()],
    };
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_warned_about_before_its_end() {
        let day = 86_400;
        let at = |seconds: i64| Timestamp::from_seconds(u64::try_from(seconds).expect("after 1970"));
        let year = (0, 365 * day);
        assert_eq!(ends_soon(year, at(350 * day)), None);
        assert_eq!(ends_soon(year, at(351 * day)), Some(14 * day));
        assert_eq!(ends_soon(year, at(366 * day)), Some(-day));
        let week = (0, 7 * day);
        assert_eq!(ends_soon(week, at(5 * day)), None, "a short life is not warned about from its start");
        assert_eq!(ends_soon(week, at(6 * day)), Some(day));
    }
}
