//! Opens a door: a TCP address (port 0 gives one that is free) or a Unix socket.

use std::fmt;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket as RawSocket, TcpKeepalive, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::definition::plan::gateway::Listen;
use crate::proxy::socket::Socket;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;
/// After how long without a sign the peer is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_mins(1);

/// A door cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {at}: {reason}")]
pub struct CannotListen {
    at: String,
    reason: io::Error,
}

/// Where a door can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// By TCP; the port is the real one.
    Tcp(SocketAddr),
    /// By TLS over TCP.
    Tls(SocketAddr),
    /// By a Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// The TCP address, where it is one.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) | Self::Tls(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// The address of a door that does or does not speak TLS.
    #[must_use]
    pub fn secured(self, tls: bool) -> Self {
        match self {
            Self::Tcp(address) | Self::Tls(address) if tls => Self::Tls(address),
            other => other,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Tls(address) => write!(f, "https://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An open door at which nobody answers yet.
#[derive(Debug)]
pub struct Listener {
    kind: Kind,
    address: Address,
    /// Held as long as a Unix socket is ours.
    _lock: Option<File>,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Opens a door. Must be called within the runtime.
    ///
    /// # Errors
    /// When the address is in use or not ours.
    pub fn bind(listen: &Listen) -> Result<Self, CannotListen> {
        match listen {
            Listen::Tcp(address) => {
                bind_tcp(*address).map_err(|reason| CannotListen { at: address.to_string(), reason })
            }
            Listen::Unix(path, mode) => {
                bind_unix(path, *mode).map_err(|reason| CannotListen { at: path.display().to_string(), reason })
            }
        }
    }

    /// Where the door can be reached.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The next connection.
    ///
    /// # Errors
    /// As accept(2).
    pub async fn accept(&self) -> io::Result<Socket> {
        match &self.kind {
            Kind::Tcp(listener) => {
                let (stream, _peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
                Ok(Socket::Tcp(stream))
            }
            Kind::Unix(listener) => Ok(Socket::Unix(listener.accept().await?.0)),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Address::Unix(path) = &self.address {
            // Best effort: a path that stays is removed by the next start.
            drop(std::fs::remove_file(path));
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<Listener> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the last minute's connections to be forgotten.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from_std(socket.into())?;
    let address = Address::Tcp(listener.local_addr()?);
    Ok(Listener { kind: Kind::Tcp(listener), address, _lock: None })
}

/// Opens a Unix socket. A socket that nobody answers on is a leftover and is replaced; anything else at the
/// path is left alone. Two programs that start at once would each take the other's socket for a leftover, so
/// the path has a lock beside it.
fn bind_unix(path: &Path, mode: u32) -> io::Result<Listener> {
    let lock = lock(path)?;
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
        && std::os::unix::net::UnixStream::connect(path).is_err()
    {
        std::fs::remove_file(path)?;
    }
    let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // Until its mode is set nobody else may connect.
    rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(0o600))?;
    socket.bind(&SockAddr::unix(path)?)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    let listener = UnixListener::from_std(std::os::unix::net::UnixListener::from(OwnedFd::from(socket)))?;
    Ok(Listener { kind: Kind::Unix(listener), address: Address::Unix(path.to_owned()), _lock: Some(lock) })
}

fn lock(path: &Path) -> io::Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(name)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| io::Error::new(io::ErrorKind::AddrInUse, "another process has this socket"))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_unix_socket_has_its_mode_and_one_owner() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("door.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a leftover"));
        let listen = Listen::Unix(path.clone(), 0o640);
        let first = Listener::bind(&listen).expect("a leftover is replaced");
        let mode =
            |path: &Path| std::fs::metadata(path).map(|it| it.permissions().mode() & 0o777).expect("it is there");
        assert_eq!(mode(&path), 0o640);
        let second = Listener::bind(&listen).expect_err("taken");
        assert!(second.to_string().contains("another process"), "{second}");
        drop(first);
        assert!(!path.exists());
        std::fs::write(&path, "precious").expect("a file");
        assert!(Listener::bind(&listen).is_err(), "a file is not a leftover");
        assert_eq!(std::fs::read(&path).expect("still there"), b"precious");
    }
}
