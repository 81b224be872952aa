//! The `auth` block: how connections sign in.

use schemars::JsonSchema;
use serde::Deserialize;

use super::form::{OneOrMany, Ordered, ShortOr, single_key};
use super::inputs::Input;
use super::limits::Moment;
use super::oauth2::{Client, OAuth2, TokenMap};
use super::request::{Request, request_shape};
use super::scalar::{DurationText, Expression, SecretText, Template, Tree};

/// How connections sign in: one kind.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(transform = single_key, extend("x-sees" = "sign-in"))]
pub enum Auth {
    /// OAuth 2.0 (RFC 6749) and its grants.
    #[serde(rename = "oauth2")]
    OAuth2(Box<OAuth2>),
    /// A key that `api.credential` places.
    ApiKey(ApiKey),
    /// Name and password (RFC 7617).
    Basic(Basic),
    /// OAuth 1.0a (RFC 5849).
    #[serde(rename = "oauth1")]
    OAuth1(Box<OAuth1>),
    /// A token signed for each call (RFC 7519).
    Jwt(Assertion),
    /// AWS Signature Version 4.
    #[serde(rename = "sigv4")]
    SigV4(SigV4),
    /// A client certificate; the service's certificate is verified all the same.
    Mtls(Mtls),
    /// Requests of the service's own that yield a token.
    Login(Login),
    /// The service wants no credential.
    None(NoAuth),
}

/// No credential: `none: {}`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoAuth {}

/// A key that `api.credential` places.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// What the service calls it.
    pub title: Option<String>,
    /// Where a person finds it: a page's address or a sentence.
    pub help: Option<String>,
    /// A regular expression that keys match; catches a key pasted from the wrong place.
    #[schemars(extend("x-regex" = true))]
    pub pattern: Option<String>,
}

/// Name and password.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Basic {
    /// What the service calls the name.
    pub username_title: Option<String>,
    /// What the service calls the password.
    pub password_title: Option<String>,
    /// Where a person finds them.
    pub help: Option<String>,
}

/// OAuth 1.0a.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OAuth1 {
    /// Where temporary credentials are asked for.
    pub request_token: ShortOr<Request>,
    /// Where the person is sent.
    pub authorize: Template,
    /// Where the token is fetched.
    pub access_token: ShortOr<Request>,
    /// How requests are signed. Default `hmac_sha1`.
    pub signature: Option<OAuth1Signature>,
    /// The `realm` of the Authorization header.
    pub realm: Option<Template>,
    /// The application's own credentials.
    pub client: Option<Client>,
}

/// How OAuth 1.0a requests are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OAuth1Signature {
    /// HMAC-SHA1.
    HmacSha1,
    /// HMAC-SHA256.
    HmacSha256,
    /// RSA-SHA1. The private key in PEM is the `secret` of `client`.
    RsaSha1,
    /// PLAINTEXT, over TLS only.
    Plaintext,
}

/// A signed token: claims, how long it lives, and the key that signs it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Assertion {
    /// The signature algorithm.
    pub algorithm: JwtAlgorithm,
    /// The key: PEM (PKCS #8, PKCS #1 or SEC 1), a JWK, or the text of a shared secret. Default: each
    /// connection's own: its `api_key`, and for grants of `oauth2` its input `private_key`.
    pub key: Option<SecretText>,
    /// How the key's text becomes key bytes, for HS algorithms: `utf8` (default), `hex`,
    /// `base64`, `base64url`.
    pub key_encoding: Option<KeyEncoding>,
    /// The `kid` header.
    pub key_id: Option<Template>,
    /// The claims; `iat`, `exp` and `jti` are added. Texts are templates. A claim that is null is left
    /// out, also of those that are added.
    #[serde(default)]
    pub claims: Ordered<Tree>,
    /// How long the token lives. Default 5m.
    pub ttl: Option<DurationText>,
}

/// A signature algorithm of RFC 7518 or RFC 8037.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the names are the RFCs'")]
pub enum JwtAlgorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

/// How a key's text becomes bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyEncoding {
    /// Its UTF-8 bytes.
    Utf8,
    /// Hexadecimal.
    Hex,
    /// Base 64, padded or not.
    Base64,
    /// Base 64 with the URL alphabet, padded or not.
    Base64url,
}

/// AWS Signature Version 4. A connection brings the access key as `username` and `password`, and the
/// session token of temporary credentials as `token`; with `session` each call is signed by a temporary key, had
/// by that one. The body is part of what is signed: calls through
/// the proxy door stream to Amazon S3 over TLS, which takes `UNSIGNED-PAYLOAD`; to other services their
/// bodies are read whole, up to `api.body_limit`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SigV4 {
    /// The service's name in the signature, such as `s3`.
    pub service: Template,
    /// The region, such as `eu-central-1`.
    pub region: Template,
    /// The access key of the deployment, for all connections. Default: each connection brings its own.
    pub key: Option<AccessKey>,
    /// How a temporary access key is had with that one, to sign calls in its place: for calls in a role of the account.
    pub session: Option<Box<KeySession>>,
}

impl SigV4 {
    /// Whether each connection brings an access key.
    pub fn wants_key(&self) -> bool {
        self.key.is_none() && self.session.as_ref().is_none_or(|session| session.is_signed())
    }
}

impl KeySession {
    /// Whether the request is signed.
    pub fn is_signed(&self) -> bool {
        self.basic.is_none() && self.credential.as_ref().is_none_or(|word| word.0 != "none")
    }
}

request_shape! {
    /// The request that is answered with a temporary access key, such as AWS STS `AssumeRole`. It is signed as
    /// `service` and `region` say; with `credential: none` it is not signed. A new key is had before the old one ends.
    KeySession {
        /// The service that it is signed for. Default `sts`.
        service: Option<Template>,
        /// The region that it is signed for. Default: that of the calls.
        region: Option<Template>,
        /// Where the answer holds the temporary key.
        #[schemars(extend("x-answer" = true))]
        access_key: AccessKeyMap,
        /// How long a temporary key lives when the answer does not say. Default 15m, the shortest that AWS gives.
        default_ttl: Option<DurationText>,
    }
}

/// An access key of the deployment's own.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessKey {
    /// Its id.
    pub id: String,
    /// Its secret.
    pub secret: SecretText,
}

/// Where an answer holds an access key.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessKeyMap {
    /// The key's id. Must not be none.
    pub id: Expression,
    /// The key. Must not be none.
    pub secret: Expression,
    /// The session's token.
    pub session: Option<Expression>,
    /// Seconds until it ends, a number or its text.
    pub expires_in: Option<Expression>,
    /// When it ends, where that is not a number of seconds.
    pub expires: Option<Moment>,
}

/// A client certificate.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mtls {
    /// The certificate chain in PEM, usually `${file:client.pem}`. A catalogue entry has none until a
    /// deployment adds it.
    #[schemars(extend("x-pem" = "certificate"))]
    pub certificate: Option<String>,
    /// Its key in PEM.
    pub key: Option<SecretText>,
}

/// Requests of the service's own that yield a token.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// What a person must give.
    #[serde(default)]
    pub fields: Ordered<Input>,
    /// The requests in order; each sees what those before it saved.
    pub steps: OneOrMany<ShortOr<Request>>,
    /// Where the last answer holds the tokens, by name; the usual one is `default`.
    #[schemars(extend("x-answer" = true))]
    pub tokens: Ordered<TokenMap>,
    /// The request that renews a session by its `token.refresh`, ahead of its end and after a 401; its answer holds
    /// the tokens as that of the last step does. Where it is refused or not written, the steps are run again.
    pub refresh: Option<Box<ShortOr<Request>>>,
    /// The requests that end a session, in order: made when a session was replaced by another one or its
    /// connection is removed. They see `token` with all that the last answer of signing in gave.
    pub logout: Option<OneOrMany<ShortOr<Request>>>,
    /// How long a token lives when the answer does not say.
    pub default_ttl: Option<DurationText>,
}
