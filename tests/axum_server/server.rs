//! The server's process, and HTTP by hand.

use std::process::Stdio;
use std::time::Duration;

use neon_sim::NeonSim;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::{sleep, timeout};

use crate::common::{self, HANG, example};

const CREATE_TABLES: &str = concat!(
    include_str!("../../migrations/2026-01-05-090000_create_books/up.sql"),
    include_str!("../../migrations/2026-01-12-090000_create_book_requests/up.sql")
);

pub(crate) async fn neon() -> NeonSim {
    let neon = common::neon().await;
    create_tables(&neon).await;
    neon
}

pub(crate) async fn create_tables(neon: &NeonSim) {
    neon.sql(&format!("SET ROLE neondb_owner; {CREATE_TABLES}"))
        .await
        .unwrap();
}

/// Polls until a condition holds.
pub(crate) async fn until(condition: impl AsyncFn() -> bool) {
    let wait = async {
        while !condition().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(HANG, wait).await.expect("it comes to pass");
}

pub(crate) struct Server {
    pub(crate) process: Child,
    pub(crate) address: String,
    pub(crate) log: Lines<BufReader<ChildStderr>>,
}

impl Server {
    pub(crate) async fn start(url: &str, settings: &[(&str, &str)]) -> Self {
        Self::spawn(command(url, settings)).await
    }

    pub(crate) async fn spawn(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.kill_on_drop(true).spawn().unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = timeout(HANG, stdout.next_line())
            .await
            .expect("it says where it listens");
        let line = line.unwrap().expect("it starts");
        let address = line
            .strip_prefix("listening on http://")
            .unwrap()
            .to_owned();
        let log = BufReader::new(process.stderr.take().unwrap()).lines();
        Self {
            process,
            address,
            log,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.send("GET", path, None).await
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Response {
        let body = body.map(Value::to_string).unwrap_or_default();
        let json = [("content-type", "application/json")];
        self.request(method, path, &json, &body).await
    }

    pub(crate) async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response {
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
        for (name, value) in headers {
            if !value.is_empty() {
                request += &format!("{name}: {value}\r\n");
            }
        }
        request += &format!("content-length: {}\r\n\r\n{body}", body.len());

        let exchange = async {
            let mut stream = TcpStream::connect(&self.address).await.unwrap();
            // A server that refuses a body as too large need not read all of it.
            let _ = stream.write_all(request.as_bytes()).await;
            let mut response = Vec::new();
            match stream.read_to_end(&mut response).await {
                Ok(_) => {}
                Err(error) => assert!(!response.is_empty(), "{error}"),
            }
            String::from_utf8(response).unwrap()
        };
        Response::parse(&timeout(HANG, exchange).await.expect("the server answers"))
    }

    pub(crate) async fn signal(&self, signal: &str) {
        let pid = self.process.id().unwrap().to_string();
        let kill = Command::new("kill")
            .args(["-s", signal, &pid])
            .status()
            .await;
        assert!(kill.unwrap().success());
    }

    /// Returns the next line of the log that has this text.
    pub(crate) async fn logged(&mut self, text: &str) -> String {
        let line = async {
            loop {
                let line = self
                    .log
                    .next_line()
                    .await
                    .unwrap()
                    .expect("the log goes on");
                if line.contains(text) {
                    return line;
                }
            }
        };
        timeout(HANG, line).await.expect("it is logged")
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn parse(text: &str) -> Self {
        let (head, body) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("no answer: {text:?}"));
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        });
        Self {
            status: status.parse().unwrap(),
            headers: headers.collect(),
            body: body.to_owned(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|header| header.0 == name);
        header.map(|header| header.1.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Returns the problem document, after a check of the fields that all have in common.
    pub(crate) fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        assert!(self.header("x-request-id").is_some(), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], status);
        assert!(
            problem["title"].is_string() && problem["detail"].is_string(),
            "{problem}"
        );
        problem
    }
}

pub(crate) fn command(url: &str, settings: &[(&str, &str)]) -> Command {
    let mut command = example("axum_server");
    command
        .env("DATABASE_URL", url)
        .env("PORT", "0")
        .envs(settings.iter().copied())
        .current_dir(std::env::temp_dir())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}
