//! etcd's failures as the store's.

use etcd_client::Error;

use crate::{LeaseId, Revision, StoreError};

/// gRPC's `UNAVAILABLE`.
const UNAVAILABLE: i32 = 14;

/// Whether nobody could be asked; a read may be tried again.
pub(super) fn is_unavailable(error: &Error) -> bool {
    match error {
        Error::GRpcStatus(status) => status.code() as i32 == UNAVAILABLE,
        Error::TransportError(_) | Error::IoError(_) => true,
        _ => false,
    }
}

pub(super) fn backend(error: Error) -> StoreError {
    StoreError::Backend(format!("etcd: {}", message(&error)))
}

pub(super) fn timed_out() -> StoreError {
    StoreError::Backend("etcd: no answer in time".into())
}

/// A failed read or write of one key.
pub(super) fn of_key(key: &str, error: Error) -> StoreError {
    let text = message(&error);
    if text.contains("requested lease not found") {
        return StoreError::LeaseNotFound(LeaseId(0));
    }
    if text.contains("request is too large") {
        return StoreError::Backend(format!("etcd: the value of {key} is larger than etcd takes"));
    }
    backend(error)
}

/// A failed read of the past; who asked knows the details.
pub(super) fn of_revision(requested: Revision, error: Error) -> StoreError {
    let text = message(&error);
    if text.contains("revision has been compacted") {
        return StoreError::Compacted { requested, oldest: requested };
    }
    if text.contains("is a future revision") {
        return StoreError::Future { requested, current: Revision(0) };
    }
    backend(error)
}

/// etcd's own words where it answered.
fn message(error: &Error) -> String {
    match error {
        Error::GRpcStatus(status) => status.message().to_string(),
        other => other.to_string(),
    }
}
