//! What people are told of a service, where it is not what it should be.

use super::Findings;
use crate::definition::problem::Code;
use crate::definition::raw::integration::Integration;

/// The most bytes of a logo: the marketplace shows many of them.
const LOGO: usize = 32 << 10;

pub(super) fn check(raw: &Integration, found: &mut Findings<'_>) {
    let Some(logo) = &raw.logo else { return };
    if logo.len() > LOGO {
        found.error(Code::OutOfRange, "/logo", "this logo is larger than 32 KiB");
    }
    let start = logo.trim_start();
    if !(start.starts_with("<svg") || start.starts_with("<?xml")) {
        let problem = found.error(Code::BadFormat, "/logo", "a logo is an SVG document");
        problem.help = Some("Write `${file:./logo.svg}`, and put the file beside the definition.".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::told;
    use serde_json::json;

    #[test]
    fn a_logo_is_a_small_svg_document() {
        let logo = |text: &str| told(json!({ "trunkline": 1, "id": "a", "logo": text })).concat();
        assert_eq!(logo("<svg xmlns=\"http://www.w3.org/2000/svg\"/>"), "");
        assert!(logo("./logo.svg").contains("an SVG document"));
        assert!(logo(&format!("<svg>{}</svg>", " ".repeat(40_000))).contains("larger than 32 KiB"));
    }
}
