//! What is signed for a service: tokens, and calls.
//!
//! Pure: time and randomness come in, nothing is sent. [`jwt`] makes tokens; [`oauth1`] and [`sigv4`] sign
//! calls as the service gets them. Called by the ways of signing in (`flow`) and by `outbound`, which puts
//! what is made here on calls.

pub mod jwt;
pub mod oauth1;
mod pairs;
pub mod sigv4;

use http::{HeaderMap, Method};
use minijinja::value::Value;

/// A call as templates see it in `request`.
pub fn seen_request(method: &Method, authority: &str, path: &str, query: &str) -> Value {
    Value::from_pairs([("method", method.as_str()), ("host", authority), ("path", path), ("query", query)])
}

/// A call as the service gets it: what a signature covers. Everything here is what will be sent.
#[derive(Clone, Copy)]
pub struct Unsigned<'a> {
    /// The method.
    pub method: &'a Method,
    /// Whether it goes over TLS.
    pub secure: bool,
    /// Its `Host`: in lower case, without the port where it is the scheme's own.
    pub authority: &'a str,
    /// The path, percent-encoded; begins with a slash, or is empty.
    pub path: &'a str,
    /// The query without the question mark, percent-encoded; may be empty.
    pub query: &'a str,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The body.
    pub body: Body<'a>,
}

/// What is known of a body when a call is signed.
#[derive(Clone, Copy)]
pub enum Body<'a> {
    /// All of it.
    Whole(&'a [u8]),
    /// It is still on its way: only schemes that need not see it can sign.
    Streamed,
}
