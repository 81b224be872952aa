//! AWS Signature Version 4, compiled.

use super::login::Login;
use crate::base::secret::Secret;
use crate::template::Text;

/// What calls are signed for.
#[derive(Debug)]
pub struct SigV4 {
    /// The service's name in the signature; sees `input` and `saved`.
    pub service: Text,
    /// The region; sees the same.
    pub region: Text,
    /// The access key of all connections, its id and its secret; `None` where each brings its own.
    pub key: Option<(String, Secret)>,
    /// How a temporary access key is had with that one; `None` where that one signs calls.
    pub session: Option<KeySession>,
}

impl SigV4 {
    /// Whether each connection brings an access key.
    pub fn wants_key(&self) -> bool {
        self.key.is_none() && self.session.as_ref().is_none_or(|session| session.scope.is_some())
    }
}

/// How a temporary access key is had.
#[derive(Debug)]
pub struct KeySession {
    /// The one request, which is answered with the key: its id as the usual token, and the tokens [`KEY_SECRET`] and
    /// [`KEY_SESSION`].
    pub login: Login,
    /// The service and the region that it is signed for; `None` where it is not signed.
    pub scope: Option<(Text, Text)>,
}

/// The name under which a sign-in brings an access key's secret.
pub const KEY_SECRET: &str = "secret";
/// The name under which a sign-in brings an access key's session token.
pub const KEY_SESSION: &str = "session";
