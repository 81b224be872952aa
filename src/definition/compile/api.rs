//! The `api` block, compiled.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::place::{Fault, Place};
use super::{policy, request};
use crate::definition::plan::api::{
    Api, Cache, Change, Endpoint, Errors, HttpVersions, Placement, Timeouts, Transform, Transport, tells_one_call,
};
use crate::definition::plan::page::{Paging, Way};
use crate::definition::plan::policy::Retry;
use crate::definition::problem::Code;
use crate::definition::raw::api as raw;
use crate::definition::raw::auth::Auth;
use crate::definition::raw::limits::Cache as RawCache;
use crate::definition::raw::request::Change as RawChange;
use crate::definition::raw::scalar::Expression;
use crate::definition::raw::sync::Page as RawPage;

/// The most bytes of a body that is read to be changed.
const TRANSFORM_BODY: u64 = 1 << 20;
/// The most bytes of a body that is read because its signature or the credential depends on it.
const BODY: u64 = 8 << 20;

pub(super) fn compile(api: &raw::Api, auth: Option<&Auth>, place: &Place<'_>) -> Result<Api, Fault> {
    let endpoints = place.at("endpoints");
    let policy = policy::compile(api, place)?;
    let compiled = api
        .endpoints
        .iter()
        .enumerate()
        .map(|(index, raw)| endpoint(raw, policy.retry.as_ref(), &endpoints.item(index)));
    Ok(Api {
        base_url: place.at("base_url").text(&api.base_url)?,
        hosts: place.at("hosts").hosts(&api.hosts)?,
        headers: place.at("headers").headers(&api.headers)?,
        credential: placement(api.credential.as_ref(), auth, place)?,
        test: api.test.as_ref().map(|test| request::compile(test.0.shape(), &place.at("test"))).transpose()?,
        endpoints: compiled.collect::<Result<_, _>>()?,
        ok: place.optional("ok", api.ok.as_ref())?,
        error: place.optional("error", api.error.as_ref())?,
        timeouts: timeouts(api.timeouts.as_ref()),
        cache: api.cache.as_ref().map(|raw| cache(&raw.0)),
        body_limit: api.body_limit.map_or(BODY, |size| size.0),
        transport: transport(api, auth, place)?,
        policy,
    })
}

fn placement(
    written: Option<&raw::CredentialPlacement>,
    auth: Option<&Auth>,
    place: &Place<'_>,
) -> Result<Placement, Fault> {
    let at = place.at("credential");
    let Some(written) = written else {
        return match auth {
            None | Some(Auth::None(_) | Auth::Mtls(_) | Auth::SigV4(_) | Auth::OAuth1(_)) => Ok(Placement::Nowhere),
            Some(Auth::Basic(_)) => Ok(Placement::Basic),
            Some(Auth::OAuth2(_) | Auth::Jwt(_) | Auth::Login(_)) => Ok(Placement::Bearer),
            Some(Auth::ApiKey(_)) => Err(place
                .problem(Code::MissingField, "`auth: api_key` needs `api.credential`, which says where the key goes")),
        };
    };
    let value = at.at("value").text(&written.value)?;
    if written.header.is_none() && tells_one_call(&value) {
        let words =
            "only a header is made anew for each call: `now`, `uuid`, `nonce` and `request` are not seen elsewhere";
        return Err(at.at("value").problem(Code::Conflict, words));
    }
    match (&written.header, &written.query, &written.body) {
        (Some(header), None, None) => Ok(Placement::Header { name: at.at("header").header(header)?, value }),
        (None, Some(query), None) => Ok(Placement::Query { name: query.clone(), value }),
        (None, None, Some(field)) => Ok(Placement::Body { name: field.clone(), value }),
        _ => Err(at.problem(Code::Conflict, "a credential goes into one place: `header`, `query` or `body`")),
    }
}

fn endpoint(raw: &raw::Endpoint, of_api: Option<&Retry>, place: &Place<'_>) -> Result<Endpoint, Fault> {
    let compiled = request::compile(raw.shape(), place)?;
    let pattern = request::pattern(&compiled);
    let transform = raw.transform.as_ref().map(|raw| transform(raw, &place.at("transform"))).transpose()?;
    Ok(Endpoint {
        id: raw.id.0.as_str().into(),
        request: compiled,
        pattern,
        scopes: raw.scopes.clone(),
        retry: policy::of_endpoint(raw.retry.as_ref(), of_api, place)?,
        transform,
        cache: raw.cache.as_ref().map(|raw| cache(&raw.0)),
        page: raw.page.as_ref().map(|page| paging(page, raw.records.as_ref(), place)).transpose()?,
    })
}

fn paging(raw: &RawPage, records: Option<&Expression>, place: &Place<'_>) -> Result<Paging, Fault> {
    let at = place.at("page");
    let way =
        match (&raw.link, at.optional("url", raw.url.as_ref())?, &raw.query, at.optional("from", raw.from.as_ref())?) {
            (Some(relation), None, None, None) => Way::Link(relation.clone()),
            (None, Some(url), None, None) => Way::Url(url),
            (None, None, Some(name), Some(from)) => Way::Query { name: name.clone(), from },
            _ => {
                return Err(at.problem(
                    Code::Conflict,
                    "the next page is found in one way: `link`, `url`, or `query` with `from`",
                ));
            }
        };
    Ok(Paging { way, more: at.optional("while", raw.more.as_ref())?, records: place.optional("records", records)? })
}

fn cache(raw: &RawCache) -> Cache {
    let usual = Cache::default();
    Cache {
        ttl: raw.ttl.map(|time| time.0),
        ignore_no_store: raw.ignore_no_store,
        stale_while_revalidate: raw.stale_while_revalidate.map_or(usual.stale_while_revalidate, |time| time.0),
        stale_if_error: raw.stale_if_error.map_or(usual.stale_if_error, |time| time.0),
        max_body: raw.max_body.map_or(usual.max_body, |size| usize::try_from(size.0).unwrap_or(usize::MAX)),
    }
}

fn transform(raw: &raw::Transform, place: &Place<'_>) -> Result<Transform, Fault> {
    let change = |key: &str, raw: Option<&RawChange>| raw.map(|raw| change(raw, &place.at(key))).transpose();
    Ok(Transform {
        request: change("request", raw.request.as_ref())?,
        response: change("response", raw.response.as_ref())?,
        errors: match raw.errors {
            None | Some(raw::Errors::Pass) => Errors::Pass,
            Some(raw::Errors::Problem) => Errors::Problem,
        },
        max_body: raw.max_body.map_or(TRANSFORM_BODY, |size| size.0),
    })
}

fn change(raw: &RawChange, place: &Place<'_>) -> Result<Change, Fault> {
    let mut headers = place.at("headers").headers(&raw.headers)?;
    for (index, name) in raw.remove_headers.iter().enumerate() {
        let at = place.at("remove_headers").item(index);
        headers.push((at.header(name)?, at.text_of("{{ none }}")?));
    }
    Ok(Change { headers, json: raw.json.as_ref().map(|json| place.at("json").tree(json)).transpose()? })
}

fn timeouts(raw: Option<&raw::Timeouts>) -> Timeouts {
    let usual = Timeouts::default();
    let Some(raw) = raw else { return usual };
    Timeouts {
        connect: raw.connect.map_or(usual.connect, |time| time.0),
        response: raw.response.map_or(usual.response, |time| time.0),
        idle: raw.idle.map_or(usual.idle, |time| time.0),
        total: raw.total.map_or(usual.total, |time| time.0),
    }
}

fn transport(api: &raw::Api, auth: Option<&Auth>, place: &Place<'_>) -> Result<Transport, Fault> {
    let at = place.at("tls").at("ca");
    let ca = api.tls.as_ref().and_then(|tls| tls.ca.as_ref());
    // A token may be bound to the certificate that it was got with (RFC 8705 §3), so the API is shown that one as well.
    let certificate = match auth {
        Some(Auth::Mtls(mtls)) => Some((mtls, "/auth/mtls")),
        Some(Auth::OAuth2(oauth2)) => {
            let client = oauth2.client.as_ref().and_then(|client| client.certificate.as_ref());
            client.map(|certificate| (certificate, "/auth/oauth2/client/certificate"))
        }
        _ => None,
    };
    let identity = certificate.map(|(mtls, at)| {
        super::identity(mtls).map_err(|(field, words)| place.of(at).at(field).problem(Code::BadFormat, words))
    });
    let identity = identity.transpose()?.flatten().map(Arc::new);
    Ok(Transport {
        identity,
        ca: ca.map(|text| certificates(text).map_err(|message| at.problem(Code::BadFormat, message))).transpose()?,
        allow_private: api.allow_private,
        allow_plain_http: api.allow_plain_http,
        http: match api.http {
            None | Some(raw::HttpVersion::Best) => HttpVersions::Best,
            Some(raw::HttpVersion::One) => HttpVersions::One,
            Some(raw::HttpVersion::Two) => HttpVersions::Two,
        },
    })
}

/// Reads PEM certificates.
///
/// # Errors
/// What is wrong with them, in words; never their text.
pub fn certificates(text: &str) -> Result<Arc<[Vec<u8>]>, String> {
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        let certificate = certificate.map_err(|_| "this is not PEM text with certificates".to_owned())?;
        // The TLS library parses what it is to trust; the proxy's own parser panics on what is not DER.
        rustls::RootCertStore::empty()
            .add(certificate.clone())
            .map_err(|error| format!("certificate {} cannot be trusted: {error}", found.len() + 1))?;
        found.push(certificate.to_vec());
    }
    if found.is_empty() {
        Err("there is no certificate in this text: expected PEM".to_owned())
    } else {
        Ok(found.into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::compiled;
    use super::*;
    use serde_json::{Value, json};

    fn api(auth: &Value, api: &Value) -> Result<Api, Fault> {
        compiled(json!({ "trunkline": 1, "id": "a", "auth": auth, "api": api }))
            .map(|integration| integration.api.expect("has one"))
    }

    #[test]
    fn credentials_have_their_usual_place() {
        let place = |auth: Value| api(&auth, &json!({ "base_url": "https://a.b" })).map(|api| api.credential);
        assert!(matches!(place(json!({ "none": {} })), Ok(Placement::Nowhere)));
        assert!(matches!(place(json!({ "basic": {} })), Ok(Placement::Basic)));
        assert!(matches!(place(json!({ "oauth2": {} })), Ok(Placement::Bearer)));
        assert!(place(json!({ "api_key": {} })).is_err());
    }

    #[test]
    fn transforms_set_and_remove_headers() {
        let change = json!({ "headers": { "X-A": "{{ status }}" }, "remove_headers": ["Set-Cookie"] });
        let endpoint = json!({ "id": "e", "request": "GET /", "transform": { "response": change } });
        let api = api(&json!({ "none": {} }), &json!({ "base_url": "https://a.b", "endpoints": [endpoint] }));
        let endpoint = &api.expect("compiles").endpoints[0];
        let response = endpoint.transform.as_ref().and_then(|transform| transform.response.as_ref());
        let headers: Vec<_> =
            response.expect("one").headers.iter().map(|(name, text)| (name.as_str(), text.source())).collect();
        assert_eq!(headers, [("x-a", "{{ status }}"), ("set-cookie", "{{ none }}")]);
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        for text in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(certificates(text).is_err(), "{text}");
        }
    }
}
