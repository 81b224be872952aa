//! What tests and people may change about a simulated service that signs in otherwise than by OAuth 2.0. Called by
//! `service`, for `/-/oauth/{integration}`.

use serde::Deserialize;

use super::oauth::Consent;

/// A change; every field stands alone.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Change {
    /// From now on this credential is the right one, and no other: a key, `NAME:PASSWORD`, `ID:SECRET` of an access
    /// key, the key that tokens are signed with, or what a sign-in must tell.
    pub accept: Option<String>,
    /// Whatever was good is no longer: keys, tokens and sessions.
    pub revoke: bool,
    /// Every session ends now.
    pub expire: bool,
    /// What becomes of authorization requests from now on.
    pub consent: Option<Consent>,
}
