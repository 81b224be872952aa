//! The one policy for every call to a service, whoever asks.
//!
//! [`Outbound::prepare`] gathers what all calls of a connection have in common: where they go, the
//! API's headers, the placed credential, what may be dialled. The proxy door puts these on the calls it
//! streams; the gateway's own calls go through [`Outbound::run`]. Stages, a file each: [`prepare`],
//! [`credential`].

pub mod credential;
pub mod prepare;

pub use credential::{PlaceError, Placed};
pub use prepare::{Outbound, OutboundError, Prepared};
