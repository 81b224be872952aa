//! The `auth.oauth2` block.

use schemars::JsonSchema;
use serde::Deserialize;

use super::auth::{Assertion, Mtls};
use super::form::{OneOrMany, Ordered, Short, ShortOr, single_key};
use super::limits::Moment;
use super::request::{Identity, Request, request_shape};
use super::scalar::{DurationText, Expression, SecretText, Template, Tree};

/// OAuth 2.0.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OAuth2 {
    /// How a token is come by. Default `authorization_code`.
    pub grant: Option<Grant>,
    /// The issuer (RFC 8414, OpenID Connect discovery), written just as its metadata have it: they fill in
    /// the addresses of `authorize`, `push`, `token`, `device`, `revoke` and `registration` that are not written
    /// here, and it is compared with the `iss` of callbacks (RFC 9207).
    pub issuer: Option<Template>,
    /// Where the person is sent.
    pub authorize: Option<ShortOr<Authorize>>,
    /// Where the parameters of `authorize` are pushed before a person is sent (RFC 9126), so that their browser
    /// carries nothing but the application's id and a short-lived name for them. It proves the application as
    /// token calls do; the parameters are added to `form` or `json`, and what is written there under the name of
    /// one stands in its place. Default: where the issuer's metadata say, when they require it or `authorize` is
    /// not written either.
    pub push: Option<ShortOr<Request>>,
    /// How a code becomes a token. A list is a pipeline: the first step has the standard parameters and
    /// proves who the application is; those after it are plain requests that see what came before as
    /// `saved` and `token`. The last must bring the default token.
    pub token: Option<OneOrMany<ShortOr<TokenCall>>>,
    /// How a token is renewed, where it differs from `token`. It sees the old one as `token.access` and
    /// `token.refresh`, and does without a refresh token where the service gives none.
    pub refresh: Option<OneOrMany<ShortOr<TokenCall>>>,
    /// What becomes of refresh tokens. Default `keep`.
    pub refresh_tokens: Option<RefreshPolicy>,
    /// How a token is taken back at the service. Done once for each of the connection's tokens, which is seen as
    /// `token.access` and `token.refresh`. The request is sent as it is written, with the access token as its credential:
    /// what RFC 7009 wants is `{ request: POST …, credential: client, form: { token: "{{ token.refresh or token.access }}" } }`.
    /// With `client_auth: private_key_jwt` the application's assertion is added to the form of a request of
    /// `credential: client`, or to its JSON object.
    pub revoke: Option<OneOrMany<ShortOr<Request>>>,
    /// Whether the tokens that an account had are taken back, by `revoke`, when it is connected anew. Some services
    /// take a token back by ending the whole consent, and the new tokens with it: leave it off there. Default: off.
    #[serde(default)]
    pub revoke_replaced: bool,
    /// How the service tells what a token is worth (RFC 7662), for services that give no expiry.
    pub introspect: Option<ShortOr<TokenCall>>,
    /// The device authorization request (RFC 8628).
    pub device: Option<ShortOr<Request>>,
    /// The signed assertion of `jwt_bearer` and of `private_key_jwt`.
    pub assertion: Option<Assertion>,
    /// What is exchanged (RFC 8693).
    pub exchange: Option<Exchange>,
    /// How the application proves itself in token calls. Default `form`.
    pub client_auth: Option<ClientAuth>,
    /// The application's own credentials at the service.
    pub client: Option<Client>,
    /// What can be asked for.
    #[serde(default)]
    pub scopes: Vec<Scope>,
    /// Proof Key for Code Exchange (RFC 7636): S256 unless it is turned off with a reason.
    pub pkce: Option<Pkce>,
    /// Resources the token is for (RFC 8707), sent in every call that takes them.
    #[serde(default)]
    pub resource: Vec<Template>,
    /// Registering the application at the service by itself (RFC 7591), for services that know no
    /// other way: once, before the first account is connected. Not done where `client` is written.
    pub registration: Option<ShortOr<Registration>>,
    /// What the callback brings besides the code.
    pub callback: Option<Callback>,
    /// Who is signed in.
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
    #[schemars(extend("x-url" = "https"))]
    pub url: Template,
    /// More parameters. One whose value is none or empty is left out; one of a standard parameter's name
    /// stands in its place.
    #[serde(default)]
    pub params: Ordered<Template>,
    /// What stands between scopes, wherever they are one text. Default: a space. Answers are parted at
    /// white space as well, and at commas where nothing is written here.
    pub scope_separator: Option<String>,
    /// Whether scopes are written without percent-encoding.
    #[serde(default)]
    pub raw_scope: bool,
    /// Names the service uses instead of the standard parameters', such as `client_id: client_key`.
    #[serde(default)]
    pub rename: Ordered<String>,
    /// Standard parameters that are not sent, such as `response_type`.
    #[serde(default)]
    pub omit: Vec<String>,
    /// What stands behind a `#` at the end.
    pub fragment: Option<String>,
}

impl Short for Authorize {
    const SHORT: &'static str = "an address";
    const MARKS: &'static [(&'static str, &'static str)] = &[("x-template", "text"), ("x-url", "https")];

    fn from_short(url: String) -> Result<Self, String> {
        Ok(Self {
            url: Template(url),
            params: Ordered::default(),
            scope_separator: None,
            raw_scope: false,
            rename: Ordered::default(),
            omit: Vec::new(),
            fragment: None,
        })
    }
}

request_shape! {
    /// A token call. The standard parameters of its grant are added to `form`, `json` or `query`; what is
    /// written there under the name of one stands in its place. Without `ok` a 2xx status and an access
    /// token are a success, without `error` the words are `error_description`. It goes only to hosts that
    /// the definition names, and follows no redirect.
    TokenCall {
        /// Names the service uses instead of the standard parameters', such as
        /// `client_id: client_key`.
        #[serde(default)]
        rename: Ordered<String>,
        /// Standard parameters that are not sent, such as `grant_type`.
        #[serde(default)]
        omit: Vec<String>,
        /// Where the standard parameters go. Default: where the body is, which is `json` where that is
        /// written and nowhere where `text` is; the query of a GET; else the form.
        params_in: Option<ParamsIn>,
        /// Where the answer holds the tokens, by name. Default: the standard fields, as `default`.
        #[schemars(extend("x-answer" = true))]
        tokens: Option<Ordered<TokenMap>>,
        /// Whether an error is permanent, so that a person must act. Default: `invalid_grant`,
        /// `unauthorized_client`, `access_denied` and `expired_token` are, unless the service is at fault
        /// (5xx).
        #[schemars(extend("x-answer" = true))]
        permanent: Option<Expression>,
        /// How long a token lives when the answer does not say. Default: until the service refuses it; in
        /// `refresh` as in `token`.
        default_ttl: Option<DurationText>,
    }
}

impl Short for TokenCall {
    const SHORT: &'static str = "an address, or method and address";
    const MARKS: &'static [(&'static str, &'static str)] = &[("x-template", "text"), ("x-request", "post")];

    fn from_short(url: String) -> Result<Self, String> {
        Ok(Self {
            rename: Ordered::default(),
            omit: Vec::new(),
            params_in: None,
            tokens: None,
            permanent: None,
            default_ttl: None,
            request: post(url),
            query: Ordered::default(),
            headers: Ordered::default(),
            form: None,
            json: None,
            text: None,
            basic: None,
            credential: None,
            ok: None,
            error: None,
            save: Ordered::default(),
            result: None,
            timeout: None,
        })
    }
}

/// A token call written as an address alone is a POST, which is all that RFC 6749 §3.2 allows.
fn post(url: String) -> Template {
    let says_method = url.split_once(' ').is_some_and(|(method, _)| !method.contains(['/', '{']));
    Template(if says_method { url } else { format!("POST {url}") })
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
    /// Each can be used once; after an answer without a new one a person connects again once the access token ends.
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
    pub refresh: Option<Expression>,
    /// Seconds until it expires, a number or its text. What is not a positive number of at most a hundred
    /// years says nothing.
    pub expires_in: Option<Expression>,
    /// When it expires, where that is not a number of seconds. What does not lie ahead says nothing.
    pub expires: Option<Moment>,
    /// The scopes that were granted: a text or a list.
    pub scope: Option<Expression>,
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
    pub actor_token: Option<Template>,
    /// Its type URI.
    pub actor_token_type: Option<String>,
    /// The type URI wanted.
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
    pub secret: Option<SecretText>,
    /// A certificate that token calls and calls of the API are made with (RFC 8705). Where it is the application's
    /// only proof, write `client_auth: none`.
    pub certificate: Option<Mtls>,
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
    pub token: Option<String>,
    /// Scopes that need not be granted besides this one, because the service lets it do what they do.
    #[serde(default)]
    pub includes: Vec<String>,
}

/// Proof Key for Code Exchange.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(transform = single_key)]
pub enum Pkce {
    /// It is off; the value is the reason, usually that the service refuses it.
    Off(String),
}

/// What a callback brings.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Callback {
    /// The parameter that holds the code. Default `code`.
    pub code: Option<String>,
    /// Values to keep from the query, seen later as `saved.NAME`.
    #[serde(default)]
    pub save: Ordered<Expression>,
}

request_shape! {
    /// A step after connecting that finds accounts or sites, and lets a person choose one.
    Discover {
        /// The list to choose from, of at most 200.
        #[schemars(extend("x-answer" = true))]
            choices: Option<Expression>,
        /// What is shown of a choice.
        #[schemars(extend("x-sees" = "choice"))]
            label: Option<Expression>,
        /// What is kept of the choice, seen later as `saved.NAME`. What lacks one of these cannot be chosen.
        #[serde(default)]
        #[schemars(extend("x-sees" = "choice"))]
        set: Ordered<Expression>,
    }
}

/// Registering the application at the service by itself.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// The registration endpoint. Default: the one that the issuer's metadata tell.
    #[schemars(extend("x-url" = "https"))]
    pub url: Option<Template>,
    /// The initial access token, for services that let nobody register without one (RFC 7591 §3).
    pub token: Option<SecretText>,
    /// Metadata of the application (RFC 7591 §2). What is written here stands in place of what follows from
    /// the definition: `client_name`, `grant_types`, `response_types`, `token_endpoint_auth_method` and
    /// `redirect_uris`; what is null is left out.
    #[serde(default)]
    pub metadata: Ordered<Tree>,
}

impl Short for Registration {
    const SHORT: &'static str = "an address";
    const MARKS: &'static [(&'static str, &'static str)] = &[("x-template", "text"), ("x-url", "https")];

    fn from_short(url: String) -> Result<Self, String> {
        Ok(Self { url: Some(Template(url)), token: None, metadata: Ordered::default() })
    }
}
