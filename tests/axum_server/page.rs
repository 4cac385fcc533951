//! The page's files, its events, and who may ask for what.

use neon_sim::NeonSim;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::Lock;
use crate::common::{self, HANG};
use crate::server::{Server, command, neon, until};

const JSON: (&str, &str) = ("content-type", "application/json");

/// Starts a server with a stage.
async fn staged(neon: &NeonSim) -> Server {
    let control = neon.serve_control(0).await.unwrap();
    Server::start(&neon.url(), &[("NEON_SIM_CONTROL", &control)]).await
}

#[tokio::test]
async fn the_page_is_made_of_its_own_files() {
    let neon = neon().await;
    let server = Server::start(&neon.url(), &[]).await;
    // Whatever a client says that it accepts.
    let accept = [("accept", "application/json")];
    let page = server.request("GET", "/", &accept, "").await;
    assert_eq!(page.status, 200);
    let mut named: Vec<&str> = page
        .body
        .split('"')
        .filter(|text| text.starts_with("/page/"))
        .collect();
    named.sort_unstable();
    named.dedup();
    assert_eq!(
        named,
        ["/page/icon.svg", "/page/page.js", "/page/style.css"]
    );

    let mut paths: Vec<String> = named.into_iter().map(str::to_owned).collect();
    let mut at = 0;
    while let Some(path) = paths.get(at).cloned() {
        let file = server.get(&path).await;
        assert_eq!(file.status, 200, "{path}");
        let content_type = match path.rsplit_once('.').unwrap().1 {
            "svg" => "image/svg+xml",
            "css" => "text/css; charset=utf-8",
            _ => "text/javascript; charset=utf-8",
        };
        assert_eq!(file.header("content-type"), Some(content_type), "{path}");
        assert_eq!(file.header("x-content-type-options"), Some("nosniff"));
        // Nothing comes from elsewhere; a name space is no address.
        let elsewhere = file.body.replace("http://www.w3.org/2000/svg", "");
        assert!(
            !elsewhere.contains("//www.") && !elsewhere.contains("http"),
            "{path}"
        );
        for import in file.body.split("from \"./").skip(1) {
            let import = format!("/page/{}", import.split('"').next().unwrap());
            if !paths.contains(&import) {
                paths.push(import);
            }
        }
        at += 1;
    }
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"),
        "{policy}"
    );
    assert!(!policy.contains("unsafe"), "{policy}");
    // Nothing of this has asked the database.
    assert_eq!(neon.counters().direct.attempts, 0);
}

#[tokio::test]
async fn other_sites_neither_give_orders_nor_listen() {
    let neon = neon().await;
    let server = staged(&neon).await;
    let order = r#"{"action": "suspend", "how": "normal"}"#;
    let own = format!("http://{}", server.address);
    let host = ("host", server.address.as_str());
    for (header, refused) in [
        (("origin", "https://example.org"), true),
        (("origin", "null"), true),
        (("sec-fetch-site", "cross-site"), true),
        (("sec-fetch-site", "same-site"), true),
        (("sec-fetch-site", "same-origin"), false),
        (("origin", own.as_str()), false),
        (("x-nothing", "x"), false),
    ] {
        let before = neon.counters().suspensions;
        let answer = raw(&server, "POST", "/stage", &[host, JSON, header], order).await;
        let suspended = neon.counters().suspensions - before;
        if refused {
            assert_eq!(
                (status(&answer), suspended),
                (403, 0),
                "{header:?}: {answer}"
            );
            let answer = raw(&server, "GET", "/events", &[host, header], "").await;
            assert_eq!(status(&answer), 403, "{header:?}");
        } else {
            assert_eq!(
                (status(&answer), suspended),
                (204, 1),
                "{header:?}: {answer}"
            );
            neon.wake().await;
        }
    }
    // Another site's name may lead to this machine.
    let port = server.address.rsplit_once(':').unwrap().1;
    let name = format!("rebound.example:{port}");
    let origin = format!("http://{name}");
    let headers = [("host", name.as_str()), ("origin", &origin), JSON];
    assert_eq!(
        status(&raw(&server, "POST", "/stage", &headers, order).await),
        421
    );
    // A form of another site has another content type.
    let form = [host, ("content-type", "text/plain")];
    assert_eq!(
        status(&raw(&server, "POST", "/stage", &form, order).await),
        415
    );
    for (order, expected) in [
        (r#"{"action": "drop"}"#, 422),
        (r#"{"action": "suspend"}"#, 422),
    ] {
        let answer = raw(&server, "POST", "/stage", &[host, JSON], order).await;
        assert_eq!(status(&answer), expected, "{answer}");
    }
    assert!(!neon.is_suspended());
}

#[tokio::test]
async fn the_databases_words_are_for_this_machine_alone() {
    let neon = neon().await;
    let url = neon.url().replace(neon.password(), "wrong");
    let server = Server::start(&url, &[]).await;
    server.get("/books").await.problem(500);
    let named = Server::start(&url, &[("SERVER_NAME", "books.example")]).await;
    named.get("/books").await.problem(500);
    for (server, is_told) in [(&server, true), (&named, false)] {
        let mut events = Events::open(server).await;
        let pool = events.until("pool", |_| true).await;
        let failure = pool["last_failure"].as_str().unwrap();
        let tells = failure.contains("password authentication failed");
        assert_eq!(tells, is_told, "{failure}");
    }
}

#[tokio::test]
async fn a_name_that_is_not_the_servers_own_leads_nowhere() {
    let neon = neon().await;
    let local = Server::start(&neon.url(), &[]).await;
    let named = Server::start(&neon.url(), &[("SERVER_NAME", "books.example")]).await;
    // Another site's name may lead to this machine.
    for (server, host, expected) in [
        (&local, "localhost", 200),
        (&local, "[::1]:3000", 200),
        (&local, "rebound.example", 421),
        (&named, "localhost:3000", 200),
        (&named, "Books.Example", 200),
        (&named, "rebound.example", 421),
    ] {
        for path in ["/", "/books", "/events"] {
            let answer = raw(server, "GET", path, &[("host", host)], "").await;
            assert_eq!(status(&answer), expected, "{host} {path}: {answer}");
        }
    }
}

#[tokio::test]
async fn there_is_no_stage_without_a_stand_in_or_for_others() {
    let neon = neon().await;
    let server = Server::start(&neon.url(), &[]).await;
    let order = json!({ "action": "restart" });
    server
        .send("POST", "/stage", Some(&order))
        .await
        .problem(404);
    // A page that was open in front of another server is told so.
    let mut events = Events::open(&server).await;
    assert_eq!(events.until("stage", |_| true).await, Value::Null);

    let control = neon.serve_control(0).await.unwrap();
    let elsewhere = "postgresql://app:secret@ep-x-1.eu-central-1.aws.neon.tech/app?sslmode=require";
    let output = command(elsewhere, &[("NEON_SIM_CONTROL", &control)]).output();
    let output = timeout(HANG, output).await.unwrap().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && said.contains("for no other database"),
        "{said}"
    );
    let key = control.rsplit_once('/').unwrap().1.to_owned();
    let local = ("HOST", "127.0.0.1");
    for (setting, other) in [
        (control.clone(), ("HOST", "0.0.0.0")),
        (control.clone(), ("SERVER_NAME", "books.example")),
        (control.replace("127.0.0.1", "192.0.2.1"), local),
        (control.replace("http:", "https:"), local),
        (key.clone(), local),
    ] {
        let mut command = command(&neon.url(), &[("NEON_SIM_CONTROL", &setting), other]);
        let output = timeout(HANG, command.output()).await.unwrap().unwrap();
        assert!(!output.status.success(), "{setting}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            said.contains("NEON_SIM_CONTROL") && !said.contains(&key),
            "{said}"
        );
    }
}

#[tokio::test]
async fn events_tell_what_changes_and_never_ask_the_database() {
    let neon = neon().await;
    let server = staged(&neon).await;
    let mut events = Events::open(&server).await;
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let (name, _) = events.next().await;
        seen.push(name);
    }
    // Each begins with the whole.
    assert_eq!(seen, ["pool", "stage", "compute", "load"]);
    assert_eq!(neon.counters().direct.attempts, 0);

    assert_eq!(server.get("/books").await.status, 200);
    let pool = events.until("pool", |pool| pool["idle"] == 1).await;
    assert_eq!(pool["opened"], 1);
    let statements = neon.counters().direct.statements;
    server
        .send(
            "POST",
            "/stage",
            Some(&json!({ "action": "suspend", "how": "silent" })),
        )
        .await;
    let compute = events
        .until("compute", |compute| {
            compute["compute"].as_array().unwrap().last().unwrap()[1] == "asleep"
        })
        .await;
    assert_eq!(compute["marks"][0][1], "suspended without a word");
    assert_eq!(neon.counters().direct.statements, statements);

    // A second listener is told the same.
    let mut second = Events::open(&server).await;
    let same = second.until("compute", |_| true).await;
    assert_eq!(same["compute"], compute["compute"]);
}

#[tokio::test]
async fn a_load_that_is_stopped_and_started_again_has_all_of_its_clients() {
    let neon = neon().await;
    let control = neon.serve_control(0).await.unwrap();
    // One answer has all of the events.
    let settings = [("NEON_SIM_CONTROL", &*control), ("REQUEST_TIMEOUT", "600")];
    let server = Server::start(&neon.url(), &settings).await;
    let load = async |on: bool| {
        let order = json!({ "action": "load", "on": on });
        let answer = server.send("POST", "/stage", Some(&order)).await;
        assert_eq!(answer.status, 204);
    };
    let mut events = Events::open(&server).await;
    load(true).await;
    events
        .until_total(|[ours, _, stock, _]| ours.min(stock) > 0)
        .await;
    let lock = Lock::take(&neon).await;
    let waiting = "FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND relation = 'books'::regclass";
    common::until(&neon, &format!("SELECT count(*) >= 8 {waiting}"), "t").await;
    load(false).await;
    // All but one end. That one has no answer yet when the load begins again.
    let cancel = format!("SELECT pg_cancel_backend(pid) {waiting} LIMIT 7");
    neon.sql(&cancel).await.unwrap();
    let before = events
        .until_total(|[_, ours, _, stock]| ours + stock >= 7)
        .await;
    load(true).await;
    drop(lock);
    events
        .until_total(|[ours, _, stock, _]| ours > before[0] + 10 && stock > before[2] + 10)
        .await;
}

#[tokio::test]
async fn what_takes_several_orders_is_done_though_the_page_leaves() {
    let neon = neon().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let control = format!("http://{}/key", listener.local_addr().unwrap());
    let settings = [("NEON_SIM_CONTROL", &*control), ("MAX_CONNECTIONS", "1")];
    let server = Server::start(&neon.url(), &settings).await;
    let host = ("host", server.address.as_str());
    let order = r#"{"action": "cut_network", "on": true}"#;
    let page = ask(&server, "POST", "/stage", &[host, JSON], order).await;
    let (first, mut stand_in) = next_order(&listener).await;
    assert_eq!(first, "POST /key/lose_requests HTTP/1.1");
    drop(page);
    // The server takes one connection at a time: the page's is over.
    assert_eq!(server.get("/livez").await.status, 200);
    let done = "HTTP/1.1 204 No Content\r\n\r\n";
    stand_in.write_all(done.as_bytes()).await.unwrap();
    let (second, _stand_in) = next_order(&listener).await;
    assert_eq!(second, "POST /key/lose_responses HTTP/1.1");
}

/// Waits for an order to a stand-in, and returns its first line. It is not answered yet.
async fn next_order(listener: &TcpListener) -> (String, BufReader<TcpStream>) {
    let ordered = async {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            if line.starts_with("POST") {
                return (line.trim_end().to_owned(), stream);
            }
        }
    };
    timeout(HANG, ordered).await.expect("there is an order")
}

#[tokio::test]
async fn a_page_too_many_is_told_so_and_one_that_goes_makes_room() {
    let neon = neon().await;
    let server = Server::start(&neon.url(), &[]).await;
    let mut pages = Vec::new();
    for _ in 0..16 {
        pages.push(Events::open(&server).await);
    }
    let refused = server.get("/events").await;
    refused.problem(503);
    assert!(refused.header("retry-after").is_some());
    pages.pop();
    let room = async || {
        let headers = [("host", "localhost")];
        let mut stream = ask(&server, "GET", "/events", &headers, "").await;
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        line.contains("200")
    };
    until(room).await;
}

#[tokio::test]
async fn an_open_page_does_not_keep_the_server() {
    let neon = neon().await;
    // An answer that went on until its time is over would take longer than the test.
    let mut server = Server::start(&neon.url(), &[("REQUEST_TIMEOUT", "6000")]).await;
    let mut events = Events::open(&server).await;
    events.until("pool", |_| true).await;
    server.signal("TERM").await;
    let exit = timeout(HANG, server.process.wait())
        .await
        .expect("the server stays");
    assert!(exit.unwrap().success());
    // The answer has ended as an answer does.
    assert_eq!(events.rest().await, "0");
}

/// An answer of `/events`.
struct Events(Lines<BufReader<TcpStream>>);

impl Events {
    async fn open(server: &Server) -> Self {
        let stream = ask(server, "GET", "/events", &[("host", "localhost")], "").await;
        let mut events = Self(stream.lines());
        assert!(events.line().await.unwrap().contains("200"));
        events
    }

    async fn line(&mut self) -> Option<String> {
        timeout(HANG, self.0.next_line())
            .await
            .expect("there is something to tell")
            .unwrap()
    }

    /// Returns the next event.
    async fn next(&mut self) -> (String, Value) {
        loop {
            let line = self.line().await.expect("the events go on");
            if let Some(name) = line.strip_prefix("event: ") {
                let data = self.line().await.unwrap();
                let data = data.strip_prefix("data: ").unwrap();
                return (name.to_owned(), serde_json::from_str(data).unwrap());
            }
        }
    }

    async fn until(&mut self, name: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let looking = async {
            loop {
                let (found, data) = self.next().await;
                if found == name && is_it(&data) {
                    return data;
                }
            }
        };
        timeout(HANG, looking).await.expect("it is told")
    }

    /// Waits for totals of the load: answers and failures of our pool, and those of the stock one.
    async fn until_total(&mut self, is_it: impl Fn([u64; 4]) -> bool) -> [u64; 4] {
        let total = |load: &Value| -> Option<[u64; 4]> {
            let last = load["samples"].as_array()?.last()?;
            Some([1, 2, 3, 4].map(|column| last[column].as_u64().unwrap()))
        };
        let load = self.until("load", |load| total(load).is_some_and(&is_it));
        total(&load.await).unwrap()
    }

    /// Returns the last line that is not empty.
    async fn rest(&mut self) -> String {
        let mut last = String::new();
        while let Some(line) = self.line().await {
            if !line.is_empty() {
                last = line;
            }
        }
        last
    }
}

async fn ask(
    server: &Server,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(&server.address).await.unwrap();
    let headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let length = body.len();
    let request =
        format!("{method} {path} HTTP/1.1\r\n{headers}content-length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    BufReader::new(stream)
}

/// Returns the first line of an answer, and what else has come with it.
async fn raw(
    server: &Server,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> String {
    let mut stream = ask(server, method, path, headers, body).await;
    let mut line = String::new();
    let reading = stream.read_line(&mut line);
    timeout(HANG, reading)
        .await
        .expect("the server answers")
        .unwrap();
    line
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}
