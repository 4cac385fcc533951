//! A stand-in with a table of books, the server in front of it, and the page in a browser.

use std::process::Stdio;
use std::time::Duration;

use neon_sim::NeonSim;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::time::timeout;

use crate::browser::Browser;
use crate::common::{HANG, example, neon_with};

const CREATE_TABLES: &str = concat!(
    include_str!("../../migrations/2026-01-05-090000_create_books/up.sql"),
    include_str!("../../migrations/2026-01-12-090000_create_book_requests/up.sql")
);
const BOOKS: &str = "INSERT INTO books (title, author, publication_year) VALUES \
    ('The Left Hand of Darkness', 'Ursula K. Le Guin', 1969), ('The Dispossessed', 'Ursula K. Le Guin', 1974), \
    ('Kindred', 'Octavia E. Butler', 1979), ('Roadside Picnic', 'Arkady and Boris Strugatsky', 1972), \
    ('The Player of Games', 'Iain M. Banks', 1988)";

pub(crate) struct Scene {
    // The browser goes first, so that it misses nothing that it could complain of.
    pub(crate) browser: Browser,
    _server: Child,
    pub(crate) control: String,
    pub(crate) neon: NeonSim,
}

impl Scene {
    /// Opens the page of a server on the direct endpoint, with buttons for the stand-in's faults.
    pub(crate) async fn new() -> Self {
        let neon = neon_with(|neon| neon.cold_start(Duration::from_millis(400))).await;
        Self::with(neon, |neon| neon.url(), &[("SILENCE_THRESHOLD", "1")]).await
    }

    pub(crate) async fn with(
        neon: NeonSim,
        url: fn(&NeonSim) -> String,
        settings: &[(&str, &str)],
    ) -> Self {
        let control = neon.serve_control(0).await.unwrap();
        let mut all = vec![("NEON_SIM_CONTROL", control.as_str())];
        all.extend(settings);
        let (server, address) = serve(&neon, &url(&neon), &all).await;
        let browser = Browser::start();
        browser.open(&address, 1280, 1000);
        browser.until_shown("#library-said", "answered in");
        browser.until_shown("#link", "live");
        Self {
            browser,

            _server: server,
            control,
            neon,
        }
    }

    /// Fails if the console has said anything worse than a word in passing.
    pub(crate) fn assert_quiet(&self) {
        let said = self.browser.console();
        assert!(said.is_empty(), "{said:#?}");
    }

    /// Returns the titles in the database.
    pub(crate) async fn titles(&self) -> Vec<String> {
        let rows = self
            .neon
            .sql("SELECT title FROM books ORDER BY id")
            .await
            .unwrap();
        rows.into_iter()
            .map(|mut row| row[0].take().unwrap())
            .collect()
    }
}

/// Starts the server, with five books.
pub(crate) async fn serve(neon: &NeonSim, url: &str, settings: &[(&str, &str)]) -> (Child, String) {
    neon.sql(&format!("SET ROLE neondb_owner; {CREATE_TABLES} {BOOKS}"))
        .await
        .unwrap();
    let mut command = example("axum_server");
    command
        .env("DATABASE_URL", url)
        .env("PORT", "0")
        .envs(settings.iter().copied())
        .current_dir(std::env::temp_dir())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut server = command.spawn().unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let line = timeout(HANG, lines.next_line())
        .await
        .expect("it says where it listens");
    let line = line.unwrap().expect("it starts");
    let address = line.strip_prefix("listening on ").unwrap().to_owned();
    (server, address)
}
