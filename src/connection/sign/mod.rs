//! What is signed for a service: tokens, and calls.
//!
//! Pure: time and randomness come in, nothing is sent. Called by the ways of signing in (`flow`) and by
//! `outbound`, which puts what is made here on calls.

pub mod jwt;
