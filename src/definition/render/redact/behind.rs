//! What follows telling keys in a text that is not YAML: a quote was forgotten, a bracket is open, or it is another kind
//! of file. Nobody can say where a value ends there, so all that follows on the line is hidden, and what stands below the
//! key as far as it may belong to it. Only references are shown, and below `headers` the names, and values that are one
//! template.

use std::sync::LazyLock;

use regex::Regex;

use super::blocks::{BLOCKS, Block};
use super::is_name;
use crate::base::sensitive::{ENDINGS, WORDS, is_sensitive, words};
use crate::definition::raw::oauth2::ClientAuth;

/// What names have in them under which secrets stand, also in the middle of a word. `key` and `token` are in other words as
/// well: [`is_telling`].
const STEMS: &str = "secret|secert|secrt|passw|passphrase|pwd|bearer|credential|cookie|authorization|signature|headers";

/// What fields are called that hold secrets, and how many letters may be wrong in one that is misspelt ([`is_telling`]).
const FIELDS: [(&str, usize); 13] = [
    ("key", 1),
    ("token", 1),
    ("apikey", 1),
    ("bearer", 1),
    ("cookie", 1),
    ("header", 1),
    ("headers", 1),
    ("secret", 2),
    ("password", 2),
    ("passphrase", 2),
    ("signature", 2),
    ("credential", 2),
    ("authorization", 2),
];

/// A field of theirs whose name would be one, and which has one of a few words.
const WORD_FIELD: &str = "client_auth";
/// What files are called that have a key in them.
const CONTAINERS: [&str; 2] = ["pem", "pfx"];

/// A name with its sign; one that begins an entry, without, where it may be a telling one; an option of a command; a
/// variable of an environment file; a scheme of `Authorization`. What follows a telling name is secret.
#[expect(clippy::expect_used, reason = "a pattern that is part of the program")]
static TELLING: LazyLock<Regex> = LazyLock::new(|| {
    // Features of integrations begin with `JWT` as well.
    let whole: Vec<_> = WORDS.into_iter().filter(|word| *word != "jwt").collect();
    let whole = whole.join("|");
    let endings = ENDINGS.join("|");
    let name = format!(r"(?:[\w.-]*?(?:{STEMS}|key|token)[\w-]*|[\w.-]*(?:{endings})|{whole})");
    let with_sign = r#"\b[\w.-]+["']?\s*[:=]"#;
    let without = format!(r#"(?:^|[{{\[,])[\s\-"'?]*{name}(?:["']|\s|$)"#);
    let option = format!(r#"--{name}(?:["']|\s|$)"#);
    let variable = r#"^[\s\-"'#]*(?:export\s+)?[\w.-]+\s*="#;
    Regex::new(&format!(r"(?i){with_sign}|{without}|{option}|{variable}|\b(?:bearer|basic)\s")).expect("a pattern")
});

/// Words that have `key` or `token` in them and are no names of secrets, without what makes them plural.
const OTHER_WORDS: [&str; 20] = [
    "donkey",
    "flunkey",
    "hockey",
    "hotkey",
    "jockey",
    "keyboard",
    "keynote",
    "keypad",
    "keystroke",
    "keyword",
    "lackey",
    "monkey",
    "tokenise",
    "tokeniser",
    "tokenization",
    "tokenize",
    "tokenizer",
    "turkey",
    "turnkey",
    "whiskey",
];

#[expect(clippy::expect_used, reason = "a pattern that is part of the program")]
static STEM: LazyLock<Regex> = LazyLock::new(|| Regex::new(&format!("(?i){STEMS}")).expect("a pattern"));

/// A variable of an environment file, up to its sign.
#[expect(clippy::expect_used, reason = "a pattern that is part of the program")]
static VARIABLE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"(?i)^[\s\-"'#]*(?:export\s+)?[\w.-]+\s*=$"#).expect("a pattern"));

/// The word that a field has, with its quotes, and what may follow it.
#[expect(clippy::expect_used, reason = "a pattern that is part of the program")]
static WORD: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"^\s+(?:"(\w+)"|'(\w+)'|(\w+))\s*(?:$|[,}\]]|\s#)"#).expect("a pattern"));

/// A header's name with its sign and the blanks behind it.
#[expect(clippy::expect_used, reason = "a pattern that is part of the program")]
static HEADER: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"^(?:"([\w-]+)"|'([\w-]+)'|([\w-]+))\s*:(?:\s+|$)"#).expect("a pattern"));

/// One template that has no text in it, with a scheme at most before it.
#[expect(clippy::expect_used, reason = "a pattern that is part of the program")]
static SLOT: LazyLock<Regex> = LazyLock::new(|| {
    let path = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*(?:\s*\|\s*[a-z]\w*)*";
    Regex::new(&format!(r"^(?:(?:Bearer|Basic|Token) )?\{{\{{\s*{path}\s*\}}\}}$")).expect("a pattern")
});

/// The beginning of a line that is the next entry of a map, or closes one.
#[expect(clippy::expect_used, reason = "a pattern that is part of the program")]
static ENTRY: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"^(?:(?:-\s+)*["']?[\w.$/-]+["']?\s*:(?:\s|$)|[\]}][\]},\s]*$)"#).expect("a pattern")
});

/// The next entry of a map in braces.
#[expect(clippy::expect_used, reason = "a pattern that is part of the program")]
static NEXT: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"^,\s*["']?[\w.$/-]+["']?\s*:(?:\s|$)"#).expect("a pattern"));

/// What may stand before a reference that is all there is on a line.
#[expect(clippy::expect_used, reason = "a pattern that is part of the program")]
static BEFORE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"^(?:-\s+)*(?:["']?[\w.$/-]+["']?\s*:\s+)?(?:-\s+)*["'\[]*"#).expect("a pattern"));

/// From which byte on each line is hidden; `None` for lines without a telling key before them.
pub(super) fn hidden_from(lines: &[&str]) -> Vec<Option<usize>> {
    let (mut open, mut block): (Option<Open>, _) = (None, Block::default());
    let look = |line: &&str| {
        let content = line.trim_start();
        if content.is_empty() {
            return None;
        }
        let start = line.len() - content.len();
        let column = columns(line, start);
        if let Some(open) = open.as_mut().filter(|open| open.holds(column, content)) {
            return open.hidden_from(column, content.trim_end()).map(|from| start + from);
        }
        let (from, next) = on_line(line);
        open = next;
        let entry = columns(line, line.len() - content.trim_start_matches(['-', ' ', '\t']).len());
        let Some(quote) = block.open_quote(line, entry) else { return from };
        let (quoted, names) = (line.get(quote..).unwrap_or_default(), Names::Hidden);
        let (hidden, whole) = match behind(quoted) {
            Behind::Nothing => (None, false),
            Behind::Reference => (None, true),
            Behind::Secret(skipped) | Behind::Entry(skipped) => (Some(quote + skipped), false),
        };
        open = Some(Open { column: entry, whole, names });
        from.into_iter().chain(hidden).min()
    };
    lines.iter().map(look).collect()
}

/// A telling key whose value may go on below it.
struct Open {
    /// The key's column.
    column: usize,
    /// Whether its value is a reference: only what is indented more can belong to it.
    whole: bool,
    /// What is shown of entries below it.
    names: Names,
}

/// Whether the names of entries below a telling key are shown.
#[derive(Clone, Copy)]
enum Names {
    Hidden,
    /// They are entries of their own, and the key is none that holds a secret.
    Fields,
    /// Those of headers, at the column of the first: what is deeper belongs to a value.
    Shown(Option<usize>),
}

impl Open {
    /// Whether a line may belong to the value.
    fn holds(&self, indentation: usize, content: &str) -> bool {
        let is_item =
            || content.strip_prefix('-').is_some_and(|rest| rest.trim_start().len() < rest.len() || rest.is_empty());
        let is_below = indentation > self.column;
        if matches!(self.names, Names::Fields) && ENTRY.is_match(content) {
            return false;
        }
        is_below || !self.whole && (indentation == self.column && is_item() || !ENTRY.is_match(content))
    }

    /// From which byte on a line is hidden that may belong to the value.
    fn hidden_from(&mut self, column: usize, content: &str) -> Option<usize> {
        let is_entry = matches!(self.names, Names::Shown(at) if at.is_none_or(|at| at == column));
        let header = HEADER.captures(content).filter(|_| is_entry).filter(|header| {
            let name = header.iter().skip(1).flatten().next();
            name.is_some_and(|name| is_name(name.as_str()))
        });
        let from = header.and_then(|header| header.get(0)).map(|header| header.end());
        let value = content.get(from.unwrap_or_default()..).unwrap_or_default();
        if from.is_some() {
            // In a value that goes on below, nobody knows what is a name.
            self.names = if goes_on(value) { Names::Hidden } else { Names::Shown(Some(column)) };
        }
        let is_harmless =
            is_reference_alone(content) || from.is_some() && (value.is_empty() || SLOT.is_match(inner(value)));
        (!is_harmless).then_some(from.unwrap_or_default())
    }
}

/// Whether a value does not end on its line: a quote or a bracket is open.
fn goes_on(value: &str) -> bool {
    let quote = value.chars().next().filter(|first| matches!(first, '"' | '\''));
    let is_open = |quote: char| value.replace(r"\\", "").replace(r#"\""#, "").matches(quote).count() % 2 == 1;
    quote.is_some_and(is_open) || value.starts_with(['[', '{', '&', '*', '!']) && !value.starts_with("{{")
}

/// A value without its quotes, where it has both.
fn inner(value: &str) -> &str {
    let within =
        |quote: char| value.strip_prefix(quote)?.strip_suffix(quote).filter(|inner: &&str| !inner.contains(quote));
    within('"').or_else(|| within('\'')).unwrap_or(value)
}

/// Whether a name is that of a secret: by its words, as everywhere, and by more. `key` and `token` are parts of other words as well (`keyword`, `monkey`), which are
/// known; all else that has one of them in it counts, and what is nearly one of the fields, since names are misspelt where
/// nothing reads them (`keyy`, `kye`, `signing_scret`).
fn is_telling(name: &str, has_sign: bool) -> bool {
    let is_other = |word: &String| {
        let word = word.trim_end_matches(|c: char| c.is_ascii_digit());
        OTHER_WORDS.contains(&word.strip_suffix('s').unwrap_or(word))
    };
    let is_part = |part: &str| {
        let joined: String = words(part).into_iter().filter(|word| !is_other(word)).collect();
        joined.contains("key") || joined.contains("token")
    };
    let is_near = |word: &String| {
        let near = |(field, most): (&str, usize)| {
            word.len().abs_diff(field.len()) <= most && strsim::damerau_levenshtein(word, field) <= most
        };
        !["header", "taken"].contains(&word.as_str()) && FIELDS.into_iter().any(near)
    };
    // `Basic` is a scheme, and with a sign a block of integrations.
    let is_whole = if has_sign {
        words(name).iter().any(|word| CONTAINERS.contains(&word.as_str()))
    } else {
        name.eq_ignore_ascii_case("basic")
    };
    is_whole
        || is_sensitive(name)
        || STEM.is_match(name)
        || name.split(|c: char| !c.is_alphanumeric()).any(is_part)
        || words(name).iter().any(is_near)
}

/// From which byte on a line is hidden, and the telling key that is open at its end.
fn on_line(line: &str) -> (Option<usize>, Option<Open>) {
    let (mut at, mut open, templates) = (0, None, templates(line));
    while let Some(found) = TELLING.find_at(line, at) {
        let name = found.as_str().trim_start_matches(|c: char| c.is_whitespace() || "{[,-\"'?#".contains(c));
        let (written, name) = (name, found.end() - name.len());
        let written = written.split(|c: char| !(c.is_alphanumeric() || "_.-".contains(c))).next().unwrap_or_default();
        let after = line.get(found.end()..).unwrap_or_default();
        let has_sign = found.as_str().ends_with([':', '=']);
        let is_field = !has_sign && is_of_template(name, after, &templates);
        let has_fields =
            BLOCKS.contains(&written) && found.as_str().ends_with(':') && after.trim_start().starts_with('{');
        if is_field || has_fields || written == WORD_FIELD && is_word(after) {
            at = found.end();
            continue;
        }
        if !is_telling(written, has_sign) && !line.get(..found.end()).is_some_and(|head| VARIABLE.is_match(head)) {
            at = found.end();
            continue;
        }
        let head = line.get(..name).unwrap_or_default();
        let in_block = head.chars().all(|c| c.is_whitespace() || "-\"'?".contains(c));
        let indentation = line.len() - line.trim_start().len();
        let column = columns(line, if in_block { head.trim_end_matches(['"', '\'']).len() } else { indentation });
        let value = found.end();
        let names = if BLOCKS.contains(&written) { Names::Fields } else { Names::Hidden };
        let below = |whole, names| Some(Open { column, whole, names });
        match behind(line.get(value..).unwrap_or_default()) {
            Behind::Nothing => {
                let is_open = line.get(value..).is_some_and(|rest| !rest.trim().is_empty());
                let names = match names {
                    _ if is_open => Names::Hidden,
                    _ if in_block && written.eq_ignore_ascii_case("headers") => Names::Shown(None),
                    names => names,
                };
                return (None, below(false, names));
            }
            Behind::Secret(skipped) => {
                let is_comment = after.get(skipped..).is_some_and(|rest| rest.starts_with('#'));
                return (Some(value + skipped), below(false, if is_comment { names } else { Names::Hidden }));
            }
            Behind::Reference => return (None, below(true, Names::Hidden)),
            Behind::Entry(skipped) => {
                at = value + skipped;
                open = below(true, Names::Hidden);
            }
        }
    }
    (None, open)
}

/// Whether a value is one of the words that [`WORD_FIELD`] has.
fn is_word(value: &str) -> bool {
    let word = WORD.captures(value).and_then(|found| found.iter().skip(1).flatten().next());
    word.is_some_and(|word| serde_json::from_value::<ClientAuth>(word.as_str().into()).is_ok())
}

/// Where templates stand on a line.
fn templates(line: &str) -> Vec<std::ops::Range<usize>> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(begin) = line.get(at..).and_then(|rest| rest.find("{{")).map(|begin| at + begin) {
        let Some(end) = line.get(begin..).and_then(|rest| rest.find("}}")).map(|end| begin + end) else { break };
        found.push(begin..end);
        at = end;
    }
    found
}

/// Whether a name at `at` is one of a template's values, and no text follows it.
fn is_of_template(at: usize, after: &str, templates: &[std::ops::Range<usize>]) -> bool {
    let of_it = templates.partition_point(|template| template.end <= at);
    let after = after.trim_start();
    let word = after.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    let goes_on = match word {
        "" => after.starts_with(['}', ')', ']', ',', '|', '~', '=', '!']),
        word => ["and", "else", "if", "in", "is", "not", "or"].contains(&word),
    };
    goes_on && templates.get(of_it).is_some_and(|template| template.start < at)
}

/// What follows a telling key on its line.
enum Behind {
    Nothing,
    /// What may be a secret, from this byte on.
    Secret(usize),
    /// References to its end.
    Reference,
    /// References, and at this byte the next entry of a map in braces.
    Entry(usize),
}

fn behind(rest: &str) -> Behind {
    let mut value = trimmed(rest);
    loop {
        let at = rest.len() - value.len();
        let Some(after) = after_reference(value) else {
            return if value.trim().is_empty() { Behind::Nothing } else { Behind::Secret(at) };
        };
        let after = after.trim_start_matches(['"', '\'', ']', '}', ' ', '\t']);
        match after.strip_prefix(',') {
            None if after.is_empty() => return Behind::Reference,
            None => return Behind::Secret(rest.len() - after.len()),
            Some(_) if NEXT.is_match(after) => return Behind::Entry(rest.len() - after.len()),
            Some(next) => value = trimmed(next),
        }
    }
}

fn trimmed(value: &str) -> &str {
    value.trim_start_matches([' ', '\t', '[', '"', '\''])
}

/// What follows a reference without a default, at the beginning of a value.
fn after_reference(value: &str) -> Option<&str> {
    let (inner, after) = value.strip_prefix("${")?.split_once('}')?;
    let has_default = inner.split_once(":-").is_some_and(|(_, default)| !default.is_empty());
    (!has_default).then_some(after)
}

fn is_reference_alone(content: &str) -> bool {
    let value = BEFORE.find(content).and_then(|before| content.get(before.end()..)).unwrap_or(content);
    after_reference(value).is_some_and(|after| after.chars().all(|c| "\"']}, \t".contains(c)))
}

fn columns(line: &str, byte: usize) -> usize {
    line.get(..byte).map_or(0, |head| head.chars().count())
}

#[cfg(test)]
mod tests {
    use super::super::{Known, text};

    /// The text with `§` for the secret must not show it.
    fn hides(written: &str) {
        for secret in ["hunter2Zq9-tango", "correcthorsebattery", "a_word", "xY\"z", "/a/path", "https://a.example/x"] {
            let shown = text(&written.replace('§', secret), &[], Known::Little);
            assert!(!shown.contains(secret), "{written}\n{shown}");
        }
    }

    #[test]
    fn all_that_follows_a_telling_key_is_hidden() {
        for written in [
            "key: \"§",
            "token: \"§",
            "\ttoken: §",
            "admin: { token: \"§ }",
            "token: \"a\" §",
            "api_key: \"a\" §",
            "token: &§",
            "api_key: &§ x",
            "token: *§",
            "token: !§ x",
            "token: \"${env:A}\" #§",
            "token: ${env:A}§",
            "token: ${env:A:-§}",
            "vault: { url: http://x, token: \"§ }",
            "headers: { Authorization: \"Bearer § }",
            "X: \"Bearer §",
            "headers: { x-api: \"§ }",
            "key §",
            "key:§",
            "key=§",
            "- key \"§\"",
            "\"key\": §",
            "DB_PASSWORD=§",
            "export A=§",
            "  aws_secret_access_key = §",
            "SMTP = §",
            "secrets: [\"${env:A}\", \"§\"]",
            "{ id: a, secret: \"${env:A}\", key: §",
            "call: \"shop.x?key=§\"",
            "# api_key: §",
            "clientSecret: §",
            "apiKey: §",
            "API-Key: §",
            "x-api-key: §",
            "secretKey: §",
            "APIKEY: §",
            "signingkey: §",
            "keys: [§",
            "key2: §",
            "accessToken: §",
            "monkey: a, key: §",
            "  - { id: backend, keyy: \"§ }",
            "kEy: §",
            "keypair: §",
            "keyvalue: a, keyvalue: §",
            "APIKEYPROD: §",
            "privatekeypem: §",
            "authtokenvalue: §",
            "licensekeyv2: §",
            "keystore: §",
            "xtokenid: §",
            "mytokens2x: §",
            "apikeyword: §",
            "monkey_keys: §",
            "MONKEY=§",
        ] {
            hides(written);
        }
    }

    #[test]
    fn all_that_follows_what_is_nearly_one_is_hidden() {
        for written in [
            "- { id: backend, kye: \"§ }",
            "keey: §",
            "kez: §",
            "tokn: §",
            "tokne: §",
            "toekn: §",
            "pasword: §",
            "passowrd: §",
            "passord: §",
            "signing_scret: §",
            "signingSercet: §",
            "heders: { X-A: §",
            "jwt: §",
            "jwt={§",
            "kubernetes: { role: a, jwt: \"§ }",
            "pem: |\n  §\n  §\n",
            "jwt:\n  §",
            "pw: §",
            "pin: §",
            "- otp: \"§",
            "hmac: §",
            "auth: §",
            "auth: \"§",
            "jwt : §",
            "pin : §",
            "passcode: §",
            "pass_word: §",
            "pswd: §",
            "creds: §",
            "psk §",
            "bearr: §",
            "passphrse: §",
            "apiky: §",
            "hedaer: { X-A: §",
            "cmd: a --token § [x",
            "cmd: [a, \"--api-key\", \"§\"",
            "dbpass: \"§",
            "- userpass: §",
            "smtppass: \"§\" [",
            "sessionid: §",
            "JSESSIONID: §",
            "tkn: §",
            "cred: §",
            "sig: §",
            "x-sig: §",
            "pfx: §",
            "client_pfx: |\n  §\n",
            "cmd: a --dbpass § [x",
            "client_auth: \"§",
            "client_auth: basic §",
            "client_auth:\n  §\n",
            "a: \"{{ b }} { key § }\"",
            "a: \"{{ f(token='§') }}\"",
            "a: \"{{ body.key § }}\"",
            "a: \"{{ body.key \nkey: §",
        ] {
            hides(written);
        }
    }

    #[test]
    fn what_stands_below_a_telling_key_is_hidden() {
        for written in [
            "a:\n  - id: a\n    key:\n      \"§\n    allow: []\n",
            "secrets:\n  - \"§\n",
            "secrets:\n- §\n- [\n",
            "secrets:\n-\t§: [\n",
            "key: |\n  §\n  §\nx: 1\n",
            "token: \"abc\n    §\n",
            "token: \"abc\n§\n",
            "key:\n\n  # why\n  §: [\n",
            "api_key: ok\n      §\n",
            "api_key: \"${env:A}\"\n    §\n",
            "a: [{ id: a, key:\n  \"§\n",
            "{\n\"key\":\n\"§\n",
            "headers:\n  X-A: §\n",
            "headers:\n  X-A: \"§\n  §: b\"\n",
            "headers:\n  X-A: |\n    §: b\n",
            "headers:\n  X-A: \"{{ '§' }}\"\n",
            "headers:\n  X-A: \"{{ a }} §\"\n",
            "headers:\n  §\n",
            "headers: \"\n  §: b\n",
            "auth: {x: \"§",
            "auth: { oauth2: { x: \"${env:A}\", y: \"§\n  §: a\n",
            "hmac: {\n  x: '§\n  y: [\n",
            "auth: \"\n  §: b\n",
            "auth:\n  x:\n    y: \"§\n      §: b\n",
            "jwt:\n  x: \"\n    §: b\n",
            "assertion: # why\n  - x: \"\n      §: b\n",
            "auth:\n  x: \"${env:A}\n    §: b\n",
            "secrets:\n  key: \"${env:A}\"\n  vault: { url: x, other: § }\n",
        ] {
            hides(written);
        }
    }

    #[test]
    fn the_rest_stays_readable() {
        for written in [
            "title: \"Acme\n",
            "api:\n  base_url: https://a.example\n",
            "secrets: [\"${env:A}\"]\ntitle: `x`\n",
            "secrets:\n  key: \"${env:A}\"\nlisten: { x\n",
            "callers:\n  - id: a\n    key: ${env:A}\n    allow: [\n",
            "client: { id: a, secret: \"${env:A}\", scope: x\n",
            "auth: { oauth2: { authorize: https://a.example\n",
            "key:\nallow: [x\n",
            "keyword: x\nmonkey: y\nkeyboard: [z\ntokenizer: a\nmaxKeywords: b\nKEYWORD2: c\n",
            "- log: \"hello {{ body.key }} [x\"\n- deliver: app\n- json: {a: [1, 2}\n",
            "a: \"{{ body.key | upper }} {{ record.key if record.key else '' }} {{ credential.api_key }}\"\nb: [x\n",
            "auth:\n  oauth2:\n    authorize: https://a.example\nlisten: [x\n",
            "verify:\n  hmac:\n    algorithm: sha256\nlisten: [x\n",
            "verify: { hmac: { algorithm: sha256 }\n",
            "client_auth: basic\nfeatures: [JWT bearer, REST API]\nlisten: [x\n",
            "auth: { client_auth: \"basic\", x: 'y', z: [\n",
            "auth:\n  client_auth: none  # why\n  x: a == 'b' and c\n  y: \"{{ z['a'] }}\"\nb: \"c\nd: [x\n",
            "path: /a\nsignificant: a\ndesign: b\nbypass: c\ncompass: d\nlisten: [x\n",
            "client_auth_method: basic\nverified: true\npassed: a\nlisten: [x\n",
            "auth: { jwt: { header: Authorization, algorithms: [HS256] }\n",
            "jwt:\n  algorithm: RS256\n  expires: 1h\nlisten: [x\n",
            "basic: { username: a }\nbasic:\n  password_title:\nfeatures: [JWT, PEM]\nwhat is taken: b\nlisten: [x\n",
            "header: X-A\nkeep: 5\nkid: a\nbearing: b\npath: /a\nsector: c\nselect: [d\n",
            "headers:\n  Accept: \"{{ accept }}\"\n  Authorization: Bearer {{ api_key }}\n  X-Y: ${env:A}\nlisten: [x\n",
        ] {
            assert_eq!(text(written, &[], Known::Little), written);
        }
        let written = "headers:\n  X-Api-Key: a b\n  'Accept': \"c\" # d\n  X-Next: e\nlisten: [x\n";
        let shown = "headers:\n  X-Api-Key: ••••••\n  'Accept': ••••••\n  X-Next: ••••••\nlisten: [x\n";
        assert_eq!(text(written, &[], Known::Little), shown);
        let written = "jwt:  # why\n  algorithm: RS256\nlisten: [x\n";
        assert_eq!(text(written, &[], Known::Little), written.replace("# why", "••••••"));
        let written = "key: \"abc\n  def\nallow: [x\n";
        assert_eq!(text(written, &[], Known::Little), "key: \"••••••\n  ••••••\nallow: [x\n");
    }
}
