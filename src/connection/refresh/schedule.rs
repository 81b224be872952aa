//! When tokens are renewed, as pure arithmetic.

use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::random::Random;
use crate::connection::grant::{Issued, TokenError, TokenErrorKind};

/// What clocks may differ by: a token that ends within it counts as ended.
const SKEW: Duration = Duration::from_secs(5);
/// The longest validity that a caller may ask for.
pub const LONGEST_VALIDITY: Duration = Duration::from_hours(1);
/// The longest pause after a failure, and the longest that a service's own `Retry-After` is followed for.
pub const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// When a token is renewed ahead of its end: at 80 to 90 % of its life, drawn by `spread`, which is the same
/// for a token whenever it is asked. `None` when nobody told when it ends.
pub fn due(issued: &Issued, spread: u64) -> Option<Timestamp> {
    let life = issued.expires_at?.since(issued.issued_at);
    let share = 0.8 + 0.1 * f64::from(u16::try_from(spread % 1_000).unwrap_or(0)) / 1_000.0;
    Some(issued.issued_at.after(life.mul_f64(share)))
}

/// How much longer a token must last to be used, for a caller that asks for `asked`: at least the skew of
/// clocks, and at most half of the token's life, or every call would renew it.
pub fn least(issued: &Issued, asked: Duration) -> Duration {
    let Some(end) = issued.expires_at else { return Duration::ZERO };
    let life = end.since(issued.issued_at);
    asked.min(LONGEST_VALIDITY).min(life / 2).max(SKEW.min(life / 10))
}

/// How long to wait after the `failures`th failure in a row, counted from one. The first try again comes
/// within seconds, because a service that rotates may forget soon that it did; then it is a few tries an
/// hour. What the service certainly has not seen is tried each minute.
pub fn pause(error: &TokenError, failures: u32, random: &dyn Random) -> Duration {
    let widest = match (error.kind, failures) {
        (TokenErrorKind::Misconfigured, _) => Duration::from_mins(20),
        (_, 0 | 1) => Duration::from_secs(5),
        (TokenErrorKind::Unsent, _) | (_, 2) => Duration::from_mins(1),
        (_, 3) => Duration::from_mins(10),
        (_, _) => Duration::from_mins(20),
    };
    // At least half of it, so that "a few tries an hour" holds whatever is drawn.
    let drawn = widest / 2 + (widest / 2).mul_f64(random.unit());
    drawn.max(error.retry_after.unwrap_or_default().min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::SeededRandom;

    fn token(life: u64) -> Issued {
        let issued_at = Timestamp::from_seconds(1_000);
        let expires_at = Some(issued_at.after(Duration::from_secs(life)));
        Issued { expires_at, ..Issued::bare("t".into(), issued_at) }
    }

    #[test]
    fn tokens_are_renewed_at_80_to_90_per_cent_of_their_life() {
        let dues: Vec<_> = (0..5_000).filter_map(|spread| due(&token(1_000), spread)).map(Timestamp::seconds).collect();
        assert_eq!((dues.iter().min(), dues.iter().max()), (Some(&1_800), Some(&1_899)));
        assert_eq!(due(&Issued::bare("t".into(), Timestamp::default()), 7), None);
    }

    #[test]
    fn a_caller_cannot_make_every_call_renew() {
        let asked = |life, minutes| least(&token(life), Duration::from_mins(minutes)).as_secs();
        assert_eq!([asked(3_600, 0), asked(3_600, 5), asked(3_600, 600), asked(20, 5)], [5, 300, 1_800, 10]);
        assert_eq!(asked(864_000, 600), 3_600);
        assert_eq!(least(&Issued::bare("t".into(), Timestamp::default()), Duration::from_mins(5)), Duration::ZERO);
    }

    #[test]
    fn a_service_that_fails_is_asked_a_few_times_an_hour() {
        let random = SeededRandom::new(5);
        for kind in [TokenErrorKind::Passing, TokenErrorKind::Misconfigured] {
            let error = TokenError::new(kind, "503");
            let (mut spent, mut tries) = (Duration::ZERO, 0);
            while spent < Duration::from_hours(1) {
                tries += 1;
                spent += pause(&error, tries, &random);
            }
            assert!((2..=9).contains(&tries), "{kind:?}: {tries}");
        }
        let patient =
            TokenError { retry_after: Some(Duration::from_mins(7)), ..TokenError::new(TokenErrorKind::Passing, "429") };
        assert_eq!(pause(&patient, 1, &random), Duration::from_mins(7));
    }
}
