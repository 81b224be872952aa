//! Texts without what stands under names of secrets.
//!
//! For what people sent and were answered, of which nobody knows what in it is secret. Known secrets are taken out by
//! [`super::redact`]; this is for those that nothing here knows. It goes by names alone, and so is a second line. A text is
//! read for all forms at once, because what it says of itself is often wrong: JSON comes as a form, and a form as text. It
//! is read again with each layer of its escapes taken away, because JSON comes in a form, and XML in XML. Called by
//! `activity`.

mod elements;
mod ends;
mod layer;
mod pairs;

use std::borrow::Cow;
use std::ops::Range;

use self::elements::Elements;
use self::layer::Layer;
use self::pairs::Pairs;
use super::escape;
use super::redact::REDACTED;

/// Names of pairs that say what a value beside them is, and of that value.
const LABELS: [&str; 6] = ["name", "key", "field", "header", "param", "parameter"];
const VALUES: [&str; 3] = ["value", "val", "values"];
/// The most bytes of a label: what is longer is a text.
const LONGEST_LABEL: usize = 128;

/// A text without what stands under names of secrets. It may be the beginning of a longer one. JSON stays JSON.
pub fn scrubbed(text: &str) -> Cow<'_, str> {
    let walls = if is_json(text) { quotes(text) } else { Vec::new() };
    let mut found = Vec::new();
    escape::readings(text, false, |reading| {
        let layer = Layer { text, reading, walls: &walls };
        found.extend(Pairs::of(&layer));
        found.extend(Elements::of(&layer));
    });
    if found.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(without(text, found)) }
}

/// Whether a text is JSON, or the beginning of it; also several, one behind the other.
fn is_json(text: &str) -> bool {
    let mut all = serde_json::Deserializer::from_str(text).into_iter::<serde::de::IgnoredAny>();
    all.all(|one| one.map_or_else(|error| error.is_eof(), |_| true))
}

/// Where the strings of a text of JSON begin and end.
fn quotes(text: &str) -> Vec<usize> {
    let (mut quotes, mut is_escaped) = (Vec::new(), false);
    for (at, byte) in text.bytes().enumerate() {
        if byte == b'"' && !is_escaped {
            quotes.push(at);
        }
        is_escaped = byte == b'\\' && !is_escaped;
    }
    quotes
}

/// What is taken out of a text, by its place there, and what its stand-in is put between: the quotes of its name, where it
/// has none of its own, so that JSON stays JSON.
#[derive(Clone)]
struct Found {
    range: Range<usize>,
    quote: Option<Range<usize>>,
}

fn without(text: &str, mut found: Vec<Found>) -> String {
    found.sort_by_key(|found| (found.range.start, std::cmp::Reverse(found.range.end)));
    let (mut out, mut from) = (String::with_capacity(text.len()), 0);
    for Found { range, quote } in found {
        let (start, end) = (text.floor_char_boundary(range.start), text.ceil_char_boundary(range.end));
        // What is within one that was taken out is gone with it.
        if start < from {
            from = from.max(end);
            continue;
        }
        let quote = quote.and_then(|quote| text.get(quote)).unwrap_or_default();
        out.push_str(text.get(from..start).unwrap_or_default());
        out.push_str(quote);
        out.push_str(REDACTED);
        out.push_str(quote);
        from = end;
    }
    out.push_str(text.get(from..).unwrap_or_default());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_stands_under_them_is_taken_out_of_any_form() {
        for (text, clean) in [
            (r#"{"a":1,"password" : "x\"y","b":2}"#, r#"{"a":1,"password" : "[redacted]","b":2}"#),
            (r#"{"tokens":["a","]",{"b":"}"}],"c":"d"}"#, r#"{"tokens":"[redacted]","c":"d"}"#),
            (r#"{"pin":1234}"#, r#"{"pin":"[redacted]"}"#),
            (r#"{"token":null,"secret":"","pass":true}"#, r#"{"token":null,"secret":"","pass":true}"#),
            ("{\"token\":\"abc", "{\"token\":\"[redacted]"),
            ("{\"token\":[1,", "{\"token\":\"[redacted]\""),
            ("{\"a\":\"token\",\"b\":\"c\"}", "{\"a\":\"token\",\"b\":\"c\"}"),
            (r#"5" screen {"password":"x"}"#, r#"5" screen {"password":"[redacted]"}"#),
            (
                r#"[{"name":"password","value":"x"},{"name":"a","value":"b"}]"#,
                r#"[{"name":"password","value":"[redacted]"},{"name":"a","value":"b"}]"#,
            ),
            (r#"[{"value":"x","key":"api_key"}]"#, r#"[{"value":"[redacted]","key":"api_key"}]"#),
            (
                r#"{"sent":"{\"password\":\"hunter2\",\"b\":\"c\"}"}"#,
                r#"{"sent":"{\"password\":\"[redacted]\",\"b\":\"c\"}"}"#,
            ),
            (r#"{"url":"https://a/?access_token=x&b=c"}"#, r#"{"url":"https://a/?access_token=[redacted]&b=c"}"#),
            (
                r#"mutation { login(user: "a", password: "x y") { token } }"#,
                r#"mutation { login(user: "a", password: "[redacted]") { token } }"#,
            ),
            ("a=1&client%5Fsecret=x%26y&b=2&token", "a=1&client%5Fsecret=[redacted]&b=2&token"),
            ("Authorization: Bearer abc\nX: y", "Authorization: [redacted]\nX: y"),
            ("Cookie: a=b; c=d\nX: y", "Cookie: [redacted]\nX: y"),
            (r#"{"raw":"Set-Cookie: a=b; Path=/\nX: y"}"#, r#"{"raw":"Set-Cookie: [redacted]\nX: y"}"#),
            ("{u'token': u'a\\'b', 'pin': b\"c\"}", "{u'token': u'[redacted]', 'pin': b\"[redacted]\"}"),
            (
                "<a><w:Password Type=\"t\">x</w:Password><b apiKey='k' c=\"d\"/></a>",
                "<a><w:Password Type=\"t\">[redacted]</w:Password><b apiKey='[redacted]' c=\"d\"/></a>",
            ),
            ("<password>abc", "<password>[redacted]"),
            ("<credentials><user>u</user><pw>x</pw></credentials><b/>", "<credentials>[redacted]</credentials><b/>"),
            ("<tokens><t>one</t><t>x</t></tokens>", "<tokens>[redacted]</tokens>"),
            ("<a t=\"x>y\" password=\"x\"/>", "<a t=\"x>y\" password=\"[redacted]\"/>"),
            (
                "<input type=\"password\" name=\"password\" value=\"x\">",
                "<input type=\"password\" name=\"password\" value=\"[redacted]\">",
            ),
            (r#"{"\u0070assword":"x","b":"\u0070"}"#, r#"{"\u0070assword":"[redacted]","b":"\u0070"}"#),
            (r#"{"api\u005Fkey":"a\u0022b","c":1}"#, r#"{"api\u005Fkey":"[redacted]","c":1}"#),
            (r#"{"\x74oken":1}"#, r#"{"\x74oken":"[redacted]"}"#),
            (
                r#"{"sent":"{\u0022password\u0022:\u0022hunter2\u0022,\u0022b\u0022:1}"}"#,
                r#"{"sent":"{\u0022password\u0022:\u0022[redacted]\u0022,\u0022b\u0022:1}"}"#,
            ),
            (r#"{"sent":"{\"\\u0070assword\":\"hunter2\"}"}"#, r#"{"sent":"{\"\\u0070assword\":\"[redacted]\"}"}"#),
            (
                r#"{"url":"https://a/?access_token\u003dx\u0026b\u003dc"}"#,
                r#"{"url":"https://a/?access_token\u003d[redacted]\u0026b\u003dc"}"#,
            ),
            (
                r#"{"xml":"\u003cpassword\u003ex\u003c/password\u003e"}"#,
                r#"{"xml":"\u003cpassword\u003e[redacted]\u003c/password\u003e"}"#,
            ),
            (r#"{"token":"a\\u0022b","c":1}"#, r#"{"token":"[redacted]","c":1}"#),
            (r#"{"a":"\u00e9\ud83d\ude00","\u":1}"#, r#"{"a":"\u00e9\ud83d\ude00","\u":1}"#),
            ("nothing is here: 12:30, a=b", "nothing is here: 12:30, a=b"),
        ] {
            assert_eq!(scrubbed(text), clean, "{text}");
        }
    }

    #[test]
    fn counts_stay() {
        for (text, clean) in [
            (r#"{"max_tokens":4096,"usage":{"tokens":40}}"#, r#"{"max_tokens":4096,"usage":{"tokens":40}}"#),
            (r#"{"tokens":"40","token":40}"#, r#"{"tokens":"[redacted]","token":"[redacted]"}"#),
            (r#"{"tokens":[40],"pin":40}"#, r#"{"tokens":"[redacted]","pin":"[redacted]"}"#),
            (r#"{"next_page_token":"abc"}"#, r#"{"next_page_token":"abc"}"#),
            ("max_tokens=40&tokens=4x", "max_tokens=40&tokens=[redacted]"),
        ] {
            assert_eq!(scrubbed(text), clean, "{text}");
        }
    }

    #[test]
    fn a_name_is_read_however_it_is_written() {
        for (text, clean) in [
            ("user[password]=x&password[]=y&a[b]=c", "user[password]=[redacted]&password[]=[redacted]&a[b]=c"),
            (
                "card[cvc]=1&card%5Bcvc%5D=2&[token]=3",
                "card[cvc]=[redacted]&card%5Bcvc%5D=[redacted]&[token]=[redacted]",
            ),
            (
                r#"{"password[0]":"x","user[password]":"x","a":1}"#,
                r#"{"password[0]":"[redacted]","user[password]":"[redacted]","a":1}"#,
            ),
            (
                r#"{"password ":"x","password/":"x","\tpassword":"x"}"#,
                r#"{"password ":"[redacted]","password/":"[redacted]","\tpassword":"[redacted]"}"#,
            ),
            (
                r#"{"password (new)":"x","password:":"x"}"#,
                r#"{"password (new)":"[redacted]","password:":"[redacted]"}"#,
            ),
            (
                "payload=%7B%22a%22%3A1%2C%22token%22%3A%22x%20y%22%7D&b=c",
                "payload=%7B%22a%22%3A1%2C%22token%22%3A%22[redacted]%22%7D&b=c",
            ),
            (
                r#"{"url":"https://a/?next=https%3A%2F%2Fb%2F%3Faccess_token%3Dx%26c%3Dd"}"#,
                r#"{"url":"https://a/?next=https%3A%2F%2Fb%2F%3Faccess_token%3D[redacted]%26c%3Dd"}"#,
            ),
            (r#"{"https://a/?token=x&b=c":1,"d":"e"}"#, r#"{"https://a/?token=[redacted]&b=c":"[redacted]","d":"e"}"#),
            ("state=a%3D1%26password%3Dx", "state=a%3D1%26password%3D[redacted]"),
            (
                r#"{"a":"{\u0022sent\u0022:\u0022{\\u0022password\\u0022:\\u0022x\\u0022}\u0022}"}"#,
                r#"{"a":"{\u0022sent\u0022:\u0022{\\u0022password\\u0022:\\u0022[redacted]\\u0022}\u0022}"}"#,
            ),
            (
                r#"{"a":"{\"sent\":\"{\\u0022password\\u0022:\\u0022x\\u0022}\"}"}"#,
                r#"{"a":"{\"sent\":\"{\\u0022password\\u0022:\\u0022[redacted]\\u0022}\"}"}"#,
            ),
            (
                r#"{"a":"{\u005c\u0022password\u005c\u0022:\u005c\u0022x\u005c\u0022}"}"#,
                r#"{"a":"{\u005c\u0022password\u005c\u0022:\u005c\u0022[redacted]\u005c\u0022}"}"#,
            ),
            (
                "<json>{&quot;password&quot;:&quot;x%22y&quot;,&quot;pin&quot;:1}</json>",
                "<json>{&quot;password&quot;:&quot;[redacted]&quot;,&quot;pin&quot;:&quot;[redacted]&quot;}</json>",
            ),
            ("<a>&lt;password&gt;x&lt;/password&gt;</a>", "<a>&lt;password&gt;[redacted]&lt;/password&gt;</a>"),
        ] {
            assert_eq!(scrubbed(text), clean, "{text}");
        }
    }

    #[test]
    fn a_label_tells_what_the_value_beside_it_is() {
        for (text, clean) in [
            ("f[0][name]=password&f[0][value]=x", "f[0][name]=password&f[0][value]=[redacted]"),
            (
                "<member><name>password</name><value><string>x</string></value></member>",
                "<member><name>password</name><value>[redacted]</value></member>",
            ),
            (
                "<m><value><string>x</string></value><name>password</name></m><m><value>y</value></m>",
                "<m><value><string>[redacted]</string></value><name>password</name></m><m><value>y</value></m>",
            ),
            (
                "<key>user</key><string>u</string><key>password</key><string>x</string>",
                "<key>user</key><string>u</string><key>password</key><string>[redacted]</string>",
            ),
            (
                r#"[{"name":"password","value":{"raw":"x"}},{"name":"a","value":{"raw":"b"}}]"#,
                r#"[{"name":"password","value":"[redacted]"},{"name":"a","value":{"raw":"b"}}]"#,
            ),
            (
                r#"[{"value":{"raw":"{}x"},"hint":{},"name":"password"},{"values":[1],"name":"a"}]"#,
                r#"[{"value":"[redacted]","hint":{},"name":"password"},{"values":[1],"name":"a"}]"#,
            ),
        ] {
            assert_eq!(scrubbed(text), clean, "{text}");
        }
    }

    #[test]
    fn a_value_in_no_quotes_is_taken_out_to_its_end() {
        for (text, clean) in [
            ("password=a,x&b=1", "password=[redacted]&b=1"),
            ("a=1&password=my(x)x&b=1", "a=1&password=[redacted]&b=1"),
            ("password=a;x&b=1", "password=[redacted]&b=1"),
            ("password=a\\x&b=1", "password=[redacted]&b=1"),
            ("password=a>x&b=1", "password=[redacted]&b=1"),
            ("password='a'x&b=1", "password=[redacted]&b=1"),
            ("password=[a]x&b={a}x&pin={a}x", "password=[redacted]&b={a}x&pin=[redacted]"),
            ("password=my x&b=1", "password=[redacted]&b=1"),
            ("state=a%3D1%26password%3Dx%2Cx%26b%3Dc", "state=a%3D1%26password%3D[redacted]%26b%3Dc"),
            (r#"{"url":"https://a/?token=a,x&b=c"}"#, r#"{"url":"https://a/?token=[redacted]&b=c"}"#),
            (r#"{"url":"https://a/?token=x\u0026b=c"}"#, r#"{"url":"https://a/?token=[redacted]\u0026b=c"}"#),
            ("<a href=\"https://a/?token=x\">b</a>", "<a href=\"https://a/?token=[redacted]\">b</a>"),
            ("<a href=https://a/?token=a,x>b</a>", "<a href=https://a/?token=[redacted]>b</a>"),
            ("password: correct horse\nb: c", "password: [redacted]\nb: c"),
            ("a: b\r\nX-Api-Key: a b x\r\nc: d", "a: b\r\nX-Api-Key: [redacted]\r\nc: d"),
            ("[a]\npassword = correct horse\nb = c", "[a]\npassword = [redacted]\nb = c"),
            ("password: 'it''s x'\nb: c", "password: '[redacted]'\nb: c"),
            ("password:\nb: c", "password:\nb: c"),
            ("passwords:\n- x\n- x\nb: c", "passwords:\n[redacted]\nb: c"),
            ("- pin: |\n    x\n\n    x\n  b: c", "- pin: [redacted]\n  b: c"),
            (r#"{ a(password: """x "x" x""", b: 1) }"#, r#"{ a(password: "[redacted]", b: 1) }"#),
            ("Authorization: Digest username=\"u\", response=\"x\"\nX: y", "Authorization: [redacted]\nX: y"),
            (
                r#"{"raw":"Authorization: Digest username=\"u\", response=\"x\"\nX: y"}"#,
                r#"{"raw":"Authorization: [redacted]\nX: y"}"#,
            ),
            (
                "curl -H 'Authorization: Digest username=\"u\", response=\"x\"' https://a",
                "curl -H 'Authorization: [redacted]' https://a",
            ),
        ] {
            assert_eq!(scrubbed(text), clean, "{text}");
        }
    }

    #[test]
    fn what_stands_behind_such_a_value_stays() {
        for (text, clean) in [
            ("level=info password=x status=401 path=/?b=c", "level=info password=[redacted] status=401 path=/?b=c"),
            ("Server=a;Password=x;Encrypt=True;", "Server=a;Password=[redacted];Encrypt=True;"),
            ("Token [id=1, token=x, user=b] and", "Token [id=1, token=[redacted], user=b] and"),
            ("{token=x,user=b}", "{token=[redacted],user=b}"),
            ("see https://a/?token=x for more", "see https://a/?token=[redacted] for more"),
            ("<p>https://a/?token=x</p>", "<p>https://a/?token=[redacted]</p>"),
            ("{'url': 'https://a/?token=x', 'b': 'c'}", "{'url': 'https://a/?token=[redacted]', 'b': 'c'}"),
            ("{\n  password: x,\n  b: c\n}", "{\n  password: [redacted],\n  b: c\n}"),
            ("<b>Pin: x</b> c", "<b>Pin: [redacted]</b> c"),
            ("Invalid token: x is no number", "Invalid token: [redacted] is no number"),
        ] {
            assert_eq!(scrubbed(text), clean, "{text}");
        }
    }

    #[test]
    fn an_element_ends_with_its_own_end() {
        for (text, clean) in [
            ("<pass><passport>1</passport>x</pass><b/>", "<pass>[redacted]</pass><b/>"),
            ("<token><tokenType>b</tokenType><data>x</data></token><b/>", "<token>[redacted]</token><b/>"),
            ("<pin><pin>a</pin><pin/>x</pin ><b/>", "<pin>[redacted]</pin ><b/>"),
            ("<pin><!-- </pin> --><![CDATA[</pin>]]>x</pin><b/>", "<pin>[redacted]</pin><b/>"),
            ("<pin><pin>x</pin><b/>", "<pin>[redacted]</pin><b/>"),
            ("<textarea name=\"password\">x</textarea><b/>", "<textarea name=\"password\">[redacted]</textarea><b/>"),
            ("<string name='api_key'>x</string><b/>", "<string name='api_key'>[redacted]</string><b/>"),
            (
                r#"{"a":"<textarea name=\"password\">x</textarea>"}"#,
                r#"{"a":"<textarea name=\"password\">[redacted]</textarea>"}"#,
            ),
            ("<form name=\"password\"><p>Change it</p></form>", "<form name=\"password\"><p>Change it</p></form>"),
            ("<a name=\"token\">Tokens</a>", "<a name=\"token\">Tokens</a>"),
        ] {
            assert_eq!(scrubbed(text), clean, "{text}");
        }
    }

    #[test]
    fn nothing_in_a_string_of_json_reaches_beyond_it() {
        for (text, clean) in [
            (r#"{"sent":"{\"pin\":1234}"}"#, r#"{"sent":"{\"pin\":\"[redacted]\"}"}"#),
            (r#"{"a":"password=","b":"c"}"#, r#"{"a":"password=","b":"c"}"#),
            (r#"{"a":"password='x","b":"it's"}"#, r#"{"a":"password='[redacted]","b":"it's"}"#),
            (r#"{"a":"password: [1","b":[1]}"#, r#"{"a":"password: [redacted]","b":[1]}"#),
            (r#"{"a":"<password>x","b":"</password>"}"#, r#"{"a":"<password>[redacted]","b":"</password>"}"#),
            (r#"{"password":"a\\","b":"c"}"#, r#"{"password":"[redacted]","b":"c"}"#),
            (r#"{"sent":"{\"password\":\"a%22b\",\"c\":1}"}"#, r#"{"sent":"{\"password\":\"[redacted]\",\"c\":1}"}"#),
        ] {
            assert_eq!(scrubbed(text), clean, "{text}");
        }
        for open in ["{tokens: [\"q\", 'q']", "{ ask(password: \"q q\", tokens: [\"q\"]) }"] {
            assert!(!scrubbed(open).contains('q'), "{open}");
        }
    }

    fn written(text: &str, layer: u8) -> String {
        match layer {
            0 => serde_json::json!({ "sent": text, "z": [2] }).to_string(),
            1 => serde_json::json!([text.replace('"', "\u{1}")]).to_string().replace("\\u0001", "\\u0022"),
            2 => {
                let all = percent_encoding::NON_ALPHANUMERIC;
                format!("a=b&payload={}&c=d", percent_encoding::utf8_percent_encode(text, all))
            }
            _ => {
                let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
                format!("<a><b>{}</b></a>", text.replace('"', "&quot;"))
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "[\\x00-\\x7fé\"{}\\[\\]:,<>&=/'\\\\ ]{0,60}", cut in 0_usize..60) {
            let end = text.floor_char_boundary(cut);
            scrubbed(text.get(..end).unwrap_or_default());
            scrubbed(&text);
        }

        #[test]
        fn a_name_is_the_same_however_it_is_written(written in proptest::collection::vec(0_u8..3, 8), value in "[a-z\"\\\\]{1,9}") {
            let name: String = "password".chars().zip(written).map(|(char, how)| match how {
                0 => char.to_string(),
                1 => format!("\\u{:04x}", u32::from(char)),
                _ => format!("\\u{:04X}", u32::from(char)),
            }).collect();
            let text = format!("{{\"a\":1,\"{name}\":{},\"z\":[2]}}", serde_json::json!(value));
            let clean: serde_json::Value = serde_json::from_str(&scrubbed(&text)).expect("JSON");
            prop_assert_eq!(clean, serde_json::json!({ "a": 1, "password": "[redacted]", "z": [2] }));
        }

        #[test]
        fn a_field_of_a_form_is_taken_out_whole(value in "[a-z,;:'()*!\\\\<>\"\\[\\]{} ]{0,9}", behind in "[a-z,;:'()*!\\\\<>\"\\[\\]{} ]{0,9}") {
            let clean = scrubbed(&format!("a=1&password={value}Q0{behind}0Q&b=2")).into_owned();
            prop_assert!(!clean.contains("Q0") && !clean.contains("0Q") && clean.starts_with("a=1&password="), "{clean}");
        }

        #[test]
        fn json_stays_json(value in "[a-z\"\\\\{}\\[\\], :]{1,20}", nested in any::<bool>()) {
            let value = if nested { serde_json::json!([{ "a": value }]) } else { serde_json::json!(value) };
            let text = serde_json::json!({ "b": 1, "token": value, "z": [2] }).to_string();
            let clean: serde_json::Value = serde_json::from_str(&scrubbed(&text)).expect("JSON");
            prop_assert_eq!(clean, serde_json::json!({ "b": 1, "token": "[redacted]", "z": [2] }));
        }

        #[test]
        fn no_layering_of_usual_escapes_hides_a_name(
            value in "[q-z\"\\\\{}\\[\\], :&<>%é]{1,20}",
            layers in proptest::collection::vec(0_u8..4, 0..4),
        ) {
            let given = serde_json::json!({ "b": 1, "password": format!("Q0{value}0Q"), "z": [2] }).to_string();
            let text = layers.iter().fold(given, |text, layer| written(&text, *layer));
            let clean = scrubbed(&text);
            prop_assert!(!clean.contains("Q0") && !clean.contains("0Q") && clean.contains('z'), "{text}: {clean}");
            if layers.last().is_none_or(|last| *last < 2) {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&clean).is_ok(), "{text}: {clean}");
            }
        }

        #[test]
        fn json_of_any_texts_stays_json(
            texts in proptest::collection::vec(("[<>/a\"'\\\\{}\\[\\],: =&%;?\n|-]{0,6}", 0_usize..9, "[<>/a\"'\\\\{}\\[\\],: =&%;1\n|-]{0,6}"), 2..6),
            layers in proptest::collection::vec(0_u8..2, 0..3),
        ) {
            let words = ["password", "token", "name", "value", "<pin>", "", "pin=", "Authorization: Digest a=", "<a name=pin>"];
            let texts = texts.iter().map(|(before, word, behind)| format!("{before}{}{behind}", words[*word]));
            let texts: Vec<String> = texts.collect();
            let maps = texts.windows(2).map(|two| serde_json::json!({ &*two[0]: two[1], "value": { "raw": two[1] } }));
            let text = maps.collect::<serde_json::Value>().to_string();
            let text = layers.iter().fold(text, |text, layer| written(&text, *layer));
            let clean = scrubbed(&text);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&clean).is_ok(), "{text}: {clean}");
        }
    }
}
