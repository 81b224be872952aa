//! Servers that we did not write (`tests/peers`), one process each, ended when dropped.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::outside::http::{Client, Reply};
use crate::outside::within;

/// A running peer. It ends with its standard input, so that it is gone even when a test is killed.
pub struct Peer {
    child: Child,
    stdin: Option<ChildStdin>,
    pub address: SocketAddr,
    /// What it printed before its port.
    pub told: Vec<String>,
}

impl Peer {
    /// A certified authorization server over these clients, as the library takes them.
    pub fn oidc(options: &Value) -> Self {
        Self::node("oidc.mjs", options)
    }

    /// An authorization server that misbehaves on demand.
    pub fn odd(options: &Value) -> Self {
        Self::node("odd.mjs", options)
    }

    /// The service of the HTTP cache tests, and what runs them.
    pub fn cache_tests() -> Self {
        Self::node("cache.mjs", &Value::Null)
    }

    /// django-oauth-toolkit.
    pub fn django(options: &Value) -> Self {
        Self::python("django_peer.py", options)
    }

    /// An OAuth 1.0a service over oauthlib.
    pub fn oauth1(options: &Value) -> Self {
        Self::python("oauth1_peer.py", options)
    }

    /// A collector of OpenTelemetry over the protocol's own messages.
    pub fn collector(options: &Value) -> Self {
        Self::python("otlp_peer.py", options)
    }

    /// Amazon's services over moto, and an access key of theirs.
    pub fn aws() -> (Self, Value) {
        let peer = Self::python("aws_peer.py", &Value::Null);
        let key = serde_json::from_str(&peer.told[0]).unwrap();
        (peer, key)
    }

    /// A web server as the service behind the gateway; what it told has the file of its log.
    pub fn origin(name: &str) -> Self {
        let mut command = Command::new(installed().join("python/bin/python"));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/python");
        command.args(["-B", "-W", "ignore"]).arg(source.join("origin_peer.py")).arg(name);
        if name == "node" {
            let node = installed().join("node");
            command.arg(node.join("run")).arg("--preserve-symlinks-main").arg(node.join("origin.mjs"));
        }
        Self::start(command)
    }

    fn node(script: &str, options: &Value) -> Self {
        let node = installed().join("node");
        let mut command = Command::new(node.join("run"));
        // Packages are looked for beside the link to the script, not beside the script.
        command.arg("--preserve-symlinks-main").arg(node.join(script)).arg(options.to_string());
        Self::start(command)
    }

    fn python(script: &str, options: &Value) -> Self {
        let mut command = Command::new(installed().join("python/bin/python"));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/python");
        command.args(["-B", "-W", "ignore"]).arg(source.join(script)).arg(options.to_string());
        Self::start(command)
    }

    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}; `make peers` installs what tests run against"));
        let stdin = child.stdin.take().unwrap();
        let mut told = Vec::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
            if let Some(port) = line.strip_prefix("port ") {
                let address = SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()));
                return Self { child, stdin: Some(stdin), address, told };
            }
            told.push(line);
        }
        panic!("{command:?} ended before it listened: {:?} {told:?}", child.wait());
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn get(&self, path: &str) -> Reply {
        Client::new(self.address).get(path).unwrap()
    }

    pub fn post(&self, path: &str, body: &Value) -> Reply {
        let headers = [("content-type", "application/json")];
        Client::new(self.address).send("POST", path, &headers, body.to_string().as_bytes()).unwrap()
    }

    /// A number of its own statistics, as in `/granted/refresh_token`; zero when there is none.
    pub fn stat(&self, pointer: &str) -> u64 {
        self.get("/-/stats").json().pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // One that has started others ends them first.
        drop(self.stdin.take());
        let ended = within(Duration::from_secs(10), || !matches!(self.child.try_wait(), Ok(None)));
        if ended {
            return;
        }
        // An error here means that it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Where `make peers` puts them: beside the build, whatever directory that is.
pub fn installed() -> PathBuf {
    let peers = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("peers");
    assert!(peers.join("stamp").exists(), "the servers that tests run against are missing: run `make peers`");
    peers
}

/// Runs one of our browser scripts in Node, and reads the JSON that its last line is.
pub async fn run_script(script: &str, options: &Value) -> Value {
    let node = installed().join("node");
    let mut command = Command::new(node.join("run"));
    command.arg("--preserve-symlinks-main").arg(node.join(script)).arg(options.to_string());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    let output = output.unwrap_or_else(|error| panic!("{error}; `make peers` installs what tests run against"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}
