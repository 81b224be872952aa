//! From new credentials to a connection: whose account it is, which site, and then on disk.
//!
//! What was connected before under this name stays in force until the last step: a token that does not work
//! replaces nothing. Called by `callback`, `choose` and `begin`.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::Connect;
use super::choose::Choice;
use super::claim::Claim;
use super::drawer::Drawer;
use super::failure::Failure;
use super::outcome::{Connected, Failed, State};
use super::pending::Flow;
use super::permission::{Entered, scopes_of};
use super::provider::{Found, Who};
use super::tell::actor;
use crate::connection::grant::{Account, Grant, TokenError, TokenErrorKind};
use crate::connection::{Content, Credential, Tokens};
use crate::definition::live::Generation;
use crate::definition::plan::Integration;

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
}

impl Grown {
    /// What a person entered.
    pub fn entered(claim: Claim, entered: Entered) -> Self {
        let Entered { scopes, inputs, credential } = entered;
        let (grant, notes) = (Grant::default(), Vec::new());
        Self { claim, scopes, inputs, entered: credential, grant, who: None, notes, step: 0 }
    }

    /// What a flow brought.
    pub fn granted(claim: Claim, flow: Flow, grant: Grant) -> Self {
        let Flow { scopes, inputs, .. } = flow;
        Self { claim, scopes, inputs, entered: None, grant, who: None, notes: Vec::new(), step: 0 }
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
        match self.provider.identity(grown.account(generation, integration), &grown.grant).await {
            Ok(who) => grown.who = who,
            Err(error) if refuses_token(&error) => return Err(failed(Failure::TokenRefused, error.to_string())),
            Err(error) => {
                tracing::warn!(integration = %integration.id, "whose account was connected is not known: {error}");
                grown.notes.push(format!("{} did not say whose account this is.", integration.title));
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
                failed(Failure::AccountNotFit, "the account has access to nothing that could be chosen".to_owned())
            }
            Err(error) => failed(Failure::of_token_call(&error), error.to_string()),
        }
    }

    /// Keeps the connection, in place of one of the same name; not once the claim is lost.
    pub(super) async fn keep_connection(&self, integration: &Arc<Integration>, drawer: &Drawer, grown: Grown) -> State {
        // Whoever removes the connection does so before or after all of this, and takes the claim away.
        let _one_by_one = self.order.lock().await;
        match grown.claim.stands(drawer).await {
            Ok(true) => {}
            Ok(false) => return failed(Failure::Removed, None),
            Err(error) => return failed(Failure::NotKept, not_kept(&integration.id, &error.to_string())),
        }
        let before = self.before(&integration.id, &grown.claim.link.connection).await;
        let before_scopes = before.as_ref().and_then(|before| scopes_of(&before.credential));
        let Grown { claim: Claim { link, .. }, scopes, inputs, entered, grant, who, mut notes, .. } = grown;
        let mut saved = grant.saved;
        let credential = entered.unwrap_or(Credential::Tokens(Tokens(grant.tokens)));
        let granted = scopes_of(&credential);
        notes.extend(other_account(before.as_ref().map(|before| &before.saved), who.as_ref()));
        let account = who.as_ref().and_then(|who| who.name.clone().or_else(|| who.id.clone()));
        keep_account(&mut saved, who);
        let content = Content { credential, inputs, saved };
        match self.connections.put(&actor(&link), integration, &link.connection, content).await {
            Ok(_) => State::Connected(Connected { account, requested: scopes, granted, before: before_scopes, notes }),
            Err(error) => failed(Failure::NotKept, not_kept(&integration.id, &error.to_string())),
        }
    }
}

/// Where whose account it is stands among the saved values. Names of definitions do not begin so.
const ACCOUNT_ID: &str = "_account_id";
const ACCOUNT_NAME: &str = "_account_name";

fn keep_account(saved: &mut Map<String, Json>, who: Option<Who>) {
    let Some(Who { id, name }) = who else { return };
    saved.extend(id.map(|id| (ACCOUNT_ID.to_owned(), Json::from(id))));
    saved.extend(name.map(|name| (ACCOUNT_NAME.to_owned(), Json::from(name))));
}

/// What to say when the account is another one than before.
fn other_account(before: Option<&Map<String, Json>>, who: Option<&Who>) -> Option<String> {
    let text = |name| before.and_then(|saved| saved.get(name)).and_then(Json::as_str);
    let (old, new) = (text(ACCOUNT_ID)?, who?.id.as_deref()?);
    let name = text(ACCOUNT_NAME).unwrap_or(old);
    (old != new).then(|| format!("This is another account than before: the connection was {name}."))
}

fn refuses_token(error: &TokenError) -> bool {
    error.kind == TokenErrorKind::Permanent || error.status == Some(401)
}

/// For the log what went wrong; for the page nothing of our insides.
fn not_kept(integration: &str, error: &str) -> Option<String> {
    tracing::error!(integration, "a new connection could not be kept: {error}");
    None
}
