//! [`UnderWay`]: shows the migration under way on a terminal, and stops it on a signal.

use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use diesel_neon::migration::Direction;
use tokio::runtime::Handle;
use tokio::time::sleep;

use crate::{Failure, note};

/// The migration that is under way; clones share it.
#[derive(Clone)]
pub(crate) struct UnderWay {
    migration: Arc<Mutex<Option<(String, Direction, Instant)>>>,
    on_terminal: bool,
}

impl UnderWay {
    pub(crate) fn new() -> Self {
        Self {
            migration: Arc::default(),
            on_terminal: io::stderr().is_terminal(),
        }
    }

    pub(crate) fn begins(&self, name: &str, direction: Direction) {
        *self.lock() = Some((name.to_owned(), direction, Instant::now()));
    }

    pub(crate) fn ends(&self) {
        if self.lock().take().is_some() {
            self.clear();
        }
    }

    /// Waits for `work`, and draws the migration under way. On a signal, drops `work` and waits for the tasks that
    /// clean up behind it.
    pub(crate) async fn watch<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        let mut signals = Signals::new().map_err(Failure::Runtime)?;
        let signal = {
            let mut work = pin!(work);
            loop {
                tokio::select! {
                    biased;
                    done = &mut work => {
                        self.clear();
                        return Ok(done);
                    }
                    signal = signals.next() => break signal,
                    () = sleep(TICK) => self.draw(),
                }
            }
        };
        self.clear();
        note(format_args!(
            "stopping: the statement under way is cancelled; a second signal leaves at once"
        ));
        let tasks = Handle::current().metrics();
        let ended = async {
            while tasks.num_alive_tasks() > 0 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            () = ended => {}
            _ = signals.next() => {}
            () = sleep(PATIENCE) => {}
        }
        let migration = self.lock().take().map(|(name, ..)| name);
        Err(Failure::Interrupted { migration, signal })
    }

    fn draw(&self) {
        if !self.on_terminal {
            return;
        }
        if let Some((name, direction, began)) = &*self.lock() {
            let verb = match direction {
                Direction::Up => "applying",
                Direction::Down => "reverting",
            };
            let time = format!("{:.1} s", began.elapsed().as_secs_f64());
            // A line that wraps could not be cleared; the time matters more than the end of the name.
            let columns = columns();
            let name = first(name, columns.saturating_sub(verb.len() + time.len() + 2));
            let line = format!("{verb} {name} {time}");
            let _ = write!(io::stderr(), "{CLEAR}{}", first(&line, columns));
        }
    }

    fn clear(&self) {
        if self.on_terminal {
            let _ = write!(io::stderr(), "{CLEAR}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<(String, Direction, Instant)>> {
        self.migration
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns how many columns a line may fill without wrapping.
fn columns() -> usize {
    let size = terminal_size::terminal_size_of(io::stderr());
    size.map_or(usize::MAX, |(width, _)| {
        usize::from(width.0).saturating_sub(1)
    })
}

/// Returns the first `characters` characters of `text`, or all of them.
fn first(text: &str, characters: usize) -> &str {
    let end = text.char_indices().nth(characters);
    end.map_or(text, |(end, _)| &text[..end])
}

/// The signals that ask a process to end.
#[cfg(unix)]
struct Signals(tokio::signal::unix::Signal, tokio::signal::unix::Signal);

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};

        Ok(Self(
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        ))
    }

    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.0.recv() => 2,
            _ = self.1.recv() => 15,
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> u8 {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        2
    }
}

const CLEAR: &str = "\r\x1b[K";
const TICK: Duration = Duration::from_millis(120);

/// Longer than the migrator waits for a cancelled statement and for the end of its session.
const PATIENCE: Duration = Duration::from_secs(25);
