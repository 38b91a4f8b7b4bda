//! Addresses that are read and yet not written as they should be.

use std::net::IpAddr;

use serde_json::Value;

use crate::validation::check::{parse_cidr, parse_ip};

/// An address with leading zeros, an IPv4 one in IPv6 clothes, an IPv6 one that is not in its canonical form.
pub fn ip(path: &str, value: &Value) -> Option<String> {
    let value = value.as_str()?;
    let address = parse_ip(value)?;
    if value.parse::<IpAddr>().is_err() || mapped(&address) {
        let standard = address.to_canonical();
        return Some(format!("{path}: non-standard IP address {value:?} is invalid: use \"{standard}\""));
    }
    (address.is_ipv6() && address.to_string() != value)
        .then(|| format!("{path}: IPv6 address {value:?} should be in RFC 5952 canonical format (\"{address}\")"))
}

fn mapped(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

/// As [`ip`] for a range, which also should have no bits beyond its prefix.
pub fn cidr(path: &str, value: &Value) -> Vec<String> {
    let mut out = Vec::new();
    let Some(value) = value.as_str() else { return out };
    let Some((address, bits)) = parse_cidr(value) else { return out };
    let Ok(range) = ipnet::IpNet::new(address, bits).map(|range| range.trunc()) else { return out };
    if range.addr() != address {
        let all = if address.is_ipv4() { 32 } else { 128 };
        let choice = format!("should be \"{range}\" or \"{address}/{all}\"?");
        out.push(format!("{path}: CIDR value {value:?} is ambiguous in this context ({choice})"));
    }
    let written = value.split('/').next().unwrap_or_default();
    if written.parse::<IpAddr>().is_err() || mapped(&address) {
        out.push(format!("{path}: non-standard CIDR value {value:?} is invalid: use \"{range}\""));
    }
    if out.is_empty() && address.is_ipv6() && range.to_string() != value {
        let why = format!("should be in RFC 5952 canonical format (\"{range}\")");
        out.push(format!("{path}: IPv6 CIDR value {value:?} {why}"));
    }
    out
}
