//! Nothing is left behind, however the stand-in ends; and the command.

mod common;

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use common::{bounded, eventually, psql};
use neon_sim::NeonSim;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// The processes that work on a directory.
async fn servers(directory: &Path) -> Vec<u32> {
    let listed = Command::new("ps")
        .args(["-A", "-o", "pid=,args="])
        .output()
        .await
        .unwrap();
    let directory = directory.to_str().unwrap();
    String::from_utf8_lossy(&listed.stdout)
        .lines()
        .filter(|line| line.contains(directory))
        .map(|line| line.split_whitespace().next().unwrap().parse().unwrap())
        .collect()
}

/// Of the stand-in's own: nothing is left when it is dropped.
#[tokio::test]
async fn dropping_stops_the_servers_and_removes_their_directory() {
    let neon = bounded(NeonSim::builder().start()).await.unwrap();
    let (_client, driver) = common::connect(&neon.pooled_url(), neon.ca_path()).await;
    let directory = neon.ca_path().parent().unwrap().to_owned();
    // The shell, PostgreSQL and PgBouncer.
    assert!(servers(&directory).await.len() >= 3);
    // What a test puts there belongs to its own user, who may be root.
    fs::create_dir(directory.join("project")).unwrap();
    fs::write(directory.join("project/main.rs"), "").unwrap();
    drop(neon);
    assert!(servers(&directory).await.is_empty());
    assert!(!directory.exists());
    assert!(bounded(driver).await.unwrap().is_err());
}

/// Of the stand-in's own: restarts at the same time take turns, so that each server is stopped in the end.
#[tokio::test]
async fn restarts_take_turns() {
    let neon = bounded(NeonSim::builder().never_suspend().start()).await;
    let neon = neon.unwrap();
    let directory = neon.ca_path().parent().unwrap().to_owned();
    let down = Duration::from_millis(50);
    let restarted = tokio::join!(
        bounded(neon.restart_postgres(down)),
        bounded(neon.restart_postgres(down)),
        bounded(neon.restart_pgbouncer(down)),
        bounded(neon.restart_pgbouncer(down)),
    );
    for outcome in [restarted.0, restarted.1, restarted.2, restarted.3] {
        outcome.unwrap();
    }
    assert_eq!(psql(&neon.url(), "SELECT 1", &[]).await.unwrap(), "1");
    assert_eq!(
        psql(&neon.pooled_url(), "SELECT 1", &[]).await.unwrap(),
        "1"
    );
    drop(neon);
    assert!(servers(&directory).await.is_empty());
}

/// Of the stand-in's own: the template is shared, ports and directories are not.
#[tokio::test]
async fn many_start_at_the_same_time() {
    let start = || bounded(NeonSim::builder().start());
    let started = tokio::join!(start(), start(), start(), start());
    for neon in [started.0, started.1, started.2, started.3] {
        let neon = neon.unwrap();
        assert_eq!(psql(&neon.url(), "SELECT 1", &[]).await.unwrap(), "1");
    }
}

/// A running command, what it has printed, and the servers that it has started.
struct Running {
    child: Child,
    printed: HashMap<String, String>,
    directory: PathBuf,
}

impl Running {
    async fn start(arguments: &[&str], stdin: Stdio) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_neon-sim"))
            .args(arguments)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut printed = HashMap::new();
        while !printed.contains_key("NEON_SIM_CA") {
            let line = bounded(lines.next_line()).await.unwrap().unwrap();
            let (name, value) = line.split_once("='").unwrap();
            let value = value.strip_suffix('\'').unwrap();
            printed.insert(name.to_owned(), value.to_owned());
        }
        let directory = Path::new(&printed["NEON_SIM_CA"]).parent().unwrap().into();
        Self {
            child,
            printed,
            directory,
        }
    }

    async fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        let sent = Command::new("kill").args([name, &pid]).status().await;
        assert!(sent.unwrap().success());
    }

    async fn is_gone(&self) -> bool {
        !self.directory.exists() && servers(&self.directory).await.is_empty()
    }
}

/// Of the stand-in's own: the guard outlives the process that was killed.
#[tokio::test]
async fn a_killed_process_leaves_nothing_behind() {
    let mut running = Running::start(&[], Stdio::null()).await;
    assert!(servers(&running.directory).await.len() >= 3);
    running.child.kill().await.unwrap();
    eventually("everything is gone", async || running.is_gone().await).await;
}

/// Of the stand-in's own: not even what `initdb` has made by then, which goes on for a moment.
#[tokio::test]
async fn a_process_that_is_killed_in_its_first_start_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let everybody = |mode| fs::Permissions::from_mode(mode);
    fs::set_permissions(directory.path(), everybody(0o777)).unwrap();
    // Another PostgreSQL has another template. This one's `initdb` works until its folder is gone.
    let made = directory.path().join("made");
    let initdb = format!(
        "#!/bin/sh\nmkdir -p \"$2\"; n=0\nwhile : >\"$2/$n\"; do n=$((n + 1)); echo \"$2\" >'{}'; sleep 0.01; done 2>/dev/null\n",
        made.display()
    );
    for (program, script) in [("initdb", &*initdb), ("postgres", "#!/bin/sh\n")] {
        let program = directory.path().join(program);
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, everybody(0o755)).unwrap();
    }
    let path = std::env::var("PATH").unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_neon-sim"))
        .env("PATH", format!("{}:{path}", directory.path().display()))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let folder = async || fs::read_to_string(&made).unwrap_or_default();
    eventually("it begins", async || folder().await.ends_with('\n')).await;
    let folder = PathBuf::from(folder().await.trim_end());
    assert!(folder.exists());
    child.kill().await.unwrap();
    // `<folder>/template/data`
    let folder = folder.ancestors().nth(2).unwrap();
    assert!(folder.to_str().unwrap().contains("neon-sim"));
    eventually("everything is gone", async || !folder.exists()).await;
}

/// Of the stand-in's own: the command, from its first line to its last.
#[tokio::test]
async fn the_command_tells_what_happens_and_stops_cleanly() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("neon.env");
    let arguments = [
        "--suspend-after",
        "4s",
        "--cold-start",
        "10ms",
        "--env-file",
    ];
    let arguments = [&arguments[..], &[file.to_str().unwrap()]].concat();
    let mut running = Running::start(&arguments, Stdio::null()).await;
    let written = fs::read_to_string(&file).unwrap();
    for name in ["DATABASE_URL", "DATABASE_URL_UNPOOLED"] {
        let url = &running.printed[name];
        assert!(written.contains(&format!("{name}='{url}'\n")));
        assert_eq!(psql(url, "SELECT 1", &[]).await.unwrap(), "1");
    }
    assert!(running.printed["DATABASE_URL"].contains("-pooler."));
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let mut said = BufReader::new(running.child.stderr.take().unwrap()).lines();
    let mut expected = [
        "ready, suspends after 4s",
        "suspended",
        "waking",
        "awake, slept ",
    ]
    .into_iter()
    .peekable();
    while let Some(next) = expected.peek() {
        let line = bounded(said.next_line()).await.unwrap().unwrap();
        if line.contains(next) {
            expected.next();
        }
        if line.contains("suspended") {
            let url = &running.printed["DATABASE_URL_UNPOOLED"];
            psql(url, "SELECT 1", &[]).await.unwrap();
        }
    }
    running.signal("-TERM").await;
    let status = bounded(running.child.wait()).await.unwrap();
    assert!(status.success());
    assert!(running.is_gone().await);
    assert!(!file.exists());
}

/// Of the stand-in's own: a file that another has written since is left to that one.
#[tokio::test]
async fn a_file_that_another_stand_in_has_taken_over_stays() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("neon.env");
    let arguments = ["--env-file", file.to_str().unwrap()];
    let mut first = Running::start(&arguments, Stdio::null()).await;
    let mut second = Running::start(&arguments, Stdio::null()).await;
    for (running, is_left) in [(&mut first, true), (&mut second, false)] {
        running.signal("-TERM").await;
        assert!(bounded(running.child.wait()).await.unwrap().success());
        assert_eq!(file.exists(), is_left);
    }
}

/// Of the stand-in's own: Ctrl-C, and the end of the script that has started it.
#[tokio::test]
async fn the_command_stops_on_an_interrupt_and_when_its_input_ends() {
    let mut interrupted = Running::start(&[], Stdio::null()).await;
    interrupted.signal("-INT").await;
    assert!(bounded(interrupted.child.wait()).await.unwrap().success());
    assert!(interrupted.is_gone().await);

    let mut orphaned = Running::start(&["--suspend-after", "never"], Stdio::piped()).await;
    drop(orphaned.child.stdin.take());
    assert!(bounded(orphaned.child.wait()).await.unwrap().success());
    assert!(orphaned.is_gone().await);
}

/// Of the stand-in's own: the command's errors say what was wrong.
#[tokio::test]
async fn the_command_fails_with_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    let precious = directory.path().join(".env");
    fs::write(&precious, "SECRET=1\n").unwrap();
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (arguments, status, reason) in [
        (
            ["--env-file", precious.to_str().unwrap()],
            1,
            "exists and is not from here",
        ),
        (["--port", &port], 1, "Address already in use"),
        (["--suspend-after", "soon"], 2, "invalid value 'soon'"),
    ] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_neon-sim"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut stderr = child.stderr.take().unwrap();
        bounded(stderr.read_to_string(&mut said)).await.unwrap();
        assert_eq!(bounded(child.wait()).await.unwrap().code(), Some(status));
        assert!(said.contains(reason), "{said}");
    }
    assert_eq!(fs::read_to_string(&precious).unwrap(), "SECRET=1\n");
}

/// Of the stand-in's own: who knows the address that the command prints may give orders, and nobody else.
#[tokio::test]
async fn the_command_takes_orders_over_http() {
    let arguments = [
        "--suspend-after",
        "never",
        "--cold-start",
        "10ms",
        "--control-port",
        "0",
    ];
    let running = Running::start(&arguments, Stdio::null()).await;
    let control = &running.printed["NEON_SIM_CONTROL"];
    let url = &running.printed["DATABASE_URL_UNPOOLED"];
    assert_eq!(psql(url, "SELECT 1", &[]).await.unwrap(), "1");

    let mut events = request("GET", &format!("{control}/events")).await;
    let mut next = async || loop {
        let mut line = String::new();
        bounded(events.read_line(&mut line)).await.unwrap();
        if line.starts_with('{') {
            return serde_json::from_str::<Value>(&line).unwrap();
        }
    };
    let state = next().await;
    assert_eq!(state["compute"], "awake");
    assert_eq!(state["direct"]["statements"], 1);

    assert_eq!(order(control, "suspend?suspension=reset").await, 204);
    let suspended = next().await;
    assert_eq!(
        (&suspended["compute"], &suspended["suspension"]),
        (&"asleep".into(), &"reset".into())
    );
    // `+` and `%27` as in a form.
    let refused = "fail_wakes?times=1&message=Couldn%27t+connect+to+compute+node";
    assert_eq!(order(control, refused).await, 204);
    assert_eq!(order(control, "set_cold_start?milliseconds=20").await, 204);
    assert_eq!(psql(url, "SELECT 1", &[]).await.unwrap(), "1");
    assert_eq!(next().await["message"], "Couldn't connect to compute node");
    assert_eq!(next().await["event"], "waking");
    assert_eq!(next().await["compute"], "awake");
    assert_eq!(order(control, "suspend").await, 204);
    assert_eq!(order(control, "wake").await, 204);
    assert_eq!(
        order(control, "refuse_connections?times=1&message=no").await,
        204
    );
    assert!(psql(url, "SELECT 1", &[]).await.unwrap_err().contains("no"));
    assert_eq!(order(control, "hang_connections?times=1").await, 204);
    assert_eq!(order(control, "clear_faults").await, 204);
    for name in [
        "lose_requests",
        "lose_responses",
        "restart_postgres?milliseconds=0",
    ] {
        assert_eq!(order(control, name).await, 204, "{name}");
    }
    assert_eq!(psql(url, "SELECT 1", &[]).await.unwrap(), "1");
    let mut state = String::new();
    let mut answer = request("GET", &format!("{control}/state")).await;
    while !state.starts_with('{') {
        state.clear();
        bounded(answer.read_line(&mut state)).await.unwrap();
    }
    let state: Value = serde_json::from_str(&state).unwrap();
    assert_eq!(
        (&state["cold_start_ms"], &state["suspensions"]),
        (&20.into(), &2.into())
    );

    for (name, status) in [
        ("suspend?suspension=rude", 400),
        ("fail_wakes?times=some&message=no", 400),
        ("refuse_connections?times=1", 400),
        ("hang_connections", 400),
        ("set_cold_start?milliseconds=-1", 400),
        ("format_disk", 404),
    ] {
        assert_eq!(order(control, name).await, status, "{name}");
    }
    // Whoever does not know the secret.
    let guess = control.rsplit_once('/').unwrap().0;
    for path in ["", "/", "/0", "/0/0"] {
        assert_eq!(
            order(&format!("{guess}{path}"), "suspend").await,
            404,
            "{path}"
        );
    }
    let mut read = request("GET", &format!("{control}/suspend")).await;
    assert_eq!(status(&mut read).await, 405);
}

/// Of the stand-in's own: an order is carried out to its end, whether or not its client waits for that.
#[tokio::test]
async fn an_order_is_carried_out_though_its_client_leaves() {
    let neon = bounded(NeonSim::builder().never_suspend().start()).await;
    let neon = neon.unwrap();
    let control = neon.serve_control(0).await.unwrap();
    let is_up = async || neon.sql("SELECT 1").await.is_ok();
    let restart = format!("{control}/restart_postgres?milliseconds=5000");
    let client = request("POST", &restart).await;
    eventually("PostgreSQL is down", async || !is_up().await).await;
    drop(client);
    eventually("PostgreSQL is up again", is_up).await;
}

/// Gives an order, and returns the answer's status.
async fn order(control: &str, name: &str) -> u16 {
    let mut answer = request("POST", &format!("{control}/{name}")).await;
    status(&mut answer).await
}

async fn status(answer: &mut BufReader<TcpStream>) -> u16 {
    let mut line = String::new();
    bounded(answer.read_line(&mut line)).await.unwrap();
    line.split(' ').nth(1).unwrap().parse().unwrap()
}

async fn request(method: &str, url: &str) -> BufReader<TcpStream> {
    let rest = url.strip_prefix("http://").unwrap();
    let (address, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let mut stream = bounded(TcpStream::connect(address)).await.unwrap();
    let request =
        format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    BufReader::new(stream)
}
