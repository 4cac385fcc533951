//! The server's side of SCRAM-SHA-256, with and without channel binding.

use std::num::NonZeroU32;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac, pbkdf2};

pub(crate) const PLAIN: &str = "SCRAM-SHA-256";
pub(crate) const PLUS: &str = "SCRAM-SHA-256-PLUS";

/// The error for a client that breaks the protocol.
pub(crate) const VIOLATION: &str = "authentication protocol violation";

/// What a server stores instead of a password.
#[derive(Clone)]
pub(crate) struct Verifier {
    iterations: NonZeroU32,
    salt: Vec<u8>,
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
}

impl Verifier {
    /// Reads `SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (parameters, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let (iterations, salt) = parameters.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        Some(Self {
            iterations: iterations.parse().ok()?,
            salt: BASE64_STANDARD.decode(salt).ok()?,
            stored_key: BASE64_STANDARD.decode(stored_key).ok()?,
            server_key: BASE64_STANDARD.decode(server_key).ok()?,
        })
    }

    /// Returns a verifier that no password satisfies, so that an unknown role looks like a known one.
    pub(crate) fn unsatisfiable() -> Self {
        Self {
            iterations: NonZeroU32::MIN.saturating_add(4095),
            salt: random::<16>().to_vec(),
            stored_key: random::<32>().to_vec(),
            server_key: random::<32>().to_vec(),
        }
    }

    /// Returns whether this is the password.
    pub(crate) fn accepts(&self, password: &[u8]) -> bool {
        let mut salted = [0; digest::SHA256_OUTPUT_LEN];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            self.iterations,
            &self.salt,
            password,
            &mut salted,
        );
        self.is_key(sign(&salted, b"Client Key").as_ref())
    }

    /// Returns a digest of this and a password, the same for the same two alone.
    pub(crate) fn digest_with(&self, password: &[u8]) -> Vec<u8> {
        sign(&self.stored_key, password).as_ref().to_vec()
    }

    fn is_key(&self, client_key: &[u8]) -> bool {
        digest::digest(&digest::SHA256, client_key).as_ref() == self.stored_key
    }
}

/// A SASL exchange that waits for the client's final message.
pub(crate) struct Exchange {
    verifier: Verifier,
    /// The value that the client must repeat in `c=`.
    binding: String,
    nonce: String,
    client_first_bare: String,
    server_first: String,
}

/// How an exchange has ended.
pub(crate) enum Outcome {
    /// The password is right; this message proves to the client that the server knows it too.
    Accepted(String),
    Refused,
}

impl Exchange {
    /// Answers the client's first message; errors are texts for the client.
    pub(crate) fn start(
        mechanism: &str,
        client_first: &[u8],
        verifier: Verifier,
        end_point: Option<&[u8]>,
    ) -> Result<Self, String> {
        let message = str::from_utf8(client_first).map_err(|_| VIOLATION)?;
        let (flag, rest) = message.split_once(',').ok_or(VIOLATION)?;
        let (_authzid, bare) = rest.split_once(',').ok_or(VIOLATION)?;
        let mut data = message.as_bytes()[..message.len() - bare.len()].to_vec();
        match (mechanism, flag, end_point) {
            (PLAIN, "y", Some(_)) => return Err("SCRAM-PLUS not used".into()),
            (PLAIN, "n" | "y", _) => {}
            (PLUS, flag, Some(end_point)) => match flag.strip_prefix("p=").ok_or(VIOLATION)? {
                "tls-server-end-point" => data.extend(end_point),
                other => return Err(format!("unsupported channel binding method {other}")),
            },
            _ => return Err(VIOLATION.into()),
        }
        let client_nonce = field(bare, "r=").ok_or(VIOLATION)?;
        let nonce = format!("{client_nonce}{}", BASE64_STANDARD.encode(random::<18>()));
        let salt = BASE64_STANDARD.encode(&verifier.salt);
        Ok(Self {
            server_first: format!("r={nonce},s={salt},i={}", verifier.iterations),
            binding: BASE64_STANDARD.encode(data),
            nonce,
            client_first_bare: bare.to_owned(),
            verifier,
        })
    }

    /// Returns the message that answers the client's first.
    pub(crate) fn server_first(&self) -> &str {
        &self.server_first
    }

    /// Judges the client's final message; errors are texts for the client.
    pub(crate) fn finish(self, client_final: &[u8]) -> Result<Outcome, String> {
        let message = str::from_utf8(client_final).map_err(|_| VIOLATION)?;
        let (unproven, proof) = message.rsplit_once(",p=").ok_or(VIOLATION)?;
        let proof = BASE64_STANDARD.decode(proof).map_err(|_| VIOLATION)?;
        if field(unproven, "c=") != Some(&self.binding) {
            return Err("insecure connection: secure channel data mismatch".into());
        }
        if field(unproven, "r=") != Some(&self.nonce) || proof.len() != digest::SHA256_OUTPUT_LEN {
            return Err(VIOLATION.into());
        }
        let conversation = format!(
            "{},{},{unproven}",
            self.client_first_bare, self.server_first
        );
        let signature = sign(&self.verifier.stored_key, conversation.as_bytes());
        let client_key: Vec<u8> = proof
            .iter()
            .zip(signature.as_ref())
            .map(|(proof, signature)| proof ^ signature)
            .collect();
        if !self.verifier.is_key(&client_key) {
            return Ok(Outcome::Refused);
        }
        let proof = sign(&self.verifier.server_key, conversation.as_bytes());
        Ok(Outcome::Accepted(format!(
            "v={}",
            BASE64_STANDARD.encode(proof)
        )))
    }
}

fn field<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    message.split(',').find_map(|part| part.strip_prefix(name))
}

fn sign(key: &[u8], message: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message)
}

/// Returns random bytes from the system.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the system has a source of randomness");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    // The verifier of "pencil" from RFC 7677's example.
    fn verifier() -> Verifier {
        let salt = BASE64_STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let iterations = NonZeroU32::new(4096).unwrap();
        let mut salted = [0; 32];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            iterations,
            &salt,
            b"pencil",
            &mut salted,
        );
        let client_key = sign(&salted, b"Client Key");
        Verifier {
            iterations,
            salt,
            stored_key: digest::digest(&digest::SHA256, client_key.as_ref())
                .as_ref()
                .to_vec(),
            server_key: sign(&salted, b"Server Key").as_ref().to_vec(),
        }
    }

    #[test]
    fn the_example_of_rfc_7677_is_accepted() {
        let exchange = Exchange {
            verifier: verifier(),
            binding: "biws".into(),
            nonce: "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".into(),
            client_first_bare: "n=user,r=rOprNGfwEbeRWgbNEkqO".into(),
            server_first: "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                           s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
                .into(),
        };
        let client_final = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let Ok(Outcome::Accepted(proof)) = exchange.finish(client_final) else {
            panic!("refused");
        };
        assert_eq!(proof, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn a_claim_that_the_server_has_no_channel_binding_is_refused() {
        let start = |mechanism, first: &str, end_point: Option<&[u8]>| {
            Exchange::start(mechanism, first.as_bytes(), verifier(), end_point).err()
        };
        let hash = Some(&b"hash"[..]);
        let refused = start(PLAIN, "y,,n=,r=abc", hash);
        assert_eq!(refused.as_deref(), Some("SCRAM-PLUS not used"));
        assert!(start(PLAIN, "n,,n=,r=abc", hash).is_none());
        assert!(start(PLUS, "n,,n=,r=abc", hash).is_some());
        // The claim is true.
        assert!(start(PLAIN, "y,,n=,r=abc", None).is_none());
        assert!(start(PLUS, "p=tls-server-end-point,,n=,r=abc", None).is_some());
    }

    #[test]
    fn a_cleartext_password_is_checked_against_the_verifier() {
        assert!(verifier().accepts(b"pencil"));
        assert!(!verifier().accepts(b"pen"));
        assert!(!Verifier::unsatisfiable().accepts(b""));
    }
}
