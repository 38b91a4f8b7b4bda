//! As much of DER as a certificate needs.

pub const SEQUENCE: u8 = 0x30;
pub const INTEGER: u8 = 0x02;
pub const BIT_STRING: u8 = 0x03;
pub const OCTET_STRING: u8 = 0x04;
pub const OBJECT_IDENTIFIER: u8 = 0x06;

/// One element: tag, length, contents.
pub fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match contents.len() {
        short @ 0..=0x7f => out.push(short as u8),
        long => {
            let bytes = long.to_be_bytes();
            let significant = &bytes[bytes.iter().position(|b| *b != 0).unwrap_or_default()..];
            out.push(0x80 | significant.len() as u8);
            out.extend(significant);
        }
    }
    out.extend(contents);
    out
}

/// A sequence of elements that are encoded already.
pub fn sequence(elements: &[&[u8]]) -> Vec<u8> {
    element(SEQUENCE, &elements.concat())
}

/// `1.2.840.10045.4.3.2`
pub fn object_identifier(dotted: &str) -> Vec<u8> {
    let arcs: Vec<u64> = dotted.split('.').filter_map(|arc| arc.parse().ok()).collect();
    let [first, second, rest @ ..] = arcs.as_slice() else { return element(OBJECT_IDENTIFIER, &[]) };
    let mut contents = Vec::new();
    for arc in std::iter::once(&(first * 40 + second)).chain(rest) {
        let mut groups = vec![(arc & 0x7f) as u8];
        let mut left = arc >> 7;
        while left > 0 {
            groups.push((left & 0x7f) as u8 | 0x80);
            left >>= 7;
        }
        contents.extend(groups.iter().rev());
    }
    element(OBJECT_IDENTIFIER, &contents)
}

/// A string of named bits, the highest bit of the first byte first, trailing zeros left out.
pub fn named_bits(bits: u16) -> Vec<u8> {
    let bytes = bits.to_be_bytes();
    let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    let unused = if used == 0 { 0 } else { bytes[used - 1].trailing_zeros() as u8 };
    element(BIT_STRING, &[&[unused], &bytes[..used]].concat())
}

/// Whole bytes as a bit string.
pub fn bit_string(bytes: &[u8]) -> Vec<u8> {
    element(BIT_STRING, &[&[0], bytes].concat())
}

/// A point in time as X.509 wants it: two digits of the year until 2049.
pub fn time(at: ::time::OffsetDateTime) -> Vec<u8> {
    let rest =
        format!("{:02}{:02}{:02}{:02}{:02}Z", u8::from(at.month()), at.day(), at.hour(), at.minute(), at.second());
    match at.year() {
        year @ 1950..=2049 => element(0x17, format!("{:02}{rest}", year % 100).as_bytes()),
        year => element(0x18, format!("{year:04}{rest}").as_bytes()),
    }
}
