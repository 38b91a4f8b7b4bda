use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The range of cluster IPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    network: IpNet,
}

/// No more addresses than this are handed out of one range, as upstream.
const MAX_ADDRESSES: u64 = 1 << 20;

impl AddressRange {
    pub fn new(network: IpNet) -> Self {
        AddressRange { network: network.trunc() }
    }

    /// The address of the `kubernetes` service.
    pub fn first(&self) -> IpAddr {
        self.address(0)
    }

    pub fn family(&self) -> &'static str {
        if self.network.addr().is_ipv4() { "IPv4" } else { "IPv6" }
    }

    pub fn shown(&self) -> String {
        self.network.to_string()
    }

    /// How many addresses there are, the network's own and (in IPv4) the broadcast left out.
    pub fn size(&self) -> u64 {
        let bits = u32::from(self.network.max_prefix_len() - self.network.prefix_len());
        let all = 1u64.checked_shl(bits).unwrap_or(MAX_ADDRESSES).min(MAX_ADDRESSES);
        let reserved = if self.network.addr().is_ipv4() { 2 } else { 1 };
        all.saturating_sub(reserved)
    }

    /// How many addresses are kept for those who ask by name: a sixteenth, from 16 to 256 (KEP-3070).
    pub fn band(&self) -> u64 {
        let size = self.size();
        if size <= 16 { 0 } else { (size / 16).clamp(16, 256) }
    }

    pub fn address(&self, offset: u64) -> IpAddr {
        match self.network.network() {
            IpAddr::V4(base) => Ipv4Addr::from(u32::from(base).wrapping_add(offset as u32 + 1)).into(),
            IpAddr::V6(base) => Ipv6Addr::from(u128::from(base).wrapping_add(u128::from(offset) + 1)).into(),
        }
    }

    /// The offset of an address that may be handed out.
    pub fn offset(&self, address: IpAddr) -> Option<u64> {
        let distance = match (self.network.network(), address) {
            (IpAddr::V4(base), IpAddr::V4(a)) => u64::from(u32::from(a).checked_sub(u32::from(base))?),
            (IpAddr::V6(base), IpAddr::V6(a)) => u64::try_from(u128::from(a).checked_sub(u128::from(base))?).ok()?,
            _ => return None,
        };
        let offset = distance.checked_sub(1)?;
        (offset < self.size()).then_some(offset)
    }
}

/// The range of node ports.
#[derive(Clone, Copy, Debug)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

impl Default for PortRange {
    fn default() -> Self {
        PortRange { first: 30000, last: 32767 }
    }
}

impl PortRange {
    pub fn size(&self) -> u64 {
        u64::from(self.last.saturating_sub(self.first)) + 1
    }

    /// Ports kept for those who ask by number (KEP-3668).
    pub fn band(&self) -> u64 {
        let size = self.size();
        if size < 32 { 0 } else { (size / 32).clamp(16, 128) }
    }

    pub fn offset(&self, port: i64) -> Option<u64> {
        let inside = port >= i64::from(self.first) && port <= i64::from(self.last);
        inside.then(|| (port - i64::from(self.first)) as u64)
    }

    pub fn port(&self, offset: u64) -> u64 {
        u64::from(self.first) + offset
    }

    pub fn shown(&self) -> String {
        format!("{}-{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_offsets_are_inverse() {
        let range = AddressRange::new("10.96.0.0/16".parse().unwrap());
        assert_eq!((range.size(), range.band()), (65534, 256));
        assert_eq!(range.first().to_string(), "10.96.0.1");
        assert_eq!(range.address(65533).to_string(), "10.96.255.254");
        for (address, offset) in
            [("10.96.0.0", None), ("10.96.0.1", Some(0)), ("10.96.255.255", None), ("10.97.0.1", None)]
        {
            assert_eq!(range.offset(address.parse().unwrap()), offset, "{address}");
        }
        assert_eq!(PortRange::default().band(), 86);
    }
}
