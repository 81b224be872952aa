//! The one integration-test binary: everything over real sockets, against real parts.

fn main() {}
