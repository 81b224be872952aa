//! Texts as they are read when their escapes are taken for characters: those of JSON, URLs, HTML and XML, in one layer or
//! several, each byte with the place in the text that it stands for. Called by [`super::redact`], which must find a secret
//! however a service repeats it, and by [`super::scrub`], which must read a name however it is written.

/// How many layers of escapes are looked through: a JSON text in a field of JSON in a form has three.
const LAYERS: usize = 6;
/// The most bytes of a character reference, its `&` and `;` among them.
const LONGEST_REFERENCE: usize = 12;

/// A text in which some layers of escapes are read.
pub struct Reading {
    /// What it says.
    pub bytes: Vec<u8>,
    /// For each byte where what stands for it begins in the text, and behind the last where that ends.
    places: Vec<u32>,
    /// Which bytes, each alone, were an escape in the layer before.
    new: Vec<u32>,
    /// Whether this is the text as it stands.
    is_plain: bool,
}

/// What an escape stands for.
enum Escape {
    /// These bytes; the escape has so many.
    Of([u8; 4], usize, usize),
    /// It has no end: the text was cut.
    Cut,
}

impl Reading {
    /// The text as it stands.
    fn plain(text: &str) -> Self {
        let end = u32::try_from(text.len()).unwrap_or(u32::MAX);
        Self { bytes: text.as_bytes().to_vec(), places: (0..=end).collect(), new: Vec::new(), is_plain: true }
    }

    /// Where in the text a stretch of the bytes stands.
    pub fn range(&self, from: usize, to: usize) -> std::ops::Range<usize> {
        let place = |at: usize| self.places.get(at).map_or(0, |place| *place as usize);
        place(from)..place(to)
    }

    /// Which byte stands for what is at a place in the text, alone or with what is beside it.
    pub fn at(&self, place: usize) -> usize {
        self.places.partition_point(|begin| *begin as usize <= place).saturating_sub(1)
    }

    /// Whether this is the text as it stands.
    pub fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// Whether a byte means what it does since this layer, and was part of an escape in those before.
    pub fn is_new(&self, at: usize) -> bool {
        self.is_plain || u32::try_from(at).is_ok_and(|at| self.new.binary_search(&at).is_ok())
    }

    /// The same with one layer of escapes read, of whatever kind each is; `None` where there are none. One that the text
    /// ends within is left out where the text `may_be_cut`.
    fn read(&self, may_be_cut: bool) -> Option<Self> {
        let mut at = memchr::memchr3(b'\\', b'%', b'&', &self.bytes)?;
        let room = self.bytes.len();
        let (bytes, places) = (Vec::with_capacity(room), Vec::with_capacity(room + 1));
        let mut read = Self { bytes, places, new: Vec::new(), is_plain: false };
        let (mut copied, mut any) = (0, false);
        loop {
            let rest = self.bytes.get(at..).unwrap_or_default();
            match escape(rest) {
                Some(Escape::Of(said, count, taken)) => {
                    read.copy(self, copied..at);
                    let place = self.places.get(at).copied().unwrap_or_default();
                    if count == 1 {
                        read.new.extend(u32::try_from(read.bytes.len()));
                    }
                    read.bytes.extend(said.iter().take(count));
                    read.places.extend(std::iter::repeat_n(place, count));
                    (at, any) = (at + taken, true);
                    copied = at;
                }
                Some(Escape::Cut) if may_be_cut => {
                    any = true;
                    break;
                }
                Some(Escape::Cut) | None => at += 1,
            }
            let rest = self.bytes.get(at..).unwrap_or_default();
            let Some(next) = memchr::memchr3(b'\\', b'%', b'&', rest) else {
                at = self.bytes.len();
                break;
            };
            at += next;
        }
        read.copy(self, copied..at);
        read.places.push(self.places.get(at).copied().unwrap_or_default());
        any.then_some(read)
    }

    fn copy(&mut self, from: &Self, range: std::ops::Range<usize>) {
        self.bytes.extend_from_slice(from.bytes.get(range.clone()).unwrap_or_default());
        self.places.extend_from_slice(from.places.get(range).unwrap_or_default());
    }

    /// The same without line breaks and the blanks behind them; `None` where there are none.
    pub fn unbroken(&self) -> Option<Self> {
        memchr::memchr2(b'\n', b'\r', &self.bytes)?;
        let mut is_broken = false;
        let kept = self.bytes.iter().zip(&self.places).filter(|(byte, _)| {
            is_broken = matches!(byte, b'\n' | b'\r') || is_broken && matches!(byte, b' ' | b'\t');
            !is_broken
        });
        let (bytes, mut places): (Vec<u8>, Vec<u32>) = kept.map(|(byte, place)| (*byte, *place)).unzip();
        places.extend(self.places.last());
        Some(Self { bytes, places, new: Vec::new(), is_plain: false })
    }
}

/// Shows `see` the text as it stands, and then with one layer of escapes read after the other, up to six. Where the text
/// `may_be_cut`, an escape that it ends within is left out.
pub fn readings(text: &str, may_be_cut: bool, mut see: impl FnMut(&Reading)) {
    let mut now = Reading::plain(text);
    see(&now);
    for _ in 0..LAYERS {
        let Some(next) = now.read(may_be_cut) else { return };
        see(&next);
        now = next;
    }
}

/// What is left when all layers of a text's escapes are read.
pub fn innermost(text: &str) -> Vec<u8> {
    let mut last = Vec::new();
    readings(text, false, |reading| last.clone_from(&reading.bytes));
    last
}

/// Whether a text begins with an escape, which stands for something else when it is read.
pub fn begins(text: &[u8]) -> bool {
    matches!(escape(text), Some(Escape::Of(..)))
}

/// The escape that `rest` begins with.
fn escape(rest: &[u8]) -> Option<Escape> {
    match rest.first()? {
        b'\\' => backslash(rest),
        b'%' => percent(rest),
        _ => reference(rest),
    }
}

fn one(byte: u8, taken: usize) -> Escape {
    Escape::Of([byte, 0, 0, 0], 1, taken)
}

fn character(code: u32, taken: usize) -> Option<Escape> {
    let mut bytes = [0; 4];
    let count = char::from_u32(code)?.encode_utf8(&mut bytes).len();
    Some(Escape::Of(bytes, count, taken))
}

fn backslash(rest: &[u8]) -> Option<Escape> {
    let short = match rest.get(1) {
        None => return Some(Escape::Cut),
        Some(b'u') if rest.get(2) == Some(&b'{') => return braced(rest),
        Some(b'u') => return unicode(rest),
        Some(b'x') => return byte(rest),
        Some(sign @ (b'"' | b'\\' | b'/' | b'\'')) => *sign,
        Some(b'n') => b'\n',
        Some(b'r') => b'\r',
        Some(b't') => b'\t',
        Some(b'b') => 8,
        Some(b'f') => 12,
        Some(_) => return None,
    };
    Some(one(short, 2))
}

/// `\xXX` of JavaScript and others.
fn byte(rest: &[u8]) -> Option<Escape> {
    match hexadecimal(rest.get(2..)?, 2) {
        Some(byte) => character(byte, 4),
        None if rest.len() < 4 && rest.iter().skip(2).all(u8::is_ascii_hexdigit) => Some(Escape::Cut),
        None => None,
    }
}

/// `\u{X…}` of JavaScript and others, of one to six digits.
fn braced(rest: &[u8]) -> Option<Escape> {
    let digits = rest.iter().skip(3).take(7).take_while(|byte| byte.is_ascii_hexdigit()).count();
    match rest.get(3 + digits) {
        Some(b'}') => character(number(rest.get(3..3 + digits)?, 16)?, digits + 4),
        None if digits < 7 => Some(Escape::Cut),
        _ => None,
    }
}

/// `\uXXXX`, two of them for what is beyond 16 bits.
fn unicode(rest: &[u8]) -> Option<Escape> {
    let unit = |at: usize| hexadecimal(rest.get(at..)?, 4);
    let first = match unit(2) {
        Some(unit) => unit,
        None if rest.len() < 6 && rest.iter().skip(2).all(u8::is_ascii_hexdigit) => return Some(Escape::Cut),
        None => return None,
    };
    if !(0xd800..0xdc00).contains(&first) {
        return character(first, 6);
    }
    match rest.get(6..8) {
        Some(b"\\u") => {}
        None if rest.get(6).is_none_or(|byte| *byte == b'\\') => return Some(Escape::Cut),
        _ => return None,
    }
    match unit(8) {
        Some(low @ 0xdc00..0xe000) => character(0x1_0000 + ((first - 0xd800) << 10) + (low - 0xdc00), 12),
        None if rest.len() < 12 && rest.iter().skip(8).all(u8::is_ascii_hexdigit) => Some(Escape::Cut),
        _ => None,
    }
}

fn percent(rest: &[u8]) -> Option<Escape> {
    // `%uXXXX` of JavaScript's `escape`.
    if rest.get(1) == Some(&b'u') {
        return match hexadecimal(rest.get(2..)?, 4) {
            Some(unit) => character(unit, 6),
            None if rest.len() < 6 && rest.iter().skip(2).all(u8::is_ascii_hexdigit) => Some(Escape::Cut),
            None => None,
        };
    }
    match hexadecimal(rest.get(1..)?, 2) {
        Some(byte) => Some(one(u8::try_from(byte).ok()?, 3)),
        None if rest.len() < 3 && rest.iter().skip(1).all(u8::is_ascii_hexdigit) => Some(Escape::Cut),
        None => None,
    }
}

fn reference(rest: &[u8]) -> Option<Escape> {
    let near = rest.get(..rest.len().min(LONGEST_REFERENCE)).unwrap_or_default();
    let Some(end) = near.iter().position(|byte| *byte == b';') else {
        let is_begun = near.iter().skip(1).all(|byte| byte.is_ascii_alphanumeric() || *byte == b'#');
        return (near.len() == rest.len() && rest.len() < LONGEST_REFERENCE && is_begun).then_some(Escape::Cut);
    };
    let name = near.get(1..end)?;
    let sign = match name {
        [b'#', b'x' | b'X', digits @ ..] => return character(number(digits, 16)?, end + 1),
        [b'#', digits @ ..] => return character(number(digits, 10)?, end + 1),
        name => NAMES.iter().find(|(known, _)| known.as_bytes() == name)?.1,
    };
    Some(one(sign, end + 1))
}

/// The names that HTML has for signs of ASCII.
const NAMES: [(&str, u8); 38] = [
    ("amp", b'&'),
    ("AMP", b'&'),
    ("lt", b'<'),
    ("LT", b'<'),
    ("gt", b'>'),
    ("GT", b'>'),
    ("quot", b'"'),
    ("QUOT", b'"'),
    ("apos", b'\''),
    ("Tab", b'\t'),
    ("NewLine", b'\n'),
    ("excl", b'!'),
    ("num", b'#'),
    ("dollar", b'$'),
    ("percnt", b'%'),
    ("lpar", b'('),
    ("rpar", b')'),
    ("ast", b'*'),
    ("midast", b'*'),
    ("plus", b'+'),
    ("comma", b','),
    ("period", b'.'),
    ("sol", b'/'),
    ("colon", b':'),
    ("semi", b';'),
    ("equals", b'='),
    ("quest", b'?'),
    ("commat", b'@'),
    ("lsqb", b'['),
    ("lbrack", b'['),
    ("bsol", b'\\'),
    ("rsqb", b']'),
    ("rbrack", b']'),
    ("Hat", b'^'),
    ("lowbar", b'_'),
    ("grave", b'`'),
    ("lcub", b'{'),
    ("rcub", b'}'),
];

fn number(digits: &[u8], radix: u32) -> Option<u32> {
    let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u32::from_str_radix(text, radix).ok()
}

/// A number of exactly so many hexadecimal digits.
fn hexadecimal(text: &[u8], digits: usize) -> Option<u32> {
    number(text.get(..digits)?, 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        readings(text, true, |reading| found.push(String::from_utf8_lossy(&reading.bytes).into_owned()));
        found
    }

    #[test]
    fn a_character_is_known_in_each_of_its_forms() {
        for written in ["/", "\\/", "\\\\\\/", "%2f", "%2F", "%252F", "\\u002f", "&#47;", "&#x2F;", "&amp;#47;", "%5C/"]
        {
            assert!(all(&format!("{written}?")).contains(&"/?".to_owned()), "{written}");
        }
        for written in ["\\x2f", "\\u{2f}", "%u002F", "&sol;", "&amp;sol;", "\\\\x2F"] {
            assert!(all(&format!("{written}?")).contains(&"/?".to_owned()), "{written}");
        }
        for other in ["a", "%2G", "&#48;", "&unknown;", "\\x", "\\u{}", "%u2f"] {
            assert!(!all(&format!("{other}?")).contains(&"/?".to_owned()), "{other}");
        }
        for written in ["\\ud83d\\ude00!", "%F0%9F%98%80!", "&#128512;!", "\\\\ud83d\\\\ude00!"] {
            assert!(all(written).contains(&"\u{1f600}!".to_owned()), "{written}");
        }
    }

    #[test]
    fn an_escape_that_is_cut_is_left_out() {
        for cut in [
            "a\\x",
            "a\\x2",
            "a\\u{",
            "a\\u{2f",
            "a%u",
            "a%u00",
            "a&lowb",
            "a%",
            "a%2",
            "a%252",
            "a\\",
            "a\\u00",
            "a\\ud83d",
            "a\\ud83d\\u",
            "a\\ud83d\\ude",
            "a&",
            "a&#4",
        ] {
            assert!(all(cut).contains(&"a".to_owned()), "{cut}: {:?}", all(cut));
        }
        assert_eq!(innermost("a%252"), b"a%2", "what is whole ends as it ends");
    }

    #[test]
    fn each_byte_knows_its_place() {
        let text = "x%C3%A9\\u0041&amp;b";
        let mut ranges = Vec::new();
        readings(text, false, |reading| {
            if let Some(at) = reading.bytes.windows(2).position(|two| two == [0xc3, 0xa9]) {
                ranges.push(reading.range(at, at + 2));
            }
        });
        assert!(!ranges.is_empty() && ranges.iter().all(|range| *range == (1..7)), "{ranges:?}");
        let mut broken = Vec::new();
        readings("ab\r\ncd", false, |reading| broken.extend(reading.unbroken().map(|read| read.range(1, 3))));
        assert_eq!(broken.first(), Some(&(1..5)));
        let mut folded = Vec::new();
        readings("ab\r\n  cd", false, |reading| folded.extend(reading.unbroken().map(|read| read.bytes)));
        assert_eq!(folded, [b"abcd"]);
    }

    #[test]
    fn what_is_nothing_but_escapes_has_few_readings() {
        for sign in ["\\", "%25", "&amp;", "%5C", "\\u0025", "%2525\\\\&amp;"] {
            assert!(all(&sign.repeat(2_000)).len() <= LAYERS + 1, "{sign}");
        }
    }
}
