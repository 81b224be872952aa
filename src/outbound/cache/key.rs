//! What a kept answer belongs to, and which request headers chose it.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, LazyLock};

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::directives::texts;
use crate::base::path::normal;
use crate::connection::Connection;
use crate::definition::plan::{Fingerprint, Integration};

/// Whose answer it is and where it came from. Answers of one key differ only by what `Vary` names.
///
/// The definition's fingerprint and the connection's era are part of it: a changed definition, and an
/// account that was connected anew, begin with nothing. A credential is never part of it.
///
/// One call looks its key up in several tables and leaves it in some: so it is hashed once, and a clone of it copies
/// nothing.
#[derive(Clone)]
pub struct Key(Arc<Hashed>);

struct Hashed {
    hash: u64,
    parts: Parts,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Parts {
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
        write!(f, "Key({}/{}, …)", self.0.parts.integration, self.0.parts.connection)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.0.hash == other.0.hash && self.0.parts == other.0.parts
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.0.hash);
    }
}

impl From<Parts> for Key {
    fn from(parts: Parts) -> Self {
        // Callers choose targets: nobody must be able to choose ones of the same hash.
        static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        Self(Arc::new(Hashed { hash: SEED.hash_one(&parts), parts }))
    }
}

impl Key {
    /// The key of what is at `target` (path and query, without a credential) of `place` (scheme, host and
    /// port).
    pub fn new(integration: &Integration, connection: &Connection, place: &Arc<str>, target: String) -> Self {
        Self::from(Parts {
            integration: Arc::clone(&integration.id),
            fingerprint: integration.fingerprint,
            connection: Arc::clone(&connection.id),
            era: connection.era,
            place: Arc::clone(place),
            target: target.into(),
        })
    }

    /// The integration's id.
    pub fn integration(&self) -> &Arc<str> {
        &self.0.parts.integration
    }

    /// Its hash, the same for as long as the process lives.
    pub fn hash(&self) -> u64 {
        self.0.hash
    }

    /// The key of what a `Location` or `Content-Location` of an answer to this key means; `None` where it is
    /// at another origin, or no reference.
    pub fn named_by(&self, reference: &str) -> Option<Self> {
        let Parts { place, target, .. } = &self.0.parts;
        let own = url::Url::parse(&format!("{place}{target}")).ok()?;
        let meant = own.join(reference).ok()?;
        if meant.origin() != own.origin() {
            return None;
        }
        let path = normal(meant.path());
        let target = match meant.query() {
            Some(query) => format!("{path}?{query}"),
            None => path.into_owned(),
        };
        Some(Self::from(Parts { target: target.into(), ..self.0.parts.clone() }))
    }

    /// What it takes in memory, roughly.
    pub fn bytes(&self) -> usize {
        self.0.parts.target.len() + size_of::<Self>() + size_of::<Hashed>()
    }
}

/// The headers of a request by which `Vary` chose an answer, as the service got them from the caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Chosen(Box<[Line]>);

/// A header and what a request said in it, if it said anything.
#[derive(Clone, PartialEq, Eq, Hash)]
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
        Some(Self::by(names.into_iter(), request))
    }

    /// What the same headers choose for another request.
    pub fn of_request(&self, request: &HeaderMap) -> Self {
        Self::by(self.0.iter().map(|line| line.name.clone()), request)
    }

    fn by(names: impl Iterator<Item = HeaderName>, request: &HeaderMap) -> Self {
        let with_value = |name: HeaderName| {
            let value = joined(request, &name);
            Line { name, value }
        };
        Self(names.map(with_value).collect())
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
impl Key {
    /// Of what is at this path and query of one place.
    pub(super) fn for_test(target: &str) -> Self {
        Self::from(Parts {
            integration: "svc".into(),
            fingerprint: Fingerprint([0; 32]),
            connection: "default".into(),
            era: 1,
            place: "https://api.example.com".into(),
            target: target.into(),
        })
    }
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
        assert_eq!(chosen.of_request(&headers(&[("accept", "a,b"), ("x-tenant", "2")])), chosen);
        assert_ne!(chosen.of_request(&headers(&[("accept", "b")])), chosen);
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
        let key = Key::for_test("/v1/a?secret=1");
        assert_eq!(format!("{key:?}"), "Key(svc/default, …)");
        let target = |reference: &str| key.named_by(reference).map(|named| named.0.parts.target.to_string());
        assert_eq!(target("b?x=1"), Some("/v1/b?x=1".to_owned()));
        assert_eq!(target("https://api.example.com/c"), Some("/c".to_owned()));
        assert_eq!(target("/%7ec/%2d"), Some("/~c/-".to_owned()));
        assert_eq!(target("https://api.example.com:444/c"), None);
        assert_eq!(target("//evil.example/c"), None);
    }
}
