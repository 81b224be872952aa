//! What the templates of signing in see, and what of it must never be repeated.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::registration::Known;
use super::secrets::Secrets;
use crate::base::clock::Timestamp;
use crate::base::random::Random;
use crate::connection::grant::{Account, Issued, TokenError, TokenErrorKind};
use crate::definition::plan::Auth;
use crate::definition::plan::oauth2::{Client, ClientAuth, DEFAULT_TOKEN, Grant, OAuth2, Scope};
use crate::template::Context;

/// The values of one sign-in, renewal or revocation.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    pub account: Account<'a>,
    pub oauth2: &'a OAuth2,
    /// The application, where it registered itself.
    registered: Option<Known>,
    /// Values kept so far: those of the account, and over them those of this run.
    saved: Map<String, Json>,
    /// Values kept by this run.
    kept: Map<String, Json>,
    token: Map<String, Json>,
    scopes: Map<String, Json>,
    more: Vec<(&'static str, Json)>,
    /// What `now`, `uuid` and `nonce` are made of.
    moment: Option<(Timestamp, Arc<dyn Random>)>,
    pub secrets: Secrets,
}

impl<'a> Scene<'a> {
    /// The values of an account before anything is asked.
    ///
    /// # Errors
    /// When its integration does not sign in by OAuth 2.0.
    pub fn of(account: Account<'a>) -> Result<Self, TokenError> {
        let Auth::OAuth2(oauth2) = &account.integration.auth else {
            let words = format!("`{}` does not sign in by `auth: oauth2`", account.integration.id);
            return Err(misconfigured(words));
        };
        let mut secrets = Secrets::of_client(account.integration);
        for input in account.integration.inputs.iter().filter(|input| input.secret) {
            secrets.add(account.inputs.get(&*input.name).and_then(Json::as_str).unwrap_or_default());
        }
        let mut scene = Self {
            account,
            oauth2,
            registered: None,
            saved: account.saved.clone(),
            kept: Map::new(),
            token: Map::new(),
            scopes: Map::new(),
            more: Vec::new(),
            moment: None,
            secrets,
        };
        scene.ask_for(oauth2.default_scopes());
        Ok(scene)
    }

    /// Puts the scopes that are asked for in place of the default ones.
    pub fn ask_for<'s>(&mut self, scopes: impl Iterator<Item = &'s Scope>) {
        let mut by_token = Map::from_iter([(DEFAULT_TOKEN.to_owned(), json!([]))]);
        for scope in &self.oauth2.scopes {
            by_token.entry(scope.token.clone()).or_insert_with(|| json!([]));
        }
        for scope in scopes {
            if let Some(Json::Array(names)) = by_token.get_mut(&scope.token) {
                names.push(Json::from(scope.name.as_str()));
            }
        }
        self.scopes = by_token;
    }

    /// The scopes asked for of a token, as one text; `None` when there are none.
    pub fn scope_text(&self, token: &str) -> Option<String> {
        let names = self.scopes.get(token).and_then(Json::as_array)?;
        let names: Vec<_> = names.iter().filter_map(Json::as_str).collect();
        (!names.is_empty()).then(|| names.join(&self.oauth2.scope_separator))
    }

    /// Makes a token seen: as `token.NAME.access`, and as `token.access` when it is `main`.
    pub fn show_token(&mut self, name: &str, token: &Issued, main: Main) {
        self.secrets.add(token.access.expose());
        let mut fields = Map::from_iter([("access".to_owned(), Json::from(token.access.expose().as_str()))]);
        if let Some(refresh) = &token.refresh {
            self.secrets.add(refresh.expose());
            fields.insert("refresh".to_owned(), Json::from(refresh.expose().as_str()));
        }
        if main == Main::Yes {
            self.token.extend(fields.clone());
        }
        self.token.insert(name.to_owned(), Json::Object(fields));
    }

    /// Makes a value seen under a name of its own.
    pub fn show(&mut self, name: &'static str, value: impl Into<Json>) {
        self.more.push((name, value.into()));
    }

    /// Makes a secret value seen under a name of its own.
    pub fn show_secret(&mut self, name: &'static str, value: &str) {
        self.secrets.add(value);
        self.show(name, value);
    }

    /// Keeps values, for the steps that follow and for the connection.
    pub fn keep(&mut self, values: Map<String, Json>) {
        self.saved.extend(values.clone());
        self.kept.extend(values);
    }

    /// The values that this run kept.
    pub fn into_kept(self) -> Map<String, Json> {
        self.kept
    }

    /// What templates see now.
    pub fn context(&self) -> Context {
        let mut context = Context::new()
            .with_json("input", &Json::Object(self.account.inputs.clone()))
            .with_json("saved", &Json::Object(self.saved.clone()))
            .with_json("connection", &json!({ "id": self.account.connection }))
            .with_json("token", &Json::Object(self.token.clone()))
            .with_json("scopes", &Json::Object(self.scopes.clone()));
        if let Some(client) = self.known_client() {
            let secret = client.secret.as_ref().map(|secret| secret.expose().as_str());
            context = context.with_json("client", &json!({ "id": client.id, "secret": secret }));
        }
        for (name, value) in &self.more {
            context = context.with_json(name, value);
        }
        match &self.moment {
            Some((now, random)) => context.with_moment(*now, Arc::clone(random)),
            None => context,
        }
    }

    /// `context` with the token of this name as the one that calls carry.
    ///
    /// # Errors
    /// When there is no such token.
    pub fn carrying(&self, context: &Context, name: Option<&str>) -> Result<Context, TokenError> {
        let Some(name) = name.filter(|name| *name != DEFAULT_TOKEN) else {
            let there = self.token.contains_key("access");
            return if there { Ok(context.clone()) } else { Err(misconfigured("there is no token yet to be sent")) };
        };
        let token =
            self.token.get(name).ok_or_else(|| misconfigured(format!("there is no token `{name}` to be sent")))?;
        Ok(context.clone().with_json("token", token))
    }

    /// Lets templates see the moment, and randomness.
    pub fn happen_at(&mut self, now: Timestamp, random: Arc<dyn Random>) {
        self.moment = Some((now, random));
    }

    /// Lets the application act as the service registered it.
    pub fn act_as(&mut self, known: Option<Known>) {
        if let Some(secret) = known.as_ref().and_then(|known| known.client.secret.as_ref()) {
            self.secrets.add(secret.expose());
        }
        self.registered = known;
    }

    /// The application's own credentials, where they are known.
    pub fn known_client(&self) -> Option<&Client> {
        self.oauth2.client.as_ref().or_else(|| self.registered.as_ref().map(|known| &known.client))
    }

    /// How the application proves itself: as the service registered it, else as the definition says.
    pub fn client_auth(&self) -> ClientAuth {
        self.registered.as_ref().map_or(self.oauth2.client_auth, |known| known.way)
    }

    /// Whether a refusal may be of the time in an assertion: of the one that is exchanged (RFC 7523 §3.1), whatever
    /// the service calls that, or of the application's own (§3.2). What else a call carries was not looked at then.
    pub fn is_of_the_clock(&self, error: &TokenError) -> bool {
        let refused = matches!(error.status, Some(400 | 401 | 403));
        let exchanged = self.oauth2.grant == Grant::JwtBearer;
        let own = self.client_auth() == ClientAuth::PrivateKeyJwt && error.code.as_deref() == Some("invalid_client");
        refused && (exchanged || own)
    }

    /// Whether the application registers itself, and has not.
    pub fn is_unregistered(&self) -> bool {
        self.oauth2.registration.is_some() && self.known_client().is_none()
    }

    /// Whether the application may use this token's refresh token: it belongs to the application it was issued to
    /// (RFC 6749 §6), and is shown to no other.
    ///
    /// # Errors
    /// When it was issued to another one.
    pub fn may_renew(&self, held: &Issued) -> Result<(), TokenError> {
        let (Some(then), Some(now)) = (&held.client, self.known_client()) else { return Ok(()) };
        if *then == now.id || held.refresh.is_none() {
            return Ok(());
        }
        if self.oauth2.registration.is_some() {
            let words = "it was issued to an earlier registration of the application, which alone could renew it: connect \
                         the account again";
            return Err(TokenError::new(TokenErrorKind::Permanent, words));
        }
        let now = &now.id;
        Err(misconfigured(format!(
            "it was issued to the application `{then}`, which alone can renew it, and `auth.oauth2.client` is `{now}`: set \
             that back, or connect the account again"
        )))
    }

    /// The application's own credentials.
    ///
    /// # Errors
    /// When the deployment has not told them, and they are not registered.
    pub fn client(&self) -> Result<&Client, TokenError> {
        self.known_client().ok_or_else(|| no_client(self.oauth2, &self.account.integration.id))
    }
}

/// Nobody told the application's own credentials.
pub(super) fn no_client(oauth2: &OAuth2, id: &str) -> TokenError {
    misconfigured(match &oauth2.registration {
        Some(_) => {
            format!("the application has not registered itself at `{id}`: connect an account, before which it does")
        }
        None => format!("`auth.oauth2.client` of `{id}` is missing: write the application's `id` and `secret`"),
    })
}

/// Whether a token is the one that calls carry here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Main {
    /// It is `token.access`.
    Yes,
    /// It is known by its name only.
    No,
}

pub(super) fn misconfigured(words: impl Into<String>) -> TokenError {
    TokenError::new(TokenErrorKind::Misconfigured, words)
}
