//! What the program is told outside definitions: where its master key is.
//!
//! The gateway's own settings are compiled by `definition`; this room turns the source of the key they
//! name into the key itself. Called by `app` and `cli`.

pub mod key;
