//! Links that sign someone in once: kept as digests, few, for a short time.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};

use crate::base::clock::Timestamp;
use crate::base::random::Random;
use crate::base::secret::Secret;

/// How long a link can be used.
pub const LIFETIME: Duration = Duration::from_mins(15);
/// How many unused links there are; the oldest gives way.
const MOST: usize = 16;

/// The links that nobody has followed yet.
#[derive(Debug, Default)]
pub struct Links(Mutex<HashMap<[u8; 32], (String, Timestamp)>>);

impl Links {
    /// A link's word for an account; `None` when there is no randomness.
    pub fn make(&self, account: &str, now: Timestamp, random: &dyn Random) -> Option<Secret> {
        let mut bytes = [0; 32];
        random.fill(&mut bytes).ok()?;
        let word = URL_SAFE_NO_PAD.encode(bytes);
        let mut links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|_, (_, ends)| *ends > now);
        if links.len() >= MOST
            && let Some(oldest) = links.iter().min_by_key(|(_, (_, ends))| *ends).map(|(known, _)| *known)
        {
            links.remove(&oldest);
        }
        links.insert(key(&word), (account.to_owned(), now.after(LIFETIME)));
        Some(Secret::new(word))
    }

    /// The account that a word signs in, once.
    pub fn take(&self, word: &str, now: Timestamp) -> Option<String> {
        let mut links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (account, ends) = links.remove(&key(word))?;
        (ends > now).then_some(account)
    }
}

fn key(word: &str) -> [u8; 32] {
    let mut key = [0; 32];
    key.copy_from_slice(digest(&SHA256, word.as_bytes()).as_ref());
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::SystemRandom;

    #[test]
    fn a_link_counts_once_and_for_a_while() {
        let (links, random, now) = (Links::default(), SystemRandom::default(), Timestamp::from_seconds(1_000));
        let make = || links.make("ada", now, &random).expect("a link").expose().clone();
        let word = make();
        assert_eq!(links.take(&word, now.after(Duration::from_mins(14))).as_deref(), Some("ada"));
        assert_eq!(links.take(&word, now), None);
        assert_eq!(links.take(&make(), now.after(LIFETIME)), None);
        let first = make();
        (0..MOST).for_each(|_| drop(make()));
        assert!(links.take("guess", now).is_none() && links.0.lock().expect("unpoisoned").len() <= MOST);
        drop(first);
    }
}
