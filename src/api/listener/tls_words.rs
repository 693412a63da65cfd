//! Messages about certificates and keys that cannot be used, with advice.

use std::path::Path;

use rustls_pki_types::pem;
use tokio_rustls::rustls::Error;

use super::tls_keys::TlsKeys;
use tcpgw_core::escape;

/// Kinds of keys that are accepted.
const KEYS: &str = "RSA of 2,048 bits or more, ECDSA on P-256 or P-384, or Ed25519";

/// Returns the message for a file that is no PEM.
pub(super) fn no_pem(error: &pem::Error, wanted: &str) -> String {
    let why = match error {
        pem::Error::MissingSectionEnd { .. } => "a section that begins (-----BEGIN) does not end (-----END)",
        pem::Error::IllegalSectionStart { .. } => "a line that begins a section is not -----BEGIN NAME-----",
        pem::Error::Base64Decode(_) => "a section is not base64",
        _ => "it cannot be read as text",
    };
    format!("is no PEM: {why}; write {wanted}, each from -----BEGIN to -----END")
}

/// Returns the message for a file that lacks the expected items.
pub(super) fn nothing_in_it(what: &str, wanted: &str) -> String {
    format!(
        "has no {what} (PEM, -----BEGIN {}-----); write {wanted}",
        what.to_uppercase()
    )
}

/// Returns the message for a file without a readable key.
pub(super) fn no_key(error: &pem::Error, is_encrypted: bool, keys: TlsKeys) -> String {
    let wanted = format!(
        "the key of {}, not encrypted (PKCS#8, PKCS#1 or SEC1)",
        keys.certificate
    );
    match error {
        pem::Error::NoItemsFound if is_encrypted => {
            "has a key that is encrypted with a pass phrase, which the daemon does not know; write it without one: \
             `openssl pkey -in ENCRYPTED -out KEY`, and mode 0600"
                .to_owned()
        }
        pem::Error::NoItemsFound => nothing_in_it("private key", &wanted),
        error => no_pem(error, &wanted),
    }
}

/// Returns the message for a key of an unknown kind.
pub(super) fn other_key(_: &Error) -> String {
    format!("has a key that cannot be used: it must be {KEYS}")
}

/// Returns the message for a certificate and a key that do not fit together.
pub(super) fn no_pair(error: &Error, key: &Path, keys: TlsKeys) -> String {
    let key = format!("{} {}", keys.key, escape::path(key));
    match error {
        Error::InconsistentKeys(_) => format!(
            "is not the certificate of the key in {key}: both must be of one pair, and the server's certificate must \
             be the first in the file"
        ),
        Error::InvalidCertificate(_) => {
            "has a first certificate that cannot be read: it must be the server's, X.509 version 3".to_owned()
        }
        error => format!("cannot be used with the key in {key}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::files::acceptor;
    use super::super::tls_keys::TlsKeys;
    use crate::secrets::Owners;
    use crate::transport::Transport;

    const KEYS: TlsKeys = TlsKeys {
        certificate: "addon.tls_cert",
        key: "addon.tls_key",
    };

    #[test]
    fn what_is_wrong_with_certificate_and_key_is_said_where_and_with_what_helps() {
        let directory = tempfile::tempdir().unwrap();
        let [certificate, key] = ["tls.crt", "tls.key"].map(|name| directory.path().join(name));
        let pair = || rcgen::generate_simple_self_signed(["gateway.example.com".to_owned()]).unwrap();
        let (made, other) = (pair(), pair());
        let (good, secret) = (made.cert.pem(), made.signing_key.serialize_pem());
        let reported = |certificate_text: &str, key_text: &str| {
            fs::write(&certificate, certificate_text).unwrap();
            fs::write(&key, key_text).unwrap();
            fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
            let transport = Transport::Tls {
                certificate: certificate.clone(),
                key: key.clone(),
            };
            acceptor(&transport, KEYS, &Owners::of_daemon()).map_or_else(|error| error.to_string(), |_| String::new())
        };
        assert_eq!(reported(&good, &secret), "");
        let section = |name: &str, text: &str| format!("-----BEGIN {name}-----\n{text}\n-----END {name}-----\n");
        let encrypted = section("ENCRYPTED PRIVATE KEY", "MIIB");
        let cases = [
            (
                "",
                &*secret,
                "addon.tls_cert",
                "has no certificate (PEM, -----BEGIN CERTIFICATE-----); write the server's",
            ),
            (&*secret, &secret, "addon.tls_cert", "has no certificate"),
            (
                "-----BEGIN CERTIFICATE-----\nMIIB\n",
                &secret,
                "addon.tls_cert",
                "does not end (-----END)",
            ),
            (
                &section("CERTIFICATE", "%%%%"),
                &secret,
                "addon.tls_cert",
                "is not base64",
            ),
            (
                &section("CERTIFICATE", "MIIB"),
                &secret,
                "addon.tls_cert",
                "must be the server's, X.509",
            ),
            (&good, "", "addon.tls_key", "has no private key"),
            (&good, &good, "addon.tls_key", "has no private key"),
            (
                &good,
                &encrypted,
                "addon.tls_key",
                "`openssl pkey -in ENCRYPTED -out KEY`",
            ),
            (
                &good,
                &section("PRIVATE KEY", "MIIB"),
                "addon.tls_key",
                "must be RSA of 2,048 bits",
            ),
            (
                &good,
                &other.signing_key.serialize_pem(),
                "addon.tls_cert",
                "both must be of one pair",
            ),
        ];
        for (certificate_text, key_text, place, expected) in cases {
            let answer = reported(certificate_text, key_text);
            let file = if place == "addon.tls_cert" {
                "tls.crt: "
            } else {
                "tls.key: "
            };
            assert!(
                answer.starts_with(place) && answer.contains(file) && answer.contains(expected),
                "{expected}: {answer}"
            );
        }
        let mismatch = reported(&good, &other.signing_key.serialize_pem());
        assert!(mismatch.contains("tls.key: both must be"), "{mismatch}");
    }
}
