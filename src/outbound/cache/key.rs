//! What a kept answer belongs to, and which request headers chose it.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::directives::texts;
use crate::base::path::normal;
use crate::connection::Connection;
use crate::definition::plan::{Fingerprint, Integration};

/// Whose answer it is and where it came from. Answers of one key differ only by what `Vary` names.
///
/// The definition's fingerprint and the connection's era are part of it: a changed definition, and an
/// account that was connected anew, begin with nothing. A credential is never part of it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key {
    integration: Arc<str>,
    fingerprint: Fingerprint,
    connection: Arc<str>,
    era: u64,
    place: Arc<str>,
    target: Box<str>,
}

/// Integration and connection only: a target may hold what is nobody else's business.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}/{}, …)", self.integration, self.connection)
    }
}

impl Key {
    /// The key of what is at `target` (path and query, without a credential) of `place` (scheme, host and
    /// port).
    pub fn new(integration: &Integration, connection: &Connection, place: &Arc<str>, target: &str) -> Self {
        Self {
            integration: Arc::clone(&integration.id),
            fingerprint: integration.fingerprint,
            connection: Arc::clone(&connection.id),
            era: connection.era,
            place: Arc::clone(place),
            target: target.into(),
        }
    }

    /// The integration's id.
    pub fn integration(&self) -> &Arc<str> {
        &self.integration
    }

    /// The key of what a `Location` or `Content-Location` of an answer to this key means; `None` where it is
    /// at another origin, or no reference.
    pub fn named_by(&self, reference: &str) -> Option<Self> {
        let own = url::Url::parse(&format!("{}{}", self.place, self.target)).ok()?;
        let meant = own.join(reference).ok()?;
        if meant.origin() != own.origin() {
            return None;
        }
        let path = normal(meant.path());
        let target = match meant.query() {
            Some(query) => format!("{path}?{query}"),
            None => path.into_owned(),
        };
        Some(Self { target: target.into(), ..self.clone() })
    }

    /// What it takes in memory, roughly.
    pub fn bytes(&self) -> usize {
        self.target.len() + size_of::<Self>()
    }
}

/// The headers of a request by which `Vary` chose an answer, as the service got them from the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen(Box<[Line]>);

/// A header and what a request said in it, if it said anything.
#[derive(Clone, PartialEq, Eq)]
struct Line {
    name: HeaderName,
    value: Option<Box<[u8]>>,
}

/// The name only.
impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)
    }
}

impl Chosen {
    /// What an answer says chose it; `None` where nothing can be said to (`Vary: *`).
    pub fn of(answer: &HeaderMap, request: &HeaderMap) -> Option<Self> {
        let mut names = Vec::new();
        for name in texts(answer, header::VARY).flat_map(|text| text.split(',')).map(str::trim) {
            match HeaderName::from_bytes(name.as_bytes()) {
                _ if name == "*" => return None,
                Ok(name) if !names.contains(&name) => names.push(name),
                // An empty member, or one that no request can carry.
                _ => {}
            }
        }
        names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        let with_value = |name: HeaderName| {
            let value = joined(request, &name);
            Line { name, value }
        };
        Some(Self(names.into_iter().map(with_value).collect()))
    }

    /// Whether a request has the same values.
    pub fn matches(&self, request: &HeaderMap) -> bool {
        self.0.iter().all(|line| joined(request, &line.name) == line.value)
    }

    /// What it takes in memory, roughly.
    pub fn bytes(&self) -> usize {
        let line = |line: &Line| line.name.as_str().len() + line.value.as_ref().map_or(0, |value| value.len());
        self.0.iter().map(|each| line(each) + size_of::<Line>()).sum()
    }
}

/// All lines of a header as one, without the space around its members.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<Box<[u8]>> {
    let mut lines = headers.get_all(name).into_iter().map(HeaderValue::as_bytes).peekable();
    lines.peek()?;
    let members: Vec<_> = lines.flat_map(|line| line.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii).collect();
    Some(members.join(&b","[..]).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn a_request_is_the_same_when_what_vary_names_is() {
        let asked = headers(&[("accept", "a, b"), ("x-tenant", "1")]);
        let chosen = Chosen::of(&headers(&[("vary", "Accept, X-None")]), &asked).expect("no star");
        assert!(chosen.matches(&asked));
        assert!(chosen.matches(&headers(&[("accept", "a,b"), ("x-tenant", "2")])));
        assert!(chosen.matches(&headers(&[("accept", "a"), ("accept", "b")])));
        assert!(!chosen.matches(&headers(&[("accept", "b, a")])));
        assert!(!chosen.matches(&headers(&[("accept", "a, b"), ("x-none", "1")])));
        assert!(!chosen.matches(&HeaderMap::new()));
        for star in ["*", "accept, *", "*, *", ", *"] {
            assert_eq!(Chosen::of(&headers(&[("vary", star)]), &asked), None, "{star}");
        }
    }

    #[test]
    fn a_key_shows_no_target_and_follows_no_location_to_another_origin() {
        let key = Key {
            integration: "svc".into(),
            fingerprint: Fingerprint([0; 32]),
            connection: "default".into(),
            era: 1,
            place: "https://api.example.com".into(),
            target: "/v1/a?secret=1".into(),
        };
        assert_eq!(format!("{key:?}"), "Key(svc/default, …)");
        let target = |reference: &str| key.named_by(reference).map(|named| named.target.to_string());
        assert_eq!(target("b?x=1"), Some("/v1/b?x=1".to_owned()));
        assert_eq!(target("https://api.example.com/c"), Some("/c".to_owned()));
        assert_eq!(target("/%7ec/%2d"), Some("/~c/-".to_owned()));
        assert_eq!(target("https://api.example.com:444/c"), None);
        assert_eq!(target("//evil.example/c"), None);
    }
}
