//! [`Page`]: the report as people read it, line by line while it comes about.

use std::fmt;
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
    width: Option<usize>,
    failed: Option<io::Error>,
}

impl Page {
    pub(crate) fn new(json: bool, colors: ColorChoice) -> Self {
        Self {
            out: (!json).then(|| AutoStream::new(io::stdout(), colors)),
            progress: io::stderr().is_terminal(),
            width: width(),
            failed: None,
        }
    }

    pub(crate) fn heading(&mut self, text: &str, below: &str) {
        self.paragraph(format_args!(""), 0, BOLD, text);
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
        self.paragraph(
            format_args!(
                "  {style}{word:<4}{style:#}  {:<14} {DIM}{time:>8}{DIM:#}  ",
                check.check
            ),
            33,
            PLAIN,
            &check.summary,
        );
        for detail in &check.details {
            self.paragraph(format_args!("{MARGIN}"), 10, DIM, detail);
        }
        if let Some(finding) = &check.finding {
            if let Some(error) = &finding.error {
                let lead = format_args!("{MARGIN}{style}error:{style:#} ");
                self.paragraph(lead, 17, PLAIN, error);
            }
            let lead = format_args!("{MARGIN}means: ");
            self.paragraph(lead, 17, PLAIN, &finding.meaning);
            let lead = format_args!("{MARGIN}{BOLD}mend:{BOLD:#}  ");
            self.paragraph(lead, 17, PLAIN, &finding.mend);
        }
    }

    pub(crate) fn skipped(&mut self, names: &[&str], why: &str) {
        let (style, word) = appearance(Status::Skipped);
        let text = format!("not looked at: {}; {why}", names.join(", "));
        self.paragraph(format_args!("  {style}{word}{style:#}  "), 8, PLAIN, &text);
    }

    pub(crate) fn gap(&mut self) {
        self.line(format_args!(""));
    }

    /// Prints the verdict, or the whole report as JSON.
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
                let lead = format_args!("  {style}{word:<4}{style:#}  ");
                let text = format!(
                    "{whose}{} ({}): {}",
                    check.check, finding.code, finding.mend
                );
                self.paragraph(lead, 8, PLAIN, &text);
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
                        let _ = write!(io::stderr(), "\r\x1b[K");
                    }
                    return done;
                }
                Err(_) => {
                    drawn = true;
                    let seconds = began.elapsed().as_secs_f64();
                    let _ = write!(io::stderr(), "\r\x1b[K  ...   {what} {seconds:.1} s");
                }
            }
        }
    }

    /// Prints `text` behind a `lead` of `indent` columns, and wraps it below itself.
    fn paragraph(&mut self, lead: fmt::Arguments<'_>, columns: usize, style: Style, text: &str) {
        let room = self.width.map_or(usize::MAX, |width| {
            // A narrower text would be a column of words.
            width.saturating_sub(columns).max(20)
        });
        for (i, line) in wrapped(text, room).iter().enumerate() {
            match i {
                0 => self.line(format_args!("{lead}{style}{line}{style:#}")),
                _ => self.line(format_args!("{:columns$}{style}{line}{style:#}", "")),
            }
        }
    }

    fn line(&mut self, text: fmt::Arguments<'_>) {
        let Some(out) = &mut self.out else { return };
        if let Err(error) = writeln!(out, "{text}") {
            self.failed.get_or_insert(error);
            self.out = None;
        }
    }
}

/// Breaks `text` between words. A word that is too long stays whole, so that it can be copied.
fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().map_or(0, |line| line.chars().count());
        match lines.last_mut() {
            Some(last) if line > 0 && line + 1 + word.chars().count() <= room => {
                last.push(' ');
                last.push_str(word);
            }
            Some(last) if line == 0 => last.push_str(word),
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Returns the width of the terminal, else that of COLUMNS; `None` if neither is known.
fn width() -> Option<usize> {
    let stdout = io::stdout();
    if stdout.is_terminal() {
        if let Some((width, _)) = terminal_size::terminal_size_of(&stdout) {
            return Some(width.0.into());
        }
    }
    std::env::var("COLUMNS").ok()?.parse().ok()
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

/// Renders a time in the unit that people would use.
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
const PLAIN: Style = Style::new();
const DIM: Style = Style::new().dimmed();
const MARGIN: &str = "          ";
