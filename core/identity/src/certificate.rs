//! Client certificates: names become a principal.
//!
//! The chain was verified, and possession of the key proved, by rustls in the
//! handshake. Here only the first certificate is read, for its names and its
//! time; where a name is ambiguous (two common names, two addresses) the
//! certificate is refused rather than one of them picked.

use aws_lc_rs::digest;
use serde_json::{Map, Value, json};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use crate::error::IdentityError;
use crate::limits::{CERTIFICATE_BYTES_MAX, GROUP_BYTES_MAX, GROUPS_MAX, NAME_BYTES_MAX};
use crate::principal::{CredentialKind, Principal, is_acceptable_name};

/// Which name of a certificate is the subject. There must be exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CertificateName {
    /// The subject's common name.
    #[default]
    CommonName,
    /// A `uniformResourceIdentifier` of subjectAltName, such as a SPIFFE id.
    Uri,
    /// An `rfc822Name` of subjectAltName.
    Email,
    /// A `dNSName` of subjectAltName.
    Dns,
}

/// Which attributes of the subject are groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CertificateGroups {
    /// None: certificates carry no groups.
    None,
    /// Each organizational unit.
    #[default]
    OrganizationalUnit,
    /// Each organization (Kubernetes' way).
    Organization,
}

/// How certificates are read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CertificateConfig {
    /// The principal's issuer. `None`: the issuer's distinguished name, which
    /// is right where several authorities are trusted, each for its own names.
    pub issuer: Option<String>,
    /// Which name is the subject.
    pub subject: CertificateName,
    /// Which attributes are groups.
    pub groups: CertificateGroups,
}

impl CertificateConfig {
    pub(crate) fn verify(&self, der: &[u8], now_unix_s: u64) -> Result<Principal, IdentityError> {
        let malformed = |part| IdentityError::Malformed { part };
        if der.len() > CERTIFICATE_BYTES_MAX {
            return Err(IdentityError::TooLarge {
                bytes: der.len(),
                bytes_max: CERTIFICATE_BYTES_MAX,
            });
        }
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|_| malformed("certificate"))?;
        if !rest.is_empty() {
            return Err(malformed("certificate"));
        }
        // An authority's certificate signs others; it does not log in.
        if certificate.is_ca() {
            return Err(malformed("certificate is an authority's"));
        }
        let now = i64::try_from(now_unix_s).map_err(|_| malformed("time"))?;
        let validity = certificate.validity();
        if now < validity.not_before.timestamp() {
            return Err(IdentityError::NotYetValid);
        }
        // RFC 5280, section 4.1.2.5: notAfter is the last good second.
        if now > validity.not_after.timestamp() {
            return Err(IdentityError::Expired);
        }
        let not_after = u64::try_from(validity.not_after.timestamp())
            .map_err(|_| malformed("certificate validity"))?;
        let issuer = match &self.issuer {
            Some(issuer) => issuer.clone(),
            None => certificate.issuer().to_string(),
        };
        if !is_acceptable_name(&issuer, NAME_BYTES_MAX) {
            return Err(malformed("certificate issuer"));
        }
        let serial = hex(certificate.raw_serial());
        Ok(Principal {
            issuer,
            subject: self.subject_of(&certificate)?,
            groups: self.groups_of(certificate.subject())?,
            claims: claims(&certificate, der, &serial, not_after),
            on_behalf_of: None,
            expires_at: Some(not_after.saturating_add(1)),
            credential: CredentialKind::Certificate,
            credential_id: serial,
        })
    }

    fn subject_of(&self, certificate: &X509Certificate<'_>) -> Result<String, IdentityError> {
        let what = match self.subject {
            CertificateName::CommonName => "common name",
            CertificateName::Uri => "URI",
            CertificateName::Email => "e-mail address",
            CertificateName::Dns => "DNS name",
        };
        let refused = || IdentityError::CertificateName { what };
        let names: Vec<String> = match self.subject {
            CertificateName::CommonName => {
                texts(certificate.subject().iter_common_name()).ok_or_else(refused)?
            }
            kind => alternative_names(certificate, kind),
        };
        match names.as_slice() {
            [name] if is_acceptable_name(name, NAME_BYTES_MAX) => Ok(name.clone()),
            _ => Err(refused()),
        }
    }

    fn groups_of(&self, subject: &X509Name<'_>) -> Result<Vec<String>, IdentityError> {
        let malformed = IdentityError::Malformed {
            part: "certificate groups",
        };
        let listed = match self.groups {
            CertificateGroups::None => return Ok(Vec::new()),
            CertificateGroups::OrganizationalUnit => texts(subject.iter_organizational_unit()),
            CertificateGroups::Organization => texts(subject.iter_organization()),
        };
        let listed = listed.ok_or(malformed.clone())?;
        let good = |group: &String| is_acceptable_name(group, GROUP_BYTES_MAX);
        if listed.len() > GROUPS_MAX || !listed.iter().all(good) {
            return Err(malformed);
        }
        let mut groups: Vec<String> = Vec::with_capacity(listed.len());
        for group in listed {
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
        Ok(groups)
    }
}

/// The attributes as text, or `None` if one is in an encoding that is none
/// (BMPString, TeletexString).
fn texts<'a>(
    attributes: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>,
) -> Option<Vec<String>> {
    attributes
        .map(|attribute| attribute.as_str().ok().map(str::to_owned))
        .collect()
}

fn alternative_names(certificate: &X509Certificate<'_>, kind: CertificateName) -> Vec<String> {
    let mut names = Vec::new();
    for extension in certificate.extensions() {
        let ParsedExtension::SubjectAlternativeName(alternative) = extension.parsed_extension()
        else {
            continue;
        };
        for name in &alternative.general_names {
            match (kind, name) {
                (CertificateName::Uri, GeneralName::URI(text))
                | (CertificateName::Email, GeneralName::RFC822Name(text))
                | (CertificateName::Dns, GeneralName::DNSName(text)) => {
                    names.push((*text).to_owned());
                }
                _ => {}
            }
        }
    }
    names
}

fn claims(
    certificate: &X509Certificate<'_>,
    der: &[u8],
    serial: &str,
    not_after: u64,
) -> Map<String, Value> {
    let mut claims = Map::new();
    let fingerprint = hex(digest::digest(&digest::SHA256, der).as_ref());
    claims.insert("fingerprint_sha256".to_owned(), json!(fingerprint));
    claims.insert("serial".to_owned(), json!(serial));
    claims.insert(
        "subject_dn".to_owned(),
        json!(certificate.subject().to_string()),
    );
    claims.insert(
        "issuer_dn".to_owned(),
        json!(certificate.issuer().to_string()),
    );
    claims.insert("not_after".to_owned(), json!(not_after));
    claims
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, SanType, date_time_ymd,
    };

    const NOW: u64 = 1_800_000_000; // 2027-01-15

    fn params() -> CertificateParams {
        let mut params = CertificateParams::default();
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2028, 1, 1);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "agent-7");
        params
            .distinguished_name
            .push(DnType::OrganizationalUnitName, "etl");
        params
            .distinguished_name
            .push(DnType::OrganizationName, "example");
        params.subject_alt_names = vec![
            SanType::URI("spiffe://example/agent/7".try_into().unwrap()),
            SanType::Rfc822Name("seven@example.org".try_into().unwrap()),
            SanType::DnsName("a.example.org".try_into().unwrap()),
            SanType::DnsName("b.example.org".try_into().unwrap()),
        ];
        params
    }

    fn der(params: CertificateParams) -> Vec<u8> {
        params
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap()
            .der()
            .to_vec()
    }

    fn config(subject: CertificateName) -> CertificateConfig {
        CertificateConfig {
            issuer: Some("ca".into()),
            subject,
            ..Default::default()
        }
    }

    #[test]
    fn each_kind_of_name_can_be_the_subject() {
        let der = der(params());
        for (kind, subject) in [
            (CertificateName::CommonName, "agent-7"),
            (CertificateName::Uri, "spiffe://example/agent/7"),
            (CertificateName::Email, "seven@example.org"),
        ] {
            let principal = config(kind).verify(&der, NOW).unwrap();
            assert_eq!(principal.subject, subject);
            assert_eq!(principal.issuer, "ca");
            assert_eq!(principal.groups, ["etl"]);
            assert_eq!(principal.expires_at, Some(1_830_297_601));
            assert_eq!(principal.claims["serial"], json!(principal.credential_id));
        }
    }

    #[test]
    fn groups_and_issuer_follow_the_configuration() {
        let der = der(params());
        let principal = CertificateConfig {
            groups: CertificateGroups::Organization,
            ..Default::default()
        }
        .verify(&der, NOW)
        .unwrap();
        assert_eq!(principal.groups, ["example"]);
        assert!(
            principal.issuer.contains("CN=agent-7"),
            "{}",
            principal.issuer
        );
        let none = CertificateConfig {
            groups: CertificateGroups::None,
            ..Default::default()
        };
        assert!(none.verify(&der, NOW).unwrap().groups.is_empty());
    }

    #[test]
    fn refuses_two_names_no_name_and_unreadable_names() {
        let refused = IdentityError::CertificateName { what: "DNS name" };
        assert_eq!(
            config(CertificateName::Dns).verify(&der(params()), NOW),
            Err(refused)
        );
        let mut none = params();
        none.subject_alt_names.clear();
        none.distinguished_name = rcgen::DistinguishedName::new();
        let none = der(none);
        for kind in [
            CertificateName::CommonName,
            CertificateName::Uri,
            CertificateName::Email,
        ] {
            assert!(config(kind).verify(&none, NOW).is_err(), "{kind:?}");
        }
        let mut control = params();
        control
            .distinguished_name
            .push(DnType::CommonName, "agent\u{7}");
        assert!(
            config(CertificateName::CommonName)
                .verify(&der(control), NOW)
                .is_err()
        );
    }

    #[test]
    fn refuses_authorities_and_certificates_out_of_their_time() {
        let mut authority = params();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        assert!(
            config(CertificateName::CommonName)
                .verify(&der(authority), NOW)
                .is_err()
        );
        let der = der(params());
        let config = config(CertificateName::CommonName);
        assert_eq!(
            config.verify(&der, 1_830_297_601),
            Err(IdentityError::Expired)
        );
        assert!(config.verify(&der, 1_830_297_600).is_ok());
        assert_eq!(
            config.verify(&der, 1_767_225_599),
            Err(IdentityError::NotYetValid)
        );
        assert!(config.verify(&der, 1_767_225_600).is_ok());
    }

    #[test]
    fn refuses_every_truncation_and_a_tail_and_survives_every_flipped_byte() {
        let good = der(params());
        let config = config(CertificateName::CommonName);
        for cut in 0..good.len() {
            assert!(config.verify(&good[..cut], NOW).is_err(), "cut at {cut}");
        }
        let mut tail = good.clone();
        tail.push(0);
        assert!(config.verify(&tail, NOW).is_err());
        for at in 0..good.len() {
            for value in [0, 0x7F, 0x80, 0xFF] {
                let mut bad = good.clone();
                bad[at] = value;
                // Whatever it says now, it must say it without a panic; the
                // signature is rustls's business.
                let _ = config.verify(&bad, NOW);
            }
        }
        let large = vec![0x30; CERTIFICATE_BYTES_MAX + 1];
        assert!(matches!(
            config.verify(&large, NOW),
            Err(IdentityError::TooLarge { .. })
        ));
    }
}
