//! [`Doctor`]: the command as a test calls it, and what it reports.

use std::time::Duration;

use neon_sim::{Builder, NeonSim};
use serde_json::Value;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::folder::{Folder, Text};

/// Far more than all steps take, each up to its bound.
const HANG: Duration = Duration::from_secs(120);

pub(crate) async fn start() -> NeonSim {
    with(NeonSim::builder()).await
}

pub(crate) async fn with(builder: Builder) -> NeonSim {
    builder
        .never_suspend()
        .start()
        .await
        .expect("the stand-in for Neon starts")
}

/// Writes sslmode=verify-full, as the doctor advises.
pub(crate) fn strict(url: &str) -> String {
    url.replace("sslmode=require", "sslmode=verify-full")
}

/// The command in a folder of its own, with nothing of the environment around the test.
pub(crate) struct Doctor {
    folder: Folder,
    variables: Vec<(String, String)>,
    arguments: Vec<String>,
    secrets: Vec<String>,
}

impl Doctor {
    pub(crate) fn new(name: &str) -> Self {
        let folder = Folder::new(name);
        let migrations = "[migrations_directory]\ndir = 'migrations'";
        folder.write("diesel.toml", migrations);
        Self {
            folder,
            variables: Vec::new(),
            arguments: Vec::new(),
            secrets: Vec::new(),
        }
    }

    pub(crate) fn set(mut self, variable: &str, value: &str) -> Self {
        self.variables.push((variable.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Adds a text that must not be printed.
    pub(crate) fn secret(mut self, secret: &str) -> Self {
        self.secrets.push(secret.to_owned());
        self
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        self.folder.write(name, text);
    }

    pub(crate) async fn text(&self) -> Text {
        self.run(&[]).await
    }

    pub(crate) async fn json(&self) -> Report {
        let text = self.run(&["--json"]).await;
        assert_eq!(text.stderr, "");
        Report {
            code: text.code.expect("no signal"),
            value: serde_json::from_str(&text.stdout).expect("one JSON document"),
        }
    }

    /// Runs the command until a busy machine has not made the start look cold, 20 times at most.
    pub(crate) async fn json_warm(&self) -> Report {
        for _ in 0..20 {
            let report = self.json().await;
            if report.check("start")["facts"]["cold"] == false {
                return report;
            }
        }
        panic!("cold each time");
    }

    /// Runs the command until a busy machine has not made the server look far away, 20 times at most.
    pub(crate) async fn near(&self) -> (Report, Text) {
        for _ in 0..20 {
            let (report, text) = (self.json_warm().await, self.text().await);
            let is_far = report.check("round-trip")["status"] == "warning";
            if !is_far && !text.stdout.contains("(far-away)") {
                return (report, text);
            }
        }
        panic!("far away each time");
    }

    /// Holds the failure that is reported as JSON against the same in text.
    pub(crate) async fn fails(&self, check: Option<&str>, code: &str) -> Report {
        let report = self.json().await;
        let failure = report.failure(check, code).clone();
        let text = self.text().await;
        assert_eq!(text.code, Some(1));
        let code = format!("({code})");
        let [meaning, mend] = ["meaning", "mend"].map(|part| failure[part].as_str().unwrap());
        for part in ["FAIL", meaning, mend, &code] {
            assert!(text.stdout.contains(part), "{}", text.stdout);
        }
        report
    }

    async fn run(&self, more: &[&str]) -> Text {
        let mut command = self.folder.command();
        command
            .arg("doctor")
            .args(&self.arguments)
            .args(more)
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        let run = spawn_blocking(move || command.output().unwrap());
        let text = Text::of(timeout(HANG, run).await.expect("no step hangs").unwrap());
        for secret in &self.secrets {
            assert!(!text.stdout.contains(secret), "{}", text.stdout);
            assert!(!text.stderr.contains(secret), "{}", text.stderr);
        }
        text
    }
}

#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) code: i32,
    pub(crate) value: Value,
}

impl Report {
    pub(crate) fn verdict(&self) -> &str {
        self.value["verdict"].as_str().unwrap()
    }

    pub(crate) fn checks(&self) -> &[Value] {
        self.value["checks"].as_array().unwrap()
    }

    #[track_caller]
    pub(crate) fn check(&self, name: &str) -> &Value {
        let found = self.checks().iter().find(|check| check["check"] == name);
        found.unwrap_or_else(|| panic!("no check {name}: {self:?}"))
    }

    #[track_caller]
    pub(crate) fn of(&self, endpoint: &str, name: &str) -> &Value {
        let mut checks = self.checks().iter();
        let found = checks.find(|check| check["endpoint"] == endpoint && check["check"] == name);
        found.unwrap_or_else(|| panic!("no check {name} of {endpoint}: {self:?}"))
    }

    #[track_caller]
    pub(crate) fn failure(&self, check: Option<&str>, code: &str) -> &Value {
        assert_eq!((self.code, self.verdict()), (1, "failure"), "{self:?}");
        let found = self
            .checks()
            .iter()
            .find(|c| c["status"] == "failure" && c["code"] == code);
        let found = found.unwrap_or_else(|| panic!("no failure {code}: {self:?}"));
        if let Some(check) = check {
            assert_eq!(found["check"], check, "{self:?}");
        }
        found
    }
}
