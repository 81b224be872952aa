//! What the tests of the doors are made of: doors over hand-made definitions, origins with manners and
//! without, and a client that sends exactly the bytes it is given.

pub mod doors;
pub mod origin;
pub mod raw;
pub mod tls;
