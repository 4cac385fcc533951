//! How the page looks: light and dark, wide and narrow. The pictures are in `target/page`, and in `docs` on request.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::scene::Scene;

/// Set to have the pictures in `docs` made anew, which takes a minute.
const FOR_DOCS: &str = "DIESEL_NEON_PICTURES";

/// Returns the texts that are hard to read: those whose contrast is less than 4.5 (WCAG 2, AA).
const FAINT: &str = r"
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const rgba = (color) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
        .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = (node) => {
        for (; node; node = node.parentElement) {
            const color = rgba(getComputedStyle(node).backgroundColor);
            if (color[3] === 255) return color;
        }
        return [255, 255, 255, 255];
    };
    const faint = [];
    for (const node of document.querySelectorAll('body *')) {
        const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim() !== '');
        if (!own || !node.checkVisibility() || node.closest('svg')) continue;
        const style = getComputedStyle(node);
        const [a, b] = [light(rgba(style.color)), light(behind(node))].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        if (ratio < 4.5) faint.push([node.textContent.trim(), ratio]);
    }
    return faint;
";

/// Returns what has no name for those who do not see it, and names that are there twice.
const NAMELESS: &str = r"
    const wrong = [];
    const ids = [...document.querySelectorAll('[id]')].map((node) => node.id);
    wrong.push(...ids.filter((id, at) => ids.indexOf(id) !== at));
    for (const node of document.querySelectorAll('button, input, section, [role=group], [role=img], a, dialog')) {
        const by = (node.getAttribute('aria-labelledby') ?? '').split(' ').map((id) => document.getElementById(id)?.textContent);
        const name = node.getAttribute('aria-label') ?? (by.join('') || (node.labels?.[0]?.textContent ?? node.textContent));
        if (name.trim() === '' && !node.hidden) wrong.push(node.outerHTML.slice(0, 80));
    }
    return wrong;
";

/// Whether no colour changes any more.
const STILL: &str =
    "!document.getAnimations().some((animation) => animation instanceof CSSTransition)";

/// Returns what reaches out of the page to the right.
const TOO_WIDE: &str = r"
    const wide = [...document.querySelectorAll('body *')].filter((node) => node.checkVisibility() && !node.closest('svg')
        && !node.matches('.skip') && node.getBoundingClientRect().right > innerWidth + 0.5);
    return [document.documentElement.scrollWidth > innerWidth, ...wide.map((node) => node.outerHTML.slice(0, 80))];
";

#[tokio::test]
async fn light_and_dark_wide_and_narrow() {
    let scene = Scene::new().await;
    let browser = &scene.browser;
    let for_docs = std::env::var_os(FOR_DOCS).is_some();
    browser.click("#load");
    let many = if for_docs { 3000 } else { 100 };
    let number =
        |id: &str| format!("Number(document.getElementById('{id}').innerText.replace(',', ''))");
    browser.until(&format!("{} > {many}", number("ours-answers")));
    browser.click("[data-how=silent]");
    browser.until(&format!("{} >= 4", number("stock-failures")));
    if for_docs {
        sleep(Duration::from_secs(12)).await;
    }

    let pictures = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/page");
    for scheme in ["light", "dark"] {
        browser.prefer(&[("prefers-color-scheme", scheme)]);
        for (name, width, height) in [
            ("wide", 1280, 1000),
            ("narrow", 360, 740),
            ("huge", 2200, 1200),
        ] {
            browser.resize(width, height);
            // The plots are drawn anew.
            browser.until(&format!(
                "document.getElementById('answers').viewBox.baseVal.width < {width}"
            ));
            browser.until(STILL);
            assert_eq!(browser.run(TOO_WIDE), json!([false]), "{scheme}, {name}");
            assert_eq!(browser.run(FAINT), json!([]), "{scheme}, {name}");
            browser.picture(&pictures.join(format!("{scheme}-{name}.png")), None);
            if for_docs && name == "wide" {
                browser.resize(1120, 1000);
                sleep(Duration::from_millis(1200)).await;
                let docs: PathBuf = pictures.join(format!("../../docs/page-{scheme}.png"));
                let end = "return document.getElementById('race').getBoundingClientRect().bottom + scrollY + 8";
                let height = browser.run(end).as_f64().unwrap();
                browser.picture(&docs, Some((1120, height as u32)));
                let size = std::fs::metadata(&docs).unwrap().len();
                assert!(size < 150_000, "{}: {size} bytes", docs.display());
            }
        }
        browser.resize(1280, 1000);
        browser.click("#add");
        sleep(Duration::from_millis(200)).await;
        assert_eq!(browser.run(FAINT), json!([]), "{scheme}, the form");
        browser.picture(&pictures.join(format!("{scheme}-form.png")), None);
        browser.click("#cancel");
    }
    assert_eq!(browser.run(NAMELESS), json!([]));
    let background = |scheme: &str| -> Value {
        browser.prefer(&[("prefers-color-scheme", scheme)]);
        browser.run("return getComputedStyle(document.body).backgroundColor")
    };
    assert_ne!(background("light"), background("dark"));

    let motion = "return getComputedStyle(document.getElementById('add')).transitionProperty";
    assert_ne!(browser.run(motion), "none");
    browser.prefer(&[("prefers-reduced-motion", "reduce")]);
    assert_eq!(browser.run(motion), "none");
    scene.assert_quiet();
}
