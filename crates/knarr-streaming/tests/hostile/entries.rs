//! What a hostile peer's bytes reach: the body of `fuzz/fuzz_targets/spdy.rs`, and of the seeded run beside this file.

use knarr_streaming::spdy::{Connection, Side};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, split};

/// A server's end of a SPDY connection, to which a peer sends these bytes and then no more. Returns when the connection is gone.
pub fn spdy(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (near, far) = duplex(1 << 16);
        let (connection, mut incoming) = Connection::start(near, Side::Server);
        let (mut answers, mut bytes) = split(far);
        let send = async {
            // The connection may end before it has read all.
            let _ = bytes.write_all(data).await;
            let _ = bytes.shutdown().await;
        };
        let hear = async {
            let mut heard = Vec::new();
            let _ = answers.read_to_end(&mut heard).await;
        };
        let accept = async { while incoming.next().await.is_some() {} };
        tokio::join!(send, hear, accept, connection.closed());
    });
}
