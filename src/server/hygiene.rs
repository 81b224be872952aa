//! Which request heads are let in: those that every HTTP implementation reads in the same way.
//!
//! The head is checked byte by byte before Pingora sees it, because Pingora repairs or ignores much of
//! what is refused here (two equal `Content-Length`, `Content-Length` beside `Transfer-Encoding`, bare
//! line feeds, a missing `Host`). After a refusal the connection is closed: what follows on it is in
//! doubt. Called by [`super::head`].

use bytes::BytesMut;

use crate::definition::plan::gateway::Limits;
use crate::respond::Refusal;

/// Why a head was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The answer's kind.
    pub refusal: Refusal,
    /// What was wrong, for the sender.
    pub detail: &'static str,
}

/// A head that is not well-formed.
pub(super) const fn malformed(detail: &'static str) -> Fault {
    Fault { refusal: Refusal::MalformedRequest, detail }
}

/// What the head says of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Empty,
    /// So many bytes.
    Length(u64),
    /// Chunks (RFC 9112 section 7.1).
    Chunked,
}

/// A head that was let in.
#[derive(Debug)]
pub struct Checked {
    /// How the body is framed.
    pub framing: Framing,
    /// Bytes to cut out of the head before it goes on: the origin of an absolute-form target that names
    /// this host, and offers of protocols that are not spoken here. In order.
    cuts: Vec<std::ops::Range<usize>>,
}

impl Checked {
    /// Applies the cuts.
    pub fn apply(&self, head: &mut BytesMut) {
        if self.cuts.is_empty() {
            return;
        }
        let mut kept = BytesMut::with_capacity(head.len());
        let mut from = 0;
        for cut in &self.cuts {
            kept.extend_from_slice(&head[from..cut.start]);
            from = cut.end;
        }
        kept.extend_from_slice(&head[from..]);
        *head = kept;
    }
}

/// Which switches of protocol a door takes part in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgrades {
    /// None: an offer is ignored, as RFC 9110 section 7.8 allows.
    None,
    /// To WebSocket, by GET without a body.
    WebSocket,
}

/// Checks a head that ends with an empty line.
///
/// # Errors
/// The first [`Fault`] found.
pub fn check(head: &[u8], limits: &Limits, upgrades: Upgrades) -> Result<Checked, Fault> {
    let mut lines = Lines { head, at: 0 };
    let request = RequestLine::read(&lines.next()?, limits)?;
    let mut fields = Fields::default();
    loop {
        let line = lines.next()?;
        if line.bytes.is_empty() {
            break;
        }
        fields.count += 1;
        if fields.count > limits.header_fields {
            return Err(Fault { refusal: Refusal::HeadersTooLarge, detail: "there are too many header fields" });
        }
        fields.read(&line)?;
    }
    let host = fields.host.ok_or(malformed("there must be exactly one Host"))?;
    let mut cuts = Vec::new();
    if let Some(cut) = request.absolute(host)? {
        cuts.push(cut);
    }
    let framing = fields.framing(request.http_1_0)?;
    let websocket = upgrades == Upgrades::WebSocket && fields.websocket && framing == Framing::Empty && request.get;
    if !websocket || request.http_1_0 {
        cuts.append(&mut fields.upgrades);
    }
    Ok(Checked { framing, cuts })
}

/// Checks the head of an HTTP/2 request, of which the decoder has let only well-formed fields through: what
/// is left are the limits, and what the two versions of HTTP or two parties would read in two ways.
///
/// # Errors
/// The first [`Fault`] found.
pub fn check_parts(head: &http::request::Parts, limits: &Limits) -> Result<(), Fault> {
    // CONNECT has a host in the place of a path, and is refused as a method.
    let target = match head.uri.path_and_query() {
        Some(path) => path.as_str(),
        None => head.uri.authority().map_or("", |host| host.as_str()),
    };
    let line = format!("{} {target} HTTP/1.1", head.method);
    RequestLine::read(&Line { bytes: line.as_bytes(), start: 0, end: line.len() }, limits)?;
    if !target.starts_with('/') {
        return Err(malformed("the target does not begin with a slash"));
    }
    // As in HTTP/1.1, where `Host` is a field, and with `: ` and a line end for each.
    let size: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if head.headers.len() >= limits.header_fields || line.len() + size > limits.header_bytes {
        return Err(Fault { refusal: Refusal::HeadersTooLarge, detail: "the head is too large" });
    }
    let mut fields = Fields::default();
    for (name, value) in &head.headers {
        if matches!(*name, http::header::TRANSFER_ENCODING | http::header::UPGRADE | http::header::CONNECTION) {
            return Err(malformed("a header belongs to HTTP/1.1"));
        }
        if *name == http::header::COOKIE {
            continue;
        }
        let text = [name.as_str().as_bytes(), b":", value.as_bytes()].concat();
        Fields::check(&text)?;
        fields.note(name.as_str().as_bytes(), value.as_bytes().trim_ascii(), 0..0)?;
    }
    let authority = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    match (authority, fields.host) {
        (Some(named), Some(host)) if !named.eq_ignore_ascii_case(host) => Err(malformed("there are two hosts")),
        (Some(named), _) if !is_host(named) => Err(malformed("there must be exactly one valid Host")),
        (None, None) => Err(malformed("there must be exactly one Host")),
        _ => Ok(()),
    }
}

struct Line<'a> {
    bytes: &'a [u8],
    start: usize,
    /// Where the next line starts.
    end: usize,
}

struct Lines<'a> {
    head: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Result<Line<'a>, Fault> {
        let rest = &self.head[self.at..];
        let feed = memchr::memchr(b'\n', rest).ok_or(malformed("the head has no end"))?;
        let bytes = rest[..feed].strip_suffix(b"\r").ok_or(malformed("a line ends without a carriage return"))?;
        let start = self.at;
        self.at += feed + 1;
        Ok(Line { bytes, start, end: self.at })
    }
}

struct RequestLine<'a> {
    target: &'a [u8],
    target_start: usize,
    http_1_0: bool,
    get: bool,
}

impl<'a> RequestLine<'a> {
    fn read(line: &Line<'a>, limits: &Limits) -> Result<Self, Fault> {
        let mut parts = line.bytes.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed("the first line is not METHOD TARGET VERSION"));
        };
        if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
            return Err(malformed("the method is not a token"));
        }
        let http_1_0 = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            _ => return Err(malformed("the version is not HTTP/1.1 or HTTP/1.0")),
        };
        if target.len() > limits.uri_bytes {
            return Err(Fault { refusal: Refusal::UriTooLong, detail: "the target is too long" });
        }
        if target.is_empty() || !target.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#') {
            return Err(malformed("the target holds something other than visible ASCII, or a fragment"));
        }
        // Those that no part of a URI may hold (RFC 3986, appendix A) and that Pingora would refuse in words of its own.
        if target.iter().any(|byte| b"<>\"`".contains(byte)) {
            return Err(malformed("the target holds `<`, `>`, `\"` or a backtick: send them percent-encoded"));
        }
        // CONNECT asks for a tunnel; TRACE would show the credential that is added.
        if [&b"CONNECT"[..], b"TRACE", b"TRACK"].iter().any(|known| method.eq_ignore_ascii_case(known)) {
            return Err(Fault { refusal: Refusal::MethodNotAllowed, detail: "this method is not served" });
        }
        Ok(Self { target, target_start: line.start + method.len() + 1, http_1_0, get: method == b"GET" })
    }

    /// The origin of an absolute-form target, which must name the same host as `Host` (RFC 9112
    /// section 3.2.2) and is then cut off. Other forms must begin with a slash.
    fn absolute(&self, host: &[u8]) -> Result<Option<std::ops::Range<usize>>, Fault> {
        if self.target.first() == Some(&b'/') {
            return Ok(None);
        }
        let lower = self.target.get(..8.min(self.target.len())).unwrap_or_default().to_ascii_lowercase();
        let skip = match () {
            () if lower.starts_with(b"https://") => 8,
            () if lower.starts_with(b"http://") => 7,
            () => return Err(malformed("the target does not begin with a slash")),
        };
        let rest = &self.target[skip..];
        let length = rest.iter().position(|byte| *byte == b'/').ok_or(malformed("the target has no path"))?;
        if !rest[..length].eq_ignore_ascii_case(host) {
            return Err(malformed("the target names another host than Host"));
        }
        Ok(Some(self.target_start..self.target_start + skip + length))
    }
}

#[derive(Default)]
struct Fields<'a> {
    count: usize,
    host: Option<&'a [u8]>,
    length: Option<u64>,
    chunked: bool,
    websocket: bool,
    seen_once: u16,
    upgrades: Vec<std::ops::Range<usize>>,
}

/// Fields of which a second one would be read differently by different parties.
const SINGLE: [&[u8]; 9] = [
    b"authorization",
    b"trunkline-connection",
    b"content-type",
    b"expect",
    b"cookie",
    b"idempotency-key",
    b"trunkline-async",
    b"trunkline-deliver-to",
    b"trunkline-token",
];

impl<'a> Fields<'a> {
    fn read(&mut self, line: &Line<'a>) -> Result<(), Fault> {
        let (name, value) = Self::check(line.bytes)?;
        self.note(name, value.trim_ascii(), line.start..line.end)
    }

    /// The name and value of a line that has one reading.
    fn check(line: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
        let colon = line.iter().position(|byte| *byte == b':').ok_or(malformed("a header line has no colon"))?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            return Err(malformed("a header name is not a token"));
        }
        // Servers that hand headers on as variables cannot tell `X_Y` from `X-Y`.
        if name.contains(&b'_') {
            return Err(malformed("a header name has an underscore"));
        }
        if !value.iter().all(|byte| *byte == b'\t' || (*byte >= 0x20 && *byte != 0x7f)) {
            return Err(malformed("a header value has a control character"));
        }
        Ok((name, value))
    }

    fn note(&mut self, name: &[u8], value: &'a [u8], line: std::ops::Range<usize>) -> Result<(), Fault> {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            4 if is(b"host") => {
                if self.host.is_some() || !is_host(value) {
                    return Err(malformed("there must be exactly one valid Host"));
                }
                self.host = Some(value);
            }
            14 if is(b"content-length") => self.content_length(value)?,
            17 if is(b"transfer-encoding") => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(malformed("Transfer-Encoding must be `chunked`, once"));
                }
                self.chunked = true;
            }
            7 if is(b"upgrade") => {
                self.websocket = self.upgrades.is_empty() && value.eq_ignore_ascii_case(b"websocket");
                self.upgrades.push(line);
            }
            _ => {
                if let Some(place) = SINGLE.iter().position(|known| is(known)) {
                    let bit = 1 << place;
                    if self.seen_once & bit != 0 {
                        return Err(malformed("a header that may come once comes twice"));
                    }
                    self.seen_once |= bit;
                    if is(b"expect") && !value.eq_ignore_ascii_case(b"100-continue") {
                        return Err(malformed("Expect is not `100-continue`"));
                    }
                }
            }
        }
        Ok(())
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Fault> {
        let digits = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
        if self.length.is_some() || !digits {
            return Err(malformed("Content-Length must be a plain number, once"));
        }
        self.length = Some(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')));
        Ok(())
    }

    fn framing(&self, http_1_0: bool) -> Result<Framing, Fault> {
        match (self.length, self.chunked) {
            (Some(_), true) => Err(malformed("there is both Content-Length and Transfer-Encoding")),
            (None, true) if http_1_0 => Err(malformed("HTTP/1.0 has no Transfer-Encoding")),
            (None, true) => Ok(Framing::Chunked),
            (None | Some(0), false) => Ok(Framing::Empty),
            (Some(length), false) => Ok(Framing::Length(length)),
        }
    }
}

/// RFC 9110 section 5.6.2.
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

/// `uri-host [":" port]` without user information: a name, an IPv4 address, or an IPv6 address in
/// brackets.
fn is_host(value: &[u8]) -> bool {
    let (host, port) = if value.first() == Some(&b'[') {
        let Some(end) = value.iter().position(|byte| *byte == b']') else { return false };
        let inside = &value[1..end];
        if inside.len() < 2 || !inside.iter().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.')) {
            return false;
        }
        (&value[..=end], &value[end + 1..])
    } else {
        let end = value.iter().position(|byte| *byte == b':').unwrap_or(value.len());
        let name = &value[..end];
        if !name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')) {
            return false;
        }
        (name, &value[end..])
    };
    let port_fits = match port {
        [] => true,
        [b':', digits @ ..] => (1..=5).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    !host.is_empty() && host.len() <= 255 && port_fits
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn verdict(head: &str) -> Result<(Framing, String), Refusal> {
        let mut bytes = BytesMut::from(head.as_bytes());
        let checked = check(&bytes, &Limits::default(), Upgrades::WebSocket).map_err(|fault| fault.refusal)?;
        checked.apply(&mut bytes);
        Ok((checked.framing, String::from_utf8_lossy(&bytes).into_owned()))
    }

    #[test]
    fn usual_heads_pass_unchanged() {
        for (head, framing) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Framing::Empty),
            ("POST /x?y=1 HTTP/1.1\r\nHost: a.example:80\r\nContent-Length: 5\r\n\r\n", Framing::Length(5)),
            ("POST / HTTP/1.1\r\nhost: [::1]:80\r\nTransfer-Encoding: Chunked\r\n\r\n", Framing::Chunked),
            ("GET / HTTP/1.0\r\nHost: a\r\nX: \t y \r\n\r\n", Framing::Empty),
            ("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", Framing::Empty),
        ] {
            assert_eq!(verdict(head), Ok((framing, head.to_owned())));
        }
    }

    #[test]
    fn offers_of_other_protocols_and_our_own_origin_are_cut_out() {
        let h2c = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nX: y\r\n\r\n";
        assert_eq!(verdict(h2c).map(|it| it.1).as_deref(), Ok("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n"));
        let absolute = "GET http://A:1/x HTTP/1.1\r\nHost: a:1\r\n\r\n";
        assert_eq!(verdict(absolute).map(|it| it.1).as_deref(), Ok("GET /x HTTP/1.1\r\nHost: a:1\r\n\r\n"));
        let body = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\n";
        assert!(verdict(body).is_ok_and(|it| !it.1.contains("Upgrade")));
    }

    #[test]
    fn whatever_target_is_let_in_is_one_that_pingora_reads() {
        for byte in (b'!'..=b'~').map(char::from) {
            for target in [format!("/a{byte}b"), format!("/a?b{byte}c")] {
                let is_let_in = verdict(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).is_ok();
                let is_read = target.parse::<http::uri::PathAndQuery>().is_ok();
                assert!(!is_let_in || is_read, "{target}");
                assert_eq!(is_let_in, !"#<>\"`".contains(byte), "{target}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_what_passes_has_one_framing(head in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(check(&head, &Limits::default(), Upgrades::None).map_err(|_| ()));
        }

        #[test]
        fn a_header_line_passes_only_whole(name in "[ -~]{1,12}", value in "[\\x00-\\x7f]{0,12}") {
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{name}:{value}\r\n\r\n");
            if let Ok((_, out)) = verdict(&head) {
                prop_assert!(out.lines().count() <= 4);
                prop_assert!(!name.contains([' ', '_', ':']) || name.split(':').next().is_some_and(|n| !n.contains(' ')));
            }
        }
    }
}
