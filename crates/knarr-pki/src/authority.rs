use std::net::IpAddr;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::{Duration, OffsetDateTime};

use crate::Error;
use crate::files::{read_if_present, write_private, write_public};

const AUTHORITY_YEARS: i64 = 10;
const CERTIFICATE_DAYS: i64 = 365;
/// A certificate this close to its end is issued anew at start.
const RENEW_DAYS: i64 = 30;
/// Clocks differ between machines; a certificate is valid a little before it is issued.
const BACKDATE: Duration = Duration::minutes(5);

/// What a certificate may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    Client,
    Server,
}

/// What a certificate is to say.
#[derive(Clone, Debug)]
pub struct CertificateRequest {
    /// The subject's common name: the user name of a client certificate.
    pub common_name: String,
    /// The subject's organizations: the groups of a client certificate.
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub usages: Vec<Usage>,
}

impl CertificateRequest {
    /// A client certificate for this user in these groups.
    pub fn client(user: &str, groups: &[&str]) -> Self {
        CertificateRequest {
            common_name: user.into(),
            organizations: groups.iter().map(|g| g.to_string()).collect(),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            usages: vec![Usage::Client],
        }
    }

    /// A serving certificate for these names and addresses.
    pub fn server(common_name: &str, dns_names: Vec<String>, addresses: Vec<IpAddr>) -> Self {
        CertificateRequest {
            common_name: common_name.into(),
            organizations: Vec::new(),
            dns_names,
            addresses,
            usages: vec![Usage::Server],
        }
    }

    fn parameters(&self) -> Result<CertificateParams, Error> {
        let mut params =
            CertificateParams::new(self.dns_names.clone()).map_err(Error::certificate(self.common_name.as_str()))?;
        params.subject_alt_names.extend(self.addresses.iter().copied().map(SanType::IpAddress));
        params.distinguished_name = DistinguishedName::new();
        for organization in &self.organizations {
            params.distinguished_name.push(DnType::OrganizationName, organization.as_str());
        }
        params.distinguished_name.push(DnType::CommonName, self.common_name.as_str());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = self.usages.iter().map(|u| u.purpose()).collect();
        validity(&mut params, Duration::days(CERTIFICATE_DAYS));
        Ok(params)
    }
}

impl Usage {
    fn purpose(self) -> ExtendedKeyUsagePurpose {
        match self {
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
        }
    }
}

fn validity(params: &mut CertificateParams, length: Duration) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - BACKDATE;
    params.not_after = now + length;
}

/// A certificate with its private key, both PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyedCertificate {
    pub certificate_pem: String,
    pub key_pem: String,
}

/// A certificate authority whose key is at hand.
pub struct CertificateAuthority {
    certificate_pem: String,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl CertificateAuthority {
    /// The authority in `DIR/NAME.crt` and `DIR/NAME.key`; made there, with this common name, if it does not exist.
    pub fn load_or_create(directory: &Path, name: &str, common_name: &str) -> Result<Self, Error> {
        let certificate_path = directory.join(format!("{name}.crt"));
        let key_path = directory.join(format!("{name}.key"));
        if let (Some(certificate), Some(key)) = (read_if_present(&certificate_path)?, read_if_present(&key_path)?) {
            return Self::from_pem(certificate, key);
        }
        let (certificate, key) = create(common_name)?;
        // The key first: a certificate without its key would look like an authority that cannot sign.
        write_private(&key_path, &key)?;
        write_public(&certificate_path, &certificate)?;
        Self::from_pem(certificate, key)
    }

    /// The authority of this certificate and key.
    pub fn from_pem(certificate_pem: String, key_pem: String) -> Result<Self, Error> {
        let key = KeyPair::from_pem(&key_pem).map_err(Error::certificate("certificate authority key"))?;
        let issuer =
            Issuer::from_ca_cert_pem(&certificate_pem, key).map_err(Error::certificate("certificate authority"))?;
        Ok(CertificateAuthority { certificate_pem, key_pem, issuer })
    }

    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The private key; for the controller that signs certificate signing requests.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// A new key and a certificate for it.
    pub fn issue(&self, request: &CertificateRequest) -> Result<KeyedCertificate, Error> {
        let what = || format!("certificate of {}", request.common_name);
        let key = KeyPair::generate().map_err(Error::certificate(what()))?;
        let certificate = request.parameters()?.signed_by(&key, &self.issuer).map_err(Error::certificate(what()))?;
        Ok(KeyedCertificate { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// The certificate in `DIR/NAME.crt` and `.key`; issued (anew) where it is missing, near its end, of another authority, or does
    /// not say what is requested.
    pub fn load_or_issue(
        &self,
        directory: &Path,
        name: &str,
        request: &CertificateRequest,
    ) -> Result<KeyedCertificate, Error> {
        let certificate_path = directory.join(format!("{name}.crt"));
        let key_path = directory.join(format!("{name}.key"));
        if let (Some(certificate_pem), Some(key_pem)) =
            (read_if_present(&certificate_path)?, read_if_present(&key_path)?)
            && self.still_serves(&certificate_pem, request)
        {
            return Ok(KeyedCertificate { certificate_pem, key_pem });
        }
        let issued = self.issue(request)?;
        write_private(&key_path, &issued.key_pem)?;
        write_public(&certificate_path, &issued.certificate_pem)?;
        Ok(issued)
    }

    fn still_serves(&self, certificate_pem: &str, request: &CertificateRequest) -> bool {
        let (Some(certificate), Some(authority)) = (der(certificate_pem), der(&self.certificate_pem)) else {
            return false;
        };
        let (Ok((_, leaf)), Ok((_, root))) =
            (x509_parser::parse_x509_certificate(&certificate), x509_parser::parse_x509_certificate(&authority))
        else {
            return false;
        };
        let lasts = leaf.validity().not_after.timestamp()
            > (OffsetDateTime::now_utc() + Duration::days(RENEW_DAYS)).unix_timestamp();
        lasts && leaf.verify_signature(Some(root.public_key())).is_ok() && says(&leaf, request)
    }
}

fn says(leaf: &x509_parser::certificate::X509Certificate<'_>, request: &CertificateRequest) -> bool {
    use x509_parser::extensions::GeneralName;
    let names = leaf.subject().iter_common_name().filter_map(|n| n.as_str().ok());
    if names.collect::<Vec<_>>() != [request.common_name.as_str()] {
        return false;
    }
    let organizations = leaf.subject().iter_organization().filter_map(|n| n.as_str().ok());
    if organizations.collect::<Vec<_>>() != request.organizations {
        return false;
    }
    let alternatives = match leaf.subject_alternative_name() {
        Ok(Some(extension)) => extension.value.general_names.clone(),
        _ => Vec::new(),
    };
    let has_dns = |name: &String| alternatives.iter().any(|a| matches!(a, GeneralName::DNSName(n) if n == name));
    let has_address = |address: &IpAddr| {
        let octets = match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        alternatives.iter().any(|a| matches!(a, GeneralName::IPAddress(bytes) if *bytes == octets))
    };
    request.dns_names.iter().all(has_dns) && request.addresses.iter().all(has_address)
}

fn der(pem: &str) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes()).ok()
}

fn create(common_name: &str) -> Result<(String, String), Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    validity(&mut params, Duration::days(365 * AUTHORITY_YEARS));
    let key = KeyPair::generate().map_err(Error::certificate(common_name))?;
    let certificate = params.self_signed(&key).map_err(Error::certificate(common_name))?;
    Ok((certificate.pem(), key.serialize_pem()))
}
