//! What tests and people may change about a simulated authorization server while it runs. Called by
//! `server`, for `/-/oauth/{integration}`.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::token::refusal;
use super::{At, Consent, OAuthSide};
use crate::base::units::parse_duration;
use crate::definition::plan::oauth2::TokenCall;
use crate::respond::Answer;

/// A change; every field stands alone.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Change {
    /// Every access token ends now.
    expire: bool,
    /// Every person withdraws their consent.
    revoke: bool,
    /// An access token without a sign-in, for who tries the API by hand. It does not end by itself.
    issue: bool,
    /// What becomes of authorization requests from now on.
    consent: Option<Consent>,
    /// The next token calls fail.
    fail: Option<Failing>,
    /// How long token calls take from now on, such as `2s`.
    delay: Option<String>,
}

/// Token calls that fail on demand.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Failing {
    /// The error code, such as `invalid_grant` or `temporarily_unavailable`.
    error: String,
    /// How many calls; one unless it is said.
    #[serde(default = "once")]
    times: u32,
}

const fn once() -> u32 {
    1
}

impl OAuthSide {
    /// Makes a change; an empty one only looks. What is not understood is an error in words.
    pub fn control(&self, change: &Value, at: At<'_>) -> Result<Value, String> {
        let change: Change = Deserialize::deserialize(change).map_err(|error| error.to_string())?;
        let delay = change.delay.as_deref().map(parse_duration).transpose().map_err(|error| error.to_string())?;
        if change.expire {
            self.ledger.expire_all();
        }
        if change.revoke {
            self.ledger.revoke_all();
        }
        {
            let mut switches = self.switches();
            switches.consent = change.consent.unwrap_or(switches.consent);
            switches.failing = change.fail.or_else(|| switches.failing.take());
            switches.delay = delay.unwrap_or(switches.delay);
        }
        let mut told = self.ledger.told();
        if change.issue {
            let family = self.ledger.open(self.plan.scopes.iter().map(|scope| scope.name.clone()).collect());
            let access = self.ledger.access(family, None, at.random, |value| value);
            told["access_token"] = access.map_err(|error| error.to_string())?.into();
        }
        Ok(told)
    }

    /// How long a token call takes.
    pub fn delay(&self) -> Duration {
        self.switches().delay
    }

    /// The refusal that was asked for, while any is left.
    pub(super) fn failing(&self, call: &TokenCall) -> Option<Answer> {
        let error = {
            let mut switches = self.switches();
            let failing = switches.failing.as_mut().filter(|failing| failing.times > 0)?;
            failing.times -= 1;
            failing.error.clone()
        };
        self.ledger.count_refused();
        Some(refusal(call, &error, "a fault that was asked for"))
    }
}
