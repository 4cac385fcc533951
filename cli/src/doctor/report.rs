//! [`Report`]: the checks and their findings, for machines and for people.

use std::borrow::Cow;
use std::time::Duration;

use diesel_neon::ConnectError;
use serde::Serialize;
use serde_json::{Map, Value};

/// The report as `--json` prints it.
#[derive(Serialize)]
pub(crate) struct Report {
    /// Goes up if a field changes its meaning or goes away.
    pub(crate) format: u32,
    pub(crate) verdict: Status,
    pub(crate) elapsed_ms: f64,
    pub(crate) failures: usize,
    pub(crate) warnings: usize,
    pub(crate) endpoints: Vec<EndpointSummary>,
    pub(crate) checks: Vec<Check>,
}

/// One endpoint that was looked at.
#[derive(Clone, Serialize)]
pub(crate) struct EndpointSummary {
    pub(crate) roles: Vec<Role>,
    pub(crate) kind: String,
    pub(crate) variable: &'static str,
    pub(crate) file: Option<String>,
    pub(crate) derived: bool,
    pub(crate) url: String,
}

/// What a URL is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    App,
    Direct,
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Ok,
    Warning,
    Failure,
    Skipped,
}

/// One check and how it went.
#[derive(Clone, Serialize)]
pub(crate) struct Check {
    pub(crate) endpoint: Option<Role>,
    pub(crate) check: &'static str,
    pub(crate) status: Status,
    pub(crate) elapsed_ms: Option<f64>,
    pub(crate) summary: String,
    pub(crate) details: Vec<String>,
    #[serde(flatten)]
    pub(crate) finding: Option<Finding>,
    pub(crate) facts: Map<String, Value>,
}

/// What is wrong, what that means, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) code: &'static str,
    /// The words of the server, the system or the library.
    pub(crate) error: Option<String>,
    pub(crate) meaning: Cow<'static, str>,
    pub(crate) mend: Cow<'static, str>,
}

impl Finding {
    pub(crate) fn new(
        code: &'static str,
        meaning: impl Into<Cow<'static, str>>,
        mend: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            code,
            error: None,
            meaning: meaning.into(),
            mend: mend.into(),
        }
    }

    /// Returns what the pool says of a step that failed.
    pub(crate) fn of(error: &ConnectError) -> Self {
        let diagnosis = error.diagnosis();
        Self::new(diagnosis.code(), diagnosis.meaning(), diagnosis.hint())
            .with_error(error.reason())
    }

    pub(crate) fn with_error(mut self, error: impl Into<String>) -> Self {
        self.error = Some(error.into());
        self
    }
}

impl Check {
    pub(crate) fn ok(check: &'static str, summary: impl Into<String>) -> Self {
        Self {
            endpoint: None,
            check,
            status: Status::Ok,
            elapsed_ms: None,
            summary: summary.into(),
            details: Vec::new(),
            finding: None,
            facts: Map::new(),
        }
    }

    pub(crate) fn skipped(check: &'static str, why: impl Into<String>) -> Self {
        let mut skipped = Self::ok(check, why);
        skipped.status = Status::Skipped;
        skipped
    }

    pub(crate) fn failure(
        check: &'static str,
        summary: impl Into<String>,
        finding: Finding,
    ) -> Self {
        Self::ok(check, summary).found(Status::Failure, finding)
    }

    pub(crate) fn warning(
        check: &'static str,
        summary: impl Into<String>,
        finding: Finding,
    ) -> Self {
        Self::ok(check, summary).found(Status::Warning, finding)
    }

    pub(crate) fn found(mut self, status: Status, finding: Finding) -> Self {
        self.status = status;
        self.finding = Some(finding);
        self
    }

    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.details.push(detail.into());
        self
    }

    pub(crate) fn fact(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.facts.insert(name.to_owned(), value.into());
        self
    }

    /// Takes out of other people's words what must not be printed: secrets, which a server could quote, and
    /// control characters, which steer a terminal.
    pub(crate) fn tame(&mut self, secrets: &[String]) {
        let finding = self.finding.as_mut();
        let mut error = finding.and_then(|finding| finding.error.as_mut());
        if let Some(error) = error.as_deref_mut() {
            for secret in secrets {
                *error = error.replace(secret, "***");
            }
        }
        let texts = [&mut self.summary].into_iter().chain(&mut self.details);
        for text in texts.chain(error) {
            if text.contains(char::is_control) {
                *text = text.replace(char::is_control, " ");
            }
        }
    }

    pub(crate) fn took(mut self, elapsed: Duration) -> Self {
        self.elapsed_ms = Some(millis(elapsed));
        self
    }
}

pub(crate) fn millis(elapsed: Duration) -> f64 {
    // Beyond microseconds there is noise.
    (elapsed.as_secs_f64() * 1e6).round() / 1e3
}
