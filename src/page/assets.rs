//! The files that pages load. Their names carry what they hold, so that browsers may keep them.

use axum::body::Body;
use axum::extract::Path;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use rust_embed::Embed;

use crate::admin::refusal::Refused;
use crate::respond::Refusal;

#[derive(Embed)]
#[folder = "src/page/assets/"]
struct Files;

/// The version of a file as its address has it: the beginning of its digest.
pub fn version(name: &str) -> String {
    let digest = Files::get(name).map(|file| file.metadata.sha256_hash()).unwrap_or_default();
    digest.iter().take(6).fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// A file.
pub async fn serve(Path(name): Path<String>) -> Result<Response, Refused> {
    let kind = match name.rsplit_once('.') {
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "js")) => "text/javascript; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml",
        Some((_, "txt")) => "text/plain; charset=utf-8",
        _ => return Err(missing()),
    };
    let file = Files::get(&name).ok_or_else(missing)?;
    let mut response = Response::new(Body::from(file.data.into_owned()));
    *response.status_mut() = StatusCode::OK;
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "public, max-age=86400"),
    ];
    response.headers_mut().extend(headers.map(|(name, value)| (name, HeaderValue::from_static(value))));
    Ok(response)
}

fn missing() -> Refused {
    Refused::new(Refusal::NotFound, "there is no such file")
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    /// SHA-256 of `dist/htmx.min.js` in `htmx.org` 4.0.1 as npm has it.
    const HTMX: &str = "a0abb04f2f45a1f89d1d4844023245537e5e6014c87b144553e0607b4cc32130";

    /// SHA-256 of `dist/ext/hx-sse.min.js` in the same.
    const SSE: &str = "18ef2761356ec1fe0bb6d92612315b37517a7c1e9856b661c5ae81fef239d103";

    #[test]
    fn htmx_is_the_file_that_was_published_and_comes_with_its_licence() {
        for (name, published) in [("htmx-4.0.1.min.js", HTMX), ("hx-sse-4.0.1.min.js", SSE)] {
            let file = Files::get(name).expect("embedded");
            let digest =
                Sha256::digest(&file.data).iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
            assert_eq!(digest, published, "{name}");
        }
        let licence = Files::get("htmx-LICENSE.txt").expect("embedded");
        assert!(String::from_utf8_lossy(&licence.data).contains("Zero-Clause BSD"));
    }

    #[test]
    fn our_own_files_stay_small() {
        for (name, most) in [("page.css", 12_800), ("page.js", 6_144)] {
            let size = Files::get(name).expect("embedded").data.len();
            assert!(size <= most, "{name} has {size} bytes");
        }
    }
}
