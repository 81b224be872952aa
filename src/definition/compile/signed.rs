//! Ways of signing in by a signature over each call, and by a certificate, compiled: keys are read here,
//! so that a file with a wrong one is told at load.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::place::{Fault, Place};
use super::{login, request};
use crate::base::rsa_sha1::RsaSha1Key;
use crate::base::secret::Secret;
use crate::definition::plan::identity::Identity;
use crate::definition::plan::oauth1::{Consumer, OAuth1, Signature};
use crate::definition::plan::sigv4::{KeySession, SigV4};
use crate::definition::problem::Code;
use crate::definition::raw::auth as raw;
use crate::definition::raw::scalar::Template;

/// The service that gives temporary access keys.
const DEFAULT_KEY_SERVICE: &str = "sts";

pub(super) fn oauth1(raw: &raw::OAuth1, place: &Place<'_>) -> Result<OAuth1, Fault> {
    let line = place.at("authorize");
    let authorize = line.text(&raw.authorize)?;
    if authorize.segments().is_none() {
        return Err(line.problem(Code::BadTemplate, "an address takes `{{ … }}` slots only, no `{% … %}` blocks"));
    }
    Ok(OAuth1 {
        request_token: request::compile(raw.request_token.0.shape(), &place.at("request_token"))?,
        authorize,
        access_token: request::compile(raw.access_token.0.shape(), &place.at("access_token"))?,
        signature: signature(raw, place)?,
        realm: raw.realm.as_ref().map(|realm| place.at("realm").text(realm)).transpose()?,
        client: raw.client.as_ref().map(|client| consumer(raw, client)),
    })
}

fn consumer(raw: &raw::OAuth1, client: &crate::definition::raw::oauth2::Client) -> Consumer {
    // With RSA the secret is the private key, which signs and is part of nothing that is sent.
    let shared = client.secret.as_ref().filter(|_| raw.signature != Some(raw::OAuth1Signature::RsaSha1));
    let secret = shared.map_or_else(|| Secret::from(""), |secret| Secret::from(secret.0.expose().as_str()));
    Consumer { key: client.id.clone(), secret }
}

fn signature(raw: &raw::OAuth1, place: &Place<'_>) -> Result<Signature, Fault> {
    Ok(match raw.signature {
        None | Some(raw::OAuth1Signature::HmacSha1) => Signature::HmacSha1,
        Some(raw::OAuth1Signature::HmacSha256) => Signature::HmacSha256,
        Some(raw::OAuth1Signature::Plaintext) => Signature::Plaintext,
        Some(raw::OAuth1Signature::RsaSha1) => {
            let at = place.at("client").at("secret");
            let text = raw.client.as_ref().and_then(|client| client.secret.as_ref());
            let key = text.map(|text| rsa_sha1(text.0.expose()).map_err(|words| at.problem(Code::BadFormat, words)));
            Signature::RsaSha1(key.transpose()?.map(Arc::new))
        }
    })
}

/// Reads the key of RSA-SHA1.
///
/// # Errors
/// What is wrong with it, in words; never its text.
pub fn rsa_sha1(text: &str) -> Result<RsaSha1Key, String> {
    RsaSha1Key::read(&Secret::from(text)).map_err(|fault| fault.to_string())
}

pub(super) fn sigv4(raw: &raw::SigV4, place: &Place<'_>) -> Result<SigV4, Fault> {
    let session = raw.session.as_ref().map(|session| key_session(session, (&raw.region, place), &place.at("session")));
    Ok(SigV4 {
        service: place.at("service").text(&raw.service)?,
        region: place.at("region").text(&raw.region)?,
        key: raw.key.as_ref().map(|key| (key.id.clone(), Secret::from(key.secret.0.expose().as_str()))),
        session: session.transpose()?,
    })
}

fn key_session(
    raw: &raw::KeySession,
    (region, calls): (&Template, &Place<'_>),
    place: &Place<'_>,
) -> Result<KeySession, Fault> {
    let service = Template(DEFAULT_KEY_SERVICE.to_owned());
    let service = place.at("service").text(raw.service.as_ref().unwrap_or(&service))?;
    let region = match &raw.region {
        Some(region) => place.at("region").text(region)?,
        None => calls.at("region").text(region)?,
    };
    Ok(KeySession { login: login::one_call(raw, place)?, scope: raw.is_signed().then_some((service, region)) })
}

/// Reads a client certificate and its key, and sees that they belong together. `None` when both are left to the
/// deployment.
///
/// # Errors
/// The field that is wrong (`certificate` or `key`), and what is wrong in words; never its text.
pub fn identity(raw: &raw::Mtls) -> Result<Option<Identity>, (&'static str, String)> {
    let (Some(certificate), Some(key)) = (&raw.certificate, &raw.key) else { return Ok(None) };
    pair(certificate, &key.0).map(Some)
}

/// Reads a certificate chain and its key, and sees that they belong together.
///
/// # Errors
/// As [`identity`].
pub fn pair(certificate: &str, key: &Secret) -> Result<Identity, (&'static str, String)> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
    let chain = chain.map_err(|_| ("certificate", "this is not PEM text with certificates".to_owned()))?;
    if chain.is_empty() {
        return Err(("certificate", "there is no certificate in this text: expected PEM".to_owned()));
    }
    let text = key.expose();
    if text.contains("ENCRYPTED") {
        let words = "this key is protected by a passphrase: write it without one, such as with `openssl pkey`";
        return Err(("key", words.to_owned()));
    }
    let unfolded = Secret::new(text.replace("\\n", "\n"));
    let key = PrivateKeyDer::from_pem_slice(unfolded.expose().as_bytes())
        .map_err(|_| ("key", "there is no private key in this text: expected PEM".to_owned()))?;
    let provider = rustls::crypto::ring::default_provider();
    CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => ("key", "this key does not belong to the certificate".to_owned()),
        rustls::Error::InvalidCertificate(_) => ("certificate", format!("the certificate cannot be read: {error}")),
        _ => (
            "key",
            "this key is of a kind that TLS does not sign with: expected RSA, P-256, P-384 or Ed25519".to_owned(),
        ),
    })?;
    Ok(Identity {
        chain: chain.iter().map(|certificate| certificate.to_vec()).collect(),
        key: Secret::new(key.secret_der().to_vec()),
    })
}
