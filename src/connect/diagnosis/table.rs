//! Every known error of the connection phase: its words, its class, its meaning, its mend.

use super::super::kind::ConnectErrorKind as Kind;
use super::entry::Diagnosis;

/// The first entry counts of whose texts the message contains one, so narrower entries come first. If there is
/// none, the first entry with the error's SQLSTATE counts.
pub(super) static TABLE: &[Diagnosis] = &[
    // Final: who you are.
    Diagnosis {
        code: "method-unknown",
        kind: Kind::Authentication,
        meaning: "the server asks for a method of authentication that this client does not have; it knows \
                  SCRAM-SHA-256, with up to 100,000 iterations, MD5 and a cleartext password",
        hint: "let the server's pg_hba.conf ask this client for scram-sha-256",
        texts: &[
            "unsupported authentication method",
            "unsupported SASL mechanism",
            "SCRAM iteration count exceeds",
        ],
        sqlstates: &[],
    },
    Diagnosis {
        code: "credentials",
        kind: Kind::Authentication,
        meaning: "user name or password is wrong; Neon says the same of a role or an endpoint that \
                  does not exist",
        hint: "check the user name and the password in the database URL (special characters are \
               percent-encoded), or reset the role's password",
        texts: &[
            "authentication failed for user",
            "SASL authentication failed",
        ],
        sqlstates: &["28P01"],
    },
    Diagnosis {
        code: "role-unknown",
        kind: Kind::Authentication,
        meaning: "the server has no role of the user name in the URL",
        hint: "correct the user name in the database URL, or create the role",
        texts: &["role \"\" does not exist", "no such user"],
        sqlstates: &[],
    },
    Diagnosis {
        code: "role-barred",
        kind: Kind::Authentication,
        meaning: "the role exists, but may not log in",
        hint: "ALTER ROLE … LOGIN, or use another role in the database URL",
        texts: &["role \"\" is not permitted to log in"],
        sqlstates: &[],
    },
    Diagnosis {
        code: "password-missing",
        kind: Kind::Authentication,
        meaning: "the server asks for a password, and the URL has none",
        hint: "put it into the database URL behind the user name: postgresql://user:password@…",
        texts: &[
            "password missing",
            "no password supplied",
            "empty password returned by client",
        ],
        sqlstates: &[],
    },
    Diagnosis {
        code: "user-missing",
        kind: Kind::Configuration,
        meaning: "the server was told no user name",
        hint: "put it into the database URL: postgresql://user:password@…",
        texts: &["'user' is missing", "no PostgreSQL user name specified"],
        sqlstates: &[],
    },
    Diagnosis {
        code: "channel-binding",
        kind: Kind::Authentication,
        meaning: "channel_binding=require is set, but the login cannot be bound to this TLS session: \
                  something between here and the server ends TLS, or the server cannot do it",
        hint: "find out who ends TLS in between (the certificate's issuer says); only if that is \
               meant, use channel_binding=prefer",
        texts: &["channel binding", "SCRAM-PLUS not used"],
        sqlstates: &[],
    },
    Diagnosis {
        code: "login-unreadable",
        kind: Kind::Authentication,
        meaning: "the proxy could not read the login; it takes no password over 512 bytes",
        hint: "set a shorter password for the role",
        texts: &["authentication protocol violation"],
        sqlstates: &[],
    },
    Diagnosis {
        code: "client-not-admitted",
        kind: Kind::Forbidden,
        meaning: "the server's pg_hba.conf has no line that lets this client in",
        hint: "add one for this address, user and database, or connect in the way that it allows (TLS)",
        texts: &["pg_hba.conf"],
        sqlstates: &[],
    },
    Diagnosis {
        code: "credentials",
        kind: Kind::Authentication,
        meaning: "the server does not let this user in",
        hint: "check the user name and the password in the database URL",
        texts: &["authentication error"],
        sqlstates: &["28000"],
    },
    // Final: which database.
    Diagnosis {
        code: "database-unknown",
        kind: Kind::Database,
        meaning: "the server has no database of the name at the end of the URL's path",
        hint: "create it, or correct the name at the end of the database URL's path",
        texts: &["database \"\" does not exist", "no such database"],
        sqlstates: &["3D000"],
    },
    Diagnosis {
        code: "database-closed",
        kind: Kind::Database,
        meaning: "the database exists, but takes no connections",
        hint: "ALTER DATABASE … ALLOW_CONNECTIONS true, or use another database",
        texts: &[
            "database \"\" is not currently accepting connections",
            "cannot connect to invalid database",
        ],
        sqlstates: &[],
    },
    Diagnosis {
        code: "database-forbidden",
        kind: Kind::Forbidden,
        meaning: "the role may not connect to this database",
        hint: "GRANT CONNECT ON DATABASE … TO …, or use another role",
        texts: &["permission denied for database"],
        sqlstates: &[],
    },
    // Final: what the URL asks for.
    Diagnosis {
        code: "startup-options",
        kind: Kind::Configuration,
        meaning: "the pooler hands server connections around and takes no settings for one of them",
        hint: "remove `options` from the database URL and set it with ALTER ROLE … SET …, or use the \
               direct URL",
        texts: &["unsupported startup parameter"],
        sqlstates: &[],
    },
    Diagnosis {
        code: "setting-unknown",
        kind: Kind::Configuration,
        meaning: "the server has no setting of a name that the URL sets",
        hint: "correct or remove it in the database URL (`options`)",
        texts: &["unrecognized configuration parameter"],
        sqlstates: &["42704"],
    },
    Diagnosis {
        code: "setting-refused",
        kind: Kind::Configuration,
        meaning: "the server refuses a setting of the URL: its value, or that it is set there",
        hint: "correct or remove what it names in the database URL (`options`)",
        texts: &[
            "invalid value for parameter",
            "is outside the valid range for parameter",
            "parameter \"\" cannot be",
            "parameter \"\" requires",
            "permission denied to set parameter",
            "invalid command-line argument",
        ],
        sqlstates: &["22023", "42602", "55P02"],
    },
    Diagnosis {
        code: "startup-parameter",
        kind: Kind::Configuration,
        meaning: "the server refuses a parameter of the URL",
        hint: "remove what it names from the database URL, or use the direct one",
        texts: &["invalid configuration", "unsupported frontend protocol"],
        sqlstates: &["0A000"],
    },
    Diagnosis {
        code: "sslmode-missing",
        kind: Kind::Configuration,
        meaning: "the server takes only TLS, and this URL means plain text",
        hint: "add sslmode=verify-full to the database URL, and use the endpoint's host name",
        texts: &["connection is insecure"],
        sqlstates: &[],
    },
    Diagnosis {
        code: "not-permitted",
        kind: Kind::Forbidden,
        meaning: "the role lacks a right that the session needs",
        hint: "grant the role what the message names, or use another role",
        texts: &[],
        sqlstates: &["42501"],
    },
    // Final: which endpoint. Neon's proxy remembers a refusal for 30 s.
    Diagnosis {
        code: "endpoint-missing",
        kind: Kind::Endpoint,
        meaning: "the server saw neither a host name in TLS (SNI) nor an endpoint option, so it does \
                  not know which database is meant; an address, a tunnel or another name stands \
                  where the endpoint's own host name should",
        hint: "use the host name that Neon's console shows, with hostaddr=… for the address; or add \
               options=endpoint%3D<endpoint-id> to the database URL",
        texts: &["Endpoint ID is not specified"],
        sqlstates: &[],
    },
    Diagnosis {
        code: "endpoint-inconsistent",
        kind: Kind::Endpoint,
        meaning: "the host name says one endpoint, and the endpoint option in `options` another; they \
                  must be equal, -pooler included",
        hint: "remove endpoint=… (or project=…) from `options` in the database URL: the host name is \
               enough",
        texts: &["Inconsistent project name"],
        sqlstates: &[],
    },
    Diagnosis {
        code: "endpoint-unknown",
        kind: Kind::Endpoint,
        meaning: "Neon has no such endpoint: it was deleted, with its branch perhaps, or is misspelt",
        hint: "copy the connection string from Neon's console again; a new endpoint may take 30 s to be \
               known",
        texts: &[
            "cannot be found",
            "could not be found",
            "endpoint not found",
            "project not found",
            "branch not found",
        ],
        sqlstates: &[],
    },
    Diagnosis {
        code: "endpoint-disabled",
        kind: Kind::Endpoint,
        meaning: "somebody has disabled this compute; it does not wake on connections",
        hint: "enable the compute in Neon's console (Branches, Computes), or use another branch; it may \
               take 30 s to be noticed",
        texts: &["is disabled", "has been disabled"],
        sqlstates: &[],
    },
    Diagnosis {
        code: "endpoint-host",
        kind: Kind::Endpoint,
        meaning: "this server is not responsible for the host name's domain",
        hint: "use the host name that Neon's console shows, unchanged",
        texts: &["inferred from SNI"],
        sqlstates: &[],
    },
    // Final: from where.
    Diagnosis {
        code: "address-not-allowed",
        kind: Kind::Forbidden,
        meaning: "the project has an IP allow list, and this machine's public address is not on it",
        hint: "add this address to the project's IP allow list (Settings, Network security)",
        texts: &["is not allowed to connect to this endpoint"],
        sqlstates: &[],
    },
    Diagnosis {
        code: "network-blocked",
        kind: Kind::Forbidden,
        meaning: "the project does not take connections from this network: public access is off, or \
                  a VPC endpoint is required",
        hint: "connect from the allowed network, or allow this one in the project's settings",
        texts: &["blocked network"],
        sqlstates: &[],
    },
    // Worth a retry: there is no room.
    Diagnosis {
        code: "too-many-attempts",
        kind: Kind::TooManyConnections,
        meaning: "more connections to this endpoint are being made than Neon allows at a time",
        hint: "look for clients that reconnect for every request, and lower max_connecting or the \
               number of instances",
        texts: &[
            "Too many connections attempts",
            "Too many connections to this endpoint",
            "Failed to acquire permit",
            "rate limit",
        ],
        sqlstates: &[],
    },
    Diagnosis {
        code: "too-many-connections",
        kind: Kind::TooManyConnections,
        meaning: "all of the server's connection slots are taken; SELECT usename, application_name, \
                  state FROM pg_stat_activity shows by whom",
        hint: "lower max_size or the number of instances, or use the pooled URL",
        texts: &[
            "remaining connection slots",
            "too many clients",
            "too many connections",
            "no more connections allowed",
            "connection limit exceeded",
        ],
        sqlstates: &["53300"],
    },
    // "Too many connections" comes before the quotas, whose texts resemble it.
    Diagnosis {
        code: "quota",
        kind: Kind::Other,
        meaning: "the project's allowance (compute time, data transfer, storage) may be used up; Neon \
                  says the same during maintenance",
        hint: "look at the usage in Neon's console: wait for the next period or raise the plan; if \
               there is room, try again in a minute",
        texts: &["Check your quotas"],
        sqlstates: &[],
    },
    Diagnosis {
        code: "quota",
        kind: Kind::Quota,
        meaning: "the project's allowance (compute time, data transfer, storage) is used up",
        hint: "look at the usage in Neon's console: wait for the next period, or raise the plan",
        texts: &[
            "quota",
            "exceeded the",
            "limit exceeded",
            "is exceeded",
            "has been exceeded",
        ],
        sqlstates: &[],
    },
    // Worth a retry: the compute or the server is starting.
    Diagnosis {
        code: "control-plane-words",
        kind: Kind::Other,
        meaning: "Neon's control plane did not start the compute, for the reason that it gives",
        hint: "go by its words; Neon's console shows the state of the compute",
        texts: &["Control plane request failed:"],
        sqlstates: &[],
    },
    Diagnosis {
        code: "control-plane",
        kind: Kind::Unavailable,
        meaning: "Neon's control plane could not start the compute; this passes, and the pool tries \
                  again by itself",
        hint: "try again in a minute; if it stays, see https://neonstatus.com",
        texts: &["Control plane request failed"],
        sqlstates: &[],
    },
    Diagnosis {
        code: "compute-unreachable",
        kind: Kind::Unavailable,
        meaning: "the compute did not come up in time; this passes, and the pool tries again by itself",
        hint: "try again; if it stays, restart the compute in Neon's console",
        texts: &["Couldn't connect to compute node"],
        sqlstates: &[],
    },
    Diagnosis {
        code: "starting-up",
        kind: Kind::Unavailable,
        meaning: "the server is starting or stopping; this passes, and the pool tries again by itself",
        hint: "try again in a few seconds",
        texts: &["the database system is", "shutting down"],
        sqlstates: &["57P01", "57P02", "57P03"],
    },
    Diagnosis {
        code: "pooler-full",
        kind: Kind::Unavailable,
        meaning: "the pooler had no server connection free for too long: all are held by transactions",
        hint: "look for transactions that are left open; lower max_size × instances",
        texts: &["query_wait_timeout"],
        sqlstates: &[],
    },
    Diagnosis {
        code: "server-behind-pooler",
        kind: Kind::Unavailable,
        meaning: "the pooler is there, and the server behind it is not; this passes where the server \
                  is only starting, and the pool tries again by itself",
        hint: "try again in a minute; if it stays, look after the server behind the pooler",
        texts: &[
            "server login has been failing",
            "server login failed",
            "server conn crashed",
            "server_login_retry",
            "client_login_timeout",
        ],
        sqlstates: &[],
    },
    Diagnosis {
        code: "login-slow",
        kind: Kind::Unavailable,
        meaning: "the server waited too long for the next step of the login: this machine or the way \
                  there is very slow",
        hint: "try again; if it stays, look at this machine's load",
        texts: &[
            "Authentication timed out",
            "canceling authentication due to timeout",
        ],
        sqlstates: &[],
    },
    Diagnosis {
        code: "unavailable",
        kind: Kind::Unavailable,
        meaning: super::steps::BROKEN.meaning,
        hint: super::steps::BROKEN.hint,
        texts: &["error communicating with the server", "connection closed"],
        sqlstates: &[],
    },
];
