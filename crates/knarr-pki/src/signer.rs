//! Signing the requests of others: what the subject, key and alternative names of the request are, and usages and validity that
//! the signer decides. Nothing else of the request gets into the certificate.

use std::net::IpAddr;

use rcgen::{KeyPair, SigningKey as _};
use ring::rand::{SecureRandom, SystemRandom};
use time::{Duration, OffsetDateTime};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate, X509CertificationRequest};

use crate::der::{self, element, object_identifier, sequence};
use crate::{CertificateAuthority, Error};

/// A certificate signing request (PKCS #10) whose signature proves that the requester has the key.
#[derive(Clone, Debug, Default)]
pub struct SigningRequest {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub emails: Vec<String>,
    pub uris: Vec<String>,
    subject: Vec<u8>,
    public_key: Vec<u8>,
    /// The value of the extension with the alternative names.
    alternative_names: Option<Vec<u8>>,
}

impl SigningRequest {
    /// Reads a PEM request. The error of another PEM label is upstream's.
    pub fn parse(pem: &[u8]) -> Result<Self, Error> {
        let bad = |why: &str| Error::unusable(why);
        let label = "PEM block type must be CERTIFICATE REQUEST";
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem).map_err(|_| bad(label))?;
        if pem.label != "CERTIFICATE REQUEST" {
            return Err(bad(label));
        }
        let (_, request) = X509CertificationRequest::from_der(&pem.contents).map_err(|_| bad("signing request"))?;
        request.verify_signature().map_err(|_| bad("the signing request's signature"))?;
        let asked = &request.certification_request_info;
        let text = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| a.as_str().unwrap_or_default().to_string();
        let mut out = SigningRequest {
            common_name: asked.subject.iter_common_name().last().map(text).unwrap_or_default(),
            organizations: asked.subject.iter_organization().map(text).collect(),
            subject: asked.subject.as_raw().to_vec(),
            public_key: asked.subject_pki.raw.to_vec(),
            ..SigningRequest::default()
        };
        let extensions = request.requested_extensions().into_iter().flatten();
        for extension in extensions {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                names.general_names.iter().for_each(|name| out.add_name(name));
            }
        }
        Ok(out)
    }

    fn add_name(&mut self, name: &GeneralName<'_>) {
        let (tag, value): (u8, Vec<u8>) = match name {
            GeneralName::RFC822Name(email) => {
                self.emails.push(email.to_string());
                (0x81, email.as_bytes().to_vec())
            }
            GeneralName::DNSName(dns) => {
                self.dns_names.push(dns.to_string());
                (0x82, dns.as_bytes().to_vec())
            }
            GeneralName::URI(uri) => {
                self.uris.push(uri.to_string());
                (0x86, uri.as_bytes().to_vec())
            }
            GeneralName::IPAddress(bytes) => {
                let address = match bytes.len() {
                    4 => <[u8; 4]>::try_from(*bytes).ok().map(IpAddr::from),
                    _ => <[u8; 16]>::try_from(*bytes).ok().map(IpAddr::from),
                };
                let Some(address) = address else { return };
                self.addresses.push(address);
                (0x87, bytes.to_vec())
            }
            // Upstream's library does not know the others, and so they get lost there too.
            _ => return,
        };
        self.alternative_names.get_or_insert_default().extend(element(tag, &value));
    }
}

/// Bits of the key usage extension, by the API's names.
const KEY_USAGES: [(&str, u16); 10] = [
    ("signing", 1 << 15),
    ("digital signature", 1 << 15),
    ("content commitment", 1 << 14),
    ("key encipherment", 1 << 13),
    ("data encipherment", 1 << 12),
    ("key agreement", 1 << 11),
    ("cert sign", 1 << 10),
    ("crl sign", 1 << 9),
    ("encipher only", 1 << 8),
    ("decipher only", 1 << 7),
];

const EXTENDED_USAGES: [(&str, &str); 13] = [
    ("any", "2.5.29.37.0"),
    ("server auth", "1.3.6.1.5.5.7.3.1"),
    ("client auth", "1.3.6.1.5.5.7.3.2"),
    ("code signing", "1.3.6.1.5.5.7.3.3"),
    ("email protection", "1.3.6.1.5.5.7.3.4"),
    ("s/mime", "1.3.6.1.5.5.7.3.4"),
    ("ipsec end system", "1.3.6.1.5.5.7.3.5"),
    ("ipsec tunnel", "1.3.6.1.5.5.7.3.6"),
    ("ipsec user", "1.3.6.1.5.5.7.3.7"),
    ("timestamping", "1.3.6.1.5.5.7.3.8"),
    ("ocsp signing", "1.3.6.1.5.5.7.3.9"),
    ("microsoft sgc", "1.3.6.1.4.1.311.10.3.3"),
    ("netscape sgc", "2.16.840.1.113730.4.1"),
];

impl CertificateAuthority {
    /// A PEM certificate for a request, with these usages of the API's names, valid between these times but never longer than the
    /// authority itself. An error for a usage that has no meaning, and where the authority has expired.
    pub fn sign(
        &self,
        request: &SigningRequest,
        usages: &[String],
        not_before: OffsetDateTime,
        not_after: OffsetDateTime,
    ) -> Result<String, Error> {
        let (_, authority) = x509_parser::pem::parse_x509_pem(self.certificate_pem().as_bytes())
            .map_err(|_| Error::unusable("the authority's certificate"))?;
        let (_, authority) = X509Certificate::from_der(&authority.contents)
            .map_err(|_| Error::unusable("the authority's certificate"))?;
        let end = authority.validity().not_after.to_datetime();
        if OffsetDateTime::now_utc() >= end {
            return Err(Error::unusable(format!(
                "refusing to sign a certificate that expired in the past: NotAfter={end}"
            )));
        }
        let key = KeyPair::from_pem(self.key_pem()).map_err(Error::certificate("the authority's key"))?;
        let algorithm = algorithm(&key)?;
        let body = sequence(&[
            // Version 3.
            &element(0xa0, &element(der::INTEGER, &[2])),
            &serial()?,
            &algorithm,
            authority.subject().as_raw(),
            &sequence(&[&der::time(not_before), &der::time(not_after.min(end))]),
            &request.subject,
            &request.public_key,
            &element(
                0xa3,
                &sequence(&extensions(request, usages, &authority)?.iter().map(Vec::as_slice).collect::<Vec<_>>()),
            ),
        ]);
        let signature = key.sign(&body).map_err(Error::certificate("certificate"))?;
        let certificate = sequence(&[&body, &algorithm, &der::bit_string(&signature)]);
        Ok(pem("CERTIFICATE", &certificate))
    }

    /// [`CertificateAuthority::sign`] for a lifetime from now, as upstream's signer of the cluster: a little backdated, and the end
    /// too unless the lifetime is short.
    pub fn sign_for(&self, request: &SigningRequest, usages: &[String], lifetime: Duration) -> Result<String, Error> {
        const BACKDATE: Duration = Duration::minutes(5);
        const SHORT: Duration = Duration::hours(8);
        let now = OffsetDateTime::now_utc();
        let end = if lifetime < SHORT { now + lifetime } else { now + lifetime - BACKDATE };
        self.sign(request, usages, now - BACKDATE, end)
    }
}

fn algorithm(key: &KeyPair) -> Result<Vec<u8>, Error> {
    let null: &[u8] = &[0x05, 0x00];
    let known = [
        (&rcgen::PKCS_ECDSA_P256_SHA256, "1.2.840.10045.4.3.2", None),
        (&rcgen::PKCS_ECDSA_P384_SHA384, "1.2.840.10045.4.3.3", None),
        (&rcgen::PKCS_ED25519, "1.3.101.112", None),
        (&rcgen::PKCS_RSA_SHA256, "1.2.840.113549.1.1.11", Some(null)),
    ];
    let found = known.iter().find(|(algorithm, _, _)| *algorithm == key.algorithm());
    let (_, oid, parameters) = found.ok_or_else(|| Error::unusable("the authority's key"))?;
    Ok(sequence(&[&object_identifier(oid), parameters.unwrap_or_default()]))
}

fn serial() -> Result<Vec<u8>, Error> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::unusable("randomness"))?;
    // Positive, and never with a byte too many.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(element(der::INTEGER, &bytes))
}

fn extension(oid: &str, critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &[0x01, 0x01, 0xff] } else { &[] };
    sequence(&[&object_identifier(oid), critical, &element(der::OCTET_STRING, value)])
}

fn extensions(
    request: &SigningRequest,
    usages: &[String],
    authority: &X509Certificate<'_>,
) -> Result<Vec<Vec<u8>>, Error> {
    let mut bits = 0;
    let mut extended: Vec<Vec<u8>> = Vec::new();
    for usage in usages {
        let bit = KEY_USAGES.iter().find(|(name, _)| name == usage);
        let purpose = EXTENDED_USAGES.iter().find(|(name, _)| name == usage);
        match (bit, purpose) {
            (Some((_, bit)), _) => bits |= bit,
            (None, Some((_, oid))) => extended.push(object_identifier(oid)),
            (None, None) => return Err(Error::unusable(format!("unrecognized usage value: {usage:?}"))),
        }
    }
    extended.sort();
    extended.dedup();
    let mut out = Vec::new();
    if bits != 0 {
        out.push(extension("2.5.29.15", true, &der::named_bits(bits)));
    }
    if !extended.is_empty() {
        out.push(extension("2.5.29.37", false, &element(der::SEQUENCE, &extended.concat())));
    }
    // Not an authority.
    out.push(extension("2.5.29.19", true, &sequence(&[])));
    let identifier = authority.iter_extensions().find_map(|e| match e.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    });
    if let Some(identifier) = identifier {
        out.push(extension("2.5.29.35", false, &sequence(&[&element(0x80, identifier)])));
    }
    if let Some(names) = &request.alternative_names {
        out.push(extension("2.5.29.17", request.common_name.is_empty(), &element(der::SEQUENCE, names)));
    }
    Ok(out)
}

/// When the first certificate of a PEM text ends, in seconds since the epoch; `None` where there is none.
pub fn expiry(pem: &[u8]) -> Option<i64> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem).ok()?;
    let (_, certificate) = X509Certificate::from_der(&pem.contents).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine;
    let encoded = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = (0..encoded.len()).step_by(64).map(|i| &encoded[i..(i + 64).min(encoded.len())]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests;
