//! What services really answer to token calls.

use super::*;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use proptest::prelude::*;
use serde_json::json;

use crate::definition::plan::oauth2::ParamsIn;
use crate::definition::plan::request::{Request, Target};
use crate::template::Text;

const NOW: Timestamp = Timestamp::from_seconds(1_700_000_000);
const JSON: &str = "application/json";

fn expr(source: &str) -> Expr {
    Expr::compile(source).expect("compiles")
}

fn map(place: &str) -> TokenMap {
    let field = |name: &str| expr(&format!("{place}.{name}"));
    TokenMap {
        access: field("access_token"),
        refresh: Some(field("refresh_token")),
        expires_in: Some(field("expires_in")),
        expires: None,
        scope: Some(field("scope")),
    }
}

fn call() -> TokenCall {
    TokenCall {
        request: Request {
            save: vec![("team".to_owned(), expr("body.team.id"))],
            ..Request::bare(Method::POST, Target::Url(Text::compile("https://a.example/token").expect("compiles")))
        },
        params_in: ParamsIn::Form,
        rename: Vec::new(),
        omit: Vec::new(),
        tokens: vec![("default".to_owned(), map("body"))],
        mapped: false,
        permanent: None,
        default_ttl: None,
    }
}

fn received(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Received {
    let header = |(name, value): &(&str, &str)| {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        (name, HeaderValue::from_str(value).expect("visible"))
    };
    let headers: HeaderMap = headers.iter().map(header).collect();
    Received {
        status: StatusCode::from_u16(status).expect("a status"),
        headers,
        body: body.into(),
        framed: true,
        led: false,
    }
}

fn secrets() -> Secrets {
    let mut secrets = Secrets::default();
    secrets.add("canary-secret");
    secrets
}

fn read_with(call: &TokenCall, received: Received, tokens: Tokens<'_>) -> Result<Reply, TokenError> {
    let wanted = Wanted { tokens, separator: " ", now: NOW };
    read(call, (&Context::new(), &secrets()), received, wanted)
}

/// An answer in one line: the default token, what it is renewed with, how long it lives, its scopes; or
/// the error.
fn told(status: u16, content_type: &str, body: &str) -> String {
    let received = received(status, &[("content-type", content_type)], body.to_owned());
    match read_with(&call(), received, Tokens::Issued) {
        Ok(reply) => {
            let token = &reply.tokens["default"];
            let refresh = token.refresh.as_ref().map_or("-", |refresh| refresh.expose());
            let life = token.expires_at.map_or("-".to_owned(), |at| at.since(NOW).as_secs().to_string());
            let scopes = token.scopes.as_ref().map_or("-".to_owned(), |scopes| scopes.join("|"));
            format!("{} {refresh} {life} {scopes}", token.access.expose())
        }
        Err(error) => format!("{:?} {}", error.kind, error),
    }
}

const FORM: &str = "application/x-www-form-urlencoded";

/// What services really answer, and what is made of it: status, type, body, outcome.
const ODD: &[(u16, &str, &str, &str)] = &[
    (
        200,
        JSON,
        r#"{"access_token":"a","token_type":"bearer","expires_in":3600,"refresh_token":"r","scope":"x y"}"#,
        "a r 3600 x|y",
    ),
    (200, JSON, r#"{"access_token":"a"}"#, "a - - -"),
    (201, JSON, r#"{"access_token":"a","token_type":"N_A"}"#, "a - - -"),
    (200, JSON, r#"{"access_token":"a","token_type":{"odd":1},"expires_in":"3600"}"#, "a - 3600 -"),
    (200, JSON, r#"{"access_token":"a","expires_in":3599.7}"#, "a - 3599 -"),
    (200, JSON, r#"{"access_token":"a","expires_in":0}"#, "a - - -"),
    (200, JSON, r#"{"access_token":"a","expires_in":0.001}"#, "a - 1 -"),
    (200, JSON, r#"{"access_token":"a","expires_in":-1}"#, "a - - -"),
    (200, JSON, r#"{"access_token":"a","expires_in":"never"}"#, "a - - -"),
    (200, JSON, r#"{"access_token":"a","expires_in":null,"refresh_token":null}"#, "a - - -"),
    (200, JSON, r#"{"access_token":"a","expires_in":{"seconds":1}}"#, "a - - -"),
    (200, JSON, r#"{"access_token":"a","expires_in":1e300}"#, "a - - -"),
    (200, JSON, r#"{"access_token":"a","refresh_token":""}"#, "a - - -"),
    (200, JSON, r#"{"access_token":"a","refresh_token":{"token":"r"}}"#, "a - - -"),
    (200, JSON, r#"{"access_token":"a","scope":"repo,gist"}"#, "a - - repo|gist"),
    (200, JSON, r#"{"access_token":"a","scope":["x","y z"]}"#, "a - - x|y z"),
    (200, JSON, r#"{"access_token":"a","scope":""}"#, "a - - -"),
    (200, JSON, r#"{"access_token":"a","scope":[1]}"#, "a - - -"),
    (200, JSON, r#"{"access_token":12345}"#, "12345 - - -"),
    (200, FORM, "access_token=a%2B&expires_in=60&scope=x%2Cy", "a+ - 60 x|y"),
    (200, "text/plain", r#" {"access_token":"a"}"#, "a - - -"),
    (200, "", r#"{"access_token":"a"}"#, "a - - -"),
    (
        200,
        JSON,
        r#"{"access_token":true}"#,
        "Passing the token call failed: 200, the answer cannot be used: `body.access_token` is not a text",
    ),
    (
        200,
        JSON,
        r#"{"access_token":"a\nb"}"#,
        "Passing the token call failed: 200, the answer cannot be used: `body.access_token` has a line break or another character that no call can carry",
    ),
    (
        200,
        JSON,
        "{}",
        "Passing the token call failed: 200, the answer cannot be used: it has no access token at `body.access_token`",
    ),
    (
        200,
        JSON,
        "[]",
        "Passing the token call failed: 200, the answer cannot be used: it has no access token at `body.access_token`",
    ),
    (
        204,
        JSON,
        "",
        "Passing the token call failed: 204, the answer cannot be used: it has no access token at `body.access_token`",
    ),
    (
        200,
        "text/html; charset=utf-8",
        "<html>",
        "Passing the token call failed: 200, the answer cannot be used: it is text/html; charset=utf-8 and neither JSON nor a form: is the address one for tokens?",
    ),
    (
        200,
        JSON,
        "<html>",
        "Passing the token call failed: 200, the answer cannot be used: it is application/json and neither JSON nor a form: is the address one for tokens?",
    ),
    (
        200,
        JSON,
        r#"{"error":"bad_verification_code","error_description":"The code is incorrect or expired."}"#,
        "Passing the token call failed: 200, bad_verification_code, The code is incorrect or expired.",
    ),
    (
        400,
        JSON,
        r#"{"error":"invalid_grant","error_description":"Token canary-secret\u0007 was revoked"}"#,
        "Permanent the service refuses the token call: 400, invalid_grant, Token [redacted]  was revoked",
    ),
    (
        401,
        JSON,
        r#"{"error":"invalid_client"}"#,
        "Misconfigured the token call cannot be made as it is declared: 401, invalid_client",
    ),
    (
        400,
        JSON,
        r#"{"error":{"code":"x1","message":"No."}}"#,
        "Misconfigured the token call cannot be made as it is declared: 400, x1, No.",
    ),
    (403, "text/html", "<html>", "Misconfigured the token call cannot be made as it is declared: 403"),
    (503, JSON, r#"{"error":"invalid_grant"}"#, "Passing the token call failed: 503, invalid_grant"),
    (429, "text/plain", "slow", "Passing the token call failed: 429"),
    (
        302,
        "text/html",
        "",
        "Misconfigured the token call cannot be made as it is declared: 302, it leads to elsewhere, and token calls follow nowhere: write the address it leads to",
    ),
];

#[test]
fn odd_answers_are_read_or_refused_in_words() {
    for (status, content_type, body, expected) in ODD {
        assert_eq!(told(*status, content_type, body), *expected, "{status} {content_type} {body:.80}");
    }
}

#[test]
fn a_token_that_no_call_could_carry_is_refused() {
    let long = format!(r#"{{"access_token":"{}"}}"#, "x".repeat(TOKEN_MOST + 1));
    let told = told(200, JSON, &long);
    assert!(told.ends_with("`body.access_token` is longer than any token that could be sent"), "{told}");
}

#[test]
fn a_redirect_is_named_by_its_host_alone() {
    let answer = received(307, &[("location", "https://login.example/x?code=canary-secret")], "");
    let error = read_with(&call(), answer, Tokens::Issued).expect_err("refused");
    assert!(error.to_string().contains("it leads to https://login.example, and"), "{error}");
}

#[test]
fn the_definition_says_what_success_and_permanent_are() {
    let mut slack = call();
    slack.request.ok = Some(expr("body.ok"));
    slack.request.error = Some(expr("body.error"));
    slack.permanent = Some(expr("body.error in ['token_revoked', 'invalid_refresh_token']"));
    let read = |body: &str| {
        let error = read_with(&slack, received(200, &[("content-type", JSON)], body.to_owned()), Tokens::Issued);
        let error = error.expect_err("refused");
        (error.kind, error.words.unwrap_or_default())
    };
    let revoked = read(r#"{"ok":false,"error":"token_revoked"}"#);
    assert_eq!(revoked, (TokenErrorKind::Permanent, "token_revoked".to_owned()));
    assert_eq!(read(r#"{"ok":false,"error":"ratelimited"}"#).0, TokenErrorKind::Passing);
    assert_eq!(
        read(r#"{"ok":false,"error":"invalid_grant"}"#).0,
        TokenErrorKind::Passing,
        "only what is written counts"
    );
}

fn slack() -> TokenCall {
    let tokens = vec![("default".to_owned(), map("body")), ("user".to_owned(), map("body.authed_user"))];
    TokenCall { tokens, mapped: true, ..call() }
}

#[test]
fn what_is_odd_beside_a_good_token_is_left_out_and_told() {
    let body = json!({
        "access_token": "bot", "refresh_token": ["r"], "expires_in": { "seconds": 1 },
        "authed_user": { "access_token": { "odd": true } },
    });
    let mut call = slack();
    call.request.save.push(("odd".to_owned(), expr("body.access_token / 2")));
    for tokens in [Tokens::Issued, Tokens::Renewed("default")] {
        let reply = read_with(&call, received(200, &[("content-type", JSON)], body.to_string()), tokens);
        let reply = reply.expect("the good token");
        assert_eq!(reply.tokens.keys().map(|name| &**name).collect::<Vec<_>>(), ["default"]);
        let told = [
            "the refresh token was left out, `body.refresh_token` is not a text",
            "when the token ends was left out, `body.expires_in` is not a number",
            "the token `user` was left out, `body.authed_user.access_token` is not a text",
        ];
        assert_eq!(reply.warnings[..3], told);
        assert!(reply.warnings[3].starts_with("a value was left out, `save.odd`: "), "{:?}", reply.warnings);
    }
    let answer = received(200, &[("content-type", JSON)], body.to_string());
    let error = read_with(&slack(), answer, Tokens::Renewed("user")).expect_err("what is wanted is odd");
    assert!(error.to_string().ends_with("`body.authed_user.access_token` is not a text"), "{error}");
}

#[test]
fn named_tokens_are_found_each_in_its_place() {
    let body = json!({
        "access_token": "bot", "expires_in": 10, "team": { "id": "T1" },
        "authed_user": { "access_token": "user", "refresh_token": "ur", "expires_in": "20", "scope": "identify" },
    });
    let answer = received(200, &[("content-type", JSON)], body.to_string());
    let reply = read_with(&slack(), answer, Tokens::Issued).expect("both");
    assert_eq!(Json::Object(reply.saved), json!({ "team": "T1" }));
    let user = &reply.tokens["user"];
    assert_eq!(
        (user.access.expose().as_str(), user.expires_at),
        ("user", Some(NOW.after(std::time::Duration::from_secs(20))))
    );
    assert_eq!(reply.tokens["default"].access.expose(), "bot");
}

#[test]
fn a_renewed_token_is_taken_from_the_usual_fields_where_its_own_are_empty() {
    let body = json!({ "access_token": "user-2", "refresh_token": "ur-2" });
    let answer = || received(200, &[("content-type", JSON)], body.to_string());
    let reply = read_with(&slack(), answer(), Tokens::Renewed("user")).expect("one");
    let names: Vec<_> = reply.tokens.keys().map(|name| &**name).collect();
    assert_eq!((names, reply.tokens["user"].access.expose().as_str()), (vec!["user"], "user-2"));
    let reply = read_with(&slack(), answer(), Tokens::Renewed("default")).expect("one");
    assert_eq!(reply.tokens.keys().map(|name| &**name).collect::<Vec<_>>(), ["default"]);
}

#[test]
fn a_token_whose_life_is_lengthened_goes_on() {
    let held = Issued::bare("held".into(), NOW);
    let answer = received(200, &[("content-type", JSON)], r#"{"result":"0000","expires_in":60}"#);
    let reply = read_with(&call(), answer, Tokens::Extended("default", &held)).expect("goes on");
    let token = &reply.tokens["default"];
    let expected = ("held", Some(NOW.after(std::time::Duration::from_mins(1))));
    assert_eq!((token.access.expose().as_str(), token.expires_at), expected);
}

#[test]
fn a_step_on_the_way_needs_no_token() {
    let answer = received(200, &[("content-type", JSON)], r#"{"team":{"id":"T1"}}"#);
    let reply = read_with(&call(), answer, Tokens::Any).expect("a step");
    assert!(reply.tokens.is_empty() && reply.saved.contains_key("team"));
}

#[test]
fn a_token_may_come_in_a_header() {
    let mut sap = call();
    sap.tokens[0].1.access = expr("headers['set-cookie'] | split(';') | first");
    let answer = received(204, &[("set-cookie", "B1SESSION=abc; HttpOnly")], "");
    let reply = read_with(&sap, answer, Tokens::Issued).expect("a cookie");
    assert_eq!(reply.tokens["default"].access.expose(), "B1SESSION=abc");
}

fn json_value() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        ".{0,12}".prop_map(Json::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            proptest::collection::vec(("[a-z_]{1,6}", inner), 0..4)
                .prop_map(|pairs| Json::Object(pairs.into_iter().collect())),
        ]
    })
}

/// What holds of every token that is taken, whatever the answer.
fn is_usable(token: &Issued) -> bool {
    let carries = |secret: &Secret| {
        let text = secret.expose();
        !text.is_empty() && text.len() <= TOKEN_MOST && !text.chars().any(char::is_control)
    };
    carries(&token.access)
        && token.refresh.as_ref().is_none_or(carries)
        && token.expires_at.is_none_or(|at| at > NOW)
        && token.scopes.as_ref().is_none_or(|scopes| !scopes.is_empty())
}

proptest! {
    #[test]
    fn any_answer_is_read_or_refused(
        status in 200_u16..600,
        fields in proptest::collection::vec(
            (prop_oneof!["access_token", "refresh_token", "expires_in", "scope", "error", "authed_user"], json_value()),
            0..6,
        ),
        cut in 0_usize..200,
    ) {
        let body = Json::Object(fields.into_iter().collect()).to_string();
        for body in [body.clone(), body.chars().take(cut).collect()] {
            for tokens in [Tokens::Any, Tokens::Issued, Tokens::Renewed("user")] {
                match read_with(&slack(), received(status, &[("content-type", JSON)], body.clone()), tokens) {
                    Ok(reply) => prop_assert!(reply.tokens.values().all(is_usable)),
                    Err(error) => prop_assert!(error.to_string().len() < 2_000 && error.status == Some(status)),
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..200), kind in ".{0,20}") {
        let kind: String = kind.chars().filter(char::is_ascii_graphic).collect();
        if let Ok(reply) = read_with(&call(), received(200, &[("content-type", &kind)], body), Tokens::Issued) {
            prop_assert!(reply.tokens.values().all(is_usable));
        }
    }
}
