//! A running gateway as its commands see it: its doors over HTTP/1.1, on TCP (plain or TLS) or a Unix socket.
//!
//! This is the operator's own machine talking to the operator's own gateway, so it takes no redirects, no
//! proxies and no addresses from definitions. Called by the commands that need a running gateway.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, Request, StatusCode, header, request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::Common;
use super::deployment::Settings;
use crate::base::secret::Secret;
use crate::definition::plan::api::{HttpVersions, Transport};
use crate::net::trust::{self, Trust};

/// Where doors are when nobody says.
const ADMIN: &str = "http://127.0.0.1:8082";
const PROXY: &str = "http://127.0.0.1:8081";
/// How long an answer may take in all.
const DEADLINE: Duration = Duration::from_secs(30);
/// The most bytes of an answer.
const MAX_ANSWER: usize = 64 << 20;

/// Which gateway.
#[derive(Debug, Clone, Args)]
pub struct Gateway {
    /// The admin door: http(s)://HOST:PORT or unix:PATH [default: what the settings say]
    #[arg(long, env = "TRUNKLINE_ADMIN", value_name = "URL")]
    pub admin: Option<String>,
    /// The admin token, where one is set; better given in the environment
    #[arg(long, env = "TRUNKLINE_ADMIN_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub admin_token: Option<String>,
}

/// A door of a running gateway.
#[derive(Debug)]
pub struct Remote {
    address: Address,
    token: Option<Secret>,
    /// The certificate that the settings say the door shows.
    shown: Option<Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Address {
    Tcp { host: String, port: u16, tls: bool },
    Unix(PathBuf),
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Tcp { host, port, tls } => write!(f, "http{}://{host}:{port}", if *tls { "s" } else { "" }),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What a gateway answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// When it is not.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body).context("the gateway's answer is not JSON")
    }

    /// What a refusal says, in one line.
    pub fn refusal(&self) -> String {
        let document: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let text = |name: &str| document.get(name).and_then(Value::as_str);
        match (text("title"), text("detail")) {
            (Some(title), Some(detail)) => format!("{title}: {detail} ({})", self.status.as_u16()),
            _ => format!("the gateway answered {}", self.status),
        }
    }

    /// The `next` address of a `Link` header (RFC 8288), where there is one.
    pub fn next(&self) -> Option<String> {
        let link = self.headers.get(header::LINK)?.to_str().ok()?;
        let (target, parameters) = link.strip_prefix('<')?.split_once('>')?;
        parameters.contains("rel=\"next\"").then(|| target.to_owned())
    }
}

impl Remote {
    /// The admin door that the arguments name, else the one that the settings name, else the default.
    ///
    /// # Errors
    /// When the settings cannot be read, or the address is not one.
    pub fn find(common: &Common, gateway: &Gateway) -> anyhow::Result<Self> {
        let settings = if gateway.admin.is_none() { Settings::read(common)? } else { None };
        let named = settings.as_ref().and_then(|settings| settings.door("admin"));
        let address = parse(gateway.admin.as_deref().or(named.as_deref()).unwrap_or(ADMIN))?;
        let token = gateway.admin_token.clone().or_else(|| settings.as_ref()?.admin_token());
        let shown = settings.and_then(|settings| settings.certificate("admin"));
        Ok(Self { address, token: token.map(Secret::new), shown })
    }

    /// The proxy door, found alike; `key` is a caller's.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn proxy(common: &Common, url: Option<&str>, key: Option<String>) -> anyhow::Result<Self> {
        let settings = if url.is_none() { Settings::read(common)? } else { None };
        let named = settings.as_ref().and_then(|settings| settings.door("proxy"));
        let address = parse(url.or(named.as_deref()).unwrap_or(PROXY))?;
        let shown = settings.and_then(|settings| settings.certificate("proxy"));
        Ok(Self { address, token: key.map(Secret::new), shown })
    }

    /// GETs a path.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.send(Request::get(path), Bytes::new()).await
    }

    /// POSTs nothing to a path, for what a path alone says.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn post(&self, path: &str) -> anyhow::Result<Answer> {
        self.send(Request::post(path), Bytes::new()).await
    }

    /// Sends a request and reads its answer. `Host` and the admin token are added here.
    ///
    /// # Errors
    /// When there is no answer; an error status is an answer.
    pub async fn send(&self, request: request::Builder, body: Bytes) -> anyhow::Result<Answer> {
        let mut request = request.header(header::HOST, self.host());
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        let request = request.body(Full::new(body))?;
        let timed = tokio::time::timeout(DEADLINE, self.exchange(request)).await;
        let answered = timed.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer within 30 s"));
        answered.map_err(anyhow::Error::from).flatten().with_context(|| format!("no gateway answered at {self}"))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        match &self.address {
            Address::Tcp { host, port, tls } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                if !tls {
                    return over(stream, request).await;
                }
                let name = ServerName::try_from(host.clone())?;
                over(TlsConnector::from(Arc::new(self.trust()?)).connect(name, stream).await?, request).await
            }
            Address::Unix(path) => over(UnixStream::connect(path).await?, request).await,
        }
    }

    /// A door found in the settings must show the certificate that is in them, whatever names it has: it is
    /// asked by an address. One that was named must be trusted by this machine.
    fn trust(&self) -> anyhow::Result<ClientConfig> {
        Ok(match &self.shown {
            Some(certificate) => trust::only(certificate.clone())?,
            None => Trust::of_system().client_config(&Transport { http: HttpVersions::One, ..Transport::default() })?,
        })
    }

    fn host(&self) -> String {
        match &self.address {
            Address::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Address::Tcp { host, port, .. } => format!("{host}:{port}"),
            Address::Unix(_) => "localhost".to_owned(),
        }
    }
}

async fn over<S>(stream: S, request: Request<Full<Bytes>>) -> anyhow::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let (parts, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(anyhow::Error::from_boxed)?.to_bytes();
    driver.abort();
    Ok(Answer { status: parts.status, headers: parts.headers, body })
}

fn parse(text: &str) -> anyhow::Result<Address> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(Address::Unix(PathBuf::from(path)));
    }
    let expected = || format!("`{text}` is not an address of a gateway: expected http(s)://HOST:PORT or unix:PATH");
    let url = url::Url::parse(text).with_context(expected)?;
    let host = match url.host() {
        Some(url::Host::Ipv6(address)) => address.to_string(),
        Some(host) => host.to_string(),
        None => String::new(),
    };
    anyhow::ensure!(matches!(url.scheme(), "http" | "https") && !host.is_empty(), expected());
    Ok(Address::Tcp { host, port: url.port_or_known_default().unwrap_or(80), tls: url.scheme() == "https" })
}

/// Runs one conversation on a small runtime of its own.
///
/// # Errors
/// When the runtime cannot be made.
pub fn block_on<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(work))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let tcp = |host: &str, port| Address::Tcp { host: host.to_owned(), port, tls: false };
        assert_eq!(parse("http://127.0.0.1:8082").expect("an address"), tcp("127.0.0.1", 8082));
        assert_eq!(parse("http://[::1]:8082").expect("an address"), tcp("::1", 8082));
        assert_eq!(parse("unix:/run/admin").expect("an address"), Address::Unix("/run/admin".into()));
        let secure = Address::Tcp { host: "a.example".to_owned(), port: 443, tls: true };
        assert_eq!(parse("https://a.example").expect("an address"), secure);
        for text in ["", "127.0.0.1:8082", "ftp://a"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_next_page_is_read_from_link() {
        let mut headers = HeaderMap::new();
        headers.insert(header::LINK, "</api/events?after=evt_1>; rel=\"next\"".parse().expect("a value"));
        let answer = Answer { status: StatusCode::OK, headers, body: Bytes::new() };
        assert_eq!(answer.next().as_deref(), Some("/api/events?after=evt_1"));
    }
}
