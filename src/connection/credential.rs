//! What a connection signs in with, as types that cannot be printed.

use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::value::Value;

use crate::base::secret::Secret;
use crate::definition::plan::DeclaredCredential;
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
    /// Access tokens: `token.access` in templates.
    Tokens(Tokens),
}

/// One or more access tokens of one connection.
#[derive(Debug)]
pub struct Tokens {
    /// The one that calls carry unless they name another.
    pub default: Secret,
    /// Those with a name, such as `user`.
    pub named: Vec<(Arc<str>, Secret)>,
}

impl Tokens {
    /// The token of this name; without a name the default one.
    pub fn token(&self, name: Option<&str>) -> Option<&Secret> {
        match name {
            None | Some("default") => Some(&self.default),
            Some(name) => self.named.iter().find(|(known, _)| &**known == name).map(|(_, token)| token),
        }
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
        }
    }

    /// `text` without any part of the credential: services repeat what they were sent in their errors.
    pub fn redact(&self, text: &str) -> String {
        let mut clean = text.to_owned();
        for secret in self.secrets() {
            if secret.expose().len() >= 4 && clean.contains(secret.expose().as_str()) {
                clean = clean.replace(secret.expose().as_str(), "[redacted]");
            }
        }
        clean
    }

    fn secrets(&self) -> Vec<&Secret> {
        match self {
            Self::None => Vec::new(),
            Self::ApiKey(key) => vec![key],
            Self::Basic { username, password } => vec![username, password],
            Self::Tokens(tokens) => {
                std::iter::once(&tokens.default).chain(tokens.named.iter().map(|(_, token)| token)).collect()
            }
        }
    }

    /// `context` with the values that the placement of a credential sees. Give it to no other template:
    /// what it renders is secret. `None` when the credential has no token of that name.
    pub(crate) fn visible(&self, context: &Context, token: Option<&str>) -> Option<Context> {
        let context = context.clone();
        Some(match self {
            Self::None => context,
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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::Expr;

    #[test]
    fn each_kind_is_seen_under_its_names_and_never_printed() {
        let tokens = Tokens { default: "canary-d".into(), named: vec![("user".into(), "canary-u".into())] };
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
        let tokens = Credential::Tokens(Tokens { default: "d".into(), named: Vec::new() });
        assert!(tokens.visible(&Context::new(), Some("user")).is_none());
    }
}
