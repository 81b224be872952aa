//! The one request shape: filled in, and its answer understood.
//!
//! [`fill`](fill::fill) makes a concrete call of a request and the values of one use; every value stays
//! in its place, whatever characters it has. [`read`](answer::read) says what an answer means: whether
//! it is a success, the service's words if not, what to keep and what to give back. Nothing here adds
//! credentials or sends anything. [`link`] reads where a page leads, [`skew`] remembers services' clocks. [`standard_webhooks`] signs what goes to destinations. Called by
//! `outbound`, and by `action` for messages to destinations.

pub mod answer;
pub mod fill;
pub mod link;
pub mod moment;
mod retry_after;
pub mod skew;
mod slot;
pub mod standard_webhooks;

pub use answer::{Answer, AnswerError, Outcome};
pub use fill::{FillError, Filled, Place};
pub use retry_after::retry_after;
