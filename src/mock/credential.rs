//! Whether a call carries the credential that the definition places. Called by `service`.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, header};
use regex::Regex;

use super::received::Received;
use super::signed;
use crate::base::secret::Secret;
use crate::definition::plan::api::{Placement, tells_one_call};
use crate::definition::plan::assertion::Assertion;
use crate::definition::plan::{Auth, Integration};
use crate::template::{Segment, Text};

/// Lets calls with a credential through. Until it is told the right one, what has the right form in the right
/// place counts. Access tokens are examined further by the side that issued them.
#[derive(Debug)]
pub(super) struct Gate {
    place: Place,
    /// What makes the tokens that are placed, where connections sign them.
    assertion: Option<Arc<Assertion>>,
    right: Right,
    hashes: RandomState,
}

/// Which credential is the right one.
#[derive(Debug, Default)]
pub(super) struct Right(Mutex<Known>);

#[derive(Debug, Default)]
enum Known {
    /// Whichever comes.
    #[default]
    Any,
    /// This one.
    Only(Secret),
    /// None is, or is any more.
    Nobody,
}

impl Right {
    /// From now on this is the right one: a key, `NAME:PASSWORD`, or a word that a sign-in must have.
    pub fn accept(&self, credential: &str) {
        self.set(Known::Only(Secret::from(credential)));
    }

    /// From now on none is.
    pub fn revoke(&self) {
        self.set(Known::Nobody);
    }

    fn set(&self, known: Known) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// Whether a credential for which `fits` tells what it is compared with is the right one.
    fn is(&self, fits: impl FnOnce(&Secret) -> bool) -> bool {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Known::Any => true,
            Known::Only(right) => fits(right),
            Known::Nobody => false,
        }
    }

    /// Whether a call is signed with it, an access key.
    pub fn signs(&self, received: &Received) -> bool {
        self.is(|key| signed::by_access_key(received, key))
    }

    /// Whether it is among these.
    pub fn is_among(&self, values: &[String]) -> bool {
        self.is(|right| values.iter().any(|value| value == right.expose()))
    }
}

#[derive(Debug)]
enum Place {
    Open,
    /// A header that is another one for each call: what it should be is for the service alone to say.
    Proof(HeaderName),
    /// Calls are signed by AWS Signature Version 4.
    SigV4,
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
        let assertion = match &integration.auth {
            Auth::Jwt(assertion) => Some(Arc::clone(assertion)),
            _ => None,
        };
        let place = match integration.api.as_ref().map(|api| &api.credential) {
            _ if matches!(integration.auth, Auth::SigV4(_)) => Place::SigV4,
            None | Some(Placement::Nowhere) => Place::Open,
            Some(Placement::Basic) => Place::Basic,
            Some(Placement::Body { name, value }) => Place::Body(name.clone(), Form::new(value, pattern)),
            Some(Placement::Bearer) => {
                let form = Form { prefix: "Bearer ".to_owned(), ..Form::default() };
                Place::Header(header::AUTHORIZATION, form)
            }
            Some(Placement::Header { name, value }) if tells_one_call(value) => Place::Proof(name.clone()),
            Some(Placement::Header { name, value }) => Place::Header(name.clone(), Form::new(value, pattern)),
            Some(Placement::Query { name, value }) => Place::Query(name.clone(), Form::new(value, pattern)),
        };
        let right = Right::default();
        if let Auth::SigV4(sigv4) = &integration.auth
            && let Some((id, secret)) = &sigv4.key
        {
            right.accept(&format!("{id}:{}", secret.expose()));
        }
        Self { place, assertion, right, hashes: RandomState::new() }
    }

    /// Which credential is the right one.
    pub fn right(&self) -> &Right {
        &self.right
    }

    /// Who calls, when what they carry is the right credential; `Err` says what is wrong, and never quotes a value.
    pub fn admits(&self, received: &Received) -> Result<Holder, String> {
        let (holder, value) = self.check(received)?;
        let is_right = match (&self.place, &self.assertion) {
            (Place::Open | Place::Proof(_), _) => true,
            (Place::SigV4, _) => self.right.signs(received),
            (_, Some(assertion)) => self.right.is(|key| signed::by_key(assertion, value.expose(), key)),
            (_, None) => self.right.is(|right| right.expose() == value.expose()),
        };
        if is_right { Ok(holder) } else { Err("the credential is not known here".to_owned()) }
    }

    /// Who calls; `Err` says what is missing, and never quotes a value.
    /// With them comes what they carried.
    pub fn check(&self, received: &Received) -> Result<(Holder, Secret), String> {
        let value = match &self.place {
            Place::Open => String::new(),
            Place::Proof(name) => {
                let value = received.header(name).filter(|value| !value.is_empty());
                value.ok_or_else(|| format!("the header `{name}` is missing"))?.to_owned()
            }
            Place::SigV4 => signed::access_key_id(received)?,
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
        Ok((self.holder(&value), Secret::new(value)))
    }

    /// Whether calls carry a proof of the credential, in which it may not be found.
    pub fn is_proof(&self) -> bool {
        matches!(self.place, Place::Proof(_))
    }

    /// The number of who carries this.
    pub fn holder(&self, value: &str) -> Holder {
        Holder(self.hashes.hash_one(value))
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
        Some((name, _)) if !name.is_empty() => Ok(pair.unwrap_or_default()),
        _ => Err("the header `authorization` does not have the form `Basic NAME:PASSWORD` in base 64".to_owned()),
    }
}
