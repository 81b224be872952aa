//! The syntax of a chunked body (RFC 9112 section 7.1), checked strictly as its bytes come in.
//!
//! Pingora reads a size line without a size as the last chunk, and looks for the end of an extension beyond a
//! bare line feed. Another reader of the same bytes sees another body there, so such bodies are refused.
//! Called by [`super::stream`].

/// The most digits of a size, and bytes of all extensions and of the trailer of a body.
const MOST: (u32, usize, usize) = (15, 4 << 10, 8 << 10);

/// Where in a body the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Size(u32),
    Extension,
    SizeEnd,
    Data,
    DataReturn,
    DataEnd,
    Line,
    Trailer,
    TrailerEnd,
    LastEnd,
    Done,
}

/// The check of one body.
#[derive(Debug)]
pub struct ChunkCheck {
    at: At,
    left: u64,
    extensions: usize,
    trailer: usize,
}

impl Default for ChunkCheck {
    fn default() -> Self {
        Self { at: At::Size(0), left: 0, extensions: 0, trailer: 0 }
    }
}

impl ChunkCheck {
    /// Reads what came. Answers whether the body is well-formed so far; what follows its end is not looked at.
    pub fn read(&mut self, bytes: &[u8]) -> bool {
        self.end_in(bytes).is_some()
    }

    /// Reads what came, and answers how much of it is the body's; `None` when that is not well-formed.
    pub fn end_in(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut left = bytes;
        while let Some((byte, rest)) = left.split_first() {
            match self.at {
                At::Done => break,
                At::Data => {
                    let passed = usize::try_from(self.left).unwrap_or(usize::MAX).min(left.len());
                    self.left -= passed as u64;
                    left = left.get(passed..).unwrap_or_default();
                    if self.left == 0 {
                        self.at = At::DataReturn;
                    }
                    continue;
                }
                _ => {}
            }
            (self.at, left) = (self.step(*byte)?, rest);
        }
        Some(bytes.len() - left.len())
    }

    /// Whether the body has come to its end.
    pub fn is_done(&self) -> bool {
        self.at == At::Done
    }

    fn step(&mut self, byte: u8) -> Option<At> {
        let text = byte == b'\t' || byte >= b' ' && byte != 0x7f;
        match (self.at, byte) {
            (At::Size(digits), _) if byte.is_ascii_hexdigit() && digits < MOST.0 => {
                let digit = char::from(byte).to_digit(16)?;
                self.left = self.left << 4 | u64::from(digit);
                Some(At::Size(digits + 1))
            }
            (At::Size(1..) | At::Extension, b'\r') => Some(At::SizeEnd),
            (At::Size(1..), b';') => Some(At::Extension),
            (At::Extension, _) if text && self.extensions < MOST.1 => {
                self.extensions += 1;
                Some(At::Extension)
            }
            (At::SizeEnd, b'\n') => Some(if self.left == 0 { At::Line } else { At::Data }),
            (At::DataReturn, b'\r') => Some(At::DataEnd),
            (At::DataEnd, b'\n') => Some(At::Size(0)),
            (At::Line, b'\r') => Some(At::LastEnd),
            (At::Trailer, b'\r') => Some(At::TrailerEnd),
            (At::Line | At::Trailer, _) if text && self.trailer < MOST.2 => {
                self.trailer += 1;
                Some(At::Trailer)
            }
            (At::TrailerEnd, b'\n') => Some(At::Line),
            (At::LastEnd, b'\n') => Some(At::Done),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reads(body: &str) -> bool {
        ChunkCheck::default().read(body.as_bytes())
    }

    #[test]
    fn what_has_one_reading_passes() {
        for body in [
            "0\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "5\r\nhello\r\nA;x=\"y z\"\r\n0123456789\r\n0\r\nX: y\r\n\r\n",
            "0005\r\nhel",
            "5\r\n\r\n\r\n\n\r\n0\r\n\r\nGET / HTTP/1.1\n\n",
            "",
        ] {
            assert!(reads(body), "{body:?}");
        }
        for body in [
            "\r\nhello",
            ";x\r\n",
            "5\nhello\r\n0\r\n\r\n",
            "5;x\nhello\r\n0\r\n\r\n",
            "5;\x01\r\n",
            "5 \r\nhello\r\n0\r\n\r\n",
            "+5\r\n",
            "-5\r\n",
            "0x5\r\n",
            "5\r\nhelloX",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhello\r\r",
            "0\r\n\n",
            "0\r\nX: y\n\r\n",
            "1000000000000000\r\n",
        ] {
            assert!(!reads(body), "{body:?}");
        }
        assert!(!reads(&format!("1;{}\r\nx\r\n", "y".repeat(5_000))));
    }

    proptest! {
        #[test]
        fn pieces_change_nothing(body in "[0-9a-f;:x \r\n]{0,60}", cut in 1_usize..20) {
            let mut check = ChunkCheck::default();
            prop_assert_eq!(reads(&body), body.as_bytes().chunks(cut).all(|piece| check.read(piece)));
        }
    }
}
