//! Signs a call that streams, as the last change before its head is sent.

use pingora::http::RequestHeader;
use pingora::{Error, ErrorType};

use super::{Call, ProxyDoor};
use crate::outbound::sign::{Carried, Leaving};

/// The name of the error when a call cannot be signed.
pub const UNSIGNED: &str = "unsigned call";

/// Puts the signature on a call's head, where its connection signs calls. `empty` says that there is no
/// body; otherwise it is still on its way, and only ways of signing that need not see it come here.
///
/// # Errors
/// [`UNSIGNED`] when the connection does not have what signs.
pub fn put_on(request: &mut RequestHeader, call: &Call, door: &ProxyDoor, empty: bool) -> pingora::Result<()> {
    let common = &call.ready.common;
    if !common.signs() {
        return Ok(());
    }
    for name in common.own_headers() {
        request.remove_header(name);
    }
    let (path, query) = call.target.split_once('?').unwrap_or((&call.target, ""));
    let leaving = Leaving {
        method: &request.method,
        origin: &common.base.origin,
        path,
        query,
        headers: &request.headers,
        body: empty.then_some(&[]),
    };
    let added = common.sign(
        Carried::Credential(call.ready.token()),
        leaving,
        door.parts.outbound.signing_moment(&common.connection),
    );
    let added = added.map_err(|reason| Error::explain(ErrorType::Custom(UNSIGNED), reason.to_string()))?;
    for (name, value) in added {
        request.insert_header(name, value)?;
    }
    Ok(())
}
