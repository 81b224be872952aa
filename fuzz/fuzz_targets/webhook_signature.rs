//! Any header is taken apart without a panic, into at most ten digests of the asked length.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trunkline::definition::plan::webhook::{Prefix, SignatureEncoding, SignatureForm, SignaturePlace};
use trunkline::webhook::verify::signature::{CANDIDATES, candidates};

fuzz_target!(|input: (u8, &[u8])| {
    let (choice, value) = input;
    let form = match choice & 3 {
        0 => SignatureForm::Single,
        1 => SignatureForm::List { separator: ' ' },
        2 => SignatureForm::Pairs { name: "v1".to_owned(), separator: ',' },
        _ => SignatureForm::Position { index: 1, separator: ';' },
    };
    let encoding = match choice >> 2 & 3 {
        0 => SignatureEncoding::Hex { upper: false },
        1 => SignatureEncoding::Hex { upper: true },
        2 => SignatureEncoding::Base64,
        _ => SignatureEncoding::Base64Url,
    };
    let prefix = (choice & 16 > 0).then(|| Prefix { text: "v1,".to_owned(), optional: choice & 32 > 0 });
    let place = SignaturePlace { header: http::HeaderName::from_static("x-signature"), form, prefix, encoding };
    let found = candidates(&place, value, 32).unwrap_or_default();
    assert!(found.len() <= CANDIDATES && found.iter().all(|digest| digest.len() == 32));
});
