//! What the tests stand on: doors over hand-made definitions, origins with manners and without, a client
//! that sends exactly the bytes it is given, a disk that fails when told to, a person's browser, servers written by
//! others.

pub mod browser;
pub mod desk;
pub mod disk;
pub mod doors;
pub mod forward_proxy;
pub mod origin;
pub mod peer;
pub mod raw;
pub mod store;
pub mod tls;
pub mod vault;
