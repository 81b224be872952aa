//! Accounts at services: what a connection is, and how its credential is kept and found.
//!
//! [`Connections::open`] reads and checks the master keys; [`Connections`] finds a connection by the name that callers use; [`Credential`] is what it signs in
//! with; [`Vault`] seals what the store keeps of it, under the master keys of a [`KeyRing`], which [`Keys`] rotates. Nothing here sends a request or knows where a credential goes in one: that is `outbound`.

pub mod connect;
pub mod credential;
pub mod flow;
mod directory;
mod enclosed;
mod error;
pub mod endpoints;
pub mod grant;
pub mod health;
mod held;
pub mod keyring;
pub mod keys;
#[cfg(test)]
mod memory;
pub mod opening;
pub mod refresh;
pub mod rotation;
pub mod sign;
pub mod sign_in;
pub mod stored;
mod told;
pub mod transfer;
pub mod turn;
mod upkeep;
pub mod vault;

pub use credential::{Credential, Tokens};
pub use directory::{Connection, ConnectionHead, Connections, DEFAULT, Origin};
pub use error::ConnectionError;
pub use grant::{Account, Grant, Issued, TokenError, TokenErrorKind, TokenSource};
pub use health::{Health, Pulse, Status};
pub use held::PerConnection;
pub use keyring::{KeyError, KeyRing, MasterKey};
pub use keys::{KeyPlace, Keys, Wrap, WrapError};
pub use opening::{Opening, OpeningError};
pub use refresh::{Need, Neighbours, Refresher};
pub use stored::{Content, Stored, StoredError};
pub use upkeep::Use;
pub use vault::{Vault, VaultError};
