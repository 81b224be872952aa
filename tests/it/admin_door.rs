//! Connections of the admin door: how many, and with which heads.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::outside::gateway::Deployment;
use crate::outside::within;

const PATIENCE: Duration = Duration::from_secs(20);

/// A connection that comes from another address of this machine.
fn from(address: Ipv4Addr, door: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.bind(&SocketAddr::new(IpAddr::V4(address), 0).into()).unwrap();
    socket.connect(&door.into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.into()
}

/// What comes of asking for a path, with the connection closed after it.
fn ask(mut stream: &TcpStream, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    // A door that turns a connection away may have closed it by now.
    drop(stream.write_all(request.as_bytes()));
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn one_address_does_not_shut_the_others_out() {
    let deployment = Deployment::of(&[]);
    let path = deployment.path().join("trunkline.yaml");
    let file = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{file}limits: {{ admin_connections: 9, admin_connections_per_source: 5 }}\n")).unwrap();
    let _gateway = deployment.start();
    let (one, another) = (Ipv4Addr::new(127, 0, 0, 3), Ipv4Addr::new(127, 0, 0, 4));
    let mut held: Vec<_> = (0..5).map(|_| from(one, deployment.admin)).collect();
    let refused = ask(&from(one, deployment.admin), "/livez");
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("connection cap"), "{refused}");
    for path in ["/livez", "/readyz"] {
        let answer = ask(&from(another, deployment.admin), path);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    }
    let metrics = ask(&from(another, deployment.admin), "/metrics");
    assert!(
        metrics.contains("trunkline_door_connections_refused_total{door=\"admin\",reason=\"source\"} 1"),
        "{metrics}"
    );
    assert!(metrics.contains("trunkline_door_connections{door=\"admin\"} "), "{metrics}");
    held.pop();
    let again = || ask(&from(one, deployment.admin), "/livez").starts_with("HTTP/1.1 200 ");
    assert!(within(PATIENCE, again), "a place that is given back is free");
}
