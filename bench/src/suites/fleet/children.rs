//! Processes of this program's own, that take orders and tell what they have seen, a line each.

use std::io::{self, BufRead};
use std::process::Stdio;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout, Command};

use crate::count::URL;

/// A process that does a part of this suite. It ends with its value.
#[derive(Debug)]
pub struct Child {
    _process: tokio::process::Child,
    orders: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Child {
    /// Starts a part that uses the server of this URL.
    pub fn start(arguments: &[&str], url: &str) -> Self {
        let mut program = Command::new(std::env::current_exe().expect("its own path"));
        // Others on the machine can read arguments.
        program.arg(PART).args(arguments).env(URL, url);
        Self::spawn(program)
    }

    /// Starts a part with as many file descriptors as there may be.
    pub fn start_with_many_files(arguments: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        let raised = "ulimit -n \"$(ulimit -Hn)\"; exec \"$0\" \"$@\"";
        shell.args(["-c", raised]);
        shell.arg(std::env::current_exe().expect("its own path"));
        shell.arg(PART).args(arguments);
        Self::spawn(shell)
    }

    fn spawn(mut program: Command) -> Self {
        program.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = program.kill_on_drop(true).spawn().expect("a process");
        let lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        Self {
            orders: process.stdin.take().expect("a pipe"),
            lines,
            _process: process,
        }
    }

    pub async fn order(&mut self, order: &str) {
        let line = format!("{order}\n");
        let written = self.orders.write_all(line.as_bytes()).await;
        written.expect("the part listens");
    }

    /// Returns what the part tells next.
    pub async fn told<T: DeserializeOwned>(&mut self) -> T {
        let line = self.lines.next_line().await.expect("a pipe");
        let line = line.expect("the part has not ended");
        serde_json::from_str(&line).expect("what was asked for")
    }
}

/// Of this suite's parts.
pub const PART: &str = "fleet";

/// Tells whoever has started this process.
pub fn tell(value: &impl Serialize) {
    println!("{}", serde_json::to_string(value).expect("a line"));
}

/// Waits for the next order.
pub async fn next_order() {
    let read = || {
        let mut line = String::new();
        // It ends with whoever gives orders.
        match io::stdin().lock().read_line(&mut line) {
            Ok(length) if length > 0 => {}
            _ => std::process::exit(1),
        }
    };
    tokio::task::spawn_blocking(read).await.expect("an order");
}
