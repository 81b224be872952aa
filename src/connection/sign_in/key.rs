//! The signature of a call that is answered with a temporary access key, such as AWS STS `AssumeRole`.

use super::Parts;
use super::send::misconfigured;
use crate::base::clock::Timestamp;
use crate::base::secret::Secret;
use crate::connection::Credential;
use crate::connection::grant::{Account, TokenError};
use crate::connection::sign::sigv4::{self, AccessKey, Scope, signing};
use crate::connection::sign::{Body, Unsigned};
use crate::definition::plan::auth::Auth;
use crate::definition::plan::sigv4::SigV4;
use crate::net::{Outgoing, Scheme};
use crate::template::{Context, Text};

/// The secret that signs the call, and the token of the session that it may be of.
pub(super) fn secrets<'a>(account: &Account<'a>, own: &'a Credential) -> impl Iterator<Item = &'a Secret> {
    let key = plan(account).and_then(|plan| signing(plan, own));
    key.into_iter().flat_map(|key| std::iter::once(key.secret).chain(key.session))
}

/// Signs the call, where the definition says that it is signed.
///
/// # Errors
/// When there is no key, or the call cannot be signed.
pub(super) fn sign(
    parts: &Parts,
    account: &Account<'_>,
    (own, context): (&Credential, &Context),
    outgoing: &mut Outgoing,
) -> Result<(), TokenError> {
    let Some(plan) = plan(account) else { return Ok(()) };
    let Some((service, region)) = plan.session.as_ref().and_then(|session| session.scope.as_ref()) else {
        return Ok(());
    };
    let fill = |text: &Text| {
        text.render(context).map_err(|error| misconfigured(format!("`auth.sigv4.session` cannot be signed: {error}")))
    };
    let (service, region) = (fill(service)?, fill(region)?);
    let key = signing(plan, own).ok_or_else(|| {
        misconfigured(format!(
            "a temporary key is asked for with an access key, and this connection has {}",
            own.kind()
        ))
    })?;
    let added = signature(outgoing, (&service, &region), key, parts.clock.now())?;
    for (name, value) in added {
        outgoing.headers.insert(name, value);
    }
    Ok(())
}

fn plan<'a>(account: &Account<'a>) -> Option<&'a SigV4> {
    match &account.integration.auth {
        Auth::SigV4(plan) => Some(plan),
        _ => None,
    }
}

fn signature(
    outgoing: &Outgoing,
    (service, region): (&str, &str),
    key: AccessKey<'_>,
    now: Timestamp,
) -> Result<Vec<(http::HeaderName, http::HeaderValue)>, TokenError> {
    let authority = outgoing.origin.authority();
    let call = Unsigned {
        method: &outgoing.method,
        secure: outgoing.origin.scheme == Scheme::Https,
        authority: &authority,
        path: &outgoing.path,
        query: outgoing.query.as_deref().unwrap_or_default(),
        headers: &outgoing.headers,
        body: Body::Whole(&outgoing.body),
    };
    sigv4::headers(&call, Scope { service, region }, key, now).map_err(|error| misconfigured(error.to_string()))
}
