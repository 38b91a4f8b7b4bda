#![no_main]

#[path = "../../crates/knarr-streaming/tests/hostile/entries.rs"]
mod entries;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entries::spdy(data));
