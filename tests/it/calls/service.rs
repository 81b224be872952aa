//! A service of few words: raw answers over real sockets, and every request kept as it came.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// What the service does with a request.
#[derive(Clone)]
pub enum Answer {
    /// Sends these bytes and closes.
    Bytes(Vec<u8>),
    /// Sends these bytes and nothing more.
    Hang(Vec<u8>),
    /// Sends the first, then the second again and again until nobody listens.
    Endless(Vec<u8>, Vec<u8>),
}

impl Answer {
    /// A whole answer with a length, which says that it is the last: every connection is closed after one.
    pub fn of(status: u16, headers: &[(&str, &str)], body: &str) -> Self {
        let lines: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length = body.len();
        let head =
            format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n{}", lines.concat());
        Self::Bytes(format!("{head}\r\n{body}").into_bytes())
    }

    pub fn json(status: u16, body: &str) -> Self {
        Self::of(status, &[("content-type", "application/json")], body)
    }
}

type Handler = dyn Fn(&str) -> Answer + Send + Sync;

/// A running service; it stops when it is dropped.
pub struct Service {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    connected: Arc<Mutex<usize>>,
    task: tokio::task::JoinHandle<()>,
}

impl Service {
    /// Answers each request, given as text, by `handler`.
    pub async fn start(handler: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_with(None, handler).await
    }

    /// The same over TLS.
    pub async fn start_tls(identity: &Identity, handler: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_with(Some(identity.acceptor()), handler).await
    }

    async fn start_with(tls: Option<TlsAcceptor>, handler: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, connected) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<Mutex<usize>>::default());
        let handler: Arc<Handler> = Arc::new(handler);
        let (kept, count) = (Arc::clone(&seen), Arc::clone(&connected));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *count.lock().unwrap() += 1;
                tokio::spawn(serve(stream, tls.clone(), Arc::clone(&kept), Arc::clone(&handler)));
            }
        });
        Self { address, seen, connected, task }
    }

    /// The requests so far, as they came.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        *self.connected.lock().unwrap()
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, tls: Option<TlsAcceptor>, seen: Arc<Mutex<Vec<String>>>, handler: Arc<Handler>) {
    match tls {
        None => converse(stream, seen, handler).await,
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                converse(stream, seen, handler).await;
            }
        }
    }
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    seen: Arc<Mutex<Vec<String>>>,
    handler: Arc<Handler>,
) {
    let Some(request) = read_request(&mut stream).await else { return };
    seen.lock().unwrap().push(request.clone());
    let written = match handler(&request) {
        Answer::Bytes(bytes) => stream.write_all(&bytes).await,
        Answer::Hang(bytes) => {
            let written = stream.write_all(&bytes).await;
            let mut rest = [0; 1];
            while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
            written
        }
        Answer::Endless(first, again) => {
            let mut written = stream.write_all(&first).await;
            while written.is_ok() {
                written = stream.write_all(&again).await;
            }
            written
        }
    };
    if written.is_ok() {
        drop(stream.shutdown().await);
    }
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = |line: &str| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok();
        if body.len() >= head.lines().find_map(length).unwrap_or(0) {
            return Some(text);
        }
    }
}

/// A certificate authority of its own, and a certificate by it for some names.
pub struct Identity {
    /// The authority's certificate.
    pub ca: Vec<u8>,
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

impl Identity {
    pub fn of(names: &[&str]) -> Self {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_certificate = ca.self_signed(&ca_key).unwrap();
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let leaf = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        Self { ca: ca_certificate.der().to_vec(), chain: vec![leaf.der().clone()], key: key.serialize_der() }
    }

    fn acceptor(&self) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), PrivateKeyDer::try_from(self.key.clone()).unwrap())
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}
