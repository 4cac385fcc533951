//! What a failed login means, told by the server's words.
//!
//! Neon's proxy sends every error of this phase as `XX000`: there is nothing else to go by. What is not
//! known here is told by the class that the pool gives it.

use diesel_neon::ConnectErrorKind;

use super::report::Finding;

/// The part of a login that a failure belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Endpoint,
    Authentication,
    /// Behind the authentication, or beside it.
    Start,
}

/// What `message` means.
pub(crate) fn of_login(message: &str, kind: ConnectErrorKind) -> (Part, Finding) {
    let known = KNOWN
        .iter()
        .find(|known| known.texts.iter().any(|text| message.contains(text)));
    let (part, code, meaning, mend) = match known {
        Some(known) => (known.part, known.code, known.meaning, known.mend),
        None => by_kind(kind),
    };
    (part, Finding::new(code, meaning, mend).with_error(message))
}

struct Known {
    texts: &'static [&'static str],
    part: Part,
    code: &'static str,
    meaning: &'static str,
    mend: &'static str,
}

/// The first of which the message contains a text; narrower ones stand in front.
const KNOWN: &[Known] = &[
    Known {
        texts: &["Endpoint ID is not specified"],
        part: Part::Endpoint,
        code: "endpoint-missing",
        meaning: "the server saw neither a host name in TLS (SNI) nor an endpoint option, so it does \
                  not know which database is meant; an address, a tunnel or another name stands \
                  where the endpoint's own host name should",
        mend: "use the host name that Neon's console shows, with hostaddr=… for the address; or add \
               options=endpoint%3D<endpoint-id> to the URL",
    },
    Known {
        texts: &["Inconsistent project name"],
        part: Part::Endpoint,
        code: "endpoint-inconsistent",
        meaning: "the host name says one endpoint, and the endpoint option in `options` another; they \
                  must be equal, -pooler included",
        mend: "remove endpoint=… (or project=…) from `options` in the URL: the host name is enough",
    },
    Known {
        texts: &["endpoint cannot be found"],
        part: Part::Endpoint,
        code: "endpoint-unknown",
        meaning: "Neon has no such endpoint: it was deleted, with its branch perhaps, or is misspelt",
        mend: "copy the connection string from Neon's console again",
    },
    Known {
        texts: &["endpoint is disabled"],
        part: Part::Endpoint,
        code: "endpoint-disabled",
        meaning: "somebody has disabled this compute; it does not wake on connections",
        mend: "enable the compute in Neon's console (Branches, Computes), or use another branch",
    },
    Known {
        texts: &["inferred from SNI"],
        part: Part::Endpoint,
        code: "endpoint-host",
        meaning: "this server is not responsible for the host name's domain",
        mend: "use the host name that Neon's console shows, unchanged",
    },
    Known {
        texts: &["password authentication failed"],
        part: Part::Authentication,
        code: "credentials",
        meaning: "user name or password is wrong; Neon says the same of a role or an endpoint that \
                  does not exist",
        mend: "copy the connection string from Neon's console again, or reset the role's password \
               there; percent-encode special characters in it",
    },
    Known {
        texts: &["channel binding"],
        part: Part::Authentication,
        code: "channel-binding",
        meaning: "channel_binding=require is set, but the login cannot be bound to this TLS session: \
                  something between here and the server ends TLS, or the server cannot do it",
        mend: "find out who ends TLS in between (the certificate's issuer says); only if that is \
               meant, use channel_binding=prefer",
    },
    Known {
        texts: &["SCRAM-PLUS not used"],
        part: Part::Authentication,
        code: "channel-binding",
        meaning: "client and server disagree on whether the other can bind the login to TLS: \
                  something in between may be tampering",
        mend: "check who issued the certificate; use the direct path to Neon",
    },
    Known {
        texts: &["password missing", "no password supplied"],
        part: Part::Authentication,
        code: "password-missing",
        meaning: "the server asks for a password, and the URL has none",
        mend: "put it into the URL behind the user name: postgresql://user:password@…",
    },
    Known {
        texts: &["connection is insecure"],
        part: Part::Start,
        code: "sslmode-missing",
        meaning: "the server takes only TLS, and this URL means plain text",
        mend: "add sslmode=verify-full to the URL, and use the endpoint's host name",
    },
    Known {
        texts: &["unsupported startup parameter"],
        part: Part::Start,
        code: "startup-options",
        meaning: "the pooler hands server connections around and takes no settings for one of them",
        mend: "remove `options` from the URL and set it with ALTER ROLE … SET …; or use the direct URL",
    },
    Known {
        texts: &["is not allowed to connect to this endpoint"],
        part: Part::Start,
        code: "address-not-allowed",
        meaning: "the project has an IP allow list, and this machine's public address is not on it",
        mend: "add the address to the IP allow list in the project's settings (Network security)",
    },
    Known {
        texts: &["blocked network"],
        part: Part::Start,
        code: "network-blocked",
        meaning: "the project does not take connections from this network: public access is off, or \
                  a VPC endpoint is required",
        mend: "connect from the allowed network, or allow this one in the project's settings",
    },
    Known {
        texts: &["Check your quotas", "exceeded the"],
        part: Part::Start,
        code: "quota",
        meaning: "the project's allowance (compute time, data transfer, storage) may be used up; Neon \
                  says the same during maintenance",
        mend: "look at the usage in Neon's console: wait for the next period or raise the plan; if \
               there is room, try again in a minute",
    },
    Known {
        texts: &[
            "Too many connections attempts",
            "Too many connections to this endpoint",
        ],
        part: Part::Start,
        code: "too-many-attempts",
        meaning: "Neon limits how often one endpoint is connected to",
        mend: "try again; if it stays, look for clients that reconnect for every request, and lower \
               max_connecting",
    },
    Known {
        texts: &["Failed to acquire permit"],
        part: Part::Start,
        code: "too-many-attempts",
        meaning: "too many connections to this compute are being made at this moment",
        mend: "try again; if it stays, lower max_connecting or the number of instances",
    },
    Known {
        texts: &["Control plane request failed"],
        part: Part::Start,
        code: "control-plane",
        meaning: "Neon's control plane could not start the compute; this passes, and the pool tries \
                  again by itself",
        mend: "try again in a minute; if it stays, see https://neonstatus.com",
    },
    Known {
        texts: &["Couldn't connect to compute node"],
        part: Part::Start,
        code: "compute-unreachable",
        meaning: "the compute did not come up in time; this passes, and the pool tries again by itself",
        mend: "try again; if it stays, restart the compute in Neon's console",
    },
    Known {
        texts: &["the database system is"],
        part: Part::Start,
        code: "starting-up",
        meaning: "the server is starting or stopping; this passes, and the pool tries again by itself",
        mend: "try again in a few seconds",
    },
    Known {
        texts: &["permission denied for database"],
        part: Part::Start,
        code: "database-forbidden",
        meaning: "the role may not connect to this database",
        mend: "GRANT CONNECT ON DATABASE … TO …, or use another role",
    },
    Known {
        texts: &["query_wait_timeout"],
        part: Part::Start,
        code: "pooler-full",
        meaning: "the pooler had no server connection free for too long: all are held by transactions",
        mend: "look for transactions that are left open; lower max_size × instances",
    },
];

fn by_kind(kind: ConnectErrorKind) -> (Part, &'static str, &'static str, &'static str) {
    match kind {
        ConnectErrorKind::Authentication => (
            Part::Authentication,
            "credentials",
            "the server does not accept this user name and password",
            "check both in the URL",
        ),
        ConnectErrorKind::Database => (
            Part::Start,
            "database-unknown",
            "the server has no database of the name at the end of the URL's path",
            "correct the name, or create it: CREATE DATABASE …",
        ),
        ConnectErrorKind::Configuration => (
            Part::Start,
            "startup-parameter",
            "the server refuses a parameter of the URL",
            "remove what it names from the URL",
        ),
        ConnectErrorKind::Endpoint => (
            Part::Endpoint,
            "endpoint-unknown",
            "the server does not know this endpoint",
            "copy the connection string from Neon's console again",
        ),
        ConnectErrorKind::Forbidden => (
            Part::Start,
            "address-not-allowed",
            "the server does not let this machine or role in",
            "check the IP allow list and the role's rights",
        ),
        ConnectErrorKind::TooManyConnections => (
            Part::Start,
            "too-many-connections",
            "all of the server's connection slots are taken",
            "lower max_size or the number of instances, or use the pooled URL; see which sessions \
             there are: SELECT usename, application_name, state FROM pg_stat_activity",
        ),
        ConnectErrorKind::Unavailable | ConnectErrorKind::Unreachable => (
            Part::Start,
            "unavailable",
            "the connection broke before the session was there: the server is starting or stopping, \
             or something in between cuts connections",
            "try again; if it stays, look for a firewall or a proxy in between",
        ),
        _ => (
            Part::Start,
            "refused",
            "the server refused, for a reason that is not known here",
            "go by its words; see https://neonstatus.com if they do not help",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_pool_can_classify_is_diagnosed() {
        use ConnectErrorKind::*;
        for (message, kind, code) in [
            (
                "remaining connection slots are reserved for x",
                TooManyConnections,
                "too-many-connections",
            ),
            (
                "database \"shelf\" does not exist",
                Database,
                "database-unknown",
            ),
            (
                "Your project has exceeded the compute time quota.",
                Other,
                "quota",
            ),
            (
                "Control plane request failed: endpoint is temporarily unavailable. Check your quotas and/or contact our support.",
                Other,
                "quota",
            ),
            (
                "Control plane request failed: endpoint is disabled",
                Endpoint,
                "endpoint-disabled",
            ),
            ("Control plane request failed", Unavailable, "control-plane"),
            (
                "database \"quota\" does not exist",
                Database,
                "database-unknown",
            ),
            ("a text of tomorrow", Other, "refused"),
        ] {
            let (_, finding) = of_login(message, kind);
            assert_eq!(
                (finding.code, finding.error.as_deref()),
                (code, Some(message))
            );
        }
    }
}
