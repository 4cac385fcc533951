//! What a part of a suite does in a process of its own, as valgrind and strace count it.

use std::env;
use std::fs;
use std::hint::black_box;
use std::io::{self, ErrorKind, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio, exit, id};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use crate::stand_in::repository;

/// What has the server's URL in such a process: it has the password, and others on the machine can read arguments.
pub const URL: &str = "BENCH_URL";

/// Returns the server's URL, in a process of a part.
pub fn url() -> String {
    env::var(URL).expect("the server's URL")
}

/// Returns how many instructions this program executes with `arguments` from each [`mark`] to the next, and from the last to
/// its end; none without valgrind.
pub fn instructions(arguments: &[String], url: &str) -> Option<Vec<f64>> {
    let folder = Folder::new();
    let dumps = folder.0.join("dump");
    let mut valgrind = Command::new("valgrind");
    valgrind.arg("--tool=callgrind");
    valgrind.arg(format!("--callgrind-out-file={}", dumps.display()));
    // It demangles names, and knows this one with its path.
    valgrind.arg("--dump-before=*count::mark*");
    run(&mut valgrind, arguments, url)?;
    let dump = |number: u32| fs::read_to_string(dumps.with_extension(number.to_string())).ok();
    let counts = (1..).map_while(dump).map(|dump| {
        let total = dump.lines().find_map(|line| line.strip_prefix("totals: "));
        total
            .and_then(|total| total.trim().parse().ok())
            .expect("valgrind tells the instructions")
    });
    // The first is what led to the first mark.
    let counts: Vec<f64> = counts.skip(1).collect();
    assert!(!counts.is_empty(), "valgrind saw no two marks");
    Some(counts)
}

/// Ends this process with the one that holds the other end of its input.
pub fn end_with_input() {
    thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        exit(0);
    });
}

/// Ends what [`instructions`] counts as one.
#[inline(never)]
pub fn mark() {
    black_box(0_u32);
}

/// Returns how many system calls this program makes with `arguments`; none without strace.
pub fn system_calls(arguments: &[String], url: &str) -> Option<f64> {
    let folder = Folder::new();
    let table = folder.0.join("table");
    let mut strace = Command::new("strace");
    strace.args(["-c", "-f", "-e", "trace=all", "-o"]);
    run(strace.arg(&table), arguments, url)?;
    let table = fs::read_to_string(table).expect("strace's table");
    let total = table
        .lines()
        .rev()
        .find(|line| line.ends_with(" total"))
        .and_then(|line| line.split_whitespace().nth(3)?.parse().ok());
    Some(total.expect("strace tells the calls"))
}

/// Runs this program with `arguments` under `tool`; returns nothing if there is no such tool.
fn run(tool: &mut Command, arguments: &[String], url: &str) -> Option<()> {
    tool.arg(env::current_exe().expect("its own path"));
    // Its input ends with this process, and so does it.
    tool.args(arguments).env(URL, url).stdin(Stdio::piped());
    tool.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut process = match tool.spawn() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            tell_missing(&tool.get_program().to_string_lossy());
            return None;
        }
        process => process.expect("the tool runs"),
    };
    let input = process.stdin.take();
    let output = process.wait_with_output().expect("the tool runs");
    drop(input);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}");
    Some(())
}

/// Says once that a tool is missing.
fn tell_missing(tool: &str) {
    static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let mut told = TOLD.lock().expect("no panic");
    if !told.iter().any(|one| one == tool) {
        eprintln!("  there is no {tool}: what it counts is left out");
        told.push(tool.to_owned());
    }
}

/// A temporary folder.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // What an interrupted run leaves is gone with what it was built from.
        let folder = repository().join(format!("target/bench-{}-{number}", id()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
