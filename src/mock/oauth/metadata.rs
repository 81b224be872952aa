//! What an issuer tells of itself (RFC 8414, `OpenID` Connect discovery), and the endpoints of one whose
//! definition leaves them to that. Called by the room's front.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use url::Url;

use super::OAuthSide;
use crate::definition::plan::oauth2::{ClientAuth, DEFAULT_TOKEN, ParamsIn, Pkce, TokenCall, TokenMap};
use crate::definition::plan::request::{Request, Target};
use crate::mock::received::Received;
use crate::respond::Answer;
use crate::template::{Expr, Text};

/// Where an issuer's endpoints are, below its own path, when its definition does not say.
pub(super) const AUTHORIZE: &str = "/mock/authorize";
const TOKEN: &str = "/mock/token";

/// The token call of a definition that leaves it to the issuer.
pub(super) fn standard_call(issuer: &Text) -> Option<TokenCall> {
    let field = |name: &str| Expr::compile(&format!("body.{name}")).ok();
    let path = Url::parse(issuer.literal()?).ok()?.path().trim_end_matches('/').to_owned();
    let map = TokenMap {
        access: field("access_token")?,
        refresh: field("refresh_token"),
        expires_in: field("expires_in"),
        expires: None,
        scope: field("scope"),
    };
    let request =
        Request::bare(Method::POST, Target::Url(Text::compile(&format!("https://issuer{path}{TOKEN}")).ok()?));
    Some(TokenCall {
        request,
        params_in: ParamsIn::Form,
        rename: Vec::new(),
        omit: Vec::new(),
        tokens: vec![(DEFAULT_TOKEN.to_owned(), map)],
        mapped: false,
        permanent: None,
        default_ttl: None,
    })
}

impl OAuthSide {
    /// The issuer's metadata, where the call asks for them.
    pub(super) fn metadata(&self, received: &Received) -> Option<Answer> {
        let issuer = self.issuer_literal()?;
        let path = Url::parse(issuer).ok()?.path().trim_end_matches('/').to_owned();
        let places = [
            format!("{path}/.well-known/openid-configuration"),
            format!("/.well-known/openid-configuration{path}"),
            format!("/.well-known/oauth-authorization-server{path}"),
        ];
        let asks = received.method == Method::GET && places.contains(&received.path);
        asks.then(|| Answer::json(StatusCode::OK, &self.of_itself(issuer)))
    }

    fn of_itself(&self, issuer: &str) -> Value {
        let base = issuer.trim_end_matches('/');
        let literal = |target: &Target| match target {
            Target::Url(url) => url.literal().map(str::to_owned),
            Target::Path { .. } => None,
        };
        let authorize = self.plan.authorize.as_ref().and_then(|plan| plan.url.literal().map(str::to_owned));
        let token = self.plan.token.first().and_then(|call| literal(&call.request.target));
        let mut told = json!({
            "issuer": issuer,
            "authorization_endpoint": authorize.unwrap_or_else(|| format!("{base}{AUTHORIZE}")),
            "token_endpoint": token.unwrap_or_else(|| format!("{base}{TOKEN}")),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "scopes_supported": self.plan.scopes.iter().map(|scope| scope.name.as_str()).collect::<Vec<_>>(),
            "authorization_response_iss_parameter_supported": true,
            "token_endpoint_auth_methods_supported": [match self.plan.client_auth {
                ClientAuth::Form => "client_secret_post",
                ClientAuth::Basic | ClientAuth::BasicRaw => "client_secret_basic",
                ClientAuth::None => "none",
                ClientAuth::PrivateKeyJwt => "private_key_jwt",
            }],
            "jwks_uri": format!("{base}/mock/keys"),
        });
        let others = [
            ("revocation_endpoint", self.plan.revoke.first().and_then(|request| literal(&request.target))),
            ("introspection_endpoint", self.plan.introspect.as_ref().and_then(|call| literal(&call.request.target))),
            (
                "pushed_authorization_request_endpoint",
                self.plan.push.as_ref().and_then(|request| literal(&request.target)),
            ),
            ("registration_endpoint", self.registration_place(base)),
            ("device_authorization_endpoint", self.plan.device.as_ref().and_then(|request| literal(&request.target))),
        ];
        if let Value::Object(told) = &mut told {
            for (name, place) in others {
                told.extend(place.map(|place| (name.to_owned(), Value::from(place))));
            }
            if self.plan.push.is_some() {
                told.insert("require_pushed_authorization_requests".to_owned(), json!(true));
            }
            if self.plan.pkce == Pkce::S256 {
                told.insert("code_challenge_methods_supported".to_owned(), json!(["S256"]));
            }
        }
        told
    }

    /// Where applications register, where they do.
    fn registration_place(&self, base: &str) -> Option<String> {
        let plan = self.plan.registration.as_ref()?;
        let written = plan.url.as_ref().and_then(|url| url.literal().map(str::to_owned));
        written.or_else(|| plan.url.is_none().then(|| format!("{base}/mock/register")))
    }
}
