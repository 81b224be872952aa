//! What happens because of events, compiled.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::NotYet;
use crate::base::backoff::Backoff;
use crate::template::{Expr, Text, Tree};

/// A rule: `when` an event of some type comes and `if` a condition holds, `do` actions.
#[derive(Debug)]
pub struct Rule {
    /// Its id, unique in the integration.
    pub id: Arc<str>,
    /// The event types it is for: any may match.
    pub when: Vec<Glob>,
    /// What else must hold; sees `event`, `body`, `headers`, `query`.
    pub condition: Option<Expr>,
    /// What to do. Each is a delivery of its own: one that fails does not hold up the others.
    pub actions: Vec<Action>,
}

impl Rule {
    /// Whether the rule is for events of this type.
    pub fn is_for(&self, event_type: &str) -> bool {
        self.when.iter().any(|glob| glob.matches(event_type))
    }
}

/// A text pattern in which `*` stands for any text, dots included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(Box<str>);

impl Glob {
    /// The pattern as written.
    pub fn new(pattern: &str) -> Self {
        Self(pattern.into())
    }

    /// The pattern.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a text is one of those meant. Takes time linear in the text for each star.
    pub fn matches(&self, text: &str) -> bool {
        let mut parts = self.0.split('*');
        let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        for part in parts {
            match rest.split_once(part) {
                Some((_, after)) => rest = after,
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

/// One thing to do.
#[derive(Debug)]
pub struct Action {
    /// What.
    pub what: What,
    /// When to try again, where the action or its rule says; else its destination may, and else it is
    /// [`Retry::default`].
    pub retry: Option<Retry>,
    /// How long one try may take, where the action says.
    pub timeout: Option<Duration>,
}

/// What an action does.
#[derive(Debug)]
pub enum What {
    /// Runs an endpoint of any integration.
    Call {
        /// The integration's id.
        integration: Arc<str>,
        /// The endpoint's id.
        endpoint: Arc<str>,
        /// The connection's id.
        connection: Arc<str>,
        /// The endpoint's inputs; sees `event`, `body`, `headers`, `query`.
        input: Tree,
    },
    /// Sends a message to a destination, signed by Standard Webhooks.
    Deliver {
        /// The destination's id.
        destination: Arc<str>,
        /// The message; without it the event's own body, byte for byte.
        json: Option<Tree>,
        /// Headers besides the signature's.
        headers: Vec<(HeaderName, Text)>,
    },
    /// Writes a line to the log.
    Log {
        /// How loud.
        level: LogLevel,
        /// The line.
        message: Text,
    },
    /// A kind that this version does not run: the delivery goes to the dead-letter list and says so.
    NotYet(NotYet),
}

impl What {
    /// The names that its templates read.
    pub fn names(&self) -> BTreeSet<String> {
        match self {
            Self::Call { input, .. } => input.names(),
            Self::Deliver { json, headers, .. } => {
                let of_headers = headers.iter().flat_map(|(_, text)| text.names());
                json.iter().flat_map(Tree::names).chain(of_headers).collect()
            }
            Self::Log { message, .. } => message.names(),
            Self::NotYet(_) => BTreeSet::new(),
        }
    }
}

/// How loud a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// For developers.
    Debug,
    /// Usual.
    #[default]
    Info,
    /// Unusual.
    Warn,
    /// Someone must act.
    Error,
}

/// When to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// How often at most, the first try included. Default 3.
    pub attempts: u32,
    /// The pauses between. Default: from 2 s, doubling, at most 1 h.
    pub backoff: Backoff,
}

impl Default for Retry {
    fn default() -> Self {
        let backoff = Backoff { base: Duration::from_secs(2), cap: Duration::from_hours(1) };
        Self { attempts: 3, backoff }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stars_stand_for_any_text() {
        let matches = |glob: &str, text: &str| Glob::new(glob).matches(text);
        assert!(matches("*", "") && matches("*", "a.b") && matches("issues.*", "issues.opened"));
        assert!(matches("*.opened", "pull_request.opened") && matches("a*b*c", "a--b--b--c"));
        assert!(!matches("issues", "issues.opened") && !matches("issues.*", "issue.opened"));
        assert!(!matches("a*a", "a") && !matches("", "x") && matches("", ""));
    }

    proptest! {
        #[test]
        fn globs_agree_with_a_regular_expression(glob in "[ab*]{0,8}", text in "[ab]{0,10}") {
            let pattern = format!("^{}$", glob.replace('*', ".*"));
            let expected = regex::Regex::new(&pattern).expect("letters and stars").is_match(&text);
            prop_assert_eq!(Glob::new(&glob).matches(&text), expected);
        }
    }
}
