//! Doors that speak TLS, asked by clients that others wrote; and their certificates while they change.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use trunkline::definition::plan::gateway::{Door, DoorName, Doors as Settings};

use crate::outside::gateway::Deployment;
use crate::outside::within;
use crate::support::doors::{Doors, KEY, Setup, service};
use crate::support::origin::Recorder;
use crate::support::tls::Authority;

/// Both doors under TLS, and who signed what they show.
pub struct Secure {
    pub doors: Doors,
    pub authority: Authority,
    directory: tempfile::TempDir,
}

impl Secure {
    pub fn over(mut setup: Setup) -> Self {
        let authority = Authority::new();
        let door = || Door { tls: Some(authority.identity("localhost")), ..Door::default() };
        setup.doors = Settings { public: door(), proxy: door(), admin: Door::default() };
        setup.tls = vec![DoorName::Public, DoorName::Proxy];
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("ca.pem"), authority.pem()).unwrap();
        Self { doors: Doors::start(setup), authority, directory }
    }

    /// curl, with a caller's key: what it says after the body is version and status.
    async fn curl(&self, door: SocketAddr, path: &str, arguments: &[&str]) -> String {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "20", "--noproxy", "*", "--output", "-"]);
        command.args(["--write-out", "\n%{http_version} %{http_code}", "--cacert"]);
        command.arg(self.directory.path().join("ca.pem"));
        command.args(["--header", &format!("authorization: Bearer {KEY}")]).args(arguments);
        command.arg(format!("https://localhost:{}{path}", door.port()));
        text(&run(command).await)
    }
}

pub async fn run(mut command: Command) -> Output {
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    output.expect("curl and openssl are there: scripts/tools installs them")
}

fn text(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    format!("{}{errors}", String::from_utf8_lossy(&output.stdout))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_is_served_by_http_1_and_http_2() {
    let origin = Recorder::start().await;
    let secure = Secure::over(Setup::of(service(&origin.url())));
    let (public, proxy) = (secure.doors.public, secure.doors.proxy);
    for (version, said) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let data = ["--data-binary", "hello", version];
        assert_eq!(secure.curl(proxy, "/svc/a?b=c", &data).await, format!("hello\n{said} 200"));
        assert_eq!(origin.last().first_line(), "POST /a?b=c HTTP/1.1");
        assert_eq!(origin.last().all("authorization"), ["Bearer sk_test"]);
        assert_eq!(origin.last().all("host"), [origin.address.to_string()]);
        assert_eq!(secure.curl(public, "/webhooks/svc", &data).await, format!("{{\"bytes\":5}}\n{said} 200"));
        let refused = secure.curl(proxy, "/nothing/a", &[version]).await;
        assert!(refused.contains("not_found") && refused.ends_with(&format!("{said} 404")), "{refused}");
        let chunked = ["--data-binary", "hello", version, "--header", "transfer-encoding: chunked"];
        assert_eq!(secure.curl(proxy, "/svc/a", &chunked).await, format!("hello\n{said} 200"));
        let large = secure.directory.path().join("large");
        fs::write(&large, vec![b'x'; 300_000]).unwrap();
        let upload = format!("@{}", large.display());
        let echoed = secure.curl(proxy, "/svc/a", &["--data-binary", &upload, version]).await;
        assert_eq!(echoed.len(), 300_000 + format!("\n{said} 200").len());
        let refused = secure.curl(public, "/webhooks/svc", &["--data-binary", &upload, version]).await;
        assert!(refused.contains(&format!("{said} 413")), "{refused}");
    }
    let (head, _) = secure.doors.inbox.received.lock().unwrap().pop().unwrap();
    assert_eq!(head.source, Some([127, 0, 0, 1].into()));
    assert_eq!(head.headers["host"], format!("localhost:{}", public.port()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssl_gets_current_versions_of_tls_and_no_older_ones() {
    let secure = Secure::over(Setup::of(service("https://unused.example")));
    let ask = async |arguments: &[&str]| {
        let mut command = Command::new("openssl");
        let at = format!("localhost:{}", secure.doors.public.port());
        command.args(["s_client", "-connect", &at, "-servername", "localhost", "-verify_return_error", "-CAfile"]);
        command.arg(secure.directory.path().join("ca.pem")).args(arguments).stdin(std::process::Stdio::null());
        text(&run(command).await)
    };
    let said = ask(&["-alpn", "h2,http/1.1"]).await;
    assert!(said.contains("ALPN protocol: h2") && said.contains("TLSv1.3"), "{said}");
    let said = ask(&["-alpn", "http/1.1", "-tls1_2"]).await;
    assert!(said.contains("ALPN protocol: http/1.1") && said.contains("TLSv1.2"), "{said}");
    for old in ["-tls1_1", "-tls1"] {
        let said = ask(&[old, "-cipher", "ALL:@SECLEVEL=0"]).await;
        assert!(said.contains("Cipher is (NONE)"), "{said}");
    }
}

#[tokio::test]
async fn plain_http_and_silence_are_no_handshakes() {
    let mut setup = Setup::of(service("https://unused.example"));
    setup.limits.header_timeout = Duration::from_millis(300);
    let secure = Secure::over(setup);
    let mut plain = tokio::net::TcpStream::connect(secure.doors.public).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    drop(plain.read_to_end(&mut answer).await);
    assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
    let mut silent = tokio::net::TcpStream::connect(secure.doors.public).await.unwrap();
    assert_eq!(silent.read(&mut [0; 8]).await.unwrap_or(0), 0);
    let broken = |reason| format!("trunkline_door_connections_broken_total{{door=\"public\",reason=\"{reason}\"}}");
    let counted = || ["tls", "timeout"].map(|reason| secure.doors.metric(&broken(reason)));
    assert!(within(Duration::from_secs(5), || counted().iter().all(|count| *count >= 1.0)), "{:?}", counted());
}

/// The serial number of the certificate that a door shows now.
async fn shown(authority: &Authority, door: SocketAddr) -> Option<Vec<u8>> {
    let stream = authority.connect(door, &["http/1.1"]).await.ok()?;
    let (_, connection) = stream.get_ref();
    connection.peer_certificates().map(|chain| chain[0].to_vec())
}

async fn until_shown(authority: &Authority, door: SocketAddr, certificate: &str) {
    let wanted = trunkline::definition::compile::certificates(certificate).unwrap();
    for _ in 0..300 {
        if shown(authority, door).await.as_deref() == Some(&wanted[0]) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the door goes on with another certificate");
}

fn put(directory: &Path, (certificate, key): &(String, String)) {
    fs::create_dir_all(directory).unwrap();
    fs::write(directory.join("cert.pem"), certificate).unwrap();
    fs::write(directory.join("key.pem"), key).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_replaced_while_the_gateway_runs_and_a_bad_one_changes_nothing() {
    let authority = Authority::new();
    let deployment = Deployment::new(&[("nowhere", "http://127.0.0.1:1/".to_owned())], None);
    let root = deployment.path();
    let tls = root.join("tls");
    let pairs: Vec<_> = (0..4).map(|_| authority.certificate("localhost")).collect();
    // A Kubernetes volume: files link into `..data`, which links to a directory of one version.
    put(&tls.join("..v1"), &pairs[0]);
    symlink("..v1", tls.join("..data")).unwrap();
    for name in ["cert.pem", "key.pem"] {
        symlink(Path::new("..data").join(name), tls.join(name)).unwrap();
    }
    let file = root.join("trunkline.yaml");
    let settings = "tls: { certificate: \"${file:tls/cert.pem}\", key: \"${file:tls/key.pem}\" }";
    let mut text = fs::read_to_string(&file).unwrap();
    for (name, at) in [("public", deployment.public), ("admin", deployment.admin)] {
        let long = format!("{name}: {{ address: \"{at}\", {settings} }}");
        text = text.replace(&format!("{name}: \"{at}\""), &long);
    }
    fs::write(&file, text).unwrap();
    let gateway = deployment.spawn();
    until_shown(&authority, deployment.public, &pairs[0].0).await;
    until_shown(&authority, deployment.admin, &pairs[0].0).await;
    // The command line knows the certificate from the settings, and asks by address.
    let health = || deployment.command("healthcheck").output().unwrap();
    assert!(within(Duration::from_secs(20), || health().status.success()), "{:?}", health());

    // Swapped as a volume is.
    put(&tls.join("..v2"), &pairs[1]);
    symlink("..v2", tls.join("..new")).unwrap();
    fs::rename(tls.join("..new"), tls.join("..data")).unwrap();
    until_shown(&authority, deployment.public, &pairs[1].0).await;
    until_shown(&authority, deployment.admin, &pairs[1].0).await;

    // A key of another certificate, and a file that is none.
    fs::write(tls.join("..v2/key.pem"), &pairs[2].1).unwrap();
    let said = || fs::read_to_string(root.join("log")).unwrap();
    let words = "this key does not belong to the certificate";
    assert!(within(Duration::from_secs(20), || said().contains(words)), "{}", said());
    fs::write(tls.join("..v2/cert.pem"), "not a certificate").unwrap();
    assert!(
        within(Duration::from_secs(20), || said().contains("definition refused") && said().contains("in this text"))
    );
    until_shown(&authority, deployment.public, &pairs[1].0).await;

    // In place, then by rename.
    put(&tls.join("..v2"), &pairs[2]);
    until_shown(&authority, deployment.public, &pairs[2].0).await;
    for (name, text) in [("cert.pem", &pairs[3].0), ("key.pem", &pairs[3].1)] {
        let beside = tls.join(format!(".{name}.swp"));
        fs::write(&beside, text).unwrap();
        fs::rename(beside, tls.join(name)).unwrap();
    }
    until_shown(&authority, deployment.public, &pairs[3].0).await;

    let metrics = read_metrics(&authority, deployment.admin).await;
    let line = metrics.lines().find(|line| line.contains("not_after_timestamp_seconds{door=\"public\"}"));
    let end: i64 = line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).expect("an end");
    assert!(end > 1_800_000_000, "{end}");
    gateway.kill();
}

async fn read_metrics(authority: &Authority, admin: SocketAddr) -> String {
    let mut stream = authority.connect(admin, &[]).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer).await);
    String::from_utf8_lossy(&answer).into_owned()
}
