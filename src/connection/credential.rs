//! What a connection signs in with, as types that cannot be printed.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use minijinja::value::Value;

use super::directory::DEFAULT;
use super::grant::{Grant, Issued};
use crate::base::clock::Timestamp;
use crate::base::secret::Secret;
use crate::definition::plan::sigv4::{KEY_SECRET, KEY_SESSION};
use crate::definition::plan::{Auth, DeclaredCredential, Integration};
use crate::template::Context;

/// A connection's credential.
#[derive(Debug)]
pub enum Credential {
    /// None is needed.
    None,
    /// An API key: `api_key` in templates.
    ApiKey(Secret),
    /// A name and a password: `username` and `password` in templates.
    Basic {
        /// The name.
        username: Secret,
        /// The password; may be empty.
        password: Secret,
    },
    /// Access tokens: `token.access` in templates. The secret of an OAuth 1.0a token is the token named
    /// `secret`.
    Tokens(Tokens),
    /// An access key of AWS, which signs calls and goes into none.
    AccessKey {
        /// Its id.
        id: Secret,
        /// The key.
        secret: Secret,
        /// The token of temporary credentials.
        session: Option<Secret>,
    },
}

/// The name under which the secret of an OAuth 1.0a token is kept.
pub const TOKEN_SECRET: &str = "secret";

/// The tokens of one connection by name, each with its own life: `default`, which calls carry unless they
/// name another, and those with a name, such as `user`.
#[derive(Debug, Default)]
pub struct Tokens(pub BTreeMap<Arc<str>, Issued>);

impl Tokens {
    /// The token of this name; without a name the default one.
    pub fn issued(&self, name: Option<&str>) -> Option<&Issued> {
        self.0.get(name.unwrap_or(DEFAULT))
    }

    /// The access token of this name; without a name the default one.
    pub fn token(&self, name: Option<&str>) -> Option<&Secret> {
        self.issued(name).map(|issued| &issued.access)
    }

    /// A second holder of the same secrets.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self(self.0.iter().map(|(name, issued)| (Arc::clone(name), issued.copy())).collect())
    }

    /// These tokens after a call: those it brought replace those of the same name; a refresh token that it did not
    /// bring is kept unless it is spent, and so are scopes it did not mention.
    #[must_use]
    pub fn renewed(&self, grant: &Grant) -> Self {
        let mut tokens = self.copy();
        for (name, new) in &grant.tokens {
            let mut issued = new.copy();
            if let Some(before) = tokens.0.remove(name) {
                let kept = before.refresh.filter(|_| !grant.spent.contains(name));
                issued.refresh = issued.refresh.or(kept);
                issued.scopes = issued.scopes.or(before.scopes);
                issued.client = issued.client.or(before.client);
            }
            tokens.0.insert(Arc::clone(name), issued);
        }
        tokens
    }

    /// Those of them that are not among `others`, neither by their access token nor by their refresh token.
    #[must_use]
    pub fn without(self, others: &Self) -> Self {
        let refresh = |issued: &Issued| issued.refresh.as_ref().map(|refresh| refresh.expose().clone());
        let is_same = |one: &Issued, other: &Issued| {
            one.access.expose() == other.access.expose() || one.refresh.is_some() && refresh(one) == refresh(other)
        };
        let is_there = |issued: &Issued| others.0.values().any(|other| is_same(issued, other));
        Self(self.0.into_iter().filter(|(_, issued)| !is_there(issued)).collect())
    }
}

impl Credential {
    /// The kind in words, for messages.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::None => "no credential",
            Self::ApiKey(_) => "an API key",
            Self::Basic { .. } => "a name and a password",
            Self::Tokens(_) => "a token",
            Self::AccessKey { .. } => "an access key",
        }
    }

    /// The access key that a sign-in brought as tokens: its id as the usual one.
    pub(super) fn access_key(mut tokens: BTreeMap<Arc<str>, Issued>) -> Self {
        let mut take = |name: &str| tokens.remove(name).map(|issued| issued.access);
        let none = || Secret::from("");
        Self::AccessKey {
            id: take(DEFAULT).unwrap_or_else(none),
            secret: take(KEY_SECRET).unwrap_or_else(none),
            session: take(KEY_SESSION),
        }
    }

    /// A second holder of the same secrets.
    #[must_use]
    pub fn copy(&self) -> Self {
        let copy = |secret: &Secret| Secret::from(secret.expose().as_str());
        match self {
            Self::None => Self::None,
            Self::ApiKey(key) => Self::ApiKey(copy(key)),
            Self::Basic { username, password } => Self::Basic { username: copy(username), password: copy(password) },
            Self::AccessKey { id, secret, session } => {
                Self::AccessKey { id: copy(id), secret: copy(secret), session: session.as_ref().map(copy) }
            }
            Self::Tokens(tokens) => Self::Tokens(tokens.copy()),
        }
    }

    /// What tells this credential from any other: a digest of its secrets.
    pub(super) fn digest(&self) -> String {
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        for secret in
            std::iter::once(self.kind()).chain(self.parts().into_iter().map(|secret| secret.expose().as_str()))
        {
            hash.update(&u64::try_from(secret.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(secret.as_bytes());
        }
        URL_SAFE_NO_PAD.encode(hash.finish())
    }

    /// Name and password as `Authorization: Basic` has them before they are encoded, where it is a pair.
    pub fn pair(&self) -> Option<Secret> {
        let Self::Basic { username, password } = self else { return None };
        Some(Secret::new(format!("{}:{}", username.expose(), password.expose())))
    }

    /// What it lacks to sign anybody in; `None` where it lacks nothing.
    pub fn wanting(&self) -> Option<String> {
        let empty = |secret: &Secret| secret.expose().is_empty();
        match self {
            Self::None => None,
            Self::ApiKey(key) => empty(key).then(|| "the key is empty".to_owned()),
            Self::Basic { username, password } => {
                (empty(username) && empty(password)).then(|| "the name and the password are empty".to_owned())
            }
            Self::AccessKey { id, secret, .. } => {
                (empty(id) || empty(secret)).then(|| "the access key has an empty id or secret".to_owned())
            }
            Self::Tokens(tokens) => match tokens.0.iter().find(|(_, issued)| empty(&issued.access)) {
                Some((name, _)) => Some(format!("its token `{name}` is empty")),
                None => tokens.issued(None).is_none().then(|| format!("it has no token `{DEFAULT}`")),
            },
        }
    }

    /// Whether it can stand in the calls of an integration; one that cannot would fail with each of them.
    pub fn is_sendable(&self, integration: &Integration) -> bool {
        let carries = |secret: &Secret| {
            let placement = integration.api.as_ref().map(|api| &api.credential);
            placement.is_none_or(|placement| placement.carries(secret.expose()))
        };
        match self {
            Self::ApiKey(key) => !matches!(integration.auth, Auth::ApiKey { .. }) || carries(key),
            // What they are signed with goes nowhere.
            Self::Tokens(_) if matches!(integration.auth, Auth::OAuth1(_)) => true,
            Self::Tokens(tokens) => tokens.0.values().all(|issued| carries(&issued.access)),
            Self::AccessKey { id, .. } => id.expose().bytes().all(|byte| byte.is_ascii_graphic()),
            Self::None | Self::Basic { .. } => true,
        }
    }

    /// What must be in no text. A name is a word like others, unless it stands alone: services have it in what they
    /// answer, and some take a key in its place.
    pub(crate) fn secrets(&self) -> Vec<&Secret> {
        match self {
            Self::Basic { username, password } if password.expose().is_empty() => vec![username],
            Self::Basic { password, .. } => vec![password],
            other => other.parts(),
        }
    }

    fn parts(&self) -> Vec<&Secret> {
        match self {
            Self::None => Vec::new(),
            Self::ApiKey(key) => vec![key],
            Self::Basic { username, password } => vec![username, password],
            Self::AccessKey { id, secret, session } => [id, secret].into_iter().chain(session).collect(),
            Self::Tokens(tokens) => {
                tokens.0.values().flat_map(|issued| std::iter::once(&issued.access).chain(&issued.refresh)).collect()
            }
        }
    }

    /// `context` with the values that the placement of a credential sees. Give it to no other template:
    /// what it renders is secret. `None` when the credential has no token of that name.
    pub(crate) fn visible(&self, context: &Context, token: Option<&str>) -> Option<Context> {
        let context = context.clone();
        Some(match self {
            Self::None | Self::AccessKey { .. } => context,
            Self::ApiKey(key) => context.with("api_key", key.expose().as_str()),
            Self::Basic { username, password } => {
                context.with("username", username.expose().as_str()).with("password", password.expose().as_str())
            }
            Self::Tokens(tokens) => {
                let access = tokens.token(token)?.expose().as_str();
                context.with("token", Value::from(BTreeMap::from([("access", Value::from(access))])))
            }
        })
    }
}

impl From<&DeclaredCredential> for Credential {
    fn from(declared: &DeclaredCredential) -> Self {
        let copy = |secret: &Secret| Secret::from(secret.expose().as_str());
        match declared {
            DeclaredCredential::None => Self::None,
            DeclaredCredential::ApiKey(key) => Self::ApiKey(copy(key)),
            DeclaredCredential::Basic { username, password } => {
                Self::Basic { username: copy(username), password: copy(password) }
            }
            DeclaredCredential::Token { token, secret } => {
                let named = secret.iter().map(|secret| (Arc::from(TOKEN_SECRET), copy(secret)));
                let all = std::iter::once((Arc::from(DEFAULT), copy(token))).chain(named);
                // Nobody knows when it was issued; it is used until the service refuses it.
                let issued = |(name, access)| (name, Issued::bare(access, Timestamp::default()));
                Self::Tokens(Tokens(all.map(issued).collect()))
            }
            DeclaredCredential::AccessKey { id, secret, session } => {
                Self::AccessKey { id: copy(id), secret: copy(secret), session: session.as_ref().map(copy) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::redact::redact;
    use crate::template::Expr;

    fn tokens(of: &[(&str, &str, Option<&str>)]) -> Tokens {
        let issued = |access: &str, refresh: Option<&str>| Issued {
            refresh: refresh.map(Secret::from),
            ..Issued::bare(access.into(), Timestamp::from_seconds(1))
        };
        Tokens(of.iter().map(|(name, access, refresh)| (Arc::from(*name), issued(access, *refresh))).collect())
    }

    #[test]
    fn each_kind_is_seen_under_its_names_and_never_printed() {
        let tokens = tokens(&[("default", "canary-d", Some("canary-r")), ("user", "canary-u", None)]);
        let cases = [
            (Credential::ApiKey("canary-k".into()), "api_key", "canary-k"),
            (
                Credential::Basic { username: "canary-n".into(), password: "canary-p".into() },
                "username ~ password",
                "canary-ncanary-p",
            ),
            (Credential::Tokens(tokens), "token.access", "canary-d"),
        ];
        for (credential, source, expected) in cases {
            let context = credential.visible(&Context::new(), None).expect("the default token");
            let seen = Expr::compile(source).and_then(|expr| expr.text(&context));
            assert_eq!(seen, Ok(Some(expected.to_owned())));
            assert!(!format!("{credential:?}{context:?}").contains("canary"));
        }
    }

    #[test]
    fn a_token_that_there_is_not_is_not_replaced_by_another() {
        let tokens = Credential::Tokens(tokens(&[("default", "d", None)]));
        assert!(tokens.visible(&Context::new(), Some("user")).is_none());
    }

    #[test]
    fn a_refresh_token_that_was_not_sent_anew_is_kept_and_every_secret_is_redacted() {
        let held = tokens(&[("default", "access-1", Some("refresh-1")), ("user", "user-1", Some("refresh-u"))]);
        let grant = |tokens: Tokens| Grant { tokens: tokens.0, ..Grant::default() };
        let kept = held.renewed(&grant(tokens(&[("default", "access-2", None)])));
        let rotated = kept.renewed(&grant(tokens(&[("user", "user-2", Some("refresh-v"))])));
        let text = "access-1 access-2 refresh-1 user-1 user-2 refresh-u refresh-v";
        let clean = redact(text, Credential::Tokens(rotated).secrets());
        assert_eq!(clean, "access-1 [redacted] [redacted] user-1 [redacted] refresh-u [redacted]");
    }

    #[test]
    fn a_refresh_token_that_is_spent_is_not_kept_and_what_was_given_again_is_not_taken_back() {
        let held = tokens(&[("default", "access-1", Some("refresh-1"))]);
        let new = tokens(&[("default", "access-2", None), ("user", "user-2", None)]);
        let grant = Grant { tokens: new.0, spent: [Arc::from(DEFAULT)].into(), ..Grant::default() };
        let renewed = held.renewed(&grant);
        assert!(renewed.issued(None).is_some_and(|issued| issued.refresh.is_none()));
        let late = tokens(&[("default", "access-3", Some("refresh-1")), ("user", "user-2", None), ("bot", "b", None)]);
        let left = late.without(&held).without(&renewed);
        assert_eq!(left.0.keys().map(|name| &**name).collect::<Vec<_>>(), ["bot"]);
    }
}
