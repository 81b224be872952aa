//! Names under which secrets stand, told by their words. Called by [`super::scrub`], which takes out what stands under
//! them, and by whoever shows headers or files.

/// Words of which each makes a name that of a secret.
pub const WORDS: [&str; 40] = [
    "token",
    "tokens",
    "tkn",
    "secret",
    "secrets",
    "password",
    "passwords",
    "passwd",
    "passphrase",
    "passcode",
    "pass",
    "pwd",
    "pw",
    "pswd",
    "psk",
    "authorization",
    "authentication",
    "auth",
    "bearer",
    "credential",
    "credentials",
    "cred",
    "creds",
    "cookie",
    "cookies",
    "signature",
    "sig",
    "assertion",
    "verifier",
    "jwt",
    "apikey",
    "sid",
    "otp",
    "totp",
    "pin",
    "cvc",
    "cvv",
    "csrf",
    "xsrf",
    "hmac",
];
/// What a word ends with that is written together with others: `accesstoken`, `dbpassword`, `JSESSIONID`.
pub const ENDINGS: [&str; 13] = [
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "pass",
    "creds",
    "sessionid",
    "sessid",
    "apikey",
    "secretkey",
    "accesskey",
    "privatekey",
];
/// Words that end with `pass` and are no names of secrets.
const OTHER_PASSES: [&str; 10] = [
    "bandpass",
    "bypass",
    "compass",
    "encompass",
    "highpass",
    "lowpass",
    "overpass",
    "surpass",
    "trespass",
    "underpass",
];
/// What such a word begins with: `passwordhash`, `password1`.
const BEGINNINGS: [&str; 3] = ["password", "passwd", "credential"];
/// Pairs of words that make a name that of a secret, where neither does.
const PAIRS: [(&str, &str); 5] =
    [("session", "id"), ("session", "key"), ("security", "code"), ("backup", "code"), ("recovery", "code")];
/// Words before `key` that make it no secret.
const OTHER_KEYS: [&str; 14] = [
    "public",
    "primary",
    "foreign",
    "sort",
    "partition",
    "idempotency",
    "cache",
    "object",
    "row",
    "composite",
    "natural",
    "external",
    "issue",
    "project",
];
/// Words that an `auth` in the middle of a name is no secret for: `auth_type`.
const ABOUT: [&str; 8] = ["type", "kind", "method", "mode", "provider", "status", "url", "uri"];

/// Words before `tokens` that make them pieces of text, which are counted: `max_tokens`, `promptTokens`,
/// `x-ratelimit-remaining-tokens`.
const COUNTED: [&str; 22] = [
    "max",
    "min",
    "maximum",
    "minimum",
    "num",
    "number",
    "prompt",
    "completion",
    "input",
    "output",
    "total",
    "cached",
    "cache",
    "reasoning",
    "thinking",
    "audio",
    "text",
    "image",
    "candidates",
    "used",
    "remaining",
    "limit",
];
/// Words behind `token` and `tokens` that do: `promptTokenCount`, `tokens_used`.
const COUNTS: [&str; 7] = ["count", "counts", "limit", "usage", "used", "budget", "remaining"];
/// Words before `token` that make it a place in a list.
const PAGES: [&str; 3] = ["page", "pagination", "continuation"];

/// Whether what stands under a name is likely to be secret: by its words, however they are joined (`apiKey`,
/// `X-Api-Key`, `access_token`, `APIToken`).
pub fn is_sensitive(name: &str) -> bool {
    is_telling(&words(name))
}

/// Whether a number under such a name is a count: of `tokens`, where nothing else in the name tells of a secret.
pub fn is_count(name: &str) -> bool {
    let words = words(name);
    words.split_last().is_some_and(|(last, before)| last == "tokens" && !is_telling(before))
}

fn is_telling(words: &[String]) -> bool {
    let is_about = words.last().is_some_and(|last| words.len() > 1 && ABOUT.contains(&last.as_str()));
    let is_word = |(at, word): (usize, &String)| {
        if is_of_text(words, at) {
            return false;
        }
        let word = word.trim_end_matches(|char: char| char.is_ascii_digit());
        WORDS.contains(&word)
            || !OTHER_PASSES.contains(&word) && ENDINGS.iter().any(|ending| word.ends_with(ending))
            || BEGINNINGS.iter().any(|beginning| word.starts_with(beginning))
    };
    let is_pair = |pair: &[String]| {
        let is_key = pair[1].trim_end_matches('s') == "key" && !OTHER_KEYS.contains(&pair[0].as_str());
        is_key || PAIRS.iter().any(|(one, other)| pair[0] == *one && pair[1] == *other)
    };
    !is_about && (words.iter().enumerate().any(is_word) || words.windows(2).any(is_pair))
}

/// Whether a word is `token` or `tokens`, and one beside it says that it is a piece of text or a place in a list.
fn is_of_text(words: &[String], at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|before| words.get(before)).map_or("", String::as_str);
    let behind = words.get(at + 1).map_or("", String::as_str);
    match words.get(at).map_or("", String::as_str) {
        "token" => PAGES.contains(&before) || COUNTS.contains(&behind),
        "tokens" => COUNTED.contains(&before) || COUNTS.contains(&behind),
        _ => false,
    }
}

/// A name in words, in lower case. A run of capitals is a word, but for the last of it where a small letter follows.
pub fn words(name: &str) -> Vec<String> {
    let chars: Vec<char> = name.chars().collect();
    let (mut words, mut word) = (Vec::new(), String::new());
    for (at, &char) in chars.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| chars.get(at)).copied();
        let after = chars.get(at + 1);
        let begins = char.is_uppercase()
            && before.is_some_and(|before| {
                !before.is_uppercase() || after.is_some_and(|after| after.is_lowercase()) && before.is_uppercase()
            });
        if (begins || !char.is_alphanumeric()) && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if char.is_alphanumeric() {
            word.extend(char.to_lowercase());
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_by_their_words() {
        for name in [
            "password",
            "newPassword",
            "X-Api-Key",
            "apiKeys",
            "access_token",
            "id-token",
            "Set-Cookie",
            "PIN",
            "APIToken",
            "CSRFToken",
            "JWTToken",
            "DBPassword",
            "accesstoken",
            "clientsecret",
            "passwordhash",
            "password1",
            "db_creds",
            "wifi-psk",
            "pass",
            "smtp_pass",
            "session_id",
            "X-Session-Id",
            "X-Auth",
            "security_code",
            "account_key",
            "client_key",
            "master_key",
            "bearer",
            "tokens",
            "text_token",
            "refresh_tokens",
            "max_secret_tokens",
            "page_access_token",
        ] {
            assert!(is_sensitive(name), "{name}");
        }
        for name in [
            "shipping",
            "author",
            "tokenizer",
            "key",
            "keyword",
            "idempotency_key",
            "passenger",
            "design",
            "",
            "auth_type",
            "public_key",
            "secretary",
            "authority",
            "compass",
            "session",
            "primaryKey",
            "token_type",
            "max_tokens",
            "max_tokens_to_sample",
            "maxOutputTokens",
            "prompt_tokens",
            "completion_tokens_details",
            "promptTokenCount",
            "tokens_used",
            "token_limit",
            "x-ratelimit-remaining-tokens",
            "next_page_token",
            "nextPageToken",
        ] {
            assert!(!is_sensitive(name), "{name}");
        }
        let counts = ["tokens", "reset_tokens", "token", "password_tokens", "tokens_2"].map(is_count);
        assert_eq!(counts, [true, true, false, false, false]);
    }

    #[test]
    fn names_written_together_or_short_are_told_as_well() {
        let short = ["tkn", "user_tkn", "cred", "awscreds", "sig", "X-Sig"];
        let together = ["dbpass", "smtppass", "userpass2", "DBPass", "sessionid", "JSESSIONID", "PHPSESSID"];
        for name in short.into_iter().chain(together) {
            assert!(is_sensitive(name), "{name}");
        }
        for name in ["bypass", "Compass", "significant", "sacred", "path", "sigma", "signed"] {
            assert!(!is_sensitive(name), "{name}");
        }
    }
}
