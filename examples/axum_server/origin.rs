//! What only a page of this server's own may ask for.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::problem::Problem;

/// Refuses requests that a browser makes for another site. Programs, which send no such headers, are let through.
pub(crate) async fn same_origin(request: Request, next: Next) -> Response {
    if is_from_elsewhere(request.headers()) {
        let detail = "Only a page of this server may ask for that.";
        return Problem::new(StatusCode::FORBIDDEN, detail).into_response();
    }
    next.run(request).await
}

/// Refuses requests that call this server neither by an address or a name of this machine nor by its own name, if it has one.
/// Another site could give its own name this machine's address, and its pages would then be of the same origin.
pub(crate) async fn known_name(
    State(own): State<Option<Arc<str>>>,
    request: Request,
    next: Next,
) -> Response {
    let is_known = |host: &Authority| {
        let is_own = |own: &str| host.host().eq_ignore_ascii_case(own);
        is_local(host) || own.as_deref().is_some_and(is_own)
    };
    if !host(request.headers()).as_ref().is_some_and(is_known) {
        let detail = "Call this server by `localhost`, or set SERVER_NAME to the name that it has.";
        return Problem::new(StatusCode::MISDIRECTED_REQUEST, detail).into_response();
    }
    next.run(request).await
}

fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    // Browsers say `none` for what the user has asked for by hand.
    let other_site = |site: &str| !matches!(site, "same-origin" | "none");
    let other_origin = |origin: &str| {
        let host = host(headers);
        let own = host.map(|host| format!("http://{host}"));
        own.as_deref() != Some(origin)
    };
    let says = |name: HeaderName, is_wrong: &dyn Fn(&str) -> bool| {
        let mut values = headers.get_all(name).iter();
        values.any(|value| value.to_str().map_or(true, is_wrong))
    };
    says(SITE, &other_site) || says(header::ORIGIN, &other_origin)
}

fn host(headers: &HeaderMap) -> Option<Authority> {
    headers.get(header::HOST)?.to_str().ok()?.parse().ok()
}

fn is_local(host: &Authority) -> bool {
    let name = host.host();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    let address = address.parse::<std::net::IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}
