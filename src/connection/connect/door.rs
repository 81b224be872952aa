//! What the public door and the connect flow agree on.
//!
//! The door owns sockets, framing and the reading of bodies; what a visit means is decided here. Called by
//! `server`; implemented by [`super::Connect`].

use std::net::IpAddr;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method};

use crate::respond::Answer;

/// The most bytes that a form of ours may have.
pub const MAX_FORM: u64 = 64 << 10;

/// A browser's request for one of our pages.
#[derive(Debug, Clone)]
pub struct Visit {
    /// The method.
    pub method: Method,
    /// The path, beginning with `/api/`.
    pub path: String,
    /// The query without the question mark; empty when there is none.
    pub query: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; empty unless it is a POST.
    pub body: Bytes,
    /// The client's address, as far as it is known.
    pub source: Option<IpAddr>,
}

/// Takes people in.
#[async_trait]
pub trait Welcome: Send + Sync + 'static {
    /// Answers a visit.
    async fn answer(&self, visit: Visit) -> Answer;
}

/// Where a visit leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// A file that pages load.
    Asset(&'a str),
    /// The permission page of an integration, and its form.
    Permission(&'a str),
    /// Where a service sends people back to.
    Callback(&'a str),
    /// How a flow ended, for the person.
    Outcome(&'a str),
    /// The code that a person types on another device.
    Device(&'a str),
    /// The choice between several sites or accounts.
    Choose(&'a str),
    /// How a flow ended, for the page that opened it.
    Result(&'a str),
}

impl<'a> Place<'a> {
    /// The integration it is for, where it is for one.
    pub const fn integration(self) -> Option<&'a str> {
        match self {
            Self::Asset(_) => None,
            Self::Permission(id)
            | Self::Callback(id)
            | Self::Outcome(id)
            | Self::Device(id)
            | Self::Choose(id)
            | Self::Result(id) => Some(id),
        }
    }

    /// The methods that it is asked by, as `Allow` says them.
    pub const fn methods(self) -> &'static str {
        match self {
            Self::Permission(_) | Self::Choose(_) => "GET, HEAD, POST",
            // Not by HEAD: whoever only looks must not use up the state.
            Self::Callback(_) | Self::Result(_) => "GET",
            Self::Asset(_) | Self::Outcome(_) | Self::Device(_) => "GET, HEAD",
        }
    }
}

/// The place of a path; `None` when there is nothing.
pub fn place(path: &str) -> Option<Place<'_>> {
    if let Some(integration) = path.strip_prefix("/api/auth/callback/") {
        return is_id(integration).then_some(Place::Callback(integration));
    }
    let rest = path.strip_prefix("/api/connect/")?;
    if let Some(name) = rest.strip_prefix("-/") {
        return Some(Place::Asset(name));
    }
    let (integration, page) = rest.split_once('/').unwrap_or((rest, ""));
    let place = match page {
        "" if !rest.ends_with('/') => Place::Permission(integration),
        "outcome" => Place::Outcome(integration),
        "choose" => Place::Choose(integration),
        "device" => Place::Device(integration),
        "result" => Place::Result(integration),
        _ => return None,
    };
    is_id(integration).then_some(place)
}

/// Whether a text can be an integration's id.
fn is_id(text: &str) -> bool {
    let first = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=64).contains(&text.len())
        && text.as_bytes().first().is_some_and(first)
        && text.bytes().all(|byte| first(&byte) || byte == b'-' || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_one_place_or_to_none() {
        for (path, leads) in [
            ("/api/connect/github", Some(Place::Permission("github"))),
            ("/api/connect/github/outcome", Some(Place::Outcome("github"))),
            ("/api/connect/outcome/choose", Some(Place::Choose("outcome"))),
            ("/api/connect/github/device", Some(Place::Device("github"))),
            ("/api/connect/github/result", Some(Place::Result("github"))),
            ("/api/auth/callback/github", Some(Place::Callback("github"))),
            ("/api/connect/-/connect.css", Some(Place::Asset("connect.css"))),
            ("/api/connect/", None),
            ("/api/connect/github/", None),
            ("/api/connect/GitHub", None),
            ("/api/connect/github/x", None),
            ("/api/connect/github/outcome/", None),
            ("/api/auth/callback/", None),
            ("/api/auth/callback/github/", None),
            ("/api/auth/callback/-", None),
            ("/api/auth/callback/a%2fb", None),
            ("/api", None),
        ] {
            assert_eq!(place(path), leads, "{path}");
        }
    }
}
