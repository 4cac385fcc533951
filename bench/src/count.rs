//! What a part of a suite does in a process of its own, as valgrind and strace count it.

use std::env;
use std::fs;
use std::hint::black_box;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
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

/// Ends what [`instructions`] and [`system_calls_between_marks`] count as one.
#[inline(never)]
pub fn mark() {
    #[cfg(unix)]
    black_box(std::os::unix::process::parent_id());
    #[cfg(not(unix))]
    black_box(0_u32);
}

/// As [`instructions`], of system calls; none without strace.
pub fn system_calls_between_marks(arguments: &[String], url: &str) -> Option<Vec<f64>> {
    let folder = Folder::new();
    let trace = folder.0.join("trace");
    let mut strace = Command::new("strace");
    run(strace.args(["-f", "-o"]).arg(&trace), arguments, url)?;
    let trace = fs::read_to_string(trace).expect("strace's lines");
    // A line is a process and its call; one that others interrupt goes on in another line. Signals are no calls.
    let calls = trace.lines().filter_map(|line| line.split_once(' '));
    let calls = calls.map(|(_, call)| call.trim_start());
    let calls: Vec<_> = calls
        .filter(|call| !call.starts_with(['<', '-', '+']))
        .collect();
    let between = calls.split(|call| call.starts_with(MARK)).skip(1);
    Some(between.map(|calls| calls.len() as f64).collect())
}

const MARK: &str = "getppid(";

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

/// Removes the temporary folders of runs that were killed.
pub fn clean_up() {
    let processes = Path::new("/proc");
    if !processes.join(id().to_string()).exists() {
        // This system does not tell which processes there are.
        return;
    }
    let folders = fs::read_dir(repository().join("target"));
    for folder in folders.into_iter().flatten().flatten() {
        let name = folder.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let process = number.and_then(|number| number.split_once('-')?.0.parse::<u32>().ok());
        if process.is_some_and(|process| !processes.join(process.to_string()).exists()) {
            // Another run may remove it at the same time.
            let _ = fs::remove_dir_all(folder.path());
        }
    }
}

/// Of the folders' names; the process comes next.
const PREFIX: &str = "bench-";

/// A temporary folder.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = repository().join(format!("target/{PREFIX}{}-{number}", id()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folders_of_killed_runs_are_removed_and_those_of_others_stay() {
        let mut killed = Command::new("sleep").arg("600").spawn().unwrap();
        let left = repository().join(format!("target/{PREFIX}{}-0", killed.id()));
        fs::create_dir_all(left.join("inside")).unwrap();
        let mine = Folder::new();
        clean_up();
        assert!(left.exists() && mine.0.exists());
        killed.kill().unwrap();
        killed.wait().unwrap();
        clean_up();
        assert!(!left.exists() && mine.0.exists());
    }
}
