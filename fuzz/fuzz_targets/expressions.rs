#![no_main]

// The expression, a zero byte, and the JSON value it is evaluated over.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let text = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let json = serde_json::from_slice(parts.next().unwrap_or_default()).unwrap_or(serde_json::Value::Null);
    knarr_cel::fuzz(&text, &json);
});
