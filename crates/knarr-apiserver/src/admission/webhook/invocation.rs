use std::sync::Arc;

use knarr_api::{GroupVersionKind, Resource, StatusError};

use super::super::Request;
use super::super::matching::{Matched, kind_of};
use super::configuration::Hook;
use crate::registry::Registry;

/// A hook that is to be called, and what it is shown.
pub(super) struct Invocation {
    pub hook: Arc<Hook>,
    /// The resource whose rule matched: the request's, or an equivalent of it.
    pub matched: Matched,
    pub kind: GroupVersionKind,
}

impl Invocation {
    /// The invocation of `hook` for this request, if it is to be called.
    pub fn of(registry: &Registry, hook: &Arc<Hook>, request: &Request) -> Result<Option<Invocation>, StatusError> {
        let Some(matched) = hook.matching.matches(registry, request)? else { return Ok(None) };
        let kind = kind_of(&matched.resource, &request.subresource);
        Ok(Some(Invocation { hook: hook.clone(), matched, kind }))
    }

    pub fn resource(&self) -> &Arc<Resource> {
        &self.matched.resource
    }
}
