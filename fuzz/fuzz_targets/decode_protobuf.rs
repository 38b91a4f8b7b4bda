#![no_main]

#[path = "../../crates/knarr-api/tests/hostile/entries.rs"]
#[allow(dead_code)]
mod entries;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entries::decode_protobuf(data));
