//! TLS configurations: ours towards agents, ours towards targets, and the
//! channel binding of a target's certificate.

use crate::config::checked::TargetTls;
use aws_lc_rs::digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs as provider, verify_tls12_signature,
    verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureAlgorithm,
    SignatureScheme,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The ALPN name of PostgreSQL's protocol (PostgreSQL 17, "Protocol Flow").
pub const ALPN_POSTGRESQL: &[u8] = b"postgresql";

/// Why a certificate, key or authority cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsSetupError {
    /// A PEM file cannot be read.
    #[error("{path}: {why}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The listener's key is RSA: signing would hold up the shard.
    #[error(
        "{0} is an RSA key; listeners take ECDSA or Ed25519 keys, since they sign on the shard"
    )]
    RsaKey(PathBuf),
    /// rustls refuses.
    #[error("{0}")]
    Rustls(#[from] rustls::Error),
    /// The client authorities cannot be used.
    #[error("client authorities: {0}")]
    Verifier(String),
    /// The system has no authorities.
    #[error("no authority found on this system; set `ca_file`")]
    NoAuthorities,
}

fn crypto() -> Arc<CryptoProvider> {
    Arc::new(provider::default_provider())
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsSetupError> {
    let fault = |why: String| TlsSetupError::Pem {
        path: path.to_path_buf(),
        why,
    };
    let list = CertificateDer::pem_file_iter(path)
        .map_err(|e| fault(e.to_string()))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| fault(e.to_string()))?;
    if list.is_empty() {
        return Err(fault("no certificate in it".into()));
    }
    Ok(list)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsSetupError> {
    PrivateKeyDer::from_pem_file(path).map_err(|e| TlsSetupError::Pem {
        path: path.to_path_buf(),
        why: e.to_string(),
    })
}

fn roots(path: &Path) -> Result<RootCertStore, TlsSetupError> {
    let mut store = RootCertStore::empty();
    for certificate in chain(path)? {
        store.add(certificate)?;
    }
    Ok(store)
}

/// A listener's configuration.
pub fn server(
    chain_file: &Path,
    key_file: &Path,
    client_ca: Option<&Path>,
) -> Result<Arc<ServerConfig>, TlsSetupError> {
    let private = key(key_file)?;
    let signer = provider::sign::any_supported_type(&private)?;
    if signer.algorithm() == SignatureAlgorithm::RSA {
        return Err(TlsSetupError::RsaKey(key_file.to_path_buf()));
    }
    let builder =
        ServerConfig::builder_with_provider(crypto()).with_safe_default_protocol_versions()?;
    let builder = match client_ca {
        Some(path) => {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots(path)?), crypto())
                    .allow_unauthenticated()
                    .build()
                    .map_err(|e| TlsSetupError::Verifier(e.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain(chain_file)?, private)?;
    config.alpn_protocols = vec![ALPN_POSTGRESQL.to_vec()];
    Ok(Arc::new(config))
}

/// A target's configuration.
pub fn client(
    tls: &TargetTls,
    certificate: Option<&(PathBuf, PathBuf)>,
) -> Result<Arc<ClientConfig>, TlsSetupError> {
    let builder =
        ClientConfig::builder_with_provider(crypto()).with_safe_default_protocol_versions()?;
    let builder = match tls {
        TargetTls::Verify {
            ca_file: Some(path),
            ..
        } => builder.with_root_certificates(roots(path)?),
        TargetTls::Verify { ca_file: None, .. } | TargetTls::Off => {
            let mut store = RootCertStore::empty();
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                return Err(TlsSetupError::NoAuthorities);
            }
            builder.with_root_certificates(store)
        }
        TargetTls::Unverified { .. } => {
            let algorithms = provider::default_provider().signature_verification_algorithms;
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(algorithms)))
        }
    };
    let mut config = match certificate {
        Some((chain_file, key_file)) => {
            builder.with_client_auth_cert(chain(chain_file)?, key(key_file)?)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN_POSTGRESQL.to_vec()];
    // A resumed handshake shows no certificate, and SCRAM wants to bind to one.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// For `danger_tls_unverified`: any certificate, but a true signature.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// `tls-server-end-point` of a certificate: its hash by the hash function of
/// its own signature, SHA-256 in place of MD5 and SHA-1. Source: RFC 5929,
/// section 4.1. `None` where the signature names no hash function (Ed25519):
/// then there is nothing that both sides would compute alike.
pub fn server_end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let oid = parsed.signature_algorithm.algorithm.to_id_string();
    let algorithm = match oid.as_str() {
        // md5/sha1 with RSA, ecdsa-with-SHA1; sha256 with RSA, ECDSA.
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.10045.4.1"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.3.2" => &digest::SHA256,
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => &digest::SHA384,
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => &digest::SHA512,
        _ => return None,
    };
    Some(digest::digest(algorithm, certificate).as_ref().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_rsa_listener_key_is_refused_and_an_ecdsa_key_is_taken() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let made =
            rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate");
        let (cert, key_file) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
        std::fs::write(&cert, made.cert.pem()).expect("writable");
        std::fs::write(&key_file, made.signing_key.serialize_pem()).expect("writable");
        assert!(server(&cert, &key_file, None).is_ok());
        let rsa = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("an RSA key");
        std::fs::write(&key_file, rsa.serialize_pem()).expect("writable");
        assert!(matches!(
            server(&cert, &key_file, None),
            Err(TlsSetupError::RsaKey(_))
        ));
    }

    #[test]
    fn the_end_point_of_an_ecdsa_certificate_is_its_sha256() {
        let made =
            rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate");
        let der = made.cert.der();
        let expected = digest::digest(&digest::SHA256, der).as_ref().to_vec();
        assert_eq!(server_end_point(der), Some(expected));
        assert_eq!(server_end_point(&CertificateDer::from(vec![0x30, 0])), None);
    }
}
