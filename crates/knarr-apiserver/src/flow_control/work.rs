//! What a request will cost, guessed before it is served.

use std::time::Duration;

use crate::cache::Cache;
use crate::chain::request_info::RequestInfo;
use crate::registry::Registry;
use crate::registry::options::Query;

/// The seats of a request, and those it leaves behind for a while for what its event sets off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    pub initial: u32,
    pub last: u32,
    /// How long the last seats stay taken after the answer.
    pub linger: Duration,
}

impl Work {
    pub const ONE: Work = Work { initial: 1, last: 0, linger: Duration::ZERO };

    pub fn seats(&self) -> u32 {
        self.initial.max(self.last)
    }
}

/// As upstream: a list holds so many bytes of memory a seat.
const BYTES_PER_SEAT: usize = 100_000;
/// As upstream: a list out of the cache goes out in runs, whatever its length.
const MOST_LIST_BYTES: usize = 1_000_000;
const MOST_LIST_SEATS: u32 = 100;
/// Entries looked at to guess how large a resource's objects are.
const SAMPLE: usize = 4;
/// Watchers whose events cost a seat for [`EVENT_DURATION`]. Upstream takes 10; here an event is rendered once for all of them.
const WATCHERS_PER_SEAT: usize = 100;
const EVENT_DURATION: Duration = Duration::from_millis(5);
const MOST_WRITE_SEATS: u32 = 10;

/// Guesses; `most` are the seats that a request of this level may take (0: no limit).
pub fn estimate(registry: &Registry, info: &RequestInfo, query: &str, most: u32) -> Work {
    let cache = || registry.served(&info.group, &info.version, &info.resource).map(|served| served.cache.clone());
    match info.verb.as_str() {
        // One object by name: as cheap as a get.
        "list" | "watch" if !info.name.is_empty() => Work::ONE,
        "watch" if !sends_everything(query) => Work::ONE,
        "list" | "watch" => cache().map_or(Work::ONE, |cache| list(&cache, query, most)),
        "create" | "update" | "patch" | "delete" if info.is_resource => {
            cache().map_or(Work::ONE, |cache| write(cache.broad_watchers(), most))
        }
        _ => Work::ONE,
    }
}

/// Whether a watch begins with all that is there.
fn sends_everything(query: &str) -> bool {
    let query = Query::parse(query);
    query.flag("sendInitialEvents") == Some(true) || matches!(query.get("resourceVersion"), "" | "0")
}

fn list(cache: &Cache, query: &str, most: u32) -> Work {
    let snapshot = cache.snapshot();
    let stored = snapshot.entries.len();
    let limit = if query.is_empty() { None } else { Query::parse(query).get("limit").parse().ok() };
    let listed = limit.filter(|limit| *limit > 0).map_or(stored, |limit: usize| limit.min(stored));
    let sampled = snapshot.range("", None).take(SAMPLE);
    let (count, size) = sampled.fold((0, 0), |(count, size), entry| (count + 1, size + entry.json().len()));
    let average = size / count.max(1);
    let bytes = listed.saturating_mul(average).min(MOST_LIST_BYTES);
    let most = if most == 0 { MOST_LIST_SEATS } else { most.min(MOST_LIST_SEATS) };
    Work { initial: (bytes.div_ceil(BYTES_PER_SEAT) as u32).clamp(1, most), ..Work::ONE }
}

fn write(watchers: usize, most: u32) -> Work {
    if watchers < WATCHERS_PER_SEAT {
        return Work::ONE;
    }
    let wanted = watchers.div_ceil(WATCHERS_PER_SEAT) as u32;
    let most = if most == 0 { MOST_WRITE_SEATS } else { most.min(MOST_WRITE_SEATS) };
    let last = wanted.min(most);
    // The same work on fewer seats takes longer.
    Work { initial: 1, last, linger: EVENT_DURATION * wanted / last }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_watchers_make_a_write_wide_and_then_long() {
        assert_eq!(write(20, 0), Work::ONE);
        assert_eq!(write(150, 0), Work { initial: 1, last: 2, linger: EVENT_DURATION });
        assert_eq!(write(2_000, 5), Work { initial: 1, last: 5, linger: EVENT_DURATION * 4 });
    }
}
