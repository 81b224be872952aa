//! Assertions that stand for the application or for an account (RFC 7523).

use std::sync::Arc;

use serde_json::Value as Json;

use super::scene::{Scene, misconfigured};
use super::{Purpose, TokenCalls};
use crate::base::secret::Secret;
use crate::connection::grant::{Account, Grant, TokenError};
use crate::connection::sign::jwt;
use crate::definition::plan::oauth2::ClientAuth;
use crate::definition::plan::request::Request;
use crate::request::fill::{self, Place};
use crate::template::Tree;

/// The input that holds a connection's own key, where the definition has none.
pub const OWN_KEY: &str = "private_key";

impl TokenCalls {
    /// The assertion that a grant exchanges: just the claims that the definition writes.
    pub(super) fn assertion(&self, scene: &Scene<'_>) -> Result<Secret, TokenError> {
        self.signed(scene, Vec::new())
    }

    /// The assertion by which the application proves itself, where it does so: the claims of RFC 7523 §3
    /// unless the definition writes others.
    pub(super) fn client_assertion(&self, scene: &Scene<'_>, request: &Request) -> Result<Option<Secret>, TokenError> {
        if scene.client_auth() != ClientAuth::PrivateKeyJwt {
            return Ok(None);
        }
        let id = scene.client()?.id.as_str();
        let usual = vec![("iss", Json::from(id)), ("sub", Json::from(id)), ("aud", audience(scene, request)?)];
        self.signed(scene, usual).map(Some)
    }

    /// An assertion that was refused and was signed by a clock which is not the service's is signed once more by
    /// the service's: such a refusal uses nothing up.
    pub(super) async fn obtain_by_their_clock(
        &self,
        account: Account<'_>,
        purpose: Purpose<'_>,
    ) -> Result<Grant, TokenError> {
        let whose = (&*account.integration.id, account.connection);
        let before = self.skews.of(whose);
        let first = Box::pin(self.obtain_once(account, purpose)).await;
        if first.is_ok() || self.skews.of(whose) == before {
            return first;
        }
        let again = Box::pin(self.obtain_once(account, purpose)).await;
        if again.is_ok() {
            let id = &account.integration.id;
            tracing::warn!(integration = &**id, "the clock of {id} is not ours: assertions are signed by its clock");
            self.skews.confirm(whose);
        } else {
            self.skews.doubt(whose);
        }
        again
    }

    fn signed(&self, scene: &Scene<'_>, usual: Vec<(&'static str, Json)>) -> Result<Secret, TokenError> {
        let declared = scene.oauth2.assertion.as_ref();
        let declared = declared.ok_or_else(|| misconfigured("this way of signing in needs `assertion`"))?;
        let mut assertion = declared.clone();
        for (name, value) in usual {
            if declared.claims.iter().all(|(known, _)| known != name) {
                assertion.claims.push((name.to_owned(), Tree::Literal(value)));
            }
        }
        let own = scene.account.inputs.get(OWN_KEY).and_then(Json::as_str).map(Secret::from);
        let account = (&*scene.account.integration.id, scene.account.connection);
        let now = self.skews.theirs(account, self.parts.clock.now());
        let context = scene.context().with_moment(now, Arc::clone(&self.parts.random));
        let signed = jwt::assertion(&assertion, own.as_ref(), &context, (now, &*self.parts.random));
        signed.map_err(|error| misconfigured(scene.secrets.redact(&format!("`assertion`: {error}"))))
    }
}

/// Whom an application's assertion is for: the issuer where there is one, else the address it goes to.
fn audience(scene: &Scene<'_>, request: &Request) -> Result<Json, TokenError> {
    let context = scene.context();
    if let Some(issuer) = &scene.oauth2.issuer {
        let issuer = issuer.render(&context).map_err(|error| misconfigured(format!("`issuer`: {error}")))?;
        return Ok(Json::from(issuer));
    }
    let filled = fill::fill(request, &context).map_err(|error| misconfigured(format!("its request: {error}")))?;
    match filled.place {
        Place::At { origin, path, .. } => Ok(Json::from(format!("{origin}{path}"))),
        Place::Below(_) => Err(misconfigured("the assertion has no `aud`: write it under `claims`")),
    }
}
