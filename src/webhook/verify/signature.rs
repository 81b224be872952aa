//! Reading signatures out of headers.
//!
//! A header's value is taken apart strictly: no white space but around the items of a list, no trailing
//! junk, one spelling for each digest. What is not of the digest's length never reaches a comparison.

use base64::alphabet::{STANDARD, URL_SAFE};

use super::key::{base64, hex};
use crate::definition::plan::webhook::{Prefix, SignatureEncoding, SignatureForm, SignaturePlace};

/// The most signatures of one header that are looked at; with more the header is refused, so that a
/// request cannot buy many comparisons.
pub const CANDIDATES: usize = 10;

/// The digests of `length` bytes that a header's value holds in this place's form. Items with another
/// prefix or name are passed over: services send several versions side by side.
///
/// `None` when it holds more than [`CANDIDATES`].
pub fn candidates(place: &SignaturePlace, value: &[u8], length: usize) -> Option<Vec<Vec<u8>>> {
    let texts = items(&place.form, value);
    if texts.len() > CANDIDATES {
        return None;
    }
    let digest = |text: &[u8]| {
        let bare = unprefixed(place.prefix.as_ref(), text)?;
        decode(place.encoding, bare).filter(|digest| digest.len() == length)
    };
    Some(texts.into_iter().filter_map(digest).collect())
}

/// The texts that a value holds in a form: all items of a list, the values of the pairs with the name,
/// the item at the place.
pub fn items<'a>(form: &SignatureForm, value: &'a [u8]) -> Vec<&'a [u8]> {
    match form {
        SignatureForm::Single => vec![value],
        SignatureForm::List { separator } => split(value, *separator),
        SignatureForm::Pairs { name, separator } => {
            let named = |item: &'a [u8]| item.strip_prefix(name.as_bytes())?.strip_prefix(b"=");
            split(value, *separator).into_iter().filter_map(named).collect()
        }
        SignatureForm::Position { index, separator } => {
            split(value, *separator).get(*index).map(|item| vec![*item]).unwrap_or_default()
        }
    }
}

fn split(value: &[u8], separator: char) -> Vec<&[u8]> {
    let mut bytes = [0; 4];
    let separator = separator.encode_utf8(&mut bytes).as_bytes();
    // One byte in every scheme known; a longer one cannot stand in a header of visible ASCII.
    let first = separator.first().copied().unwrap_or(b',');
    value.split(|byte| *byte == first).map(<[u8]>::trim_ascii).filter(|item| !item.is_empty()).collect()
}

fn unprefixed<'a>(prefix: Option<&Prefix>, text: &'a [u8]) -> Option<&'a [u8]> {
    let Some(prefix) = prefix else { return Some(text) };
    match text.strip_prefix(prefix.text.as_bytes()) {
        Some(bare) => Some(bare),
        None => prefix.optional.then_some(text),
    }
}

fn decode(encoding: SignatureEncoding, text: &[u8]) -> Option<Vec<u8>> {
    match encoding {
        SignatureEncoding::Hex { upper } => hex(text, upper),
        SignatureEncoding::Base64 => base64(text, &STANDARD),
        SignatureEncoding::Base64Url => base64(text, &URL_SAFE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;
    use proptest::prelude::*;

    fn place(form: SignatureForm, prefix: Option<&str>, encoding: SignatureEncoding) -> SignaturePlace {
        let prefix = prefix.map(|text| Prefix { text: text.to_owned(), optional: false });
        SignaturePlace { header: HeaderName::from_static("x-signature"), form, prefix, encoding }
    }

    fn found(place: &SignaturePlace, value: &str) -> Option<usize> {
        candidates(place, value.as_bytes(), 2).map(|found| found.len())
    }

    #[test]
    fn a_single_signature_stands_alone() {
        let hex = place(SignatureForm::Single, Some("sha256="), SignatureEncoding::Hex { upper: false });
        assert_eq!(found(&hex, "sha256=0aff"), Some(1));
        for junk in ["0aff", "sha256=0AFF", "sha256=0aff ", " sha256=0aff", "sha256=0aff,", "sha256=0a", "sha256=", ""]
        {
            assert_eq!(found(&hex, junk), Some(0), "{junk:?}");
        }
    }

    #[test]
    fn lists_pass_over_other_versions_and_end_at_ten() {
        let list = place(SignatureForm::List { separator: ' ' }, Some("v1,"), SignatureEncoding::Base64);
        assert_eq!(found(&list, "v1,Cv8= v1a,Cv8= v1,AAA= junk"), Some(2));
        assert_eq!(found(&list, &["v1,Cv8="; 10].join(" ")), Some(10));
        assert_eq!(found(&list, &["v1,Cv8="; 11].join(" ")), None);
    }

    #[test]
    fn pairs_are_found_by_name() {
        let form = SignatureForm::Pairs { name: "v1".to_owned(), separator: ',' };
        let pairs = place(form, None, SignatureEncoding::Hex { upper: true });
        assert_eq!(found(&pairs, "t=1, v1=0AFF,v0=0aff,v10=0aff,v1=0000"), Some(2));
    }

    #[test]
    fn a_place_in_a_list_is_one_item() {
        let form = SignatureForm::Position { index: 1, separator: ',' };
        let second = place(form, None, SignatureEncoding::Hex { upper: false });
        assert_eq!((found(&second, "1,0aff"), found(&second, "1")), (Some(1), Some(0)));
    }

    proptest! {
        #[test]
        fn no_header_makes_the_reader_fail(value in proptest::collection::vec(any::<u8>(), 0..64)) {
            for form in [
                SignatureForm::Single,
                SignatureForm::List { separator: ' ' },
                SignatureForm::Pairs { name: "v1".to_owned(), separator: ',' },
                SignatureForm::Position { index: 2, separator: ';' },
            ] {
                let place = place(form, Some("v1,"), SignatureEncoding::Base64Url);
                let found = candidates(&place, &value, 20).unwrap_or_default();
                prop_assert!(found.len() <= CANDIDATES && found.iter().all(|digest| digest.len() == 20));
            }
        }
    }
}
