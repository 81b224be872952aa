//! An HTTP proxy of the operator's, which leads where it is told to.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use trunkline::base::secret::Secret;
use trunkline::definition::plan::egress::{Egress, Exempt, Proxy};

use super::origin::{read_head, serve};

/// A proxy, and the heads that it was sent.
pub struct ForwardProxy {
    pub address: SocketAddr,
    pub asked: Arc<Mutex<Vec<String>>>,
}

impl ForwardProxy {
    /// A proxy that knows these targets (`HOST:PORT`), and answers 502 for others. With `answer` it says so to
    /// everything.
    pub async fn start(targets: &[(&str, SocketAddr)], answer: Option<&'static str>) -> Self {
        let targets: HashMap<String, SocketAddr> = targets.iter().map(|(name, to)| ((*name).to_owned(), *to)).collect();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (kept, targets) = (Arc::clone(&asked), Arc::new(targets));
        let address = serve(move |mut stream| {
            let (kept, targets) = (Arc::clone(&kept), Arc::clone(&targets));
            async move {
                let Some(head) = read_head(&mut stream).await else { return };
                let target = head.split(' ').nth(1).and_then(|target| targets.get(target)).copied();
                kept.lock().unwrap().push(head);
                let answer = match (answer, target) {
                    (Some(answer), _) => answer,
                    (None, None) => "502 Bad Gateway",
                    (None, Some(target)) => {
                        let mut there = TcpStream::connect(target).await.unwrap();
                        stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
                        drop(copy_bidirectional(&mut stream, &mut there).await);
                        return;
                    }
                };
                let length = "Content-Length: 0\r\nConnection: close\r\n\r\n";
                drop(stream.write_all(format!("HTTP/1.1 {answer}\r\n{length}").as_bytes()).await);
            }
        })
        .await;
        Self { address, asked }
    }

    /// The way out by this proxy, with a password.
    pub fn egress(&self, no_proxy: Vec<Exempt>) -> Egress {
        let authorization = Some(Arc::new(Secret::from("Basic Z2F0ZXdheTpjYW5hcnktcGFzc3dvcmQ=")));
        let proxy = Proxy { host: self.address.ip().to_string(), port: self.address.port(), authorization };
        Egress { proxy: Some(Arc::new(proxy)), no_proxy }
    }

    /// The first lines of what it was sent.
    pub fn lines(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().filter_map(|head| head.lines().next().map(str::to_owned)).collect()
    }
}
