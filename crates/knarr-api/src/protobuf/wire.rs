//! The protobuf wire format: varints, tags and length-delimited runs.

use super::ProtobufError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireType {
    Varint,
    Fixed64,
    Bytes,
    Fixed32,
}

#[derive(Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    pub fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn tag(&mut self, number: u32, wire: u8) {
        self.varint(u64::from(number) << 3 | u64::from(wire));
    }

    /// Integers and booleans; a negative number takes ten bytes, as protobuf has it.
    pub fn integer(&mut self, number: u32, value: i64) {
        self.tag(number, 0);
        self.varint(value as u64);
    }

    pub fn double(&mut self, number: u32, value: f64) {
        self.tag(number, 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub fn bytes(&mut self, number: u32, value: &[u8]) {
        self.tag(number, 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }
}

/// One field off the wire.
pub enum Payload<'b> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'b [u8]),
    Fixed32,
}

pub struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    pub fn new(bytes: &'b [u8]) -> Self {
        Reader(bytes)
    }

    pub fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(ProtobufError::Overflow)
    }

    fn take(&mut self, count: usize) -> Result<&'b [u8], ProtobufError> {
        if count > self.0.len() {
            return Err(ProtobufError::UnexpectedEnd);
        }
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        Ok(taken)
    }

    /// The next field and its number; `None` at the end.
    pub fn next(&mut self) -> Result<Option<(u32, Payload<'b>)>, ProtobufError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| ProtobufError::IllegalTag(tag >> 3))?;
        if number == 0 {
            return Err(ProtobufError::IllegalTag(0));
        }
        let payload = match wire_type(tag)? {
            WireType::Varint => Payload::Varint(self.varint()?),
            WireType::Fixed64 => {
                let bytes = self.take(8)?;
                Payload::Fixed64(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
            }
            WireType::Bytes => {
                let length = usize::try_from(self.varint()?).map_err(|_| ProtobufError::UnexpectedEnd)?;
                Payload::Bytes(self.take(length)?)
            }
            WireType::Fixed32 => {
                self.take(4)?;
                Payload::Fixed32
            }
        };
        Ok(Some((number, payload)))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn wire_type(tag: u64) -> Result<WireType, ProtobufError> {
    match tag & 7 {
        0 => Ok(WireType::Varint),
        1 => Ok(WireType::Fixed64),
        2 => Ok(WireType::Bytes),
        5 => Ok(WireType::Fixed32),
        other => Err(ProtobufError::WireType(other)),
    }
}
