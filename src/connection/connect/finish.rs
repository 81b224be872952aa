//! From new credentials to a connection: whose account it is, which site, and then on disk.
//!
//! What was connected before under this name stays in force until the last step: a token that does not work
//! replaces nothing. Called by `callback`, `choose` and `begin`.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value as Json};

use super::Connect;
use super::choose::Choice;
use super::claim::Claim;
use super::drawer::Drawer;
use super::failure::Failure;
use super::link::Link;
use super::outcome::{Connected, Failed, State};
use super::pending::Flow;
use super::permission::{Entered, scopes_of};
use super::provider::{Found, Who};
use super::revocations::{Intended, What};
use super::tell::actor;
use super::trial::{Proof, Tried};
use crate::connection::grant::{Account, Grant, TokenError, TokenErrorKind};
use crate::connection::health::{Key, Tested, Trouble};
use crate::connection::{ConnectionError, Content, Credential, Status, Tokens};
use crate::definition::live::Generation;
use crate::definition::plan::{Auth, Integration};
use crate::store::StoreError;

/// A connection that is about to be.
pub(super) struct Grown {
    /// The right to keep it.
    pub claim: Claim,
    pub scopes: Vec<String>,
    pub inputs: Map<String, Json>,
    /// What was entered here; else the tokens of the grant are the credential.
    pub entered: Option<Credential>,
    pub grant: Grant,
    pub who: Option<Who>,
    pub notes: Vec<String>,
    /// The `discover` step that comes next.
    pub step: usize,
    /// What is known of the credential.
    pub proof: Proof,
}

impl Grown {
    /// What a person entered.
    pub fn entered(claim: Claim, entered: Entered) -> Self {
        let Entered { scopes, inputs, credential } = entered;
        let (grant, notes) = (Grant::default(), Vec::new());
        Self { claim, scopes, inputs, entered: credential, grant, who: None, notes, step: 0, proof: Proof::None }
    }

    /// What a flow brought.
    pub fn granted(claim: Claim, flow: Flow, grant: Grant) -> Self {
        let Flow { scopes, inputs, .. } = flow;
        let (notes, proof) = (grant.warnings.clone(), Proof::None);
        Self { claim, scopes, inputs, entered: None, grant, who: None, notes, step: 0, proof }
    }

    fn account<'a>(&'a self, generation: &'a Generation, integration: &'a Arc<Integration>) -> Account<'a> {
        let (connection, inputs, saved) = (&self.claim.link.connection, &self.inputs, &self.grant.saved);
        Account { generation, integration, connection, inputs, saved }
    }
}

fn failed(failure: Failure, words: impl Into<Option<String>>) -> State {
    State::Failed(Failed { failure, words: words.into() })
}

impl Connect {
    /// Finds out whose account it is, which is the first use of the new token as well. A service that
    /// cannot say keeps nobody from connecting; one that refuses the token does.
    pub(super) async fn identify(
        &self,
        generation: &Generation,
        integration: &Arc<Integration>,
        grown: &mut Grown,
    ) -> Result<(), State> {
        if matches!(integration.auth, Auth::OAuth1(_)) {
            return self.try_granted(generation, integration, grown).await;
        }
        match self.provider.identity(grown.account(generation, integration), &grown.grant).await {
            Ok(who) => grown.who = who.map(Who::plain),
            Err(error) if refuses_token(&error) => return Err(failed(Failure::TokenRefused, of_use(&error))),
            Err(error) => {
                tracing::warn!(integration = %integration.id, "whose account was connected is not known: {error}");
                grown.notes.push(format!("{} did not say whose account this is.", integration.title));
            }
        }
        Ok(())
    }

    /// Tries a token of a service that has no request of its own for whose it is.
    async fn try_granted(
        &self,
        generation: &Generation,
        integration: &Arc<Integration>,
        grown: &mut Grown,
    ) -> Result<(), State> {
        let tokens = grown.grant.tokens.iter().map(|(name, issued)| (Arc::clone(name), issued.copy())).collect();
        let (inputs, saved) = (grown.inputs.clone(), grown.grant.saved.clone());
        let content = Content { credential: Credential::Tokens(Tokens(tokens)), inputs, saved };
        match self.tried(generation, integration, &grown.claim.link.connection, content).await {
            Tried::Works => grown.proof = Proof::Passed,
            Tried::NoTest => {}
            Tried::Refused(found) => return Err(failed(Failure::TokenRefused, found.detail)),
            Tried::Untried(found) => {
                grown.notes.push(format!("{} could not be asked whether this works.", integration.title));
                grown.proof = Proof::Doubted(found);
            }
        }
        Ok(())
    }

    /// Goes through the steps that choose an account or site; stops where a person has to.
    pub(super) async fn discover(
        &self,
        generation: &Generation,
        integration: &Arc<Integration>,
        drawer: &Drawer,
        mut grown: Grown,
    ) -> State {
        let found = self.provider.discover(grown.account(generation, integration), &grown.grant, grown.step).await;
        match found {
            Ok((_, Found::Settled(values))) => {
                grown.grant.saved.extend(values);
                self.keep_connection(integration, drawer, grown).await
            }
            Ok((step, Found::Several(choices))) => {
                grown.step = step;
                let flow = grown.claim.flow().to_owned();
                match Choice::keep(drawer, grown, choices, self.clock.now()).await {
                    Ok(()) => State::Choosing { flow },
                    Err(error) => failed(Failure::NotKept, not_kept(&integration.id, &error.to_string())),
                }
            }
            Ok((_, Found::Nothing)) => {
                self.give_up(integration, grown).await;
                failed(Failure::AccountNotFit, "the account has access to nothing that could be chosen".to_owned())
            }
            Err(error) => {
                self.give_up(integration, grown).await;
                failed(Failure::of_use(&error), of_use(&error))
            }
        }
    }

    /// Lets go of a connection that does not come to be: the service is told of its tokens.
    pub(super) async fn give_up(&self, integration: &Integration, grown: Grown) {
        let Grown { claim, grant, inputs, who, .. } = grown;
        let mut saved = grant.saved;
        keep_account(&mut saved, who);
        let content = Content { credential: Credential::Tokens(Tokens(grant.tokens)), inputs, saved };
        self.give_back(integration, &claim.link, content).await;
    }

    /// Keeps a connection, again and again for a while where the store refuses: what a consent brought comes once.
    async fn put(&self, integration: &Integration, link: &Link, content: &Content) -> Result<(), ConnectionError> {
        let mut tries = 0;
        loop {
            let Content { credential, inputs, saved } = content;
            let content = Content { credential: credential.copy(), inputs: inputs.clone(), saved: saved.clone() };
            let put = self.connections.put(&actor(link), integration, &link.connection, content).await;
            match put {
                Err(ConnectionError::Store { reason, .. })
                    if tries < TRIES && !matches!(reason, StoreError::TooLarge { .. }) =>
                {
                    tracing::error!(integration = %integration.id, "a new connection waits for the store, which refuses: {reason}");
                    tokio::time::sleep(PAUSE).await;
                    tries += 1;
                }
                put => return put.map(drop),
            }
        }
    }

    /// Keeps the connection, in place of one of the same name; not once the claim is lost.
    pub(super) async fn keep_connection(&self, integration: &Arc<Integration>, drawer: &Drawer, grown: Grown) -> State {
        // Whoever removes the connection does so before or after all of this, and takes the claim away.
        let _one_by_one = self.order.lock().await;
        match grown.claim.stands(drawer).await {
            Ok(true) => {}
            Ok(false) => {
                self.give_up(integration, grown).await;
                return failed(Failure::Removed, None);
            }
            Err(error) => return failed(Failure::NotKept, not_kept(&integration.id, &error.to_string())),
        }
        let before = self.before(&integration.id, &grown.claim.link.connection).await;
        let before_scopes = before.as_ref().and_then(|before| scopes_of(&before.credential));
        let Grown { claim, scopes, inputs, entered, grant, who, mut notes, proof, .. } = grown;
        let mut saved = grant.saved;
        let credential = entered.unwrap_or(Credential::Tokens(Tokens(grant.tokens)));
        let told = scopes_of(&credential).is_some();
        let credential = as_requested(integration, credential, &scopes);
        let granted = scopes_of(&credential).filter(|_| told);
        notes.extend(other_account(before.as_ref().map(|before| &before.saved), who.as_ref()));
        let account = who.as_ref().and_then(|who| who.name.clone().or_else(|| who.id.clone()));
        keep_account(&mut saved, who);
        let connected = Connected { account, requested: scopes, granted, before: before_scopes, notes };
        let replaced = before.and_then(|before| replaced(integration, before, &credential));
        let noted = self.note_keeping(drawer, &claim, (connected.clone(), &credential)).await;
        let (link, content) = (claim.link, Content { credential, inputs, saved });
        if let Err(error) = noted {
            self.give_back(integration, &link, content).await;
            return failed(Failure::NotKept, not_kept(&integration.id, &error.to_string()));
        }
        let replaced = self.to_take_back(&link, replaced).await;
        match self.put(integration, &link, &content).await {
            Ok(()) => {
                self.take_back(&link, replaced).await;
                self.note_proof(&Key::new(&integration.id, &link.connection), proof).await;
                State::Connected(connected)
            }
            Err(error) => {
                self.leave_alone(replaced).await;
                self.give_back(integration, &link, content).await;
                failed(Failure::NotKept, not_kept(&integration.id, &error.to_string()))
            }
        }
    }
}

impl Connect {
    /// Has the service told of tokens that came and are not kept, for instance because the connection was removed meanwhile; only
    /// if that ends no connection.
    pub(super) async fn give_back(&self, integration: &Integration, link: &Link, content: Content) {
        let (Auth::OAuth2(_), Some(revocations)) = (&integration.auth, &self.revocations) else { return };
        let Credential::Tokens(Tokens(tokens)) = &content.credential else { return };
        if tokens.is_empty() {
            return;
        }
        let (key, what) = (Key::new(&link.integration, &link.connection), What::Unkept);
        if let Err(error) = revocations.queue(&key, what, &content).await {
            tracing::error!(integration = %link.integration, "tokens that are not kept live on at the service: {error}");
        }
    }

    /// Notes the tokens that are about to be replaced: a crash after that leaves none alive that nobody knows of.
    async fn to_take_back(&self, link: &Link, replaced: Option<Content>) -> Option<Intended> {
        let (content, revocations) = (replaced?, self.revocations.as_ref()?);
        let key = Key::new(&link.integration, &link.connection);
        let intended = async {
            let era = self.connections.era(&key).await.map_err(|error| error.to_string())?;
            revocations.intend(&key, What::Replaced, Some(&content), era).await.map_err(|error| error.to_string())
        };
        let intended = intended.await.inspect_err(|error| {
            tracing::error!(integration = %link.integration, "replaced tokens live on at the service: {error}");
        });
        intended.ok()
    }

    /// Has the service told of tokens that were replaced. They are in use by nobody from now on, so that whatever
    /// comes of it changes nothing here.
    async fn take_back(&self, link: &Link, replaced: Option<Intended>) {
        let (Some(mut intended), Some(revocations)) = (replaced, &self.revocations) else { return };
        if let Err(error) = revocations.settle(&mut intended).await {
            tracing::error!(integration = %link.integration, "that tokens were replaced is not on disk yet: {error}");
        }
    }

    /// The tokens that were about to be replaced stay in use.
    async fn leave_alone(&self, replaced: Option<Intended>) {
        let (Some(intended), Some(revocations)) = (replaced, &self.revocations) else { return };
        // Where this fails it is found out later that they are in use.
        drop(revocations.drawer.records.remove(&intended.record).await);
    }

    /// Remembers what is known of a credential that was just kept.
    async fn note_proof(&self, key: &Key, proof: Proof) {
        let now = self.clock.now();
        let pulse = self.connections.pulse(key).await;
        let (before, after) = match proof {
            Proof::None => return,
            Proof::Passed => pulse.change(now, |health| health.last_test = Some(Tested { at: now, passed: true })),
            Proof::Doubted(found) => pulse.change(now, |health| {
                health.condition = Status::Warning;
                health.last_error = Some(Trouble::new(now, &found.detail, found.step));
            }),
        };
        self.connections.note_status(key, before, after).await;
        self.connections.save_health(key, &pulse).await;
    }
}

/// How often a connection is tried to be kept where the store refuses, and the pause between.
const TRIES: usize = 10;
const PAUSE: Duration = Duration::from_secs(1);

/// Where whose account it is stands among the saved values. Names of definitions do not begin so.
const ACCOUNT_ID: &str = "_account_id";
const ACCOUNT_NAME: &str = "_account_name";
const ACCOUNT_EMAIL: &str = "_account_email";

/// The credential whose tokens have the scopes that were asked for, where the service did not say what it granted:
/// then it granted what was asked for (RFC 6749 §5.1).
fn as_requested(integration: &Integration, credential: Credential, requested: &[String]) -> Credential {
    let Auth::OAuth2(oauth2) = &integration.auth else { return credential };
    let mut tokens = match credential {
        Credential::Tokens(Tokens(tokens)) => tokens,
        other => return other,
    };
    for (name, issued) in tokens.iter_mut().filter(|(_, issued)| issued.scopes.is_none()) {
        let own = oauth2.scopes.iter().filter(|scope| *scope.token == **name && requested.contains(&scope.name));
        let own: Vec<_> = own.map(|scope| scope.name.clone()).collect();
        issued.scopes = Some(own).filter(|own| !own.is_empty());
    }
    Credential::Tokens(Tokens(tokens))
}

/// Whose account a connection is, by the values that its sign-in saved: what people call it, else its id.
pub fn account_of(saved: &Map<String, Json>) -> Option<&str> {
    text(saved, ACCOUNT_NAME).or(text(saved, ACCOUNT_ID))
}

/// The id at the service of the account that a connection is of, where its sign-in told one.
pub fn account_id_of(saved: &Map<String, Json>) -> Option<&str> {
    text(saved, ACCOUNT_ID)
}

/// The mail address of the account that a connection is of, where its sign-in told one.
pub fn account_email_of(saved: &Map<String, Json>) -> Option<&str> {
    text(saved, ACCOUNT_EMAIL)
}

fn text<'a>(saved: &'a Map<String, Json>, name: &str) -> Option<&'a str> {
    saved.get(name).and_then(Json::as_str)
}

/// What of the tokens before is to be taken back, once these are kept: none that the service gave again.
fn replaced(integration: &Integration, before: Content, now: &Credential) -> Option<Content> {
    let Auth::OAuth2(oauth2) = &integration.auth else { return None };
    let (Credential::Tokens(tokens), Credential::Tokens(now)) = (before.credential, now) else {
        return None;
    };
    let tokens = tokens.without(now);
    let wanted = oauth2.revoke_replaced && !tokens.0.is_empty();
    wanted.then(|| Content { credential: Credential::Tokens(tokens), ..before })
}

pub(super) fn keep_account(saved: &mut Map<String, Json>, who: Option<Who>) {
    let Some(Who { id, name, email }) = who else { return };
    saved.extend(id.map(|id| (ACCOUNT_ID.to_owned(), Json::from(id))));
    saved.extend(name.map(|name| (ACCOUNT_NAME.to_owned(), Json::from(name))));
    saved.extend(email.map(|email| (ACCOUNT_EMAIL.to_owned(), Json::from(email))));
}

/// What to say when the account is another one than before.
fn other_account(before: Option<&Map<String, Json>>, who: Option<&Who>) -> Option<String> {
    let text = |name| before.and_then(|saved| saved.get(name)).and_then(Json::as_str);
    let (old, new) = (text(ACCOUNT_ID)?, who?.id.as_deref()?);
    let name = text(ACCOUNT_NAME).unwrap_or(old);
    (old != new).then(|| format!("This is another account than before: the connection was {name}."))
}

/// What is told of a request with the new token that failed: there was a token.
fn of_use(error: &TokenError) -> String {
    format!("a request with the new token failed: {}", error.detail())
}

fn refuses_token(error: &TokenError) -> bool {
    error.kind == TokenErrorKind::Permanent || error.status == Some(401)
}

/// For the log what went wrong; for the page nothing of our insides.
fn not_kept(integration: &str, error: &str) -> Option<String> {
    tracing::error!(integration, "a new connection could not be kept: {error}");
    None
}
