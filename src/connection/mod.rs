//! Accounts at services: what a connection is, and how its credential is kept and found.
//!
//! [`Connections`] finds a connection by the name that callers use; [`Credential`] is what it signs in
//! with. Nothing here sends a request or knows where a credential goes in one: that is `outbound`.

pub mod credential;
mod directory;
mod held;

pub use credential::{Credential, Tokens};
pub use directory::{Connection, ConnectionError, Connections};
pub use held::PerConnection;
