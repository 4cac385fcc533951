//! The page at `/`: files that are part of the program, and need nothing from elsewhere.

use axum::Router;
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::App;

macro_rules! files {
    ($($path:literal, $file:literal, $content_type:expr;)*) => {
        Router::new()$(.route(
            $path,
            get(async || file($content_type, include_str!(concat!("page/", $file)))),
        ))*
    };
}

/// `/` has one answer, whatever a client says that it accepts: the page. What programs want is under `/books`.
pub(crate) fn routes() -> Router<App> {
    const HTML: &str = "text/html; charset=utf-8";
    const CSS: &str = "text/css; charset=utf-8";
    const JS: &str = "text/javascript; charset=utf-8";
    const SVG: &str = "image/svg+xml";
    files! {
        "/", "index.html", HTML;
        "/page/style.css", "style.css", CSS;
        "/page/icon.svg", "icon.svg", SVG;
        "/page/page.js", "page.js", JS;
        "/page/dom.js", "dom.js", JS;
        "/page/books.js", "books.js", JS;
        "/page/pool.js", "pool.js", JS;
        "/page/stage.js", "stage.js", JS;
        "/page/timeline.js", "timeline.js", JS;
        "/page/plot.js", "plot.js", JS;
    }
}

fn file(content_type: &'static str, text: &'static str) -> Response {
    let headers: [(HeaderName, &str); 5] = [
        (header::CONTENT_TYPE, content_type),
        // The next start of the server may bring other files.
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, text).into_response()
}

/// Nothing but this server's own files, in no frame, and no script or style within the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
