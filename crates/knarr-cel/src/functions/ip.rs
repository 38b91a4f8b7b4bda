//! Addresses and networks. IPv4-mapped IPv6 and zones are refused.

use std::net::{IpAddr, Ipv6Addr};

use super::Row;
use super::strings::text;
use crate::error::EvalError;
use crate::value::{Cidr, Value};

type Answer<'a> = Result<Value<'a>, EvalError>;

pub const ROWS: &[Row] = &[
    ("ip(string) -> net.IP", |v| Ok(Value::Ip(parse_ip(text(v, 0)?)?))),
    ("isIP(string) -> bool", |v| Ok(Value::Bool(parse_ip(text(v, 0)?).is_ok()))),
    ("ip.isCanonical(string) -> bool", |v| {
        let text = text(v, 0)?;
        Ok(Value::Bool(parse_ip(text)?.to_string() == text))
    }),
    ("net.IP::family() -> int", |v| Ok(Value::Int(if ip(v, 0)?.is_ipv4() { 4 } else { 6 }))),
    ("net.IP::isUnspecified() -> bool", |v| Ok(Value::Bool(ip(v, 0)?.is_unspecified()))),
    ("net.IP::isLoopback() -> bool", |v| Ok(Value::Bool(ip(v, 0)?.is_loopback()))),
    ("net.IP::isLinkLocalMulticast() -> bool", |v| Ok(Value::Bool(link_local_multicast(ip(v, 0)?)))),
    ("net.IP::isLinkLocalUnicast() -> bool", |v| Ok(Value::Bool(link_local_unicast(ip(v, 0)?)))),
    ("net.IP::isGlobalUnicast() -> bool", |v| Ok(Value::Bool(global_unicast(ip(v, 0)?)))),
    ("cidr(string) -> net.CIDR", |v| Ok(Value::Cidr(parse_cidr(text(v, 0)?)?))),
    ("isCIDR(string) -> bool", |v| Ok(Value::Bool(parse_cidr(text(v, 0)?).is_ok()))),
    ("net.CIDR::containsIP(string) -> bool", contains_ip),
    ("net.CIDR::containsIP(net.IP) -> bool", contains_ip),
    ("net.CIDR::containsCIDR(string) -> bool", contains_cidr),
    ("net.CIDR::containsCIDR(net.CIDR) -> bool", contains_cidr),
    ("net.CIDR::ip() -> net.IP", |v| Ok(Value::Ip(cidr(v, 0)?.0.addr()))),
    ("net.CIDR::prefixLength() -> int", |v| Ok(Value::Int(i64::from(cidr(v, 0)?.0.prefix_len())))),
    ("net.CIDR::masked() -> net.CIDR", |v| Ok(Value::Cidr(Cidr(cidr(v, 0)?.0.trunc())))),
];

fn mapped(ip: &IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some())
}

fn parse_ip(text: &str) -> Result<IpAddr, EvalError> {
    if text.contains('%') && text.split('%').next().is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok()) {
        return Err(EvalError::failed(format!("IP address {text:?} with zone value is not allowed")));
    }
    let parsed: IpAddr = text.parse().map_err(|_| {
        let why = format!("ParseAddr({text:?}): unable to parse IP");
        EvalError::failed(format!("IP Address {text:?} parse error during conversion from string: {why}"))
    })?;
    if mapped(&parsed) {
        return Err(EvalError::failed(format!("IPv4-mapped IPv6 address {text:?} is not allowed")));
    }
    Ok(parsed)
}

fn parse_cidr(text: &str) -> Result<Cidr, EvalError> {
    let canonical_length = |text: &str| {
        let length = text.rsplit_once('/')?.1;
        (length == "0" || !length.starts_with(['0', '+', '-'])).then_some(())
    };
    let parsed = canonical_length(text).and_then(|()| text.parse::<ipnet::IpNet>().ok());
    let parsed = parsed.ok_or_else(|| {
        let why = format!("netip.ParsePrefix({text:?}): no '/'");
        EvalError::failed(format!("network address parse error during conversion from string: {why}"))
    })?;
    if mapped(&parsed.addr()) {
        return Err(EvalError::failed(format!("IPv4-mapped IPv6 address {text:?} is not allowed")));
    }
    Ok(Cidr(parsed))
}

fn ip(values: &[Value<'_>], at: usize) -> Result<IpAddr, EvalError> {
    match values.get(at) {
        Some(Value::Ip(ip)) => Ok(*ip),
        Some(Value::String(text)) => parse_ip(text),
        _ => Err(EvalError::overload()),
    }
}

fn cidr(values: &[Value<'_>], at: usize) -> Result<Cidr, EvalError> {
    match values.get(at) {
        Some(Value::Cidr(cidr)) => Ok(*cidr),
        Some(Value::String(text)) => parse_cidr(text),
        _ => Err(EvalError::overload()),
    }
}

fn contains_ip<'a>(values: &[Value<'a>]) -> Answer<'a> {
    Ok(Value::Bool(cidr(values, 0)?.0.contains(&ip(values, 1)?)))
}

fn contains_cidr<'a>(values: &[Value<'a>]) -> Answer<'a> {
    let (whole, part) = (cidr(values, 0)?.0, cidr(values, 1)?.0);
    Ok(Value::Bool(whole.prefix_len() <= part.prefix_len() && whole.contains(&part.addr())))
}

fn link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
    }
}

fn link_local_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80,
    }
}

/// As Go's `IsGlobalUnicast`: also private addresses.
fn global_unicast(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast() && !link_local_unicast(ip) && !broadcast
}
