//! `/api/sign-in-links`: links that sign the asker in on the page, once.

use axum::extract::State;
use axum::{Extension, Json};
use http::StatusCode;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::Shared;
use super::config::entry;
use crate::admin::page_address;
use crate::admin::refusal::Refused;
use crate::admin::sign_in::{Identity, LINK_LIFETIME};
use crate::respond::Refusal;

/// A link that signs one person in at the page, once.
#[derive(Serialize, ToSchema)]
pub struct SignInLink {
    /// Its address: a secret.
    pub url: String,
    /// How long it can be used, in seconds.
    pub expires_in_seconds: u64,
}

/// Makes a link for whoever asks. The audit log has it first.
#[utoipa::path(post, path = "/api/sign-in-links", tag = "sign-in",
    responses((status = 201, body = SignInLink), (status = 409, description = "conflict")))]
pub async fn make(
    State(parts): Shared,
    Extension(who): Extension<Identity>,
) -> Result<(StatusCode, Json<SignInLink>), Refused> {
    let gateway = std::sync::Arc::clone(&parts.live.load().gateway);
    let help = "say under `admin.url` where people reach the page";
    let nowhere = || Refused::with_help(Refusal::Conflict, "the door listens on a Unix socket", help);
    let page = page_address(&gateway, &parts.listen).ok_or_else(nowhere)?;
    parts.store.append(entry(&parts, &who.name, "sign_in.link", "admin".to_owned(), json!({}))).await?;
    let word = parts.sign_in.link_for(&who.name);
    let word = word.ok_or_else(|| Refused::new(Refusal::Unavailable, "there is no randomness"))?;
    let link = SignInLink {
        url: format!("{page}/sign-in/link?word={}", word.expose()),
        expires_in_seconds: LINK_LIFETIME.as_secs(),
    };
    Ok((StatusCode::CREATED, Json(link)))
}
