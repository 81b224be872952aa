//! Connect links: what lets one person connect one account, for a short time.
//!
//! A link is readable and signed: everything it says stands in its query, and the signature covers all of
//! it. Its id begins with the moment it ends, so that what is remembered of it can be cleared away without
//! reading it. Whether it was used is in [`super::outcome`]. Called by the doors through [`super::Connect`].

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::base::random::{Random, RandomUnavailable};
use crate::base::secret::Secret;

/// Bytes of the key that links are signed with.
pub(super) const KEY: usize = 32;
/// Digits of the moment at the beginning of an id.
const MOMENT: usize = 10;
/// Random bytes of an id.
const RANDOM: usize = 16;
/// Characters of an id: its moment, and the random bytes in URL-safe Base64.
pub(super) const ID: usize = MOMENT + 22;
/// The most bytes of a link's query: what browsers and mail programs pass on unharmed.
pub(super) const MAX_QUERY: usize = 6 << 10;

/// What a link allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The integration.
    pub integration: String,
    /// The connection that is made, or connected anew.
    pub connection: String,
    /// Where the person goes afterwards; allowed when the link was made, and looked at again when it is used.
    pub return_to: Option<String>,
    /// The origin of the page that opens the link and may be told how it ended.
    pub origin: Option<String>,
    /// The scopes that are asked for in any case; without them the definition's default ones.
    pub scopes: Option<Vec<String>>,
    /// The scopes that the person may add; without them, all others of the definition.
    pub optional: Option<Vec<String>>,
    /// Its id.
    pub id: String,
}

/// The key that links are signed with.
pub struct LinkKey(hmac::Key);

impl std::fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LinkKey(…)")
    }
}

/// Why a link is not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// It is not a link, or one that this gateway did not sign.
    #[error("the link is incomplete or was changed")]
    Invalid,
    /// Its time is over.
    #[error("the link has expired")]
    Expired,
}

impl LinkKey {
    /// The key with these bytes.
    pub fn new(bytes: &Secret<Vec<u8>>) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes.expose()))
    }

    fn sign(&self, purpose: &str, parts: &[&str]) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.0, &bound(purpose, parts)))
    }

    fn verify(&self, purpose: &str, parts: &[&str], signature: &str) -> Result<(), LinkError> {
        let given = URL_SAFE_NO_PAD.decode(signature).map_err(|_| LinkError::Invalid)?;
        hmac::verify(&self.0, &bound(purpose, parts), &given).map_err(|_| LinkError::Invalid)
    }

    /// The id under which the outcome of a link can be asked for. Whoever follows the link does not learn
    /// it from the link.
    pub fn result_of(&self, link: &str) -> String {
        format!("{link}.{}", self.sign("result", &[link]))
    }

    /// The link that a result id belongs to.
    ///
    /// # Errors
    /// When this gateway did not give it out.
    pub fn link_of<'a>(&self, result: &'a str) -> Result<&'a str, LinkError> {
        let (link, signature) = result.split_once('.').ok_or(LinkError::Invalid)?;
        self.verify("result", &[link], signature)?;
        Ok(link)
    }
}

/// Each part with its length, so that no two lists of parts are signed alike.
fn bound(purpose: &str, parts: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in std::iter::once(&purpose).chain(parts) {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}

/// A fresh id that ends at `expires`.
///
/// # Errors
/// When there is no randomness.
pub fn fresh_id(expires: Timestamp, random: &dyn Random) -> Result<String, RandomUnavailable> {
    let mut bytes = [0; RANDOM];
    random.fill(&mut bytes)?;
    Ok(format!("{}{}", moment(expires), URL_SAFE_NO_PAD.encode(bytes)))
}

/// A moment as ids begin with it: seconds in ten hexadecimal digits, which sort as time does.
pub(super) fn moment(at: Timestamp) -> String {
    format!("{:0MOMENT$x}", at.seconds().min(0xff_ffff_ffff))
}

/// The moment at the beginning of an id.
pub(super) fn expires(id: &str) -> Option<Timestamp> {
    let seconds = u64::from_str_radix(id.get(..MOMENT)?, 16).ok()?;
    Some(Timestamp::from_seconds(seconds))
}

impl Link {
    /// The link's query, signed.
    pub fn query(&self, key: &LinkKey) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in self.fields() {
            if let Some(value) = value {
                query.append_pair(name, &value);
            }
        }
        query.append_pair("signature", &self.signature(key)).finish()
    }

    /// The link that a query is, whoever changed it.
    ///
    /// # Errors
    /// When it is none of ours, or its time is over.
    pub fn read(integration: &str, query: &str, key: &LinkKey, now: Timestamp) -> Result<Self, LinkError> {
        if query.len() > MAX_QUERY {
            return Err(LinkError::Invalid);
        }
        let fields = Fields::of(query);
        let list = |text: String| text.split(' ').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let link = Self {
            integration: integration.to_owned(),
            connection: fields.take("connection")?.ok_or(LinkError::Invalid)?,
            return_to: fields.take("return_to")?,
            origin: fields.take("origin")?,
            scopes: fields.take("scopes")?.map(list),
            optional: fields.take("optional")?.map(list),
            id: fields.take("id")?.ok_or(LinkError::Invalid)?,
        };
        let signature = fields.take("signature")?.ok_or(LinkError::Invalid)?;
        let parts = link.parts();
        key.verify("link", &parts.iter().map(String::as_str).collect::<Vec<_>>(), &signature)?;
        match expires(&link.id) {
            Some(end) if end > now => Ok(link),
            Some(_) => Err(LinkError::Expired),
            None => Err(LinkError::Invalid),
        }
    }

    /// When it ends.
    pub fn expires_at(&self) -> Timestamp {
        expires(&self.id).unwrap_or_default()
    }

    fn fields(&self) -> [(&'static str, Option<String>); 6] {
        [
            ("connection", Some(self.connection.clone())),
            ("return_to", self.return_to.clone()),
            ("origin", self.origin.clone()),
            ("scopes", self.scopes.as_ref().map(|names| names.join(" "))),
            ("optional", self.optional.as_ref().map(|names| names.join(" "))),
            ("id", Some(self.id.clone())),
        ]
    }

    fn signature(&self, key: &LinkKey) -> String {
        let parts = self.parts();
        key.sign("link", &parts.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// What is signed: an absent field reads otherwise than an empty one.
    fn parts(&self) -> Vec<String> {
        let fields =
            self.fields().into_iter().map(|(_, value)| value.map_or_else(String::new, |text| format!("={text}")));
        std::iter::once(self.integration.clone()).chain(fields).collect()
    }
}

/// The fields of a query, each at most once.
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    pub(super) fn of(query: &str) -> Self {
        Self(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// The field of this name. A second one of the same name makes the whole invalid: two readers could
    /// otherwise see two links.
    pub(super) fn take(&self, name: &str) -> Result<Option<String>, LinkError> {
        let mut found = self.0.iter().filter(|(known, _)| known == name).map(|(_, value)| value.clone());
        match (found.next(), found.next()) {
            (value, None) => Ok(value),
            (_, Some(_)) => Err(LinkError::Invalid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::SeededRandom;

    fn key(seed: u8) -> LinkKey {
        LinkKey::new(&Secret::new(vec![seed; KEY]))
    }

    fn link() -> Link {
        Link {
            integration: "github".to_owned(),
            connection: "acme".to_owned(),
            return_to: Some("https://app.example/x?a=1&b=2".to_owned()),
            origin: None,
            scopes: Some(vec!["repo".to_owned(), "read:org".to_owned()]),
            optional: None,
            id: fresh_id(Timestamp::from_seconds(1_000), &SeededRandom::new(1)).expect("seeded"),
        }
    }

    #[test]
    fn a_link_reads_back_until_it_ends() {
        let (query, at) = (link().query(&key(1)), Timestamp::from_seconds);
        assert_eq!(Link::read("github", &query, &key(1), at(999)), Ok(link()));
        assert_eq!(Link::read("github", &query, &key(1), at(1_000)), Err(LinkError::Expired));
        assert_eq!(link().expires_at(), at(1_000));
        let tracked = format!("{query}&utm_source=mail");
        assert_eq!(Link::read("github", &tracked, &key(1), at(1)), Ok(link()));
    }

    #[test]
    fn a_link_that_was_changed_in_any_way_is_none() {
        let (query, now) = (link().query(&key(1)), Timestamp::from_seconds(1));
        let changed = [
            query.replace("acme", "evil"),
            query.replace("app.example", "evil.example"),
            query.replace("repo+read", "repo+write+read"),
            query.replace("&id=", "&id=ff"),
            query.replace("&return_to=https%3A%2F%2Fapp.example%2Fx%3Fa%3D1%26b%3D2", ""),
            format!("{query}&origin=https%3A%2F%2Fevil.example"),
            format!("{query}&optional="),
            format!("{query}&connection=evil"),
            query.replace("&signature=", "&signature=A"),
            query.split("&signature").next().unwrap_or_default().to_owned(),
            String::new(),
            format!("{query}&x={}", "y".repeat(MAX_QUERY)),
        ];
        for query in changed {
            assert_eq!(Link::read("github", &query, &key(1), now), Err(LinkError::Invalid), "{query}");
        }
        assert_eq!(Link::read("gitlab", &query, &key(1), now), Err(LinkError::Invalid));
        assert_eq!(Link::read("github", &query, &key(2), now), Err(LinkError::Invalid));
    }

    #[test]
    fn a_result_id_is_not_to_be_guessed_from_the_link() {
        let link = link();
        let result = key(1).result_of(&link.id);
        assert_eq!(key(1).link_of(&result), Ok(link.id.as_str()));
        assert_eq!(key(2).link_of(&result), Err(LinkError::Invalid));
        assert_eq!(key(1).link_of(&link.id), Err(LinkError::Invalid));
        // A link's own signature is no result id, though it is over the same key.
        let signature = link.signature(&key(1));
        assert_eq!(key(1).link_of(&format!("{}.{signature}", link.id)), Err(LinkError::Invalid));
    }
}
