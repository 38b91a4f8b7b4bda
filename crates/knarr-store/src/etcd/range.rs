//! Ranges, read in pages at one revision: an answer of etcd's must not grow with the store.

use etcd_client::{GetOptions, KvClient};

use super::{error, header_revision, key_value, retried};
use crate::{Range, Result, Revision};

/// Keys of the first page.
const FIRST_PAGE: usize = 500;
/// Keys of a page at most, as upstream.
const LARGEST_PAGE: usize = 10_000;
/// Bytes that a page should have.
const PAGE_BYTES: usize = 4 << 20;

/// As [`crate::Store::range`]; `Compacted` and `Future` do not know what else etcd has.
pub(super) async fn read(
    kv: KvClient,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
    at: Option<Revision>,
) -> Result<Range> {
    let mut found = Range { revision: at.unwrap_or_default(), ..Range::default() };
    let mut start = start(prefix, after);
    let mut page = FIRST_PAGE;
    loop {
        let wanted = if limit == 0 { page } else { page.min(limit - found.items.len()) };
        let options =
            GetOptions::new().with_range(end(prefix)).with_limit(wanted as i64).with_revision(found.revision.0 as i64);
        let answer = retried(|| {
            let (mut kv, key, options) = (kv.clone(), start.clone(), options.clone());
            async move { kv.get(key, Some(options)).await }
        });
        let answer = answer.await.map_err(|error| error::of_revision(found.revision, error))?;
        if found.revision.0 == 0 {
            found.revision = Revision(header_revision(answer.header()));
        }
        let Some(last) = answer.kvs().last() else { return Ok(found) };
        start = following(last.key());
        page = next_page(answer.kvs());
        found.items.extend(answer.kvs().iter().filter_map(key_value));
        found.more = answer.more();
        if !found.more || (limit != 0 && found.items.len() >= limit) {
            return Ok(found);
        }
    }
}

/// As many keys as should make [`PAGE_BYTES`], by the size of those that were read.
fn next_page(read: &[etcd_client::KeyValue]) -> usize {
    let bytes: usize = read.iter().map(|kv| kv.key().len() + kv.value().len()).sum();
    (PAGE_BYTES / (bytes / read.len()).max(1)).clamp(1, LARGEST_PAGE)
}

fn start(prefix: &str, after: Option<&str>) -> Vec<u8> {
    match after {
        Some(after) if after >= prefix => following(after.as_bytes()),
        // etcd takes no empty key; a zero byte is the first of all keys.
        _ if prefix.is_empty() => vec![0],
        _ => prefix.into(),
    }
}

/// The first key that may follow.
fn following(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// The first key after all that start with `prefix`; a zero byte stands for "no end".
fn end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_all_keys_of_its_prefix_and_no_others() {
        assert_eq!((start("a/", None), end("a/")), (b"a/".to_vec(), b"a0".to_vec()));
        assert_eq!(start("a/", Some("a/b")), b"a/b\0");
        assert_eq!(start("b/", Some("a/b")), b"b/", "what comes before the prefix is not where it begins");
        assert_eq!((start("", None), end("")), (vec![0], vec![0]));
    }
}
