//! A service that answers as a test says, a thread for each connection, so that an answer may take its time.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use super::http::read_head;

/// A request.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Path and query.
    pub target: String,
    pub fields: Vec<(String, String)>,
    pub body: String,
}

impl Asked {
    pub fn field(&self, name: &str) -> &str {
        self.fields.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A parameter of the form in the body.
    pub fn form(&self, name: &str) -> String {
        let mut pairs = url::form_urlencoded::parse(self.body.as_bytes());
        pairs.find(|(known, _)| known == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
    }
}

/// A definition `shop` of a service at an address that asks for no credential, with the connection `main`.
pub fn open_shop(address: SocketAddr) -> String {
    format!(
        "trunkline: 1\nid: shop\ntitle: Shop\nsummary: Sells.\nauth: {{ none: {{}} }}\n\
         api: {{ base_url: \"http://{address}\" }}\nconnections: [{{ id: main }}]\n"
    )
}

/// Starts a service. `answer` gives a status and a body in JSON, when it has taken the time it wants.
pub fn start(answer: impl Fn(&Asked) -> (u16, String) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let answer = Arc::clone(&answer);
            thread::spawn(move || converse(stream, &*answer));
        }
    });
    address
}

fn converse(stream: TcpStream, answer: &dyn Fn(&Asked) -> (u16, String)) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut stream = BufReader::new(stream);
    while !stream.fill_buf().ok()?.is_empty() {
        let (first, fields) = read_head(&mut stream).ok()?;
        let target = first.split(' ').nth(1)?.to_owned();
        let mut asked = Asked { target, fields, body: String::new() };
        let mut body = vec![0; asked.field("content-length").parse().unwrap_or(0)];
        stream.read_exact(&mut body).ok()?;
        asked.body = String::from_utf8_lossy(&body).into_owned();
        let (status, body) = answer(&asked);
        let more = if status == 429 { "retry-after: 17\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{more}\r\n",
            body.len()
        );
        stream.get_mut().write_all(format!("{head}{body}").as_bytes()).ok()?;
    }
    Some(())
}
