//! Secrets as a type: no `Debug` or `Display` of the content, no `Serialize`, wiped when dropped.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

/// A secret value. The only way to its content is [`Secret::expose`], so that every use can be
/// found by searching for that one word.
pub struct Secret<T: Zeroize = String>(Zeroizing<T>);

impl<T: Zeroize> Secret<T> {
    /// Takes ownership of a secret.
    pub fn new(value: T) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The content. Never put what this returns into a log, an error, a metric or an answer.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

/// Prints that there is a secret, never the secret.
impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl From<&str> for Secret<String> {
    fn from(value: &str) -> Self {
        Self::new(value.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_hides_the_content() {
        let shown = format!("{:?} {:?}", Secret::from("hunter2"), Secret::new(vec![7_u8, 8]));
        assert_eq!(shown, "Secret(…) Secret(…)");
    }
}
