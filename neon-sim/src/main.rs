//! `neon-sim`: a stand-in for Neon to run next to an application.

use std::error::Error as _;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use neon_sim::{Event, NeonSim};
use tempfile::NamedTempFile;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::broadcast::error::RecvError;

/// A stand-in for Neon on this machine, until Ctrl-C.
///
/// Prints the connection strings in the form of a .env file, and says on standard error when the
/// compute is suspended and when it wakes.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// How long the compute must be idle before it is suspended, or `never`
    #[arg(long, default_value = "5m", value_parser = window, value_name = "DURATION", allow_hyphen_values = true)]
    suspend_after: Window,

    /// How long a suspended compute takes to wake
    #[arg(long, default_value = "400ms", value_parser = humantime::parse_duration, value_name = "DURATION")]
    cold_start: Duration,

    /// The proxy's port on 127.0.0.1; 0 is any that is free
    #[arg(long, default_value_t = 0)]
    port: u16,

    /// The proxy's port of HTTPS on 127.0.0.1, for WebSockets; 0 is any that is free
    #[arg(long, default_value_t = 0)]
    https_port: u16,

    /// A port on 127.0.0.1 that takes orders over HTTP, such as to suspend the compute; 0 is any that is free
    #[arg(long, value_name = "PORT")]
    control_port: Option<u16>,

    /// The domain of the endpoints
    #[arg(long, default_value = "neon.localhost")]
    domain: String,

    /// The endpoint's name
    #[arg(long, default_value = "ep-quiet-lake-123456")]
    endpoint: String,

    /// A file that holds the connection strings while this runs
    #[arg(long, value_name = "PATH")]
    env_file: Option<PathBuf>,
}

/// The idle time before a suspension; `None` means never.
type Window = Option<Duration>;

fn window(text: &str) -> Result<Window, String> {
    if text == "never" {
        return Ok(None);
    }
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => {
            Err("no session would outlive its login; give more time, or `never`".into())
        }
        Ok(window) => Ok(Some(window)),
        Err(error) => Err(format!("{error}; or give `never`")),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("neon-sim: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<(), String> {
    // The signals are listened for from the start, so that one while starting is not lost.
    let stopped = stopped().map_err(|error| format!("cannot listen for signals: {error}"))?;
    tokio::pin!(stopped);
    let neon = tokio::select! {
        neon = start(arguments) => neon?,
        reason = &mut stopped => {
            eprintln!("neon-sim: {reason}");
            return Ok(());
        }
    };
    let mut events = neon.events();
    let mut lines = format!(
        "DATABASE_URL='{}'\nDATABASE_URL_UNPOOLED='{}'\n",
        neon.pooled_url(),
        neon.url()
    );
    if let Some(port) = arguments.control_port {
        let control = neon.serve_control(port).await;
        let control = control.map_err(|error| in_full(&error))?;
        lines += &format!("NEON_SIM_CONTROL='{control}'\n");
    }
    let _file = match &arguments.env_file {
        Some(path) => Some(EnvFile::write(path, &lines)?),
        None => None,
    };
    // The reader may have closed the pipe.
    let _ = io::stdout().write_all(
        format!(
            "{lines}NEON_SIM_CA='{}'\nNEON_SIM_HTTPS_PORT='{}'\n",
            neon.ca_path().display(),
            neon.https_port()
        )
        .as_bytes(),
    );
    match arguments.suspend_after {
        Some(window) => eprintln!(
            "neon-sim: ready, suspends after {}",
            humantime::format_duration(window)
        ),
        None => eprintln!("neon-sim: ready, never suspends"),
    }
    loop {
        tokio::select! {
            reason = &mut stopped => {
                eprintln!("neon-sim: {reason}");
                return Ok(());
            }
            event = events.recv() => match event {
                Ok(event) => eprintln!("neon-sim: {}", told(&event)),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Err("the stand-in has stopped".into()),
            },
        }
    }
}

async fn start(arguments: &Arguments) -> Result<NeonSim, String> {
    let builder = NeonSim::builder()
        .suspend_after(arguments.suspend_after.unwrap_or(Duration::MAX))
        .cold_start(arguments.cold_start)
        .port(arguments.port)
        .https_port(arguments.https_port)
        .domain(&arguments.domain)
        .endpoint(&arguments.endpoint);
    builder.start().await.map_err(|error| in_full(&error))
}

/// Returns an error's words with those of its causes.
fn in_full(error: &neon_sim::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn told(event: &Event) -> String {
    let rounded = |time: &Duration| {
        let millis = time.as_millis().try_into().unwrap_or(u64::MAX);
        humantime::format_duration(Duration::from_millis(millis)).to_string()
    };
    match event {
        Event::Suspended { sessions: 1, .. } => "suspended, 1 session closed".into(),
        Event::Suspended { sessions, .. } => format!("suspended, {sessions} sessions closed"),
        Event::Waking => "waking".into(),
        Event::WakeFailed { message, .. } => format!("did not wake: {message}"),
        Event::Woken { slept, .. } => format!("awake, slept {}", rounded(slept)),
        other => format!("{other:?}"),
    }
}

/// Waits for a reason to stop: a signal, or the end of standard input if that is a pipe.
fn stopped() -> io::Result<impl Future<Output = &'static str>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let (ended, input) = tokio::sync::oneshot::channel::<()>();
    // A terminal is left alone, and /dev/null says nothing about a parent's end.
    let piped = fs::metadata("/dev/stdin").is_ok_and(|stdin| stdin.file_type().is_fifo());
    let watched = piped.then(|| {
        std::thread::spawn(move || {
            // Either way, the pipe's other end is closed.
            let _ = io::copy(&mut io::stdin(), &mut io::sink());
            drop(ended);
        })
    });
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => "interrupted, stopping",
            _ = terminate.recv() => "terminated, stopping",
            _ = hangup.recv() => "hung up, stopping",
            _ = input, if watched.is_some() => "standard input has ended, stopping",
        }
    })
}

/// A file with the connection strings, removed when the stand-in stops, unless another has written it anew.
struct EnvFile<'a> {
    path: &'a Path,
    text: String,
}

impl<'a> EnvFile<'a> {
    const MARK: &'static str = "# Written by neon-sim, and removed when it stops.\n";

    fn write(path: &'a Path, lines: &str) -> Result<Self, String> {
        match fs::read_to_string(path) {
            Ok(text) if !text.starts_with(Self::MARK) => {
                return Err(format!(
                    "{} exists and is not from here; choose another file",
                    path.display()
                ));
            }
            _ => {}
        }
        let cannot = |error: io::Error| format!("cannot write {}: {error}", path.display());
        let directory = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        // The rename makes the file appear complete, and private.
        let mut fresh = NamedTempFile::new_in(directory).map_err(cannot)?;
        let text = format!("{}{lines}", Self::MARK);
        fresh.write_all(text.as_bytes()).map_err(cannot)?;
        fresh.persist(path).map_err(|failed| cannot(failed.error))?;
        Ok(Self { path, text })
    }
}

impl Drop for EnvFile<'_> {
    fn drop(&mut self) {
        if fs::read_to_string(self.path).is_ok_and(|text| text == self.text) {
            // Another program may have removed it.
            let _ = fs::remove_file(self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_a_time_or_never() {
        assert_eq!(window("never"), Ok(None));
        assert_eq!(window("1ms"), Ok(Some(Duration::from_millis(1))));
        for refused in ["0s", "0", "-1", "soon", ""] {
            let error = window(refused).unwrap_err();
            assert!(error.contains("`never`"), "{refused}: {error}");
        }
    }
}
