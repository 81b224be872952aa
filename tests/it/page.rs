//! The admin page over real sockets: who gets in, what every screen is made of, what a real browser makes of it.

mod browser;
mod endpoints;
pub mod house;
mod lists;
mod screens;
mod search;
mod sign_in;
mod standing;
