//! The buttons for what the stand-in can do, and the two pools under one load.

use std::time::Duration;

use neon_sim::{Event, Suspension};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::common::{HANG, neon_with};
use crate::scene::Scene;

/// Returns the state of a switch.
fn is_on(scene: &Scene, action: &str) -> bool {
    let script = format!("return document.querySelector('[data-action={action}]').ariaPressed");
    scene.browser.run(&script) == "true"
}

/// Presses a switch and waits until it is so.
fn switch(scene: &Scene, action: &str, on: bool) {
    assert_eq!(is_on(scene, action), !on);
    scene.browser.click(&format!("[data-action={action}]"));
    let now = if on { ": on." } else { ": off." };
    scene.browser.until_shown("#trouble-said", now);
    let pressed =
        format!("document.querySelector('[data-action={action}]').ariaPressed === '{on}'");
    scene.browser.until(&pressed);
}

/// Presses the button for books, and waits for the answer.
fn refresh(scene: &Scene, words: &str) {
    scene
        .browser
        .run("document.getElementById('library-said').textContent = ''");
    scene.browser.click("#refresh");
    scene.browser.until_shown("#library-said", words);
}

async fn cold_start(scene: &Scene) -> Value {
    let rest = scene.control.strip_prefix("http://").unwrap();
    let (address, path) = rest.split_once('/').unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request =
        format!("GET /{path}/state HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let json = answer.lines().find(|line| line.starts_with('{')).unwrap();
    serde_json::from_str::<Value>(json).unwrap()["cold_start_ms"].take()
}

#[tokio::test]
async fn every_button_does_what_it_says() {
    let scene = Scene::new().await;
    let browser = &scene.browser;
    // A button that is not among these is not tested.
    let buttons = "return [...document.querySelectorAll('button:not(#books button)')].map((button) => \
        button.id || [button.dataset.action, button.dataset.how].filter(Boolean).join(' '))";
    let known = [
        "load",
        "suspend normal",
        "suspend reset",
        "suspend silent",
        "slow_start",
        "refuse_wakes",
        "cut_network",
        "restart",
        "refresh",
        "add",
        "more",
        "cancel",
        "save",
    ];
    assert_eq!(browser.run(buttons), json!(known));

    let mut events = scene.neon.events();
    for (how, suspension, words) in [
        (
            "normal",
            Suspension::Normal,
            "suspended: sessions are told, and closed.",
        ),
        (
            "reset",
            Suspension::Reset,
            "suspended: connections are reset.",
        ),
        (
            "silent",
            Suspension::Silent,
            "suspended: connections stay open, and dead.",
        ),
    ] {
        // A connection that was used within the last half second is not checked. No compute is suspended so soon.
        sleep(Duration::from_millis(600)).await;
        browser.click(&format!("[data-how={how}]"));
        browser.until_shown("#trouble-said", words);
        match timeout(HANG, events.recv()).await.unwrap().unwrap() {
            Event::Suspended {
                suspension: told, ..
            } => assert_eq!(told, suspension),
            other => panic!("{other:?}"),
        }
        browser.until_shown("#state-name", "asleep");
        refresh(&scene, "answered in");
        browser.until_shown("#state-name", "awake");
        let woken = async { while !matches!(events.recv().await.unwrap(), Event::Woken { .. }) {} };
        timeout(HANG, woken).await.unwrap();
    }
    assert_eq!(scene.neon.counters().suspensions, 3);

    assert_eq!(cold_start(&scene).await, 400);
    switch(&scene, "slow_start", true);
    assert_eq!(cold_start(&scene).await, 4000);
    switch(&scene, "slow_start", false);
    assert_eq!(cold_start(&scene).await, 400);

    switch(&scene, "refuse_wakes", true);
    browser.click("[data-how=normal]");
    browser.until_shown("#state-name", "asleep");
    browser.run("document.getElementById('library-said').textContent = ''");
    browser.click("#refresh");
    let refused =
        async { while !matches!(events.recv().await.unwrap(), Event::WakeFailed { .. }) {} };
    timeout(HANG, refused).await.unwrap();
    assert!(scene.neon.is_suspended());
    switch(&scene, "refuse_wakes", false);
    browser.until_shown("#library-said", "answered in");
    assert!(!scene.neon.is_suspended());

    let started = "SELECT pg_postmaster_start_time()";
    let before = scene.neon.sql(started).await.unwrap();
    browser.click("[data-action=restart]");
    browser.until_shown("#trouble-said", "Postgres has restarted.");
    assert_ne!(scene.neon.sql(started).await.unwrap(), before);
    refresh(&scene, "answered in");
    scene.assert_quiet();
}

#[tokio::test]
async fn a_network_that_is_cut_answers_nobody_until_it_is_mended() {
    let neon = neon_with(|neon| neon).await;
    let scene = Scene::with(neon, |neon| neon.url(), &[("REQUEST_TIMEOUT", "6")]).await;
    let browser = &scene.browser;
    let before = scene.neon.counters().direct;
    switch(&scene, "cut_network", true);
    // Another fault that begins and ends meanwhile changes nothing.
    switch(&scene, "refuse_wakes", true);
    switch(&scene, "refuse_wakes", false);
    refresh(&scene, "The ");
    assert_eq!(scene.neon.counters().direct.statements, before.statements);
    browser.until_shown("#pool-failure", "ago");
    switch(&scene, "cut_network", false);
    // What was connecting while the network was cut may have to give up first.
    let answered = "document.getElementById('library-said').innerText.includes('answered in')";
    let again = format!(
        "{answered} || (document.getElementById('library').ariaBusy || document.getElementById('refresh').click(), false)"
    );
    browser.until(&again);
    let said = browser.console();
    assert!(
        said.iter()
            .all(|line| line.contains("503") || line.contains("504")),
        "{said:#?}"
    );
}

#[tokio::test]
async fn the_plots_tell_what_the_stand_in_counts() {
    let neon = neon_with(|neon| neon).await;
    // Ours goes through the pooler, so that the stand-in counts the two apart.
    let scene = Scene::with(neon, |neon| neon.pooled_url(), &[]).await;
    let browser = &scene.browser;
    let before = scene.neon.counters();
    // What this server does not do is not told of it.
    assert!(!browser.text("#race .note").contains("silence_threshold"));
    browser.click("#load");
    browser.until_shown("#load", "Stop the load");
    let number =
        |id: &str| format!("Number(document.getElementById('{id}').innerText.replace(',', ''))");
    let answers = ["ours-answers", "stock-answers"].map(|id| format!("{} > 50", number(id)));
    browser.until(&answers.join(" && "));
    let plot = "document.getElementById('answers').getAttribute('aria-label')";
    browser.until(&format!(
        "/diesel-neon [1-9].*bb8 and diesel-async [1-9].*now/.test({plot})"
    ));
    assert_eq!(
        browser.run("return document.querySelectorAll('#answers path.curve').length"),
        2
    );
    browser.click("#load");
    browser.until_shown("#load", "Start the load");

    // The last totals come when the last client has its answer.
    let counted = || {
        let since = scene.neon.counters() - before;
        (
            since.pooled.statements,
            since.direct.statements,
            since.direct.connections,
        )
    };
    browser.until(&format!(
        "/^Answers per second: diesel-neon 0, bb8 and diesel-async 0 now/.test({plot})"
    ));
    let (ours, stock) = (
        browser.number("#ours-answers"),
        browser.number("#stock-answers"),
    );
    let (pooled, direct, connections) = counted();
    // Ours asks the pooler what it supports, and a connection whether it works if it was quiet for long.
    let text = browser.text("#pool-checks");
    let checks: u64 = text.split(' ').next().unwrap().parse().unwrap();
    assert!(
        (ours..=ours + checks + 40).contains(&pooled),
        "{ours} answers, {checks} checks, {pooled} statements"
    );
    // The other asks each connection each time, and sets each up with some statements.
    let setup = direct - 2 * stock;
    assert!(
        direct >= 2 * stock && setup <= 4 * connections,
        "{stock} answers, {direct} statements, {connections} connections"
    );
    for id in ["#ours-failures", "#stock-failures"] {
        assert_eq!(browser.number(id), 0);
    }
    scene.assert_quiet();
}

#[tokio::test]
async fn sessions_that_die_without_a_word_stop_the_stock_pool_alone() {
    let scene = Scene::new().await;
    let browser = &scene.browser;
    browser.until_shown("#race .note", "(silence_threshold)");
    browser.click("#load");
    let number =
        |id: &str| format!("Number(document.getElementById('{id}').innerText.replace(',', ''))");
    browser.until(&format!(
        "{} > 50 && {} > 50",
        number("ours-answers"),
        number("stock-answers")
    ));
    browser.click("[data-how=silent]");
    browser.until_shown(
        "#trouble-said",
        "suspended: connections stay open, and dead.",
    );
    browser.until(&format!("{} >= 4", number("stock-failures")));
    let (ours, stock) = (
        browser.number("#ours-answers"),
        browser.number("#stock-answers"),
    );
    browser.until(&format!(
        "{} > {ours} + 100 && {} >= 8",
        number("ours-answers"),
        number("stock-failures")
    ));
    assert_eq!(browser.number("#stock-answers"), stock);
    assert!(browser.number("#ours-failures") < browser.number("#stock-failures"));
    let plot = "document.getElementById('failures').getAttribute('aria-label')";
    browser.until(&format!("/at most [1-9]/.test({plot})"));
    browser.click("#load");
    browser.until_shown("#load", "Start the load");
    scene.assert_quiet();
}
