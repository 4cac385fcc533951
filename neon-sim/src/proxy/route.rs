//! The endpoint that a client asks for, by the host name, the options or the password.

use crate::protocol::startup::Startup;

/// An endpoint, as a client names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) name: String,
    pub(crate) pooled: bool,
}

impl Endpoint {
    fn new(label: &str) -> Self {
        match label.strip_suffix("-pooler") {
            Some(name) => Self {
                name: name.to_owned(),
                pooled: true,
            },
            None => Self {
                name: label.to_owned(),
                pooled: false,
            },
        }
    }
}

const MISSING: &str = "Endpoint ID is not specified. Either please upgrade the postgres client \
    library (libpq) for SNI support or pass the endpoint ID (first part of the domain name) as a \
    parameter: '?options=endpoint%3D<endpoint-id>'. See more at https://neon.tech/sni";

/// Returns the endpoint that the host name or the options name, if they name one; errors are texts for the
/// client. A host name in another domain names none.
pub(super) fn endpoint(
    server_name: Option<&str>,
    domain: &str,
    startup: &Startup,
) -> Result<Option<Endpoint>, String> {
    let from_name = server_name.and_then(|name| label(name, domain));
    let mut named = options(startup).filter_map(named_endpoint);
    let from_option = match (named.next(), named.next()) {
        (Some(one), None) => Some(one),
        _ => None,
    };
    let label = match (from_name, from_option) {
        (Some(name), Some(option)) if name != option => {
            return Err(format!(
                "Inconsistent project name inferred from SNI ('{name}') and project option \
                 ('{option}')."
            ));
        }
        (name, option) => name.or(option),
    };
    label.map(checked).transpose()
}

/// Returns the endpoint that the host of a connection string names.
pub(crate) fn of_host(host: &str, domain: &str) -> Option<Endpoint> {
    checked(label(host, domain)?).ok()
}

/// Returns the one label in front of the domain.
fn label<'a>(host: &'a str, domain: &str) -> Option<&'a str> {
    let (label, rest) = host.split_once('.')?;
    (rest == domain).then_some(label)
}

/// Splits `endpoint=<id>;<password>` or `endpoint=<id>$<password>`.
pub(super) fn from_password(password: &str) -> Result<(Endpoint, &str), String> {
    let (label, password) = named_endpoint(password)
        .and_then(|rest| rest.split_once([';', '$']))
        .ok_or(MISSING)?;
    Ok((checked(label)?, password))
}

/// Returns the startup packet's options, without those that are Neon's own.
pub(super) fn server_options(startup: &Startup) -> String {
    let rest: Vec<_> = options(startup)
        .filter(|option| named_endpoint(option).is_none() && !option.starts_with("neon_"))
        .collect();
    rest.join(" ")
}

/// Returns whether the client asks for startup parameters that Neon would drop.
pub(super) fn passes_parameters(startup: &Startup) -> bool {
    options(startup).any(|option| option == "neon_proxy_params_compat:true")
}

/// Returns the error for these options, at least one, on a pooled endpoint.
pub(super) fn pooled_refusal(options: &str) -> String {
    let mut words = options.split_ascii_whitespace();
    let setting = match words.next() {
        Some("-c") => words.next(),
        Some(word) => word.strip_prefix("-c").or_else(|| word.strip_prefix("--")),
        None => None,
    };
    match setting.and_then(|setting| setting.split_once('=')) {
        Some((name, _)) => format!(
            "unsupported startup parameter in options: {name}. Please use unpooled connection or remove this \
             parameter from the startup package. More details: \
             https://neon.tech/docs/connect/connection-errors#unsupported-startup-parameter"
        ),
        None => {
            "unsupported options startup parameter: only '-c config=val' and '--config=val' are \
                 allowed"
                .into()
        }
    }
}

fn checked(label: &str) -> Result<Endpoint, String> {
    let valid = |c: char| c.is_alphanumeric() || c == '-';
    if label.chars().all(valid) {
        return Ok(Endpoint::new(label));
    }
    Err(format!(
        "Project name ('{label}') must contain only alphanumeric characters and hyphen."
    ))
}

fn options(startup: &Startup) -> impl Iterator<Item = &str> {
    startup
        .parameter("options")
        .unwrap_or_default()
        .split_ascii_whitespace()
}

fn named_endpoint(text: &str) -> Option<&str> {
    text.strip_prefix("endpoint=")
        .or_else(|| text.strip_prefix("project="))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_options(options: &str) -> Startup {
        Startup {
            parameters: vec![("options".into(), options.into())],
            ..Startup::default()
        }
    }

    #[test]
    fn the_host_name_must_agree_with_the_option() {
        let route = |name, options| endpoint(name, "neon.test", &with_options(options));
        let direct = Endpoint::new("ep-a-1");
        assert_eq!(
            route(Some("ep-a-1.neon.test"), ""),
            Ok(Some(direct.clone()))
        );
        assert_eq!(route(None, "endpoint=ep-a-1"), Ok(Some(direct.clone())));
        assert_eq!(route(None, "project=ep-a-1 -c x=1"), Ok(Some(direct)));
        assert_eq!(route(None, "-c x=1"), Ok(None));
        assert_eq!(
            route(Some("ep-a-1-pooler.neon.test"), "endpoint=ep-a-1").unwrap_err(),
            "Inconsistent project name inferred from SNI ('ep-a-1-pooler') and project option \
             ('ep-a-1')."
        );
        for unknown in ["a.ep-a-1.neon.test", "ep-a-1.elsewhere.test", "localhost"] {
            assert_eq!(route(Some(unknown), ""), Ok(None));
            let named = route(Some(unknown), "endpoint=ep-a-1");
            assert_eq!(named, Ok(Some(Endpoint::new("ep-a-1"))));
        }
    }

    #[test]
    fn a_password_may_carry_the_endpoint() {
        let (endpoint, password) = from_password("endpoint=ep-a-1-pooler;a;b$c").unwrap();
        assert!(endpoint.pooled);
        assert_eq!((endpoint.name.as_str(), password), ("ep-a-1", "a;b$c"));
        assert!(from_password("endpoint=ep-a-1$pw").is_ok());
        assert!(
            from_password("pw")
                .unwrap_err()
                .starts_with("Endpoint ID is not specified.")
        );
    }

    #[test]
    fn only_neons_own_options_are_removed() {
        let startup = with_options("endpoint=ep-a-1 -c x=1 neon_endpoint_type:read_write");
        assert_eq!(server_options(&startup), "-c x=1");
    }

    #[test]
    fn a_pooled_endpoint_names_the_parameter_that_it_refuses() {
        for options in ["-c work_mem=1MB -c x=1", "-cwork_mem=1MB", "--work_mem=1MB"] {
            let refusal = pooled_refusal(options);
            assert!(
                refusal.starts_with(
                    "unsupported startup parameter in options: work_mem. Please use unpooled \
                     connection or remove this parameter from the startup package. More details: "
                ),
                "{options}: {refusal}"
            );
        }
        assert!(pooled_refusal("-B 1").contains("only '-c config=val'"));
    }
}
