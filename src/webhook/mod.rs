//! Webhooks in: what the public door hands over, and what becomes of it.
//!
//! [`receive`] is the pipeline, a stage a line. Its stages have a file each: [`limits`], [`verify`] (one
//! scheme a file), [`handshake`], [`identify`], and then one durable commit in the store. What could not be
//! verified is in [`refused`] for a while. [`managed`] makes endpoints of a connection's own, and [`tally`] counts what
//! comes to them. [`silence`] tells when nothing comes any more. Nothing here speaks HTTP: the door reads requests and writes
//! answers. Called by `server`; composed by `app`.

pub mod door;
pub mod handshake;
pub mod identify;
mod keep;
pub mod limits;
pub mod managed;
mod readings;
pub mod receive;
pub mod refused;
pub mod scope;
pub mod silence;
pub mod tally;
pub mod verify;

pub use receive::{Parts, Receiver};
