//! The disk's own limit for ingest: many producers, one committer that groups their records into one
//! write and one `fdatasync`, nothing else. What `benches/ingest.py` divides by.
//!
//! `bare_append FILE BYTES PRODUCERS SECONDS` prints records per second and CPU microseconds per
//! record.

use std::fs::File;
use std::io::{Error, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

type Waiter = mpsc::SyncSender<()>;

fn main() -> Result<(), Error> {
    let usage = || Error::new(ErrorKind::InvalidInput, "usage: bare_append FILE BYTES PRODUCERS SECONDS");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, bytes, producers, seconds] = arguments.as_slice() else { return Err(usage()) };
    let number = |text: &String| text.parse::<u64>().map_err(|_| usage());
    let (bytes, producers, seconds) = (number(bytes)?, number(producers)?, number(seconds)?);
    let record = vec![b'x'; usize::try_from(bytes).map_err(|_| usage())?];
    let stop = Arc::new(AtomicBool::new(false));
    let queue: Arc<Mutex<Vec<Waiter>>> = Arc::default();
    let threads: Vec<_> = (0..producers).map(|_| produce(Arc::clone(&queue), Arc::clone(&stop))).collect();
    let timer = Arc::clone(&stop);
    thread::spawn(move || {
        thread::sleep(Duration::from_secs(seconds));
        timer.store(true, Ordering::SeqCst);
    });
    let committed = commit(&mut File::create(path)?, &record, &queue, &stop)?;
    drop(threads);
    report(committed, seconds);
    Ok(())
}

/// Puts one record after the other, each only when the one before is durable.
fn produce(queue: Arc<Mutex<Vec<Waiter>>>, stop: Arc<AtomicBool>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let (done, durable) = mpsc::sync_channel(1);
        while !stop.load(Ordering::SeqCst) {
            match queue.lock() {
                Ok(mut waiting) => waiting.push(done.clone()),
                Err(_) => return,
            }
            if durable.recv_timeout(Duration::from_secs(1)).is_err() {
                return;
            }
        }
    })
}

fn commit(file: &mut File, record: &[u8], queue: &Mutex<Vec<Waiter>>, stop: &AtomicBool) -> Result<u64, Error> {
    let (mut buffer, mut committed) = (Vec::new(), 0_u64);
    while !stop.load(Ordering::SeqCst) {
        let waiting = match queue.lock() {
            Ok(mut waiting) => std::mem::take(&mut *waiting),
            Err(_) => return Err(Error::other("a producer broke the queue")),
        };
        if waiting.is_empty() {
            thread::yield_now();
            continue;
        }
        buffer.clear();
        for _ in &waiting {
            buffer.extend_from_slice(record);
        }
        file.write_all(&buffer)?;
        file.sync_data()?;
        committed += waiting.len() as u64;
        // A producer that has stopped waits for nothing.
        for waiter in waiting {
            let _stopped = waiter.try_send(()).is_err();
        }
    }
    Ok(committed)
}

#[expect(clippy::print_stdout, reason = "the figure is what the program is for")]
fn report(committed: u64, seconds: u64) {
    println!("{{\"records\": {committed}, \"per_second\": {}}}", committed / seconds.max(1));
}
