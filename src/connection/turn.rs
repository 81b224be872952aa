//! The turn of a call of signing in under the policy of its integration, as a seam: the policy is a room further
//! down (`outbound`), and uses connections itself.
//!
//! Such a call counts where it goes to the API's own address, respects the circuit of wherever it goes, and is
//! ahead of the application's calls, which need the token that it brings. Called by `flow` and `sign_in` before
//! each call.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::grant::{Account, TokenError, TokenErrorKind};
use crate::base::clock::Clock;
use crate::net::{Base, Failure, Outgoing, Received};
use crate::template::Context;

/// Lets calls of signing in go.
#[async_trait]
pub trait Turnstile: Debug + Send + Sync {
    /// Lets a call go, at once or when it is its turn. `home` is the API's address, where it can be told.
    ///
    /// # Errors
    /// When it may not go now; nothing of it was sent.
    async fn enter(
        &self,
        account: Account<'_>,
        outgoing: &Outgoing,
        home: Option<&Base>,
    ) -> Result<Box<dyn Entered>, NotNow>;
}

/// A call that may go. Dropped without a word it was sent, and its answer never came.
pub trait Entered: Send {
    /// The call has ended.
    fn ended(self: Box<Self>, sent: &Result<Received, Failure>);
}

/// A call that may not go now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotNow {
    /// Why, for people.
    pub words: String,
    /// How long until it makes sense to come again.
    pub after: Duration,
}

/// The turn of a call; what is left of its time is what it has then.
///
/// # Errors
/// When it may not go now.
pub(super) async fn enter(
    (turns, clock): (&Arc<dyn Turnstile>, &Arc<dyn Clock>),
    account: Account<'_>,
    context: &Context,
    outgoing: &mut Outgoing,
) -> Result<Box<dyn Entered>, TokenError> {
    let api = account.integration.api.as_ref();
    let home = api.and_then(|api| Base::of(api, &account.generation.gateway, context).ok());
    let began = clock.monotonic();
    let entered = turns.enter(account, outgoing, home.as_ref()).await.map_err(TokenError::from)?;
    outgoing.timeouts.total = outgoing.timeouts.total.saturating_sub(clock.monotonic().saturating_sub(began));
    Ok(entered)
}

impl From<NotNow> for TokenError {
    fn from(wait: NotNow) -> Self {
        Self { retry_after: Some(wait.after), ..Self::new(TokenErrorKind::Unsent, wait.words) }
    }
}
