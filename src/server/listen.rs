//! Opens a door: a TCP address (port 0 gives one that is free) or a Unix socket.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, TcpKeepalive, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::definition::plan::gateway::Listen;
use crate::proxy::stream::Socket;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;
/// After how long without a sign the peer is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_mins(1);

/// A door cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {at}: {reason}")]
pub struct CannotListen {
    at: String,
    #[source]
    reason: io::Error,
}

/// Where a door can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// By TCP; the port is the real one.
    Tcp(SocketAddr),
    /// By a Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// The TCP address, where it is one.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An open door at which nobody answers yet.
#[derive(Debug)]
pub struct Listener {
    kind: Kind,
    address: Address,
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
            Listen::Unix(path) => {
                bind_unix(path).map_err(|reason| CannotListen { at: path.display().to_string(), reason })
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
    Ok(Listener { kind: Kind::Tcp(listener), address })
}

/// Opens a Unix socket, mode 0660. A socket that nobody answers on is a leftover and is replaced;
/// anything else at the path is left alone.
fn bind_unix(path: &Path) -> io::Result<Listener> {
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
        && std::os::unix::net::UnixStream::connect(path).is_err()
    {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(Listener { kind: Kind::Unix(listener), address: Address::Unix(path.to_owned()) })
}
