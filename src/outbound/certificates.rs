//! Acceptance of servers' certificates, and reasons in words why one is refused.

use std::io;
use std::sync::Arc;

use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{VerifierBuilderError, WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Error of webpki for the certificate of an authority that a server uses as its own. It comes after the times were found to be
/// right.
const AUTHORITY_AS_SERVER: &str = "CaUsedAsEndEntity";

/// Accepts what authorities have signed, and the very certificates that the user has named, although they are authorities': a certificate that
/// signs itself, as `openssl req -x509` makes it, is one. The server's name and the time must be right all the same, and the
/// server must have the key.
#[derive(Debug)]
pub(super) struct NamedServers {
    usual: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

impl NamedServers {
    /// Returns a verifier that trusts these authorities, and servers with one of the certificates `named`.
    pub(super) fn new(
        authorities: RootCertStore,
        named: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, VerifierBuilderError> {
        let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(authorities), provider).build()?;
        Ok(Self { usual, named })
    }
}

fn is_authority_as_server(error: &Error) -> bool {
    match error {
        Error::InvalidCertificate(CertificateError::Other(other)) => other.0.to_string() == AUTHORITY_AS_SERVER,
        _ => false,
    }
}

impl ServerCertVerifier for NamedServers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let usual = self
            .usual
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match usual {
            Err(error) if is_authority_as_server(&error) && self.named.contains(end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            usual => usual,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

/// Returns the reason why a handshake failed, in words, with advice.
pub(super) fn in_words(error: &io::Error) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match tls {
        Some(tls) if is_authority_as_server(tls) => {
            "the server's certificate is one of an authority (CA:TRUE), and not one of those that are trusted: name this very \
             certificate by --cacert, or let the server have one with CA:FALSE (`openssl req -x509 -addext \
             basicConstraints=critical,CA:FALSE`)"
                .to_owned()
        }
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "the server's certificate is of no authority that is trusted: name the authority's certificate, or the server's own, by --cacert"
                .to_owned()
        }
        // So it is when a server that signs itself has a new certificate.
        Some(Error::InvalidCertificate(CertificateError::BadSignature)) => {
            "the server's certificate has the issuer's name of one that is trusted, and is signed by another key: name the authority's \
             present certificate, or the server's own, by --cacert"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, date_time_ymd};
    use tokio_rustls::rustls::crypto::ring;

    use super::*;

    /// Returns a self-signed certificate for `gateway.example.com`.
    fn made(is_ca: IsCa) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(["gateway.example.com".to_owned()]).unwrap();
        params.is_ca = is_ca;
        // A name of its own: one with the name of another is not of an unknown issuer, but has a wrong signature.
        params.distinguished_name.push(DnType::CommonName, format!("{is_ca:?}"));
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2030, 1, 1));
        let signed = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        signed.der().clone()
    }

    fn authority() -> CertificateDer<'static> {
        made(IsCa::Ca(BasicConstraints::Unconstrained))
    }

    /// Returns the client's error about a server with this certificate, in the year 2020 + `years`.
    fn shown(
        named: &[CertificateDer<'static>],
        shown: &CertificateDer<'_>,
        name: &'static str,
        years: u64,
    ) -> Result<(), Error> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(named.iter().cloned());
        let verifier = NamedServers::new(roots, named.to_vec(), Arc::new(ring::default_provider())).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs((50 + years) * 365 * 86_400 + 86_400 * 30));
        let name = ServerName::try_from(name).unwrap();
        verifier.verify_server_cert(shown, &[], &name, &[], now).map(drop)
    }

    #[test]
    fn the_very_certificate_that_was_named_is_trusted_and_no_other() {
        let (one, other, plain) = (authority(), authority(), made(IsCa::ExplicitNoCa));
        let name = "gateway.example.com";
        assert_eq!(shown(std::slice::from_ref(&one), &one, name, 1), Ok(()));
        assert_eq!(shown(&[other.clone(), one.clone()], &one, name, 1), Ok(()));
        assert_eq!(shown(std::slice::from_ref(&plain), &plain, name, 1), Ok(()));
        let refused = shown(std::slice::from_ref(&one), &other, name, 1).unwrap_err();
        assert!(is_authority_as_server(&refused), "{refused}");
        let words = in_words(&io::Error::other(refused));
        assert!(words.contains("name this very certificate by --cacert"), "{words}");
        let refused = shown(std::slice::from_ref(&one), &plain, name, 1).unwrap_err();
        assert_eq!(refused, CertificateError::UnknownIssuer.into());
        let words = in_words(&io::Error::other(refused));
        assert!(words.contains("of no authority that is trusted"), "{words}");
    }

    #[test]
    fn a_renewed_certificate_is_told_from_others() {
        let [before, after] = [IsCa::ExplicitNoCa, IsCa::ExplicitNoCa].map(made);
        let refused = shown(&[before], &after, "gateway.example.com", 1).unwrap_err();
        let words = in_words(&io::Error::other(refused));
        assert!(
            words.contains("signed by another key") && words.contains("by --cacert"),
            "{words}"
        );
    }

    #[test]
    fn name_and_time_of_a_certificate_that_was_named_are_looked_at() {
        let one = authority();
        let named = std::slice::from_ref(&one);
        for (name, years, wrong) in [
            ("other.example.com", 1, "not valid for name"),
            ("gateway.example.com", 15, "expired"),
        ] {
            let refused = shown(named, &one, name, years).unwrap_err().to_string();
            assert!(refused.contains(wrong), "{refused}");
        }
    }
}
