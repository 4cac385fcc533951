//! What a proxy knows, is told to do, and was asked for.

use std::collections::HashMap;
use std::sync::Mutex;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use tokio::sync::Notify;

use crate::control::plan::Plan;
use crate::sync::locked;

/// A request that a proxy was sent; its body is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProxyRequest {
    /// The method; a client that wants a tunnel asks with CONNECT.
    pub method: String,
    /// The target, `host:port` for CONNECT.
    pub target: String,
    /// The headers, names in small letters, in the order that they came in.
    pub headers: Vec<(String, String)>,
}

impl ProxyRequest {
    /// Returns the value of a header, by its name in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// What happens to a request instead of a tunnel, or to its tunnel.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    Refuse(u16),
    Hang,
    Drop,
    /// The tunnel ends after so many bytes from the server.
    CutOff(u64),
}

#[derive(Debug, Default)]
pub(super) struct State {
    routes: Mutex<HashMap<String, u16>>,
    /// The value that the header `Proxy-Authorization` must have.
    credentials: Mutex<Option<String>>,
    pub(super) faults: Plan<Fault>,
    requests: Mutex<Vec<ProxyRequest>>,
    /// Tells the tunnels that are open to end.
    pub(super) breaking: Notify,
}

impl State {
    pub(super) fn route(&self, target: String, port: u16) {
        locked(&self.routes).insert(target, port);
    }

    /// Returns the port on this machine that a target stands for.
    pub(super) fn port_of(&self, target: &str) -> Option<u16> {
        locked(&self.routes).get(target).copied()
    }

    pub(super) fn demand(&self, user: &str, password: &str) {
        let credentials = STANDARD.encode(format!("{user}:{password}"));
        *locked(&self.credentials) = Some(format!("Basic {credentials}"));
    }

    /// Returns whether a request has the credentials that are demanded, if any are.
    pub(super) fn admits(&self, request: &ProxyRequest) -> bool {
        let demanded = locked(&self.credentials);
        let demanded = demanded.as_deref();
        demanded.is_none_or(|value| request.header("proxy-authorization") == Some(value))
    }

    pub(super) fn record(&self, request: ProxyRequest) {
        locked(&self.requests).push(request);
    }

    pub(super) fn requests(&self) -> Vec<ProxyRequest> {
        locked(&self.requests).clone()
    }
}
