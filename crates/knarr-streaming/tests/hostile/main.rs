//! The fuzz entry, run over the bytes of a real conversation and over changes of them from a fixed seed.

mod entries;

use knarr_streaming::spdy::{Connection, Headers, Side};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

/// What a client sends that opens two streams, writes to one, and leaves.
async fn conversation() -> Vec<u8> {
    let (near, mut far) = duplex(1 << 16);
    let (client, _) = Connection::start(near, Side::Client);
    let opening = [client.clone(), client].map(|client| {
        tokio::spawn(async move {
            // Nobody answers: the frames have been sent when the stream is given up.
            let _ = client.open(Headers::new(&[("streamType", "stdin"), ("port", "80")])).await;
        })
    });
    let mut sent = vec![0; 4096];
    let length = far.read(&mut sent).await.expect("the first frames");
    sent.truncate(length);
    for task in opening {
        task.abort();
    }
    let data = [&[0, 0, 0, 1, 0, 0, 0, 5][..], b"hello", &[0, 0, 0, 1, 1, 0, 0, 0]].concat();
    let ping = [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1];
    let reset = [0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 3, 0, 0, 0, 5];
    let _ = far.shutdown().await;
    [&sent[..], &data, &ping, &reset].concat()
}

#[test]
fn no_peer_brings_a_connection_down_or_keeps_it_forever() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let spoken = runtime.block_on(conversation());
    entries::spdy(&spoken);
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config { cases: 500, ..Config::default() }, rng);
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    let outcome = runner.run(&(edits, any::<prop::sample::Index>()), |(edits, cut)| {
        let mut bytes = spoken.clone();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        entries::spdy(&bytes);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}
