//! Connecting an account: the path, and everything that is tried to leave it.

pub mod bad_input;
pub mod browser;
pub mod desk;
mod device;
pub mod entered;
mod oauth1;
mod once;
mod path;
mod removal;
mod scopes;
mod tampering;
