//! The `auth.oauth2` block.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::auth::Assertion;
use super::request::{Identity, Request, request_shape};
use super::scalar::{DurationText, Expression, Ordered, SecretText, Short, ShortOr, Template};

/// OAuth 2.0.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OAuth2 {
    /// How a token is come by. Default `authorization_code`.
    #[serde(default)]
    pub grant: Option<Grant>,
    /// The issuer (RFC 8414, OpenID Connect discovery): fills in what is not written here, and is
    /// compared with the `iss` of callbacks (RFC 9207).
    #[serde(default)]
    pub issuer: Option<Template>,
    /// Where the person is sent.
    #[serde(default)]
    pub authorize: Option<ShortOr<Authorize>>,
    /// How a code becomes a token.
    #[serde(default)]
    pub token: Option<ShortOr<TokenCall>>,
    /// How a token is renewed, where it differs from `token`.
    #[serde(default)]
    pub refresh: Option<ShortOr<RefreshCall>>,
    /// How a token is taken back at the service (RFC 7009).
    #[serde(default)]
    pub revoke: Option<ShortOr<Request>>,
    /// How the service tells what a token is worth (RFC 7662), for services that give no expiry.
    #[serde(default)]
    pub introspect: Option<ShortOr<TokenCall>>,
    /// The device authorization request (RFC 8628).
    #[serde(default)]
    pub device: Option<ShortOr<Request>>,
    /// The signed assertion of `jwt_bearer` and of `private_key_jwt`.
    #[serde(default)]
    pub assertion: Option<Assertion>,
    /// What is exchanged (RFC 8693).
    #[serde(default)]
    pub exchange: Option<Exchange>,
    /// How the application proves itself in token calls. Default `form`.
    #[serde(default)]
    pub client_auth: Option<ClientAuth>,
    /// The application's own credentials at the service.
    #[serde(default)]
    pub client: Option<Client>,
    /// What can be asked for.
    #[serde(default)]
    pub scopes: Vec<Scope>,
    /// Proof Key for Code Exchange (RFC 7636): S256 unless it is turned off with a reason.
    #[serde(default)]
    pub pkce: Option<Pkce>,
    /// Resources the token is for (RFC 8707), sent in every call that takes them.
    #[serde(default)]
    pub resource: Vec<Template>,
    /// What the callback brings besides the code.
    #[serde(default)]
    pub callback: Option<Callback>,
    /// Who is signed in.
    #[serde(default)]
    pub identity: Option<Identity>,
    /// Steps after connecting that choose an account or site.
    #[serde(default)]
    pub discover: Vec<Discover>,
}

/// How a token is come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    /// A person consents in a browser (RFC 6749 §4.1).
    AuthorizationCode,
    /// The application acts for itself (RFC 6749 §4.4).
    ClientCredentials,
    /// A person consents on another device (RFC 8628).
    DeviceCode,
    /// A signed assertion is exchanged (RFC 7523).
    JwtBearer,
    /// A token is exchanged for another (RFC 8693).
    TokenExchange,
}

/// Where the person is sent.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Authorize {
    /// The address.
    pub url: Template,
    /// More parameters. Sees `input`, `client`, `scopes`.
    #[serde(default, deserialize_with = "super::scalar::ordered")]
    #[schemars(with = "BTreeMap<String, Template>")]
    pub params: Ordered<Template>,
    /// What stands between scopes. Default: a space.
    #[serde(default)]
    pub scope_separator: Option<String>,
    /// Whether scopes are written without percent-encoding.
    #[serde(default)]
    pub raw_scope: bool,
    /// Names the service uses instead of the standard parameters', such as `client_id: client_key`.
    #[serde(default)]
    pub rename: BTreeMap<String, String>,
}

impl Short for Authorize {
    const SHORT: &'static str = "an address";

    fn from_short(url: String) -> Self {
        Self {
            url: Template(url),
            params: Vec::new(),
            scope_separator: None,
            raw_scope: false,
            rename: BTreeMap::new(),
        }
    }
}

request_shape! {
    /// A token call. The standard parameters of its grant are sent in `form` unless `json` or `query`
    /// is written.
    TokenCall {
        /// Names the service uses instead of the standard parameters'.
        #[serde(default)]
        rename: BTreeMap<String, String>,
        /// Where the standard parameters go. Default `form`.
        #[serde(default)]
        params_in: Option<ParamsIn>,
        /// Where the answer holds the tokens. Default: the standard fields, as `default`.
        #[serde(default)]
        tokens: Option<BTreeMap<String, TokenMap>>,
        /// Whether an error is permanent, so that a person must act. Default: the RFC's codes.
        #[serde(default)]
        permanent: Option<Expression>,
        /// How long a token lives when the answer does not say.
        #[serde(default)]
        default_ttl: Option<DurationText>,
        /// Calls after this one, such as the exchange of a short-lived token for a long-lived one.
        #[serde(default)]
        then: Vec<ShortOr<Request>>,
    }
}

impl Short for TokenCall {
    const SHORT: &'static str = "an address";

    fn from_short(url: String) -> Self {
        Self {
            request: post(url),
            query: Vec::new(),
            headers: Vec::new(),
            form: None,
            json: None,
            text: None,
            basic: None,
            credential: None,
            ok: None,
            error: None,
            save: Vec::new(),
            result: None,
            timeout: None,
            rename: BTreeMap::new(),
            params_in: None,
            tokens: None,
            permanent: None,
            default_ttl: None,
            then: Vec::new(),
        }
    }
}

request_shape! {
    /// A refresh.
    RefreshCall {
        /// What becomes of the refresh token. Default `keep`: a new one replaces it where one comes.
        #[serde(default)]
        policy: Option<RefreshPolicy>,
        /// Names the service uses instead of the standard parameters'.
        #[serde(default)]
        rename: BTreeMap<String, String>,
        /// Where the standard parameters go. Default `form`.
        #[serde(default)]
        params_in: Option<ParamsIn>,
        /// Where the answer holds the tokens.
        #[serde(default)]
        tokens: Option<BTreeMap<String, TokenMap>>,
        /// Whether an error is permanent.
        #[serde(default)]
        permanent: Option<Expression>,
        /// How long a token lives when the answer does not say.
        #[serde(default)]
        default_ttl: Option<DurationText>,
    }
}

impl Short for RefreshCall {
    const SHORT: &'static str = "an address";

    fn from_short(url: String) -> Self {
        Self {
            request: post(url),
            query: Vec::new(),
            headers: Vec::new(),
            form: None,
            json: None,
            text: None,
            basic: None,
            credential: None,
            ok: None,
            error: None,
            save: Vec::new(),
            result: None,
            timeout: None,
            policy: None,
            rename: BTreeMap::new(),
            params_in: None,
            tokens: None,
            permanent: None,
            default_ttl: None,
        }
    }
}

/// A token call written as an address alone is a POST, which is all that RFC 6749 §3.2 allows.
fn post(url: String) -> Template {
    Template(if url.contains(' ') { url } else { format!("POST {url}") })
}

/// Where the standard parameters of a token call go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ParamsIn {
    /// `application/x-www-form-urlencoded`.
    Form,
    /// `application/json`.
    Json,
    /// The query string.
    Query,
}

/// What becomes of a refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RefreshPolicy {
    /// A new one replaces it where the answer has one; else it is kept.
    Keep,
    /// Each can be used once; an answer without a new one is an error.
    Rotate,
    /// The call lengthens the life of the access token, and gives no new one.
    Extend,
}

/// Where an answer holds a token.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenMap {
    /// The access token. Must not be none.
    pub access: Expression,
    /// The refresh token.
    #[serde(default)]
    pub refresh: Option<Expression>,
    /// Seconds until it expires.
    #[serde(default)]
    pub expires_in: Option<Expression>,
    /// When it expires.
    #[serde(default)]
    pub expires_at: Option<ExpiresAt>,
    /// The scopes that were granted.
    #[serde(default)]
    pub scope: Option<Expression>,
}

/// When a token expires.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpiresAt {
    /// The value.
    pub value: Expression,
    /// How it is written.
    pub unit: super::api::TimeUnit,
}

/// What is exchanged (RFC 8693).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// The token that is exchanged.
    pub subject_token: Template,
    /// Its type URI.
    pub subject_token_type: String,
    /// The token of who acts.
    #[serde(default)]
    pub actor_token: Option<Template>,
    /// Its type URI.
    #[serde(default)]
    pub actor_token_type: Option<String>,
    /// The type URI wanted.
    #[serde(default)]
    pub requested_token_type: Option<String>,
    /// Who the token is for.
    #[serde(default)]
    pub audience: Vec<Template>,
}

/// How the application proves itself in token calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// `client_id` and `client_secret` among the parameters.
    Form,
    /// Basic with form-encoded id and secret (RFC 6749 §2.3.1).
    Basic,
    /// Basic with id and secret as they are, for services that do not decode them.
    BasicRaw,
    /// `client_id` only: a public client.
    None,
    /// A signed assertion (RFC 7523).
    PrivateKeyJwt,
}

/// The application's own credentials at the service.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// The client id: not a secret, but kept out of the file as well.
    pub id: String,
    /// The client secret.
    #[serde(default)]
    pub secret: Option<SecretText>,
}

/// Something that can be asked for.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// Its name at the service.
    pub name: String,
    /// What it lets the application do, in plain words.
    pub grants: String,
    /// Whether it is asked for unless a connection says otherwise.
    #[serde(default)]
    pub default: bool,
    /// The named token it belongs to. Default: the default token.
    #[serde(default)]
    pub token: Option<String>,
}

/// Proof Key for Code Exchange.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pkce {
    /// Why it is off: usually that the service refuses it.
    #[schemars(length(min = 8))]
    pub off: String,
}

/// What a callback brings.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Callback {
    /// The parameter that holds the code. Default `code`.
    #[serde(default)]
    pub code: Option<String>,
    /// Values to keep from the query, seen later as `saved.NAME`. Sees `query`.
    #[serde(default, deserialize_with = "super::scalar::ordered")]
    #[schemars(with = "BTreeMap<String, Expression>")]
    pub save: Ordered<Expression>,
}

request_shape! {
    /// A step after connecting that finds accounts or sites, and lets a person choose one.
    Discover {
        /// The list to choose from. Sees `body`.
        #[serde(default)]
        choices: Option<Expression>,
        /// What is shown of a choice. Sees `choice`.
        #[serde(default)]
        label: Option<Expression>,
        /// What is kept of the choice.
        #[serde(default, deserialize_with = "super::scalar::ordered")]
        #[schemars(with = "BTreeMap<String, Expression>")]
        set: Ordered<Expression>,
    }
}
