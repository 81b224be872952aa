//! What a simulated authorization server has issued: codes, tokens, and which of them belong together.
//!
//! Everything that one consent led to is one family. A code or a rotated refresh token that comes a second
//! time revokes its family (RFC 6749 §4.1.2, RFC 9700 §4.14). Called by the whole room.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::base::clock::Timestamp;
use crate::base::random::{Random, RandomUnavailable};
use crate::mock::counted::{Borrowed, Counted};

/// How long a code may be redeemed.
const CODE_LIFE: Duration = Duration::from_mins(1);
/// How many issued values are remembered; the oldest are forgotten, and then unknown.
const REMEMBERED: usize = 100_000;

/// What was issued.
#[derive(Debug, Default)]
pub(super) struct Ledger(Counted<Book>);

#[derive(Debug, Default, Serialize, Deserialize)]
struct Book {
    entries: HashMap<String, Entry>,
    order: VecDeque<String>,
    families: Vec<Family>,
    counts: Counts,
}

/// What happened so far, for tests and people.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
struct Counts {
    codes: u64,
    grants: u64,
    refreshes: u64,
    reuses: u64,
    revoked: u64,
    refused: u64,
}

/// One consent and what came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Family {
    scopes: Vec<String>,
    revoked: bool,
}

/// Which family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FamilyId(usize);

/// Something that was issued.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    family: FamilyId,
    what: What,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum What {
    Code { bound: Bound, issued_at: Timestamp, used: bool },
    Access { expires: Option<Timestamp> },
    Refresh { name: String, used: bool },
}

/// What a code is bound to.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Bound {
    /// The redirect address of the authorization request, where it had one.
    pub redirect_uri: Option<String>,
    /// The challenge of RFC 7636.
    pub challenge: Option<String>,
}

/// Why something presented is no good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    /// It was never issued, or is something else.
    #[error("it was not issued here")]
    Unknown,
    /// Its time is over.
    #[error("it has expired")]
    Expired,
    /// It was taken back, or the person withdrew their consent.
    #[error("it was revoked")]
    Revoked,
    /// It came a second time, so everything that came of the same consent is revoked.
    #[error("it was used before, so all that came of the same consent is revoked")]
    Reused,
}

/// What becomes of a refresh token that is presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// It is used up.
    Once,
    /// It stays good.
    Again,
}

impl Ledger {
    fn book(&self) -> Borrowed<'_, Book> {
        self.0.borrow()
    }

    /// How often [`Self::state`] may have changed.
    pub fn changes(&self) -> u64 {
        self.0.changes()
    }

    /// All that was issued, for a later process.
    pub fn state(&self) -> Value {
        serde_json::to_value(&*self.book()).unwrap_or_default()
    }

    /// Goes on from what an earlier process had issued.
    ///
    /// # Errors
    /// When the value is not a [`Self::state`].
    pub fn restore(&self, state: &Value) -> Result<(), serde_json::Error> {
        *self.book() = Book::deserialize(state)?;
        Ok(())
    }

    /// A consent to these scopes.
    pub fn open(&self, scopes: Vec<String>) -> FamilyId {
        let mut book = self.book();
        book.families.push(Family { scopes, revoked: false });
        FamilyId(book.families.len() - 1)
    }

    /// The scopes that were consented to.
    pub fn scopes(&self, family: FamilyId) -> Vec<String> {
        self.book().families.get(family.0).map(|family| family.scopes.clone()).unwrap_or_default()
    }

    /// Issues a code for a consent.
    pub fn code(
        &self,
        family: FamilyId,
        bound: Bound,
        (now, random): (Timestamp, &dyn Random),
    ) -> Result<String, RandomUnavailable> {
        self.book().counts.codes += 1;
        let what = What::Code { bound, issued_at: now, used: false };
        self.issue("code", Entry { family, what }, random)
    }

    /// Issues an access token. `shaped` makes the value where it has a form of its own, such as a JWT.
    pub fn access(
        &self,
        family: FamilyId,
        expires: Option<Timestamp>,
        random: &dyn Random,
        shaped: impl FnOnce(String) -> String,
    ) -> Result<String, RandomUnavailable> {
        let value = shaped(fresh("access", random)?);
        self.remember(value.clone(), Entry { family, what: What::Access { expires } });
        Ok(value)
    }

    /// Issues a refresh token for the token of this name.
    pub fn refresh(&self, family: FamilyId, name: &str, random: &dyn Random) -> Result<String, RandomUnavailable> {
        let what = What::Refresh { name: name.to_owned(), used: false };
        self.issue("refresh", Entry { family, what }, random)
    }

    fn issue(&self, kind: &str, entry: Entry, random: &dyn Random) -> Result<String, RandomUnavailable> {
        let value = fresh(kind, random)?;
        self.remember(value.clone(), entry);
        Ok(value)
    }

    fn remember(&self, value: String, entry: Entry) {
        let mut book = self.book();
        if book.order.len() == REMEMBERED
            && let Some(oldest) = book.order.pop_front()
        {
            book.entries.remove(&oldest);
        }
        book.order.push_back(value.clone());
        book.entries.insert(value, entry);
    }

    /// Takes a code, once.
    pub fn redeem(&self, value: &str, now: Timestamp) -> Result<(FamilyId, Bound), Refused> {
        let mut book = self.book();
        let Some(Entry { family, what: What::Code { bound, issued_at, used } }) = book.entries.get_mut(value) else {
            return Err(Refused::Unknown);
        };
        let (family, bound, issued_at) = (*family, bound.clone(), *issued_at);
        if std::mem::replace(used, true) {
            book.revoke(family);
            book.counts.reuses += 1;
            return Err(Refused::Reused);
        }
        if now > issued_at.after(CODE_LIFE) {
            return Err(Refused::Expired);
        }
        book.counts.grants += 1;
        book.standing(family).map(|()| (family, bound))
    }

    /// Takes a refresh token; tells whose it is and which of the named tokens it renews.
    pub fn renew(&self, value: &str, becomes: Use) -> Result<(FamilyId, String), Refused> {
        let mut book = self.book();
        let Some(Entry { family, what: What::Refresh { name, used } }) = book.entries.get_mut(value) else {
            return Err(Refused::Unknown);
        };
        let (family, name, was_used) = (*family, name.clone(), *used);
        *used |= becomes == Use::Once;
        if was_used {
            book.revoke(family);
            book.counts.reuses += 1;
            return Err(Refused::Reused);
        }
        book.standing(family)?;
        book.counts.refreshes += 1;
        Ok((family, name))
    }

    /// Whose access token this is, when it is good.
    pub fn holder(&self, value: &str, now: Timestamp) -> Result<FamilyId, Refused> {
        let book = self.book();
        let Some(Entry { family, what: What::Access { expires } }) = book.entries.get(value) else {
            return Err(Refused::Unknown);
        };
        book.standing(*family)?;
        if expires.is_some_and(|expires| expires <= now) { Err(Refused::Expired) } else { Ok(*family) }
    }

    /// When an access token ends, where it does.
    pub fn end(&self, value: &str) -> Option<Timestamp> {
        match self.book().entries.get(value).map(|entry| &entry.what) {
            Some(What::Access { expires }) => *expires,
            _ => None,
        }
    }

    /// Lets the good access tokens of a family live until then.
    pub fn extend(&self, family: FamilyId, until: Timestamp) {
        let mut book = self.book();
        let own = book.entries.values_mut().filter(|entry| entry.family == family);
        for entry in own {
            if let What::Access { expires } = &mut entry.what {
                *expires = Some(until);
            }
        }
    }

    /// The family of anything that was issued; codes are not looked for.
    pub fn family_of(&self, value: &str) -> Option<FamilyId> {
        let book = self.book();
        let entry = book.entries.get(value)?;
        (!matches!(entry.what, What::Code { .. })).then_some(entry.family)
    }

    /// Takes back everything that came of a consent.
    pub fn revoke(&self, family: FamilyId) {
        self.book().revoke(family);
    }

    /// Every person withdraws their consent.
    pub fn revoke_all(&self) {
        let mut book = self.book();
        for family in 0..book.families.len() {
            book.revoke(FamilyId(family));
        }
    }

    /// Every access token ends now.
    pub fn expire_all(&self) {
        for entry in self.book().entries.values_mut() {
            if let What::Access { expires } = &mut entry.what {
                *expires = Some(Timestamp::default());
            }
        }
    }

    /// Counts a token call that was refused.
    pub fn count_refused(&self) {
        self.book().counts.refused += 1;
    }

    /// Counts a refresh without a refresh token.
    pub fn count_refresh(&self) {
        self.book().counts.refreshes += 1;
    }

    /// Counts a grant without a code.
    pub fn count_grant(&self) {
        self.book().counts.grants += 1;
    }

    /// What happened so far.
    pub fn told(&self) -> Value {
        let book = self.book();
        let standing = book.families.iter().filter(|family| !family.revoked).count();
        let Counts { codes, grants, refreshes, reuses, revoked, refused } = book.counts;
        json!({
            "codes": codes, "grants": grants, "refreshes": refreshes, "reuses": reuses, "revoked": revoked,
            "refused": refused, "consents": standing,
        })
    }
}

impl Book {
    fn standing(&self, family: FamilyId) -> Result<(), Refused> {
        match self.families.get(family.0) {
            Some(known) if !known.revoked => Ok(()),
            _ => Err(Refused::Revoked),
        }
    }

    fn revoke(&mut self, family: FamilyId) {
        if let Some(known) = self.families.get_mut(family.0).filter(|known| !known.revoked) {
            known.revoked = true;
            self.counts.revoked += 1;
        }
    }
}

/// A value that nobody guesses, with what it is in words at its head.
pub(super) fn fresh(kind: &str, random: &dyn Random) -> Result<String, RandomUnavailable> {
    let mut bytes = [0_u8; 16];
    random.fill(&mut bytes)?;
    Ok(format!("mock-{kind}-{:032x}", u128::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::SeededRandom;

    const NOW: Timestamp = Timestamp::from_seconds(1_000);

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_code_counts_once_and_a_second_time_costs_everything() {
        let (ledger, random) = (Ledger::default(), SeededRandom::new(1));
        let family = ledger.open(vec!["a".to_owned()]);
        let code = ledger.code(family, Bound::default(), (NOW, &random)).expect("random");
        let access = ledger.access(family, None, &random, |value| value).expect("random");
        assert_eq!(ledger.redeem(&code, NOW).map(|(family, _)| family), Ok(family));
        assert_eq!(ledger.holder(&access, NOW), Ok(family));
        assert_eq!(ledger.redeem(&code, NOW).map(|_| ()), Err(Refused::Reused));
        assert_eq!(ledger.holder(&access, NOW), Err(Refused::Revoked));
        let late = ledger.code(ledger.open(Vec::new()), Bound::default(), (NOW, &random)).expect("random");
        assert_eq!(ledger.redeem(&late, NOW.after(seconds(61))).map(|_| ()), Err(Refused::Expired));
        assert_eq!(ledger.redeem("mock-code-made-up", NOW).map(|_| ()), Err(Refused::Unknown));
    }

    #[test]
    fn a_rotated_refresh_token_that_comes_again_costs_everything_and_a_kept_one_nothing() {
        let (ledger, random) = (Ledger::default(), SeededRandom::new(2));
        let family = ledger.open(Vec::new());
        let refresh = |name| ledger.refresh(family, name, &random).expect("random");
        let (kept, rotated) = (refresh("default"), refresh("user"));
        assert_eq!(ledger.renew(&kept, Use::Again), Ok((family, "default".to_owned())));
        assert_eq!(ledger.renew(&kept, Use::Again), Ok((family, "default".to_owned())));
        assert_eq!(ledger.renew(&rotated, Use::Once), Ok((family, "user".to_owned())));
        assert_eq!(ledger.renew(&rotated, Use::Once), Err(Refused::Reused));
        assert_eq!(ledger.renew(&kept, Use::Again), Err(Refused::Revoked));
        assert_eq!(ledger.told()["reuses"], 1);
    }

    #[test]
    fn access_tokens_end_and_are_extended() {
        let (ledger, random) = (Ledger::default(), SeededRandom::new(3));
        let family = ledger.open(Vec::new());
        let access = ledger.access(family, Some(NOW.after(seconds(60))), &random, |value| value).expect("random");
        assert_eq!(ledger.holder(&access, NOW.after(seconds(59))), Ok(family));
        assert_eq!(ledger.holder(&access, NOW.after(seconds(60))), Err(Refused::Expired));
        ledger.extend(family, NOW.after(seconds(90)));
        assert_eq!(ledger.holder(&access, NOW.after(seconds(60))), Ok(family));
        ledger.expire_all();
        assert_eq!(ledger.holder(&access, NOW), Err(Refused::Expired));
    }
}
