//! Whether a call carries the credential that the definition places. Called by `service`.

use std::hash::{BuildHasher, RandomState};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, header};
use regex::Regex;

use super::received::Received;
use crate::base::secret::Secret;
use crate::definition::plan::api::Placement;
use crate::definition::plan::{Auth, Integration};
use crate::template::{Segment, Text};

/// Lets calls with a credential through. It knows no right value: what has the right form in the right
/// place counts. Access tokens are examined further by the OAuth side that issued them.
#[derive(Debug)]
pub(super) struct Gate {
    place: Place,
    hashes: RandomState,
}

#[derive(Debug)]
enum Place {
    Open,
    Header(HeaderName, Form),
    Query(String, Form),
    Body(String, Form),
    Basic,
}

/// What stands around a credential, and what it looks like.
#[derive(Debug, Default)]
struct Form {
    prefix: String,
    suffix: String,
    pattern: Option<Regex>,
}

/// A call that carried a credential, by a number that tells credentials apart and gives none away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Holder(pub u64);

impl Gate {
    /// The gate of an integration's API.
    pub fn new(integration: &Integration) -> Self {
        let pattern = match &integration.auth {
            Auth::ApiKey { pattern } => pattern.clone(),
            _ => None,
        };
        let place = match integration.api.as_ref().map(|api| &api.credential) {
            None | Some(Placement::Nowhere) => Place::Open,
            Some(Placement::Basic) => Place::Basic,
            Some(Placement::Body { name, value }) => Place::Body(name.clone(), Form::new(value, pattern)),
            Some(Placement::Bearer) => {
                let form = Form { prefix: "Bearer ".to_owned(), ..Form::default() };
                Place::Header(header::AUTHORIZATION, form)
            }
            Some(Placement::Header { name, value }) => Place::Header(name.clone(), Form::new(value, pattern)),
            Some(Placement::Query { name, value }) => Place::Query(name.clone(), Form::new(value, pattern)),
        };
        Self { place, hashes: RandomState::new() }
    }

    /// Who calls; `Err` says what is missing, and never quotes a value.
    /// With them comes what they carried.
    pub fn check(&self, received: &Received) -> Result<(Holder, Secret), String> {
        let value = match &self.place {
            Place::Open => String::new(),
            Place::Header(name, form) => form.check(received.header(name), &format!("the header `{name}`"))?,
            Place::Query(name, form) => {
                form.check(received.parameter(name), &format!("the query parameter `{name}`"))?
            }
            Place::Body(name, form) => {
                let fields = received.fields();
                form.check(
                    fields.get(name).and_then(|field| field.as_str()),
                    &format!("the field `{name}` of the body"),
                )?
            }
            Place::Basic => basic(received)?,
        };
        Ok((Holder(self.hashes.hash_one(&value)), Secret::new(value)))
    }

    /// Whether this header holds the credential and must not be echoed.
    pub fn is_header(&self, header: &HeaderName) -> bool {
        matches!(&self.place, Place::Header(name, _) if name == header)
    }

    /// Whether this field of a body holds the credential and must not be echoed.
    pub fn is_field(&self, field: &str) -> bool {
        matches!(&self.place, Place::Body(name, _) if name == field)
    }

    /// Whether this query parameter holds the credential and must not be echoed.
    pub fn is_parameter(&self, parameter: &str) -> bool {
        matches!(&self.place, Place::Query(name, _) if name == parameter)
    }
}

impl Form {
    fn new(value: &Text, pattern: Option<Regex>) -> Self {
        let Some(segments) = value.segments() else { return Self::default() };
        let literal = |part: Option<&Segment>| match part {
            Some(Segment::Literal(text)) => text.to_string(),
            _ => String::new(),
        };
        let slots: Vec<_> = segments.iter().filter_map(Segment::slot).collect();
        let is_plain_key = matches!(slots.as_slice(), [slot] if slot.source().trim() == "api_key");
        Self {
            prefix: literal(segments.first()),
            suffix: if segments.len() > 1 { literal(segments.last()) } else { String::new() },
            pattern: pattern.filter(|_| is_plain_key),
        }
    }

    fn check(&self, value: Option<&str>, place: &str) -> Result<String, String> {
        let value = value.ok_or_else(|| format!("{place} is missing"))?;
        let inner = value.strip_prefix(self.prefix.as_str()).and_then(|rest| rest.strip_suffix(self.suffix.as_str()));
        let Some(inner) = inner.filter(|inner| !inner.is_empty()) else {
            return Err(format!("{place} does not have the form `{}…{}`", self.prefix, self.suffix));
        };
        match &self.pattern {
            Some(pattern) if !pattern.is_match(inner) => {
                Err(format!("the key in {place} does not match `{}`", pattern.as_str()))
            }
            _ => Ok(inner.to_owned()),
        }
    }
}

fn basic(received: &Received) -> Result<String, String> {
    let value = received.header(&header::AUTHORIZATION).ok_or("the header `authorization` is missing")?;
    let pair = value.strip_prefix("Basic ").and_then(|pair| STANDARD.decode(pair).ok());
    let pair = pair.and_then(|bytes| String::from_utf8(bytes).ok());
    match pair.as_deref().and_then(|pair| pair.split_once(':')) {
        Some((name, _)) if !name.is_empty() => Ok(name.to_owned()),
        _ => Err("the header `authorization` does not have the form `Basic NAME:PASSWORD` in base 64".to_owned()),
    }
}
