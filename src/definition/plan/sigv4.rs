//! AWS Signature Version 4, compiled.

use crate::template::Text;

/// What calls are signed for.
#[derive(Debug)]
pub struct SigV4 {
    /// The service's name in the signature; sees `input` and `saved`.
    pub service: Text,
    /// The region; sees the same.
    pub region: Text,
}
