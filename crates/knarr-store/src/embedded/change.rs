//! What the log says: one operation a record, in the order in which they happened.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};

use crate::{Event, KeyValue, LeaseId, Revision};

/// One operation of the write-ahead log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Change(Change),
    /// History before this revision is forgotten.
    Compact(u64),
    Grant {
        lease: LeaseId,
        /// Wall clock, milliseconds since 1970: a lease goes on expiring while the store is closed.
        expires: u64,
    },
    Revoke(LeaseId),
}

/// One key's new version and its value (empty for a deletion).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub version: Version,
    pub value: Bytes,
}

/// A key's place in history at one revision: all of a change but its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub revision: u64,
    pub key: Arc<str>,
    /// 0: the key was deleted at this revision.
    pub create_revision: u64,
    pub previous: Option<Previous>,
    pub lease: Option<LeaseId>,
    pub value_length: u32,
}

/// Where the version that a change replaced is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Previous {
    pub revision: u64,
    pub create_revision: u64,
}

const HEADER_LENGTH: usize = 8 + 8 + 8 + 8 + 4;

impl Version {
    pub fn is_deletion(&self) -> bool {
        self.create_revision == 0
    }

    /// The event of this change; `previous_value` is there if `previous` is.
    pub fn into_event(self, value: Bytes, previous_value: Option<Bytes>) -> Event {
        let deletion = self.is_deletion();
        let previous = self.previous.zip(previous_value).map(|(previous, value)| KeyValue {
            key: self.key.clone(),
            value,
            create_revision: Revision(previous.create_revision),
            mod_revision: Revision(previous.revision),
        });
        let current = KeyValue {
            key: self.key,
            value,
            create_revision: Revision(self.create_revision),
            mod_revision: Revision(self.revision),
        };
        match previous {
            Some(previous) if deletion => Event::Delete { current, previous },
            previous => Event::Put { current, previous },
        }
    }

    /// All but the revision, which is the record's key in the engine. 0 stands for "none": revisions and leases start above it.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let previous = self.previous.unwrap_or(Previous { revision: 0, create_revision: 0 });
        out.put_u64_le(self.create_revision);
        out.put_u64_le(previous.revision);
        out.put_u64_le(previous.create_revision);
        out.put_i64_le(self.lease.map_or(0, |lease| lease.0));
        out.put_u32_le(self.value_length);
        out.extend_from_slice(self.key.as_bytes());
    }

    fn encoded_length(&self) -> usize {
        HEADER_LENGTH + self.key.len()
    }

    /// `None`: not a record that we wrote.
    pub fn decode(revision: u64, mut bytes: &[u8]) -> Option<Version> {
        if bytes.len() < HEADER_LENGTH {
            return None;
        }
        let create_revision = bytes.get_u64_le();
        let previous = Previous { revision: bytes.get_u64_le(), create_revision: bytes.get_u64_le() };
        let lease = bytes.get_i64_le();
        let value_length = bytes.get_u32_le();
        Some(Version {
            revision,
            key: std::str::from_utf8(bytes).ok()?.into(),
            create_revision,
            previous: (previous.revision != 0).then_some(previous),
            lease: (lease != 0).then_some(LeaseId(lease)),
            value_length,
        })
    }
}

const CHANGE: u8 = 1;
const COMPACT: u8 = 2;
const GRANT: u8 = 3;
const REVOKE: u8 = 4;

impl Operation {
    /// Appends the operation to a log frame.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        match self {
            Operation::Change(Change { version, value }) => {
                out.put_u8(CHANGE);
                out.put_u64_le(version.revision);
                out.put_u32_le(version.encoded_length() as u32);
                version.encode_into(out);
                out.extend_from_slice(value);
            }
            Operation::Compact(revision) => {
                out.put_u8(COMPACT);
                out.put_u64_le(*revision);
            }
            Operation::Grant { lease, expires } => {
                out.put_u8(GRANT);
                out.put_i64_le(lease.0);
                out.put_u64_le(*expires);
            }
            Operation::Revoke(lease) => {
                out.put_u8(REVOKE);
                out.put_i64_le(lease.0);
            }
        }
    }

    /// Takes the next operation off a frame's payload. `None`: the frame is not one that we wrote.
    pub fn decode_from(bytes: &mut Bytes) -> Option<Operation> {
        match bytes.try_get_u8().ok()? {
            CHANGE => decode_change(bytes).map(Operation::Change),
            COMPACT => Some(Operation::Compact(bytes.try_get_u64_le().ok()?)),
            GRANT => Some(Operation::Grant {
                lease: LeaseId(bytes.try_get_i64_le().ok()?),
                expires: bytes.try_get_u64_le().ok()?,
            }),
            REVOKE => Some(Operation::Revoke(LeaseId(bytes.try_get_i64_le().ok()?))),
            _ => None,
        }
    }
}

fn decode_change(bytes: &mut Bytes) -> Option<Change> {
    let revision = bytes.try_get_u64_le().ok()?;
    let version_length = bytes.try_get_u32_le().ok()? as usize;
    if bytes.len() < version_length {
        return None;
    }
    let version = Version::decode(revision, &bytes.split_to(version_length))?;
    let value_length = version.value_length as usize;
    (bytes.len() >= value_length).then(|| Change { version, value: bytes.split_to(value_length) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_come_back_as_they_were_written() {
        let put = Version {
            revision: 7,
            key: "/registry/pods/a/b".into(),
            create_revision: 3,
            previous: Some(Previous { revision: 5, create_revision: 3 }),
            lease: Some(LeaseId(9)),
            value_length: 5,
        };
        let delete = Version { create_revision: 0, lease: None, previous: None, value_length: 0, ..put.clone() };
        let operations = vec![
            Operation::Change(Change { version: put, value: Bytes::from_static(b"value") }),
            Operation::Change(Change { version: delete, value: Bytes::new() }),
            Operation::Compact(4),
            Operation::Grant { lease: LeaseId(9), expires: 1234 },
            Operation::Revoke(LeaseId(9)),
        ];
        let mut frame = Vec::new();
        operations.iter().for_each(|operation| operation.encode_into(&mut frame));
        let mut bytes = Bytes::from(frame);
        for operation in operations {
            assert_eq!(Operation::decode_from(&mut bytes), Some(operation));
        }
        assert!(bytes.is_empty());
    }

    #[test]
    fn a_cut_operation_is_refused() {
        let mut frame = Vec::new();
        Operation::Compact(4).encode_into(&mut frame);
        frame.pop();
        assert_eq!(Operation::decode_from(&mut Bytes::from(frame)), None);
    }
}
