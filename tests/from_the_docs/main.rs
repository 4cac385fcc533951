//! New projects, made of nothing but what the README and the pages in `docs/` say, build and run.

mod page;
mod project;
mod server;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use neon_sim::{NeonSim, Suspension};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use server::{HANG, Server, get, send};

async fn start() -> NeonSim {
    let neon = NeonSim::builder().never_suspend().start().await;
    neon.expect("the stand-in for Neon starts")
}

/// Returns a folder that is removed with the stand-in, and has no `.env` above it.
fn folder(neon: &NeonSim) -> &Path {
    neon.ca_path().parent().unwrap()
}

/// Returns the command of a project's program, with nothing in its environment but the URL.
fn command(neon: &NeonSim, program: &PathBuf, url: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("DATABASE_URL", url);
    command.current_dir(folder(neon)).kill_on_drop(true);
    command
}

/// How the sessions of a compute end: with `57P01` on the direct endpoint and with FIN alone on the pooled one, with RST,
/// and silently.
const SUSPENSIONS: [Suspension; 3] = [Suspension::Normal, Suspension::Reset, Suspension::Silent];

/// Suspends the compute as Neon does: after a quiet time. What answered a moment ago would be handed out unasked.
async fn suspend(neon: &NeonSim, suspension: Suspension) {
    sleep(Duration::from_secs(1)).await;
    neon.suspend(suspension).await;
    assert!(neon.is_suspended());
}

#[tokio::test]
async fn the_first_example_of_the_readme() {
    let files = page::of_the_readme(&page::read("README.md"));
    let neon = start().await;
    let program = project::build(folder(&neon), "of_the_readme", files).await;
    neon.sql(
        "CREATE TABLE books (id SERIAL PRIMARY KEY, title TEXT NOT NULL); \
         GRANT SELECT ON books TO PUBLIC; INSERT INTO books (title) VALUES ('Dune')",
    )
    .await
    .unwrap();
    for url in [neon.url(), neon.pooled_url()] {
        neon.suspend(Suspension::Normal).await;
        let output = command(&neon, &program, &url).output();
        let output = timeout(HANG, output).await.expect("no hang").unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.stdout, b"[\"Dune\"]\n", "{stderr}");
        assert!(output.status.success());
    }
}

#[tokio::test]
async fn a_synchronous_app_answers_after_a_suspension() {
    let files = page::of_the_section(&page::read("docs/blocking.md"));
    let neon = start().await;
    let program = project::build(folder(&neon), "synchronous_app", files).await;
    let mut all = Vec::new();
    for url in [neon.url(), neon.pooled_url()] {
        let mut app = command(&neon, &program, &url);
        app.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut app = app.spawn().unwrap();
        let mut stdin = app.stdin.take().unwrap();
        let mut stdout = BufReader::new(app.stdout.take().unwrap()).lines();
        let mut type_in = async |title: &str| {
            stdin
                .write_all(format!("{title}\n").as_bytes())
                .await
                .unwrap();
            let line = timeout(HANG, stdout.next_line()).await;
            line.expect("no hang").unwrap().expect("it goes on")
        };
        all.push("Dune".to_owned());
        assert_eq!(type_in("Dune").await, all.join(", "));
        for suspension in SUSPENSIONS {
            suspend(&neon, suspension).await;
            all.push(format!("{suspension:?}"));
            let title = format!("{suspension:?}");
            assert_eq!(type_in(&title).await, all.join(", "), "{suspension:?}");
            assert!(!neon.is_suspended());
        }
        drop(stdin);
        let status = timeout(HANG, app.wait()).await.expect("no hang").unwrap();
        assert!(status.success());
    }
}

#[tokio::test]
async fn an_axum_app_answers_after_a_suspension() {
    let files = page::of_the_section(&page::read("docs/axum.md"));
    let neon = start().await;
    let program = project::build(folder(&neon), "axum_app", files).await;
    let mut all = Vec::new();
    for url in [neon.url(), neon.pooled_url()] {
        let mut app = command(&neon, &program, &url);
        app.env("PORT", "0");
        let server = Server::start(app).await;
        let address = &*server.address;
        let added = send(address, "POST /books", "Dune").await;
        assert_eq!(added, (201, String::new()));
        all.push("Dune".to_owned());
        for suspension in SUSPENSIONS {
            suspend(&neon, suspension).await;
            assert_eq!(get(address, "/readyz").await.0, 200);
            assert!(neon.is_suspended(), "a probe has woken it");
            let listed = (200, format!("{all:?}").replace(", ", ","));
            assert_eq!(get(address, "/books").await, listed, "{suspension:?}");
            assert!(!neon.is_suspended());
        }
        // The connection that a handler gets itself.
        suspend(&neon, Suspension::Normal).await;
        let added = send(address, "POST /books", "Emma").await;
        assert_eq!(added, (201, String::new()));
        all.push("Emma".to_owned());
    }
}

#[test]
fn the_page_shows_the_app_on_actix_as_it_is() {
    let page = page::read("docs/blocking.md");
    let app = page::read("examples/actix/src/main.rs");
    assert!(page.contains(&format!("```rust,ignore\n{app}```\n")));
}
