//! Secrets that are kept elsewhere: a `HashiCorp` Vault or `OpenBao` server.
//!
//! [`SecretStore`] is an [`Environment`](crate::definition::load::environment::Environment) that also
//! knows `${vault:PATH#FIELD}`: it reads a secret when it is first asked for, reads it again now and then,
//! goes on with what it last read while the server is away, and tells when a value changed. [`Transit`]
//! wraps master keys. Both speak through one [`Client`], signed in once. Nothing here writes a secret to
//! the server. Called by `app` and `cli`; `connection` takes [`Transit`] as what wraps keys.

mod client;
mod settings;
mod store;
mod transit;

pub use client::{Client, Signed, VaultError};
pub use settings::server_of;
pub use store::{Outside, SecretStore, Standing};
pub use transit::Transit;
