//! Errors of this door as answers.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use std::time::Duration;

use crate::respond::{Answer, Refusal};
use crate::store::StoreError;

/// How long to wait before the store is asked again.
const STORE_PAUSE: Duration = Duration::from_secs(5);

/// A refusal on its way out.
#[derive(Debug)]
pub struct Refused(Answer);

impl Refused {
    /// A refusal with what was wrong with this request.
    pub fn new(refusal: Refusal, detail: &str) -> Self {
        Self(refusal.answer(detail))
    }

    /// A refusal with what to do about it.
    pub fn with_help(refusal: Refusal, detail: &str, help: &str) -> Self {
        Self(refusal.answer_with(detail, Some(help), None))
    }
}

impl Refused {
    /// What it says: its problem document as JSON.
    pub fn document(&self) -> serde_json::Value {
        serde_json::from_slice(&self.0.body).unwrap_or_default()
    }
}

impl From<Answer> for Refused {
    fn from(answer: Answer) -> Self {
        Self(answer)
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        let detail = error.to_string();
        match error {
            StoreError::NotFound(_) => Self::new(Refusal::NotFound, &detail),
            StoreError::Conflict(_) | StoreError::LeaseLost => Self::new(Refusal::Conflict, &detail),
            StoreError::Full { .. } | StoreError::NoRoom { .. } | StoreError::Unavailable(_) => {
                Self(Refusal::StoreUnavailable.answer_after(&detail, STORE_PAUSE))
            }
            _ => {
                tracing::error!(error = %detail, "the store could not answer the admin door: {detail}");
                Self::with_help(Refusal::Internal, "the store could not be read", "run `trunkline store check`")
            }
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        into_response(self.0)
    }
}

/// An answer of `respond` as axum has it.
pub fn into_response(answer: Answer) -> Response {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = answer.status;
    response.headers_mut().extend(answer.headers);
    response
}
