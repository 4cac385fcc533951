//! The pools of Python's apps: SQLAlchemy's on asyncpg, and asyncpg's own.
//!
//! They live in a process for each URL, `bench/python/pool.py`, and are asked through a pipe, line by line.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::oneshot;

use super::{Opens, Pool, Settings};
use crate::count::URL;
use crate::stand_in::repository;

pub type Asyncpg = Python<false>;
pub type SqlAlchemy = Python<true>;

/// A pool in a process of Python's.
#[derive(Clone)]
pub struct Python<const IS_SQLALCHEMY: bool>(Arc<Remote>);

struct Remote {
    process: Arc<Process>,
    number: u64,
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.process.tell(self.number, "close");
    }
}

impl<const IS_SQLALCHEMY: bool> Pool for Python<IS_SQLALCHEMY> {
    const OPENS: Opens = match IS_SQLALCHEMY {
        true => Opens::OneMore,
        false => Opens::AllAtOnce,
    };
    const TAKES_ADDRESSES: bool = false;

    async fn build(url: &str, settings: Settings) -> Self {
        Self::build_shortened(url, settings, 1).await
    }

    async fn look_up(&self, id: i32) -> Result<i32, String> {
        let Remote { process, number } = &*self.0;
        let mut request = process.request(&format!("look_up {number} {id}"));
        request.answer().await
    }

    async fn hold<F: Future<Output = ()> + Send>(&self, meanwhile: F) -> Result<(), String> {
        let Remote { process, number } = &*self.0;
        // It holds until it is dropped.
        let mut request = process.request(&format!("hold {number}"));
        request.answer().await?;
        meanwhile.await;
        Ok(())
    }
}

impl<const IS_SQLALCHEMY: bool> Python<IS_SQLALCHEMY> {
    /// Builds a pool whose times are shorter by this factor, those of idle connections.
    pub async fn build_shortened(url: &str, settings: Settings, factor: u32) -> Self {
        let kind = match IS_SQLALCHEMY {
            true => "SQLAlchemy",
            false => "asyncpg",
        };
        let Settings {
            configuration,
            max_size,
            patience,
        } = settings;
        let process = Process::of(kind, url);
        // Its first answer comes after its start, which is no part of any measurement.
        process.request("ready").answer().await.expect("an answer");
        let number = process.next();
        let patience = patience.as_secs_f64();
        let open = format!("open {max_size} {patience} {configuration:?} {factor}");
        process.tell(number, &open);
        Self(Arc::new(Remote { process, number }))
    }
}

/// Returns the versions of Python's peers; none where `scripts/setup` has not got them.
pub fn versions() -> Option<&'static str> {
    static VERSIONS: LazyLock<Option<String>> = LazyLock::new(|| {
        let output = python().arg("versions").output().ok()?;
        let said = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| said.trim().to_owned())
    });
    VERSIONS.as_deref()
}

/// Ends the processes, once no suite uses a pool any more.
pub fn end_processes() {
    for (_, process) in lock(&PROCESSES).drain() {
        let mut child = lock(&process.child);
        // It may have ended by itself.
        let _ = child.kill();
        child.wait().expect("it ends");
    }
}

fn python() -> Command {
    let program: PathBuf = repository().join("target/tools/python/bin/python");
    let mut python = Command::new(program);
    python.arg(repository().join("bench/python/pool.py"));
    python
}

/// A process for the pools of one kind on one URL.
struct Process {
    child: Mutex<Child>,
    orders: Mutex<ChildStdin>,
    waiting: Arc<Waiting>,
    last: AtomicU64,
}

type Answer = Result<i32, String>;
/// None once the process has ended: who asks then would wait for ever.
type Waiting = Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>;
type Processes = HashMap<(&'static str, String), Arc<Process>>;

static PROCESSES: LazyLock<Mutex<Processes>> = LazyLock::new(Mutex::default);

impl Process {
    /// Returns the process of a kind and a URL, which it starts if there is none.
    fn of(kind: &'static str, url: &str) -> Arc<Self> {
        let mut processes = lock(&PROCESSES);
        let process = processes.entry((kind, url.to_owned()));
        let start = || {
            let mut python = python();
            python.arg(kind).env(URL, url);
            Arc::new(Self::start(python))
        };
        Arc::clone(process.or_insert_with(start))
    }

    fn start(mut python: Command) -> Self {
        python.stdin(Stdio::piped()).stdout(Stdio::piped());
        // Its callers are told what fails.
        python.stderr(Stdio::null());
        let mut child = python.spawn().expect("Python starts");
        let orders = child.stdin.take().expect("a pipe");
        let answers = child.stdout.take().expect("a pipe");
        let waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let shared: Arc<Waiting> = Arc::clone(&waiting);
        thread::spawn(move || {
            for line in BufReader::new(answers).lines().map_while(Result::ok) {
                let Some((number, answer)) = parsed(&line) else {
                    eprintln!("not an answer of Python's: {line}");
                    break;
                };
                let mut all = lock(&shared);
                if let Some(waiting) = all.as_mut().and_then(|all| all.remove(&number)) {
                    // It may have given up.
                    let _ = waiting.send(answer);
                }
            }
            lock(&shared).take();
        });
        Self {
            child: Mutex::new(child),
            orders: Mutex::new(orders),
            waiting,
            last: AtomicU64::new(0),
        }
    }

    fn next(&self) -> u64 {
        1 + self.last.fetch_add(1, Ordering::Relaxed)
    }

    fn tell(&self, number: u64, order: &str) {
        // Whoever waits for an answer is told if the process is gone.
        let _ = writeln!(lock(&self.orders), "{number} {order}");
    }

    fn request(&self, order: &str) -> Request<'_> {
        let number = self.next();
        let (sender, answer) = oneshot::channel();
        if let Some(waiting) = &mut *lock(&self.waiting) {
            waiting.insert(number, sender);
        }
        self.tell(number, order);
        Request {
            process: self,
            number,
            answer,
        }
    }
}

/// An order that is under way until it has failed or this is dropped.
struct Request<'a> {
    process: &'a Process,
    number: u64,
    answer: oneshot::Receiver<Answer>,
}

impl Request<'_> {
    async fn answer(&mut self) -> Answer {
        (&mut self.answer).await.expect("Python runs")
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        self.process.tell(self.number, "cancel");
    }
}

fn parsed(line: &str) -> Option<(u64, Answer)> {
    let words: Vec<_> = line.splitn(3, ' ').collect();
    let answer = match words[..] {
        [_, "ok", value] => Ok(value.parse().ok()?),
        [_, "failed", text] => Err(serde_json::from_str(text).ok()?),
        _ => return None,
    };
    Some((words[0].parse().ok()?, answer))
}

/// A suite that has panicked leaves its processes to be ended.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    #[should_panic(expected = "Python runs")]
    async fn who_asks_a_process_that_has_ended_does_not_wait() {
        let process = Process::start(Command::new("true"));
        lock(&process.child).wait().unwrap();
        let has_ended = async {
            // Its output ends a moment later.
            while lock(&process.waiting).is_some() {
                tokio::task::yield_now().await;
            }
            process.request("ready").answer().await
        };
        let answer = timeout(Duration::from_secs(120), has_ended).await;
        panic!("{answer:?}");
    }
}
