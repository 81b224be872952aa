//! The network outwards: names to addresses, and which addresses may be dialled.
//!
//! [`resolve`] turns a host name into addresses, with a cache; [`guard`] says which of them a call
//! may dial; [`Dialer`] puts the two together and is what every client uses, so that the address that
//! was checked is the address that is dialled; through an egress [proxy](tunnel) it decides which names may be
//! asked for. [`Clients`] sends the calls that the gateway makes
//! itself, bounded in time and size. Nothing here reads definitions' templates or adds
//! credentials. Called by `request`, `connection`, `action` (reqwest) and `proxy` (Pingora).

pub mod client;
pub mod connect;
pub mod dial;
pub mod exchange;
pub mod failure;
mod follow;
pub mod guard;
pub mod origin;
pub mod resolve;
mod room;
pub mod trust;
pub mod tunnel;

pub use client::Clients;
pub use dial::{Addresses, DialError, Dialer, Redirect, Route};
pub use exchange::{BodyLimit, Excess, Follow, Outgoing, Received, Towards, heard, is_unsent};
pub use failure::{Failure, Phase, Reason, Sent};
pub use follow::redirected;
pub use guard::Reach;
pub use origin::{Base, BaseError, Origin, Scheme};
pub use room::holding;
pub use trust::Trust;
