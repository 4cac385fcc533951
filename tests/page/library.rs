//! The books, by mouse and by keyboard; and the page at rest.

use std::time::Duration;

use neon_sim::Event;
use serde_json::json;
use tokio::time::timeout;

use crate::browser::{Browser, ENTER, ESCAPE, SPACE, TAB};
use crate::common::{HANG, neon, neon_with};
use crate::scene::{Scene, serve};

#[tokio::test]
async fn books_are_added_edited_and_taken_out_by_mouse() {
    let scene = Scene::new().await;
    let browser = &scene.browser;
    assert_eq!(
        browser.run("return document.querySelectorAll('#books li').length"),
        5
    );

    browser.click("#add");
    browser.fill("#title", "Solaris");
    browser.fill("#author", "Stanisław Lem");
    browser.fill("#publication_year", "1961");
    browser.click("#save");
    browser.until_shown("#library-said", "“Solaris” was added");
    browser.until_shown("#books", "Stanisław Lem, 1961");
    let made = "SELECT author, publication_year, in_stock FROM books WHERE title = 'Solaris'";
    let row = |author: &str, year: &str, in_stock: &str| {
        vec![
            [author, year, in_stock]
                .map(|value| Some(value.to_owned()))
                .to_vec(),
        ]
    };
    assert_eq!(
        scene.neon.sql(made).await.unwrap(),
        row("Stanisław Lem", "1961", "t")
    );

    browser.click("[aria-label='Edit Solaris']");
    assert_eq!(
        browser.run("return document.getElementById('title').value"),
        "Solaris"
    );
    browser.fill("#publication_year", "1962");
    browser.click("#in_stock");
    browser.click("#save");
    browser.until_shown("#library-said", "“Solaris” was changed");
    assert_eq!(
        scene.neon.sql(made).await.unwrap(),
        row("Stanisław Lem", "1962", "f")
    );
    browser.until_shown("#books", "lent out");

    browser.click("[aria-label='Edit Solaris']");
    browser.fill("#title", "Eden");
    browser.click("#cancel");
    browser.until("!document.getElementById('editor').open");

    browser.click("[aria-label='Take out Solaris']");
    browser.until_shown("#library-said", "“Solaris” was taken out");
    assert_eq!(scene.titles().await.len(), 5);

    scene
        .neon
        .sql("UPDATE books SET title = 'Kin' WHERE title = 'Kindred'")
        .await
        .unwrap();
    browser.click("#refresh");
    browser.until("document.querySelector(\"[aria-label='Edit Kin']\")");

    let many = "INSERT INTO books (title) SELECT 'Volume ' || n FROM generate_series(1, 30) n";
    scene.neon.sql(many).await.unwrap();
    browser.click("#refresh");
    browser.until_shown("#library-said", "and more");
    // A button that is pressed twice brings the next books once.
    browser.run("const more = document.getElementById('more'); more.click(); more.click()");
    browser.until("performance.getEntriesByType('resource').filter((one) => one.name.includes('after=')).length === 2");
    browser.until("document.getElementById('more').hidden");
    assert_eq!(
        browser.run("return document.querySelectorAll('#books li').length"),
        35
    );
    scene.assert_quiet();
}

#[tokio::test]
async fn a_button_that_is_pressed_again_at_once_does_nothing_twice() {
    let scene = Scene::new().await;
    let browser = &scene.browser;
    let many = "INSERT INTO books (title) SELECT 'Volume ' || n FROM generate_series(1, 50) n";
    scene.neon.sql(many).await.unwrap();
    browser.click("#refresh");
    browser.until_shown("#library-said", "and more");
    let at_rest = || browser.until("!document.getElementById('library').ariaBusy");
    let shown = || {
        browser.run("return [...document.querySelectorAll('#books li')].map((book) => Number(book.dataset.book))")
    };
    let first = |count: u32| json!((1..=count).collect::<Vec<_>>());
    let press = |ids: &[&str]| {
        for id in ids {
            assert_eq!(
                browser.run(&format!("return document.getElementById('{id}').hidden")),
                false
            );
        }
        let presses: Vec<_> = ids
            .iter()
            .map(|id| format!("document.getElementById('{id}').click()"))
            .collect();
        browser.run(&presses.join(";"));
        at_rest();
    };
    press(&["more", "more"]);
    assert_eq!(shown(), first(40));
    press(&["refresh", "more"]);
    assert_eq!(shown(), first(55));
    press(&["refresh"]);
    press(&["more", "refresh"]);
    assert_eq!(shown(), first(20));

    browser.run("const out = document.querySelector(\"[aria-label='Take out Volume 1']\"); out.click(); out.click()");
    browser.until_shown("#library-said", "“Volume 1” was taken out");
    at_rest();
    scene.assert_quiet();
}

#[tokio::test]
async fn a_book_that_is_still_being_saved_closes_no_other_form() {
    let scene = Scene::new().await;
    let browser = &scene.browser;
    browser.run(
        "const [one, , other] = document.querySelectorAll('#books li button');
        const title = document.getElementById('title');
        one.click();
        title.value = 'Another';
        document.getElementById('form').requestSubmit();
        document.getElementById('cancel').click();
        other.click();
        title.value = 'Half a tit';",
    );
    browser.until_shown("#library-said", "“Another” was changed");
    assert_eq!(
        browser.run("return [document.getElementById('editor').open, document.getElementById('title').value]"),
        json!([true, "Half a tit"])
    );
    browser.click("#save");
    browser.until_shown("#library-said", "“Half a tit” was changed");
    assert_eq!(scene.titles().await[..2], ["Another", "Half a tit"]);
    scene.assert_quiet();
}

#[tokio::test]
async fn the_keyboard_alone_will_do() {
    let scene = Scene::new().await;
    let browser = &scene.browser;
    let focus = || {
        browser
            .run("return document.activeElement.id")
            .as_str()
            .unwrap()
            .to_owned()
    };
    let go_to = |id: &str| {
        let way: Vec<_> = (0..40)
            .map(|_| {
                browser.press(TAB);
                // What has the focus shows it.
                let ring = "const s = getComputedStyle(document.activeElement); return s.outlineStyle + s.outlineWidth";
                assert_eq!(browser.run(ring), "solid3px", "{}", focus());
                focus()
            })
            .take_while(|reached| reached != id)
            .collect();
        assert_eq!(focus(), id, "{way:?}");
    };
    // The first stop leads past everything else.
    browser.press(TAB);
    assert_eq!(
        browser.run("return document.activeElement.className"),
        "skip"
    );
    browser.press(ENTER);
    browser.until("document.activeElement.id === 'library'");
    go_to("add");
    browser.press(ENTER);
    browser.until("document.activeElement.id === 'title'");
    browser.press("Eden");
    browser.press(TAB);
    browser.press("Lem");
    browser.press(ENTER);
    browser.until_shown("#library-said", "“Eden” was added");
    // The focus is back where it was.
    browser.until("document.activeElement.id === 'add'");

    browser.press(SPACE);
    browser.until("document.getElementById('editor').open");
    browser.press(ESCAPE);
    browser.until("!document.getElementById('editor').open");
    assert_eq!(focus(), "add");

    // The focus stays in the list when its book is gone.
    browser.run("document.querySelector(\"[aria-label='Take out Eden']\").focus()");
    browser.press(ENTER);
    browser.until_shown("#library-said", "“Eden” was taken out");
    browser.until("document.activeElement.closest('#books')");

    // The stage too: a switch says that it is on.
    browser
        .run("document.getElementById('compute').scrollIntoView(); document.activeElement.blur()");
    browser.run("document.querySelector('[data-action=slow_start]').focus()");
    browser.press(SPACE);
    browser.until("document.querySelector('[data-action=slow_start]').getAttribute('aria-pressed') === 'true'");
    scene.assert_quiet();
}

#[tokio::test]
async fn what_is_wrong_is_said_beside_its_field() {
    let scene = Scene::new().await;
    let browser = &scene.browser;
    browser.click("#add");
    browser.fill("#publication_year", "soon");
    browser.click("#save");
    browser.until_shown("#publication_year-wrong", "must be a whole number");
    assert_eq!(
        browser.run("return document.activeElement.id"),
        "publication_year"
    );

    browser.fill("#publication_year", "99999");
    browser.click("#save");
    browser.until_shown("#title-wrong", "It must not be blank.");
    browser.until_shown(
        "#publication_year-wrong",
        "It must be between -3000 and 2100.",
    );
    browser.until_shown("#form-wrong", "The book breaks rules.");
    assert_eq!(browser.run("return document.activeElement.id"), "title");
    assert_eq!(
        browser.run("return document.activeElement.ariaInvalid"),
        "true"
    );
    assert_eq!(scene.titles().await.len(), 5);

    // No text is markup.
    browser.fill("#title", "<img src=x onerror=alert(1)>");
    browser.fill("#publication_year", "");
    browser.click("#save");
    browser.until_shown("#books", "<img src=x");
    // The browser itself tells of the answer that was a refusal.
    let said = scene.browser.console();
    assert!(said.len() == 1 && said[0].contains("422"), "{said:#?}");
}

#[tokio::test]
async fn without_a_stand_in_the_page_shows_no_buttons_for_it() {
    let neon = neon().await;
    let (_server, url) = serve(&neon, &neon.pooled_url(), &[]).await;
    let browser = Browser::start();
    browser.open(&url, 1280, 900);
    browser.until_shown("#pool-opened", "the last took");
    browser.until_shown("#library-said", "5 books");
    let shown =
        "return ['compute', 'race', 'trouble'].filter((id) => !document.getElementById(id).hidden)";
    assert_eq!(browser.run(shown), json!([]));
    assert_eq!(browser.console(), [""; 0]);
}

/// A browser has six connections to a server of HTTP/1.1, for all tabs together.
#[tokio::test]
async fn any_number_of_tabs_may_be_open() {
    let neon = neon().await;
    // The events of a tab would not end within this test.
    let (_server, url) = serve(&neon, &neon.pooled_url(), &[("REQUEST_TIMEOUT", "600")]).await;
    let browser = Browser::start();
    for _ in 0..8 {
        browser.open(&url, 1280, 900);
        browser.until_shown("#library-said", "5 books");
        browser.until_shown("#link", "live");
        browser.new_tab();
    }
}

#[tokio::test]
async fn a_page_at_rest_lets_the_compute_fall_asleep_and_sleep_on() {
    let neon = neon_with(|neon| neon.suspend_after(Duration::from_secs(1))).await;
    let mut events = neon.events();
    // The events end, and are asked for again, after 4 s.
    let scene = Scene::with(neon, |neon| neon.url(), &[("REQUEST_TIMEOUT", "5")]).await;
    let browser = &scene.browser;
    let asleep = async { while !matches!(events.recv().await, Ok(Event::Suspended { .. })) {} };
    timeout(HANG, asleep)
        .await
        .expect("the page keeps the compute awake");
    browser.until_shown("#state-name", "asleep");
    let before = scene.neon.counters();
    let asked = "performance.getEntriesByType('resource').filter((one) => one.name.endsWith('/events')).length";
    let count = browser.run(&format!("return {asked}")).as_u64().unwrap();
    browser.until(&format!("{asked} >= {count} + 2"));
    assert!(scene.neon.is_suspended());
    let since = scene.neon.counters() - before;
    assert_eq!(
        (since.direct.attempts, since.direct.statements, since.wakes),
        (0, 0, 0)
    );

    // A request for books wakes it, and the page shows how.
    browser.click("#refresh");
    browser.until_shown("#state-name", "awake");
    let line = "document.getElementById('timeline').getAttribute('aria-label')";
    browser.until(&format!(
        "{line}.includes('asleep, then waking, then awake')"
    ));
    assert_eq!((scene.neon.counters() - before).wakes, 1);
    scene.assert_quiet();
}
