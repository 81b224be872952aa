//! Typed ids: sortable by time, unguessable, and never mixed up with each other.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::base::random::{Random, RandomUnavailable};

/// Crockford's base 32, lower case: no `i`, `l`, `o`, `u`.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Characters that 128 bits take in base 32.
const LENGTH: usize = 26;

/// The id of one stored event: 48 bits of arrival time in milliseconds, then 80 random bits.
/// Reads as `evt_` and 26 characters; text order is time order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(u128);

impl EventId {
    /// A fresh id for something that happened at `now`.
    ///
    /// # Errors
    /// When the random source fails.
    pub fn generate(now: Timestamp, random: &dyn Random) -> Result<Self, RandomUnavailable> {
        let mut bytes = [0_u8; 16];
        random.fill(&mut bytes[6..])?;
        bytes[..6].copy_from_slice(&now.millis().to_be_bytes()[2..]);
        Ok(Self(u128::from_be_bytes(bytes)))
    }

    /// The id as a number, for keys in a store; its order is the id's order.
    pub const fn to_u128(self) -> u128 {
        self.0
    }

    /// The id that [`Self::to_u128`] came from.
    pub const fn from_u128(value: u128) -> Self {
        Self(value)
    }

    /// When the id was generated.
    pub fn generated_at(self) -> Timestamp {
        Timestamp::from_millis(u64::try_from(self.0 >> 80).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("evt_")?;
        write_base32::<LENGTH>(self.0, f)
    }
}

impl FromStr for EventId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        text.strip_prefix("evt_")
            .and_then(|text| read_base32(text, LENGTH))
            .map(Self)
            .ok_or(InvalidId { expected: "evt_ and 26 characters" })
    }
}

/// The id of one delivery: an event and the position of the action among those its rules asked for.
/// Reads as `evt_….3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId {
    /// The event that caused the delivery.
    pub event: EventId,
    /// The delivery's position in the event's plan, from zero.
    pub ordinal: u16,
}

impl DeliveryId {
    /// What the other side knows a delivery by, the same at every try: its id, without the dot that Standard
    /// Webhooks keeps for itself.
    pub fn idempotency_key(&self) -> String {
        format!("{}_{}", self.event, self.ordinal)
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.event, self.ordinal)
    }
}

impl FromStr for DeliveryId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = InvalidId { expected: "an event id, a dot and a number" };
        let (event, ordinal) = text.split_once('.').ok_or(invalid)?;
        Ok(Self { event: event.parse().map_err(|_| invalid)?, ordinal: ordinal.parse().map_err(|_| invalid)? })
    }
}

/// The id of one connection in the whole deployment, for APIs: it follows from the integration and the
/// connection's name, so it outlives a reconnect and a restore. Reads as `conn_` and 26 characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u128);

impl ConnectionId {
    /// The id of the connection that people call `connection` at `integration`.
    pub fn of(integration: &str, connection: &str) -> Self {
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        for part in ["trunkline connection", integration, connection] {
            digest.update(&(part.len() as u64).to_be_bytes());
            digest.update(part.as_bytes());
        }
        let bytes = digest.finish();
        Self(bytes.as_ref().iter().take(16).fold(0, |value, byte| value << 8 | u128::from(*byte)))
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("conn_")?;
        write_base32::<LENGTH>(self.0, f)
    }
}

impl FromStr for ConnectionId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        text.strip_prefix("conn_")
            .and_then(|text| read_base32(text, LENGTH))
            .map(Self)
            .ok_or(InvalidId { expected: "conn_ and 26 characters" })
    }
}

/// The id of one entry of the activity. Ids grow with the time at which what they tell of ended, also over a restart, so
/// that a place in the activity is an id. Reads as `act_` and 13 characters; text order is number order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActivityId(u64);

impl ActivityId {
    /// Ids of one millisecond.
    const OF_A_MILLISECOND: u64 = 1 << 20;

    /// The id of the next entry, after `last`, of what ended at `now`.
    #[must_use]
    pub const fn following(last: Self, now: Timestamp) -> Self {
        let own = now.millis().saturating_mul(Self::OF_A_MILLISECOND);
        Self(if own > last.0 { own } else { last.0.saturating_add(1) })
    }

    /// The id as a number.
    pub const fn to_u64(self) -> u64 {
        self.0
    }

    /// The id that [`Self::to_u64`] came from.
    pub const fn from_u64(value: u64) -> Self {
        Self(value)
    }
}

impl fmt::Display for ActivityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("act_")?;
        write_base32::<13>(u128::from(self.0), f)
    }
}

impl FromStr for ActivityId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let value = text.strip_prefix("act_").and_then(|text| read_base32(text, 13));
        value
            .and_then(|value| u64::try_from(value).ok())
            .map(Self)
            .ok_or(InvalidId { expected: "act_ and 13 characters" })
    }
}

/// A text that is not an id of the expected kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id: expected {expected}")]
pub struct InvalidId {
    /// What such an id looks like.
    pub expected: &'static str,
}

fn write_base32<const N: usize>(value: u128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut text = [0_u8; N];
    for (place, out) in text.iter_mut().rev().enumerate() {
        *out = ALPHABET[(value >> (5 * place) & 31) as usize];
    }
    f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
}

fn read_base32(text: &str, length: usize) -> Option<u128> {
    if text.len() != length {
        return None;
    }
    text.bytes().try_fold(0_u128, |value, byte| {
        let digit = ALPHABET.iter().position(|known| *known == byte)?;
        value.checked_mul(32)?.checked_add(digit as u128)
    })
}

/// The id of one managed webhook endpoint: 128 random bits. Reads as `whk_` and 26 characters. It is no part of the
/// endpoint's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WebhookId(u128);

impl WebhookId {
    /// A fresh id.
    ///
    /// # Errors
    /// When the random source fails.
    pub fn generate(random: &dyn Random) -> Result<Self, RandomUnavailable> {
        let mut bytes = [0_u8; 16];
        random.fill(&mut bytes)?;
        Ok(Self(u128::from_be_bytes(bytes)))
    }
}

impl fmt::Display for WebhookId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("whk_")?;
        write_base32::<LENGTH>(self.0, f)
    }
}

impl FromStr for WebhookId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        text.strip_prefix("whk_")
            .and_then(|text| read_base32(text, LENGTH))
            .map(Self)
            .ok_or(InvalidId { expected: "whk_ and 26 characters" })
    }
}

macro_rules! serde_as_text {
    ($($id:ty),+) => {$(
        impl Serialize for $id {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $id {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}

serde_as_text!(EventId, DeliveryId, ConnectionId, WebhookId, ActivityId);

macro_rules! schema_as_text {
    ($($id:ident $pattern:literal),+ $(,)?) => {$(
        impl utoipa::PartialSchema for $id {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                use utoipa::openapi::schema::{ObjectBuilder, Type};
                ObjectBuilder::new().schema_type(Type::String).pattern(Some($pattern)).into()
            }
        }

        impl utoipa::ToSchema for $id {
            fn name() -> std::borrow::Cow<'static, str> {
                stringify!($id).into()
            }
        }
    )+};
}

// The first character of 26 carries three bits, and that of 13 carries four.
schema_as_text! {
    EventId "^evt_[0-7][0-9a-hjkmnp-tv-z]{25}$",
    DeliveryId r"^evt_[0-7][0-9a-hjkmnp-tv-z]{25}\.[0-9]{1,5}$",
    ConnectionId "^conn_[0-7][0-9a-hjkmnp-tv-z]{25}$",
    WebhookId "^whk_[0-7][0-9a-hjkmnp-tv-z]{25}$",
    ActivityId "^act_[0-9a-f][0-9a-hjkmnp-tv-z]{12}$",
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::SeededRandom;

    #[test]
    fn ids_survive_text_and_sort_by_time() {
        let random = SeededRandom::new(7);
        let ids: Vec<_> =
            (1..50).map(|n| EventId::generate(Timestamp::from_millis(n), &random).expect("seeded")).collect();
        let texts: Vec<_> = ids.iter().map(ToString::to_string).collect();
        assert!(texts.is_sorted());
        assert_eq!(texts.iter().map(|t| t.parse().expect("own text")).collect::<Vec<EventId>>(), ids);
        assert_eq!(ids[4].generated_at(), Timestamp::from_millis(5));
    }

    #[test]
    fn ids_of_the_activity_grow_with_time_and_never_repeat() {
        let first = ActivityId::following(ActivityId::default(), Timestamp::from_millis(5));
        let second = ActivityId::following(first, Timestamp::from_millis(5));
        let back = ActivityId::following(second, Timestamp::from_millis(4));
        let later = ActivityId::following(back, Timestamp::from_millis(1_800_000_000_000));
        assert!(first < second && second < back && back < later);
        assert_eq!(later.to_string().parse(), Ok(later));
        assert!(first.to_string() < later.to_string());
        for bad in ["act_", "act_0000000000000000", "act_zzzzzzzzzzzzz", "evt_0000000000000"] {
            assert!(bad.parse::<ActivityId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_connection_has_one_id_in_the_deployment() {
        let id = ConnectionId::of("stripe", "default");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id, ConnectionId::of("stripe", "default"));
        assert_ne!(ConnectionId::of("a", "bc"), ConnectionId::of("ab", "c"));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "evt_",
            "evt_0",
            "dlv_00000000000000000000000000",
            "evt_u0000000000000000000000000",
            "evt_zzzzzzzzzzzzzzzzzzzzzzzzzz",
        ] {
            assert!(text.parse::<EventId>().is_err(), "{text}");
        }
    }
}
