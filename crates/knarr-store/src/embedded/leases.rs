//! Leases in memory: when each expires and which keys go with it.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use crate::LeaseId;

#[derive(Default)]
pub(super) struct Leases {
    leases: HashMap<LeaseId, Lease>,
    by_expiry: BTreeSet<(u64, i64)>,
    lease_of: HashMap<Arc<str>, LeaseId>,
    highest: i64,
}

struct Lease {
    expires: u64,
    keys: HashSet<Arc<str>>,
}

impl Leases {
    pub fn grant(&mut self, lease: LeaseId, expires: u64) {
        self.highest = self.highest.max(lease.0);
        self.by_expiry.insert((expires, lease.0));
        self.leases.insert(lease, Lease { expires, keys: HashSet::new() });
    }

    pub fn contains(&self, lease: LeaseId) -> bool {
        self.leases.contains_key(&lease)
    }

    /// The highest number ever seen here; 0 if none.
    pub fn highest(&self) -> i64 {
        self.highest
    }

    /// Notes that a key's newest version has this lease, or none.
    pub fn attach(&mut self, key: &Arc<str>, lease: Option<LeaseId>) {
        if let Some(former) = self.lease_of.remove(key)
            && let Some(former) = self.leases.get_mut(&former)
        {
            former.keys.remove(key);
        }
        if let Some(id) = lease
            && let Some(lease) = self.leases.get_mut(&id)
        {
            lease.keys.insert(key.clone());
            self.lease_of.insert(key.clone(), id);
        }
    }

    /// When the next lease expires.
    pub fn next_expiry(&self) -> Option<u64> {
        self.by_expiry.first().map(|(expires, _)| *expires)
    }

    /// A lease that has expired, and up to `most` of its keys.
    pub fn expired(&self, now: u64, most: usize) -> Option<(LeaseId, Vec<Arc<str>>)> {
        let (expires, id) = *self.by_expiry.first()?;
        let lease = self.leases.get(&LeaseId(id)).filter(|_| expires <= now)?;
        Some((LeaseId(id), lease.keys.iter().take(most).cloned().collect()))
    }

    pub fn revoke(&mut self, lease: LeaseId) {
        let Some(Lease { expires, keys }) = self.leases.remove(&lease) else { return };
        self.by_expiry.remove(&(expires, lease.0));
        for key in keys {
            self.lease_of.remove(&key);
        }
    }
}
