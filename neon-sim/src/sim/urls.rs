//! Where a stand-in's endpoints are, and how clients get there.

use std::path::Path;

use super::neon_sim::NeonSim;
use crate::servers::names::OWNER;
use crate::servers::server::Server;

impl NeonSim {
    /// Returns the direct endpoint's URL, as Neon shows it, with the parameters that lead to this machine.
    pub fn url(&self) -> String {
        self.neon_url(&self.host())
    }

    /// Returns the pooled endpoint's URL.
    pub fn pooled_url(&self) -> String {
        self.neon_url(&self.pooled_host())
    }

    /// Returns the direct endpoint's URL for diesel-neon's sessions over a WebSocket.
    pub fn websocket_url(&self) -> String {
        self.https_url_of(&self.host(), "&transport=websocket")
    }

    /// Returns the pooled endpoint's URL for diesel-neon's sessions over a WebSocket.
    pub fn pooled_websocket_url(&self) -> String {
        self.https_url_of(&self.pooled_host(), "&transport=websocket")
    }

    /// Returns the direct endpoint's URL for diesel-neon's requests over HTTPS.
    pub fn https_url(&self) -> String {
        self.https_url_of(&self.host(), "")
    }

    /// Returns the pooled endpoint's URL for diesel-neon's requests over HTTPS.
    pub fn pooled_https_url(&self) -> String {
        self.https_url_of(&self.pooled_host(), "")
    }

    fn neon_url(&self, host: &str) -> String {
        self.url_of(host, "require")
    }

    /// Neon's proxy has no channel binding there.
    fn https_url_of(&self, host: &str, more: &str) -> String {
        let url = self.url_of(host, "prefer");
        format!("{url}{more}&https_port={}", self.parts.https_port)
    }

    fn url_of(&self, host: &str, channel_binding: &str) -> String {
        format!(
            "postgresql://{OWNER}:{}@{host}:{}/{}?sslmode=require&channel_binding={channel_binding}\
             &hostaddr=127.0.0.1&sslrootcert={}",
            self.password(),
            self.parts.port,
            self.parts.database,
            percent_encoded(&self.parts.ca_path.display().to_string())
        )
    }

    /// Returns a URL that leads to an endpoint without SNI, and without parameters that not every client knows.
    pub(crate) fn url_by_address(&self, host: &str) -> String {
        let label = host.split('.').next().unwrap_or(host);
        format!(
            "postgresql://{OWNER}:endpoint%3D{label}%3B{}@127.0.0.1:{}/{}?sslmode=require",
            self.password(),
            self.parts.port,
            self.parts.database,
        )
    }

    /// Returns the URL of the PostgreSQL behind the proxy: without TLS, never suspended.
    pub fn postgres_url(&self) -> String {
        self.server_url(Server::Postgres)
    }

    /// Returns the URL of the PgBouncer behind the proxy: without TLS. It answers while the compute sleeps, but a suspension
    /// ends its server sessions: a statement under way fails with 57P01. It is PostgreSQL's if there is none.
    pub fn pgbouncer_url(&self) -> String {
        self.server_url(Server::PgBouncer)
    }

    fn server_url(&self, server: Server) -> String {
        let password = self.password();
        let port = self.parts.ground.cluster.port(server);
        let database = &self.parts.database;
        format!("postgresql://{OWNER}:{password}@127.0.0.1:{port}/{database}?sslmode=disable")
    }

    /// Returns the host name of the direct endpoint.
    pub fn host(&self) -> String {
        format!("{}.{}", self.parts.endpoint, self.parts.domain)
    }

    /// Returns the host name of the pooled endpoint.
    pub fn pooled_host(&self) -> String {
        format!("{}-pooler.{}", self.parts.endpoint, self.parts.domain)
    }

    /// Returns the proxy's port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.parts.port
    }

    /// Returns the proxy's port of HTTPS on 127.0.0.1, which on Neon is 443.
    ///
    /// A request for a WebSocket, on any path, is granted; its binary messages carry PostgreSQL's protocol without TLS of its
    /// own, and the password as it is. The endpoint is that of the Host header. `POST /sql` runs a statement, or a batch; the
    /// endpoint is that of the connection string in its header.
    pub fn https_port(&self) -> u16 {
        self.parts.https_port
    }

    /// Returns the URLs' database: `neondb`, or that of a test.
    pub fn database(&self) -> &str {
        &self.parts.database
    }

    /// Returns the password of `neondb_owner`, made up anew for each stand-in.
    pub fn password(&self) -> &str {
        &self.parts.ground.password
    }

    /// Returns the file that holds the certificate authority's certificate, in PEM.
    pub fn ca_path(&self) -> &Path {
        &self.parts.ca_path
    }
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
