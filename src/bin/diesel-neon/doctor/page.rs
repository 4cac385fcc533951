//! [`Page`]: the report as people read it, line by line while it comes about.

use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::pin::pin;
use std::time::{Duration, Instant};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};

use super::report::{Check, Report, Role, Status};

/// Where the report goes.
pub(crate) struct Page {
    /// `None` with `--json`, which is printed at the end.
    out: Option<AutoStream<io::Stdout>>,
    progress: bool,
    failed: Option<io::Error>,
}

impl Page {
    pub(crate) fn new(json: bool, colors: ColorChoice) -> Self {
        Self {
            out: (!json).then(|| AutoStream::new(io::stdout(), colors)),
            progress: io::stderr().is_terminal(),
            failed: None,
        }
    }

    pub(crate) fn heading(&mut self, text: &str, below: &str) {
        self.line(format_args!("{BOLD}{text}{BOLD:#}"));
        if !below.is_empty() {
            self.line(format_args!("  {DIM}{below}{DIM:#}"));
        }
    }

    pub(crate) fn check(&mut self, check: &Check) {
        let (style, word) = appearance(check.status);
        let time = match check.elapsed_ms {
            Some(millis) => shown(Duration::from_secs_f64(millis / 1e3)),
            None => String::new(),
        };
        self.line(format_args!(
            "  {style}{word:<4}{style:#}  {:<14} {DIM}{time:>8}{DIM:#}  {}",
            check.check, check.summary
        ));
        for detail in &check.details {
            self.line(format_args!("{MARGIN}{DIM}{detail}{DIM:#}"));
        }
        if let Some(finding) = &check.finding {
            if let Some(error) = &finding.error {
                self.line(format_args!("{MARGIN}{style}error:{style:#} {error}"));
            }
            self.line(format_args!("{MARGIN}means: {}", finding.meaning));
            self.line(format_args!(
                "{MARGIN}{BOLD}mend:{BOLD:#}  {}",
                finding.mend
            ));
        }
    }

    pub(crate) fn skipped(&mut self, names: &[&str], why: &str) {
        let (style, word) = appearance(Status::Skipped);
        self.line(format_args!(
            "  {style}{word}{style:#}  not looked at: {}; {why}",
            names.join(", ")
        ));
    }

    pub(crate) fn gap(&mut self) {
        self.line(format_args!(""));
    }

    /// The verdict, or all of it as JSON.
    pub(crate) fn finish(mut self, report: &Report) -> io::Result<()> {
        if self.out.is_some() {
            self.verdict(report);
        } else {
            let mut stdout = io::stdout().lock();
            serde_json::to_writer_pretty(&mut stdout, report)?;
            writeln!(stdout)?;
        }
        match self.failed {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn verdict(&mut self, report: &Report) {
        let took = shown(Duration::from_secs_f64(report.elapsed_ms / 1e3));
        let (style, _) = appearance(report.verdict);
        let verdict = match report.verdict {
            Status::Failure => {
                format!(
                    "{}, {}",
                    count(report.failures, "failure"),
                    count(report.warnings, "warning")
                )
            }
            Status::Warning => format!("works, with {}", count(report.warnings, "warning")),
            _ => "all well".to_owned(),
        };
        self.line(format_args!(
            "{style}{BOLD}Verdict: {verdict}{BOLD:#}{style:#} {DIM}in {took}{DIM:#}"
        ));
        for check in &report.checks {
            if let (Status::Failure | Status::Warning, Some(finding)) =
                (check.status, &check.finding)
            {
                let (style, word) = appearance(check.status);
                let whose = match check.endpoint {
                    Some(Role::App) => "app, ",
                    Some(Role::Direct) => "direct, ",
                    None => "",
                };
                self.line(format_args!(
                    "  {style}{word:<4}{style:#}  {whose}{} ({}): {}",
                    check.check, finding.code, finding.mend
                ));
            }
        }
    }

    /// Waits for `work`, and says on a terminal what for.
    pub(crate) async fn waiting<T>(&mut self, what: &str, work: impl Future<Output = T>) -> T {
        if !self.progress {
            return work.await;
        }
        let mut work = pin!(work);
        let began = Instant::now();
        let mut drawn = false;
        loop {
            match tokio::time::timeout(Duration::from_millis(120), work.as_mut()).await {
                Ok(done) => {
                    if drawn {
                        eprint!("\r\x1b[K");
                    }
                    return done;
                }
                Err(_) => {
                    drawn = true;
                    let seconds = began.elapsed().as_secs_f64();
                    eprint!("\r\x1b[K  ...   {what} {seconds:.1} s");
                }
            }
        }
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        let Some(out) = &mut self.out else { return };
        if let Err(error) = writeln!(out, "{text}") {
            self.failed.get_or_insert(error);
            self.out = None;
        }
    }
}

fn appearance(status: Status) -> (Style, &'static str) {
    match status {
        Status::Ok => (AnsiColor::Green.on_default(), "ok"),
        Status::Warning => (AnsiColor::Yellow.on_default().bold(), "warn"),
        Status::Failure => (AnsiColor::Red.on_default().bold(), "FAIL"),
        Status::Skipped => (DIM, "skip"),
    }
}

fn count(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

/// A time in the unit that people would use.
pub(crate) fn shown(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1e3;
    if millis < 10.0 {
        format!("{millis:.1} ms")
    } else if millis < 1_000.0 {
        format!("{millis:.0} ms")
    } else {
        format!("{:.1} s", millis / 1e3)
    }
}

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const MARGIN: &str = "          ";
