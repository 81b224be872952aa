//! A destination: counts what is delivered, and fails in the ways destinations fail.

use std::collections::HashMap;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::http::read_head;

/// How a destination behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Takes everything.
    Well,
    /// Answers 503.
    Failing,
    /// Takes its time for each answer.
    Slow(Duration),
    /// Breaks the connection without an answer.
    Resetting,
}

/// A destination, until it is dropped.
pub struct Sink {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    mood: Mutex<Mood>,
    /// How often each id was taken with 2xx.
    taken: Mutex<HashMap<String, u32>>,
    stopping: AtomicBool,
}

impl Sink {
    pub fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared =
            Arc::new(Shared { mood: Mutex::new(mood), taken: Mutex::default(), stopping: AtomicBool::new(false) });
        let served = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if served.stopping.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&served);
                thread::spawn(move || shared.serve(stream));
            }
        });
        Self { address, shared }
    }

    pub fn url(&self) -> String {
        format!("http://{}/events", self.address)
    }

    pub fn set(&self, mood: Mood) {
        *self.shared.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
    }

    /// Those of these ids that were never taken.
    pub fn missing<'a>(&self, ids: impl IntoIterator<Item = &'a String>) -> Vec<&'a String> {
        let taken = self.taken();
        ids.into_iter().filter(|id| !taken.contains_key(*id)).collect()
    }

    /// Deliveries beyond the first of each id.
    pub fn repeats(&self) -> u32 {
        self.taken().values().map(|times| times - 1).sum()
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, HashMap<String, u32>> {
        self.shared.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // One more connection lets the accepting thread see it.
        drop(TcpStream::connect(self.address));
    }
}

impl Shared {
    /// Serves a connection to its end. A test that has ended leaves the thread to the process's end.
    fn serve(&self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        while let Ok((_, fields)) = read_head(&mut stream) {
            let length = fields.iter().find(|(name, _)| name == "content-length").and_then(|(_, v)| v.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            if stream.read_exact(&mut body).is_err() {
                return;
            }
            let mood = *self.mood.lock().unwrap_or_else(PoisonError::into_inner);
            let answer = match mood {
                Mood::Resetting => return,
                Mood::Failing => "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
                Mood::Slow(pause) => {
                    thread::sleep(pause);
                    self.take(&body)
                }
                Mood::Well => self.take(&body),
            };
            if stream.get_mut().write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }

    fn take(&self, body: &[u8]) -> &'static str {
        let message: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let Some(id) = message.get("id").and_then(|id| id.as_str()) else {
            return "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
        };
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner).entry(id.to_owned()).or_default() += 1;
        "HTTP/1.1 204 No Content\r\n\r\n"
    }
}
