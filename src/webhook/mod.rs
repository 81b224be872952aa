//! Webhooks in: what the public door hands over, and what becomes of it.

pub mod door;
