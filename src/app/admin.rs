//! The admin door's two joints: connections from `server`'s listener, reloads from `reload`.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;

use crate::admin::serve::{Entrance, Io};
use crate::admin::{self, Parts, Reload, Reloaded};
use crate::definition::render::Report;
use crate::proxy::stream::Socket;
use crate::reload::{ReloadResult, Reloader};
use crate::server::{Address, Listener};

/// The admin door, answering.
#[derive(Debug)]
pub struct AdminDoor {
    /// Where it can be reached.
    pub address: Address,
    /// Its connections.
    pub running: admin::serve::Running,
}

/// Begins to answer.
pub fn serve(listener: Listener, parts: Parts) -> AdminDoor {
    let address = listener.address().clone();
    AdminDoor { address, running: admin::serve::serve(Sockets(listener), admin::router(parts)) }
}

struct Sockets(Listener);

#[async_trait]
impl Entrance for Sockets {
    async fn accept(&self) -> io::Result<Box<dyn Io>> {
        Ok(match self.0.accept().await? {
            Socket::Tcp(stream) => Box::new(stream),
            Socket::Unix(stream) => Box::new(stream),
        })
    }
}

/// Reloads because someone asked for it.
pub struct ByHand(pub Arc<Reloader>);

#[async_trait]
impl Reload for ByHand {
    async fn reload(&self) -> Reloaded {
        match self.0.reload().await.result {
            ReloadResult::Applied => Reloaded::Applied,
            ReloadResult::Unchanged => Reloaded::Unchanged,
            ReloadResult::Rejected => Reloaded::Rejected,
        }
    }

    fn report(&self) -> Report {
        self.0.deployment().report()
    }
}
