//! Connecting an account: the path, and everything that is tried to leave it.

mod bad_input;
mod browser;
mod desk;
mod device;
mod once;
mod path;
mod removal;
mod tampering;
