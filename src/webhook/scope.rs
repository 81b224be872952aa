//! What a webhook's expressions see.
//!
//! A body is read once, when the first expression asks for it, and only as far as the definition's
//! expressions name it. Called by `receive`.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::header;
use minijinja::value::Value;

use super::door::RequestHead;
use crate::definition::plan::webhook::{Hmac, ReplyBody, SignedPart, TokenPlace, ValuePlace, Verify, Webhook};
use crate::queue::content;
use crate::template::payload::{self, Numbers, PayloadError, Wanted};
use crate::template::{Context, Expr};

/// What the expressions of a webhook read, all together.
pub fn wanted(webhook: &Webhook) -> Wanted {
    let mut names: BTreeSet<String> = webhook.event.names();
    names.extend(webhook.delivery_id.iter().flat_map(Expr::names));
    if let Verify::Hmac(scheme) = &webhook.verify {
        names.extend(signed_names(scheme));
    }
    for handshake in &webhook.handshakes {
        names.extend(handshake.condition.iter().flat_map(Expr::names));
        names.extend(handshake.reply.headers.iter().flat_map(|(_, text)| text.names()));
        match &handshake.reply.body {
            ReplyBody::Empty => {}
            ReplyBody::Text(text) => names.extend(text.names()),
            ReplyBody::Json(tree) => names.extend(tree.names()),
        }
    }
    Wanted::of(names)
}

fn signed_names(scheme: &Hmac) -> BTreeSet<String> {
    let time = scheme.timestamp.iter().filter_map(|rule| match &rule.place {
        ValuePlace::Expr(expr) => Some(expr.names()),
        ValuePlace::Header { .. } => None,
    });
    let parts = scheme.signed.iter().filter_map(|part| match part {
        SignedPart::Value(expr) => Some(expr.names()),
        _ => None,
    });
    time.chain(parts).flatten().collect()
}

/// What the expressions of one request see, and what came of reading its body.
#[derive(Debug)]
pub struct Scope {
    /// `body`, `headers`, `query`, `method`.
    pub context: Context,
    read: Arc<OnceLock<Option<PayloadError>>>,
}

/// A request of which scopes are made.
#[derive(Debug, Clone, Copy)]
pub struct Came<'a> {
    /// Its head.
    pub head: &'a RequestHead,
    /// Its body.
    pub body: &'a Bytes,
}

impl Scope {
    /// The scope of a request.
    pub fn of(Came { head, body }: Came<'_>, wanted: &Wanted, numbers: Numbers) -> Self {
        let read = Arc::new(OnceLock::new());
        let mut context = Context::new().with("method", head.method.as_str());
        if wanted.get("headers").is_some() {
            context = context.with_sent_headers("headers", Arc::clone(&head.headers));
        }
        if wanted.get("query").is_some() {
            context = context.with("query", content::query_map(&head.query));
        }
        if let Some(wanted) = wanted.get("body") {
            let media = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let (media, body, wanted, fault) =
                (media.map(str::to_owned), body.clone(), wanted.clone().reading(numbers), Arc::clone(&read));
            context = context.with_lazy("body", move || match payload::read(media.as_deref(), &body, &wanted) {
                Ok(value) => {
                    fault.get_or_init(|| None);
                    value
                }
                Err(error) => {
                    fault.get_or_init(|| Some(error));
                    Value::UNDEFINED
                }
            });
        }
        Self { context, read }
    }

    /// Why the body could not be read, where an expression asked for it.
    pub fn fault(&self) -> Option<&PayloadError> {
        self.read.get().and_then(Option::as_ref)
    }
}

/// The query string without the parameter that holds a shared value.
pub fn query_without_secret(query: &str, verify: &Verify) -> String {
    let Verify::Token(TokenPlace::Query(secret)) = verify else { return query.to_owned() };
    let kept = url::form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name != secret);
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(kept).finish()
}
