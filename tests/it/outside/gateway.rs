//! The gateway's process: its files, its start, its end.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use trunkline::base::random::{Random, SystemRandom};

use super::http::{Client, Reply};
use super::sender::SECRET;
use super::within;

/// How long a start may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the operator and the application of a deployment of definitions show.
pub const ADMIN_TOKEN: &str = "admin-token-0123456789abcdef0123";
const CALLER_KEY: &str = "caller-key-0123456789abcdef01234";

/// A deployment's files and addresses; the process comes and goes.
pub struct Deployment {
    directory: tempfile::TempDir,
    /// Where webhooks come in.
    pub public: SocketAddr,
    /// Where calls go out.
    pub proxy: SocketAddr,
    /// Where the API is.
    pub admin: SocketAddr,
}

/// A running gateway; killed when it is dropped.
pub struct Gateway {
    child: Child,
    admin: SocketAddr,
}

impl Deployment {
    /// A deployment whose one integration delivers every event to each of these destinations. `data` is
    /// where the store is; without it a directory of its own.
    pub fn new(destinations: &[(&str, String)], data: Option<&Path>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let [public, proxy, admin] = free_addresses();
        let deployment = Self { directory, public, proxy, admin };
        let own = deployment.directory.path().join("data");
        deployment.write_files(destinations, data.unwrap_or(&own));
        deployment
    }

    /// A deployment of these definitions, by id. Its admin door wants [`ADMIN_TOKEN`].
    pub fn of(definitions: &[(&str, String)]) -> Self {
        Self::with(definitions, "")
    }

    /// As [`Self::of`], with more settings in its gateway file.
    pub fn with(definitions: &[(&str, String)], more: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let [public, proxy, admin] = free_addresses();
        let deployment = Self { directory, public, proxy, admin };
        let admin = "admin: { token: \"${env:ADMIN_TOKEN}\" }\n";
        let admin = if more.contains("admin:") { "" } else { admin };
        let callers = "callers:\n  - { id: app, key: \"${env:CALLER_KEY}\", allow: [{ integration: \"*\", connection: \"*\" }] }\n";
        deployment.write_gateway(&deployment.path().join("data"), &format!("{admin}{callers}{more}"));
        for (id, text) in definitions {
            fs::write(deployment.path().join(format!("integrations/{id}.yaml")), text).unwrap();
        }
        deployment
    }

    fn write_files(&self, destinations: &[(&str, String)], data: &Path) {
        let entry = |(id, url): &(&str, String)| {
            format!("  {id}: {{ url: \"{url}\", signing_secret: \"${{env:SINK_SECRET}}\", timeout: 2s }}\n")
        };
        let listed: String = destinations.iter().map(entry).collect();
        let action = |(id, _): &(&str, String)| {
            format!(
                "      - deliver: {id}\n        json: {{ id: \"{{{{ body.id }}}}\" }}\n        retry: {{ attempts: 20, backoff: 100ms, max_backoff: 500ms }}\n"
            )
        };
        let actions: String = destinations.iter().map(action).collect();
        self.write_gateway(data, &format!("destinations:\n{listed}"));
        let load = format!(
            "trunkline: 1\nid: load\ntitle: Load\nsummary: Events for fault tests.\nauth: {{ none: {{}} }}\n\
             webhook:\n  verify:\n    hmac:\n      algorithm: sha256\n\
             \x20     signature: {{ header: X-Signature, prefix: \"sha256=\", encoding: hex }}\n\
             \x20     signed: \"{{{{ body }}}}\"\n  secrets: [\"${{env:LOAD_SECRET}}\"]\n\
             \x20 event: body.type\n  delivery_id: body.id\n\
             \x20 max_body: 2MiB\n  rate: 1000000/s\n  rate_per_source: 1000000/s\n\
             rules:\n  - id: everywhere\n    when: \"*\"\n    do:\n{actions}"
        );
        fs::write(self.path().join("integrations/load.yaml"), load).unwrap();
    }

    fn write_gateway(&self, data: &Path, more: &str) {
        let root = self.directory.path();
        fs::create_dir_all(root.join("integrations")).unwrap();
        let (Self { public, proxy, admin, .. }, data) = (self, data.display());
        let gateway = format!(
            "trunkline: 1\nmode: development\n\
             listen: {{ public: \"{public}\", proxy: \"{proxy}\", admin: \"{admin}\" }}\n\
             public_url: http://localhost:{}\nintegrations: [./integrations]\n\
             state: {{ sled: {{ path: \"{data}\" }} }}\nsecrets: {{ key: \"${{file:{data}/master.key}}\" }}\n\
             {more}",
            public.port()
        );
        fs::write(root.join("trunkline.yaml"), gateway).unwrap();
    }

    /// Asks the admin door, as the operator; `body` is JSON, null for none.
    pub fn ask(&self, method: &str, target: &str, body: &Value) -> Reply {
        let bearer = format!("Bearer {ADMIN_TOKEN}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let reply = Client::new(self.admin).send(method, target, &headers, body.as_bytes());
        reply.unwrap_or_else(|error| panic!("{method} {target}: {error}\n{}", self.log_tail()))
    }

    /// Calls a service, as the application. An error means that no whole answer came.
    pub fn call(&self, integration: &str, connection: &str, path: &str) -> std::io::Result<Reply> {
        let bearer = format!("Bearer {CALLER_KEY}");
        let headers = [("authorization", bearer.as_str()), ("trunkline-connection", connection)];
        Client::new(self.proxy).send("GET", &format!("/{integration}{path}"), &headers, b"")
    }

    /// Stores connections with these credentials, as an export has them, in place of those of their names.
    pub fn import(&self, integration: &str, connections: &[(String, Value)]) {
        let row = |(name, credential): &(String, Value)| {
            let content = serde_json::json!({ "format": 2, "credential": credential, "inputs": {}, "saved": {}, "updated_at": 1 });
            serde_json::json!({ "integration": integration, "name": name, "credential": "", "inputs": {}, "content": content })
        };
        let rows: Vec<_> = connections.iter().map(row).collect();
        let export =
            serde_json::json!({ "trunkline_export": 1, "exported_at": 1, "secrets": true, "connections": rows });
        let reply = self.ask("POST", "/api/import?apply=1&replace_newer=1", &export);
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        assert!(reply.status == 200 && !text.contains("\"refuse"), "{text}");
    }

    /// Where the files are.
    pub fn path(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// A program over this deployment, with the variables its files name.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trunkline"));
        command.arg("--config").arg(self.path().join("trunkline.yaml")).arg(name);
        // What definitions name is a variable of their own: those of the gateway file are kept back from them.
        command.env("ADMIN_TOKEN", ADMIN_TOKEN).env("CALLER_KEY", CALLER_KEY).env("SERVICE_SECRET", CALLER_KEY);
        command.env("LOAD_SECRET", SECRET).env("SINK_SECRET", "whsec_c2luay1zZWNyZXQtZm9yLXRlc3Rz");
        command.env("BACKEND_KEY", "key-of-the-application-0001").env("OTHER_KEY", "key-of-another-application-1");
        command.env("SHOP_KEY", "shop-key");
        command
    }

    /// Starts the process and does not wait.
    pub fn spawn(&self) -> Gateway {
        self.spawn_with(&[])
    }

    fn spawn_with(&self, more: &[&str]) -> Gateway {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap();
        let errors = log.try_clone().unwrap();
        let child = self.command("serve").args(more).stdin(Stdio::null()).stdout(log).stderr(errors).spawn().unwrap();
        Gateway { child, admin: self.admin }
    }

    /// Starts the process and waits until it is ready.
    pub fn start(&self) -> Gateway {
        self.awaited(self.spawn())
    }

    fn awaited(&self, mut gateway: Gateway) -> Gateway {
        if !within(PATIENCE, || gateway.is_ready()) {
            let said = Client::new(self.admin).get("/readyz?verbose").map(|reply| (reply.status, reply.json()));
            panic!("not ready in {PATIENCE:?}: {said:?}\n{}", self.log_tail());
        }
        gateway
    }

    /// Starts the process with every service played at this address, and waits until it is ready.
    pub fn start_simulated(&self, mock: SocketAddr) -> Gateway {
        self.awaited(self.spawn_with(&["--mock", &format!("http://{mock}")]))
    }

    /// The end of what the process wrote, for failures.
    pub fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(30).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }
}

impl Gateway {
    /// Whether it says that it is ready. A process that has ended fails the test.
    pub fn is_ready(&mut self) -> bool {
        if let Ok(Some(status)) = self.child.try_wait() {
            panic!("the gateway ended by itself: {status}");
        }
        Client::new(self.admin).get("/readyz").is_ok_and(|reply| reply.status == 200)
    }

    /// Asks it to stop, and waits until it has.
    pub fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success(), "it ended as one that was asked to");
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // Both fail only for a process that has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.end();
    }
}

/// Addresses that were free a moment ago. They are fixed, because a restarted gateway must come back to
/// the same place; and they lie below the range from which the kernel takes ports for connections, or one
/// of this machine's own connections could hold such a port when the gateway comes back.
pub fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    let mut port = [0; 2];
    SystemRandom::default().fill(&mut port).unwrap();
    let first = 10_000 + u16::from_le_bytes(port) % 20_000;
    let mut free = (first..32_000).filter_map(|port| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
        listener.local_addr().ok()
    });
    std::array::from_fn(|_| free.next().unwrap())
}
