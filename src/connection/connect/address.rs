//! The address of a permission page as text, for a program that has a person open it. Nothing is begun by asking for it.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::Connect;
use super::door::Visit;
use crate::respond::{Answer, Refusal};

/// Whether a visitor takes a text and no page.
fn wants_text(headers: &HeaderMap) -> bool {
    let takes = |kind: &str| {
        let lines = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
        let mut kinds = lines.flat_map(|line| line.split(','));
        kinds.any(|one| one.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case(kind)))
    };
    takes("text/plain") && !takes("text/html")
}

impl Connect {
    /// What a link is to who opens it: a page for people, its address for programs.
    pub(super) async fn looked_at(&self, integration: &str, visit: &Visit) -> Answer {
        if wants_text(&visit.headers) {
            return self.address(integration, visit).await;
        }
        self.permission(integration, visit).await
    }

    /// The address that a link leads to, where the link may be used.
    async fn address(&self, integration: &str, visit: &Visit) -> Answer {
        let generation = self.live.load();
        if let Err(refused) = self.admitted(&generation, (integration, &visit.query), None).await {
            return without_page(refused);
        }
        let base = generation.gateway.public_url.as_str().trim_end_matches('/');
        let text = format!("{base}/api/connect/{integration}?{}\n", visit.query);
        let headers = [
            (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
            (header::CACHE_CONTROL, "no-store"),
            (header::VARY, "Accept"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        let headers = headers.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value)));
        Answer { headers: headers.collect(), body: Bytes::from(text), ..Answer::empty(StatusCode::OK) }
    }
}

/// A refusal for a program, in place of the page that tells a person.
fn without_page(page: Answer) -> Answer {
    let refusal = Refusal::of(&page).copied();
    refusal.map_or(page, |refusal| refusal.answer("this is no link by which an account can be connected now"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_for_who_takes_no_page() {
        let wants =
            |accept: &str| wants_text(&HeaderMap::from_iter([(header::ACCEPT, accept.parse().expect("a value"))]));
        assert_eq!(
            ["text/plain", "Text/Plain; q=1, */*;q=0.1", "text/html, text/plain", "*/*", ""].map(wants),
            [true, true, false, false, false]
        );
        assert!(!wants_text(&HeaderMap::new()));
    }
}
