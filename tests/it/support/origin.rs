//! Services for tests, over real sockets: one that records strictly, and whatever a closure does.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request as an origin got it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub head: String,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn first_line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// Every value of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect()
    }
}

/// A service that answers 200 to whatever it can read in one way only, and keeps what it got.
#[derive(Debug, Clone)]
pub struct Recorder {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Vec<Seen>>>,
}

impl Recorder {
    pub async fn start() -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        let address = serve(move |mut stream| {
            let kept = Arc::clone(&kept);
            async move {
                while let Some(request) = read_request(&mut stream).await {
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.body.len());
                    let body = request.body.clone();
                    kept.lock().unwrap().push(request);
                    if stream.write_all(answer.as_bytes()).await.is_err() || stream.write_all(&body).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await;
        Self { address, seen }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests so far.
    pub fn all(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The last request.
    pub fn last(&self) -> Seen {
        self.all().pop().expect("no request came")
    }
}

/// Runs `each` for every connection to a fresh address.
pub async fn serve<F, R>(each: F) -> SocketAddr
where
    F: Fn(TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            tokio::spawn(each(stream));
        }
    });
    address
}

/// A service that answers `ok` to everything, and how many connections were opened to it.
pub async fn counting() -> (SocketAddr, Arc<AtomicUsize>) {
    let opened = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&opened);
    let address = serve(move |mut stream| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            while read_head(&mut stream).await.is_some() {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            }
        }
    })
    .await;
    (address, opened)
}

/// A service that reads one head and then answers these bytes and closes.
pub async fn answering(bytes: &'static [u8]) -> SocketAddr {
    serve(move |mut stream| async move {
        if read_head(&mut stream).await.is_some() {
            drop(stream.write_all(bytes).await);
            drop(stream.shutdown().await);
        }
    })
    .await
}

/// A head with its last empty line; `None` when the connection ends before.
pub async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
            return None;
        }
        bytes.push(byte[0]);
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// A request whose framing has one reading; panics at any other, which fails the test that looks.
pub async fn read_request(stream: &mut TcpStream) -> Option<Seen> {
    let head = read_head(stream).await?;
    let mut request = Seen { head, body: Vec::new() };
    let lengths: Vec<String> = request.all("content-length").iter().map(ToString::to_string).collect();
    let codings: Vec<String> = request.all("transfer-encoding").iter().map(ToString::to_string).collect();
    assert!(lengths.len() + codings.len() <= 1, "ambiguous framing reached the origin: {}", request.head);
    assert_eq!(request.all("host").len(), 1, "{}", request.head);
    if let Some(length) = lengths.first() {
        request.body = vec![0; length.parse().expect("a plain length")];
        stream.read_exact(&mut request.body).await.ok()?;
    }
    if let Some(coding) = codings.first() {
        assert_eq!(coding, "chunked");
        request.body = read_chunks(stream).await?;
    }
    Some(request)
}

async fn read_chunks(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\r\n") {
            stream.read_exact(&mut byte).await.ok()?;
            line.push(byte[0]);
        }
        let size = usize::from_str_radix(std::str::from_utf8(&line).ok()?.trim(), 16).expect("a plain chunk size");
        let mut chunk = vec![0; size + 2];
        stream.read_exact(&mut chunk).await.ok()?;
        body.extend_from_slice(&chunk[..size]);
        if size == 0 {
            return Some(body);
        }
    }
}

/// Waits until the other side closes.
pub async fn until_closed(stream: &mut TcpStream) {
    let mut bytes = [0; 1024];
    while stream.read(&mut bytes).await.unwrap_or(0) > 0 {}
}
