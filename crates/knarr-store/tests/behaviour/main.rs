//! What every backend promises, asked of every backend.

mod backends;
mod etcd_alone;
mod suite;

macro_rules! suite {
    ($($name:ident),* $(,)?) => {
        over!(embedded, EmbeddedBackend, $($name),*);
        over!(etcd, EtcdBackend, $($name),*);
    };
}

macro_rules! over {
    ($module:ident, $backend:ident, $($name:ident),*) => {
        mod $module {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let Some(backend) = crate::backends::$backend::start().await else { return };
                crate::suite::$name(backend.store().as_ref()).await;
            })*
        }
    };
}

suite!(
    a_new_key_gets_the_next_revision,
    a_write_must_meet_its_expectation,
    deleting_gives_back_what_was_there,
    one_of_many_racing_writers_wins,
    ranges_are_ordered_and_paged,
    a_prefix_is_not_a_pattern,
    a_range_reads_the_past,
    a_watch_delivers_every_change_in_order_exactly_once,
    a_watch_begins_in_the_past_and_goes_on_live,
    a_watch_sees_its_prefix_only_and_gets_marks,
    compaction_forgets_the_past_and_keeps_the_present,
    a_lease_takes_its_keys_with_it,
    a_key_leaves_its_lease_when_written_without,
    an_unknown_lease_is_refused,
    the_future_cannot_be_read,
    large_values_and_odd_bytes_come_back,
);
