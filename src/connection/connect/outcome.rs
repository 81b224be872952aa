//! What became of a link: kept on the server, because the browser may never get to tell.
//!
//! A provider's page can cut the tie between a window and the page that opened it (COOP), a person can
//! close the window at any moment, a phone can put it to sleep. So the outcome is a record here, which the
//! page, the application and the operator can ask for; messages between windows only say that it is time to
//! ask. A link is used once: the browser that begins with it owns it, the newest flow of that browser is the one
//! that counts, and when an account is connected the link is spent. Each step is a compare-and-swap of this
//! record, so that one flow at most exchanges a code or keeps a connection (see [`super::claim`]).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::drawer::{Drawer, KeepError, key};
use super::failure::Failure;
use super::link::Link;
use crate::base::clock::Timestamp;
use crate::connection::connect::browser::same;
use crate::store::StoreError;

/// The collection of outcomes.
pub const COLLECTION: &str = "connect_links";
/// How long an outcome can be asked for after its link has ended.
pub const KEPT: Duration = Duration::from_hours(1);
/// After this time nobody is finishing a flow any more: it was cut off before (see [`super::claim`]), or the
/// program ended in the middle. The browser may begin again.
const LEFT_BEHIND: Duration = Duration::from_mins(10);

/// What became of a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The link.
    pub link: Link,
    /// The digest of the cookie of the browser that used it first.
    pub browser: String,
    /// Where it stands.
    pub state: State,
    /// Since when.
    pub at: Timestamp,
}

/// Where a link stands that was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The person is at the service.
    Started {
        /// The flow that may go on; older ones of the link may not.
        flow: String,
    },
    /// What the person brought is being exchanged, tried and kept.
    Finishing {
        /// By this flow, and no other.
        flow: String,
        /// What is being kept, from shortly before it is: after a crash it tells whether it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        keeping: Option<Box<Keeping>>,
    },
    /// Access is granted, and the person has to choose one of several sites or accounts.
    Choosing {
        /// The flow that may go on.
        flow: String,
    },
    /// It is done.
    Connected(Connected),
    /// It came to nothing. The same browser may try again while the link lasts.
    Failed(Failed),
}

/// What was connected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Connected {
    /// What the service calls the account, where it tells.
    pub account: Option<String>,
    /// The scopes that were asked for.
    pub requested: Vec<String>,
    /// The scopes that were granted; `None` when the service does not say, which means as asked for
    /// (RFC 6749 §5.1).
    pub granted: Option<Vec<String>>,
    /// The scopes that the connection had before, where it was connected anew.
    pub before: Option<Vec<String>>,
    /// What else the person should know.
    pub notes: Vec<String>,
}

/// A connection that is about to be kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keeping {
    /// What will be told of it.
    pub connected: Connected,
    /// The digest of its credential.
    pub credential: String,
}

/// Why nothing was connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// The kind, from a fixed table.
    pub failure: Failure,
    /// What the service said, in one line. Shown as text and nothing else.
    pub words: Option<String>,
}

impl State {
    /// The word for it, as the API and messages between windows have it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Started { .. } | Self::Finishing { .. } => "started",
            Self::Choosing { .. } => "choosing",
            Self::Connected(_) => "connected",
            Self::Failed(_) => "failed",
        }
    }

    /// Whether a flow of the link may still connect something.
    pub const fn is_under_way(&self) -> bool {
        matches!(self, Self::Started { .. } | Self::Finishing { .. } | Self::Choosing { .. })
    }

    /// Whether nothing more will come of it by itself.
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Connected(_) | Self::Failed(_))
    }
}

impl Connected {
    /// The scopes that were asked for and not granted.
    pub fn missing(&self) -> Vec<&str> {
        let Some(granted) = &self.granted else { return Vec::new() };
        self.requested.iter().filter(|scope| !granted.contains(scope)).map(String::as_str).collect()
    }

    /// The scopes that are there now.
    pub fn scopes(&self) -> &[String] {
        self.granted.as_deref().unwrap_or(&self.requested)
    }

    /// The scopes that were not there before, and those that are not there any more. `None` for a new
    /// connection, and where it is not known what there was.
    pub fn difference(&self) -> Option<(Vec<&str>, Vec<&str>)> {
        let (before, after) = (self.before.as_ref()?, self.scopes());
        let new = after.iter().filter(|scope| !before.contains(scope)).map(String::as_str).collect();
        let gone = before.iter().filter(|scope| !after.contains(scope)).map(String::as_str).collect();
        Some((new, gone))
    }
}

/// Whether a browser may use a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It may: the link is fresh, or this browser began with it and is not done.
    Free,
    /// The link has connected an account, is doing so this moment, or is over.
    Spent,
    /// Another browser began with it.
    Taken,
}

/// A step of a link, which may be taken from some places only.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step<'a> {
    /// A browser begins, or begins again.
    Begin,
    /// This flow goes on, which waits for its callback or for a choice.
    GoOn(&'a str),
    /// This flow ends, which is being finished.
    End(&'a str),
    /// Whatever flow is under way is stopped.
    Stop,
}

impl Outcome {
    /// What became of a link; `None` while nobody has used it.
    pub(super) async fn get(drawer: &Drawer, link: &str) -> Result<Option<Self>, KeepError> {
        Ok(drawer.get(&key(COLLECTION, link)).await?.map(|(outcome, _)| outcome))
    }

    /// Whether `browser` may use the link whose outcome so far is `found`.
    pub(super) fn standing(found: Option<&Self>, browser: Option<&str>, now: Timestamp) -> Standing {
        let Some(found) = found else { return Standing::Free };
        match &found.state {
            State::Connected(_) => Standing::Spent,
            State::Failed(failed) if failed.failure == Failure::Removed => Standing::Spent,
            _ if !browser.is_some_and(|browser| same(&found.browser, browser)) => Standing::Taken,
            State::Finishing { .. } if found.at.after(LEFT_BEHIND) > now => Standing::Spent,
            _ => Standing::Free,
        }
    }

    fn may(&self, found: Option<&Self>, step: Step<'_>) -> Standing {
        let stands = match (step, found.map(|found| &found.state)) {
            (Step::Begin, _) => return Self::standing(found, Some(&self.browser), self.at),
            (Step::GoOn(flow), Some(State::Started { flow: own } | State::Choosing { flow: own }))
            | (Step::End(flow), Some(State::Finishing { flow: own, .. })) => flow == own,
            (Step::Stop, Some(state)) => state.is_under_way(),
            _ => false,
        };
        if stands { Standing::Free } else { Standing::Spent }
    }

    /// Keeps the outcome in place of one that stands where the step begins; otherwise says why not.
    pub(super) async fn keep(&self, drawer: &Drawer, step: Step<'_>) -> Result<Standing, KeepError> {
        let key = key(COLLECTION, &self.link.id);
        loop {
            let found = drawer.get::<Self>(&key).await?;
            let standing = self.may(found.as_ref().map(|(found, _)| found), step);
            if standing != Standing::Free {
                return Ok(standing);
            }
            match drawer.put(&key, self, Some(found.map_or(0, |(_, version)| version))).await {
                Ok(_) => return Ok(Standing::Free),
                // Someone was between: look again.
                Err(KeepError::Store(StoreError::Conflict(_))) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
