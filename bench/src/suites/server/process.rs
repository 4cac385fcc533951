//! A server in a process of its own.

use std::env;
use std::fs;
use std::net::SocketAddr;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::part;
use crate::count;
use crate::pools::Configuration;

pub struct Server {
    pub address: SocketAddr,
    process: u32,
    /// Ends when this is dropped, or this process ends.
    _child: Child,
}

/// In bytes.
pub struct Memory {
    pub all: f64,
    /// Without mapped files.
    pub own: f64,
}

impl Server {
    /// Starts the arm's server, which listens when this returns.
    pub async fn start(arm: usize, configuration: Configuration, url: &str) -> Self {
        let mut command = Command::new(env::current_exe().expect("its own path"));
        command.args([part::PART, &arm.to_string(), part::name(configuration)]);
        command.env(count::URL, url).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // It logs what fails, as the example does.
        command.stderr(Stdio::null());
        let mut child = command.spawn().expect("a process");
        let output = child.stdout.take().expect("it is piped");
        let mut line = String::new();
        let read = BufReader::new(output).read_line(&mut line).await;
        read.expect("the server's address");
        Self {
            address: line.trim().parse().expect("the server's address"),
            process: child.id().expect("it runs"),
            _child: child,
        }
    }

    pub fn memory(&self) -> Memory {
        let status = self.told("status");
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
            let kilobytes = kilobytes.and_then(|number| number.parse::<f64>().ok());
            kilobytes.expect("the kernel tells the memory") * 1024.0
        };
        Memory {
            all: value("VmRSS:"),
            own: value("RssAnon:"),
        }
    }

    /// Returns the seconds that the process has run on a processor.
    pub fn processor_time(&self) -> f64 {
        let stat = self.told("stat");
        // The program's name, which ends with the last bracket, is the second value; the times are the 14th and the 15th.
        let (_, values) = stat.rsplit_once(") ").expect("a name in brackets");
        let mut values = values.split(' ').skip(11);
        let mut ticks = || values.next().and_then(|ticks| ticks.parse::<f64>().ok());
        let (user, system) = (ticks().expect("a time"), ticks().expect("a time"));
        (user + system) / TICKS
    }

    fn told(&self, file: &str) -> String {
        let file = format!("/proc/{}/{file}", self.process);
        fs::read_to_string(file).expect("the kernel tells of a process")
    }
}

/// In a second; all architectures of Linux tell their programs times in these.
const TICKS: f64 = 100.0;
