use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf, duplex};

use super::*;

/// A connection that its peer has reset by the time we close it.
struct Reset(DuplexStream);

impl AsyncRead for Reset {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, into)
    }
}

impl AsyncWrite for Reset {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
    }
}

async fn asked(answer: &'static str) -> Result<(StatusCode, String), String> {
    let (ours, mut theirs) = duplex(1024);
    let server = async move {
        let mut heard = Vec::new();
        while !heard.ends_with(b"\r\n\r\n") {
            heard.push(theirs.read_u8().await.expect("a request"));
        }
        theirs.write_all(answer.as_bytes()).await.expect("the client reads");
    };
    let request = request_for(&HTTPGetAction::default(), "10.0.0.1", 80).expect("a request");
    tokio::join!(send(Reset(ours), request), server).0
}

#[tokio::test]
async fn a_server_that_breaks_off_once_it_has_answered_has_answered() {
    // What is ready at the same time must not be decided by chance: once would not do.
    for _ in 0..50 {
        let answer = asked("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine").await;
        assert_eq!(answer, Ok((StatusCode::OK, "fine".to_owned())));
    }
}

#[tokio::test]
async fn a_server_that_breaks_off_before_has_not() {
    let error = asked("HTTP/1.1 200").await.expect_err("half an answer");
    assert!(error.contains("connection closed"), "{error}");
}

#[tokio::test]
async fn a_server_that_speaks_first_is_told_as_that() {
    let (ours, mut theirs) = duplex(1024);
    theirs.write_all(b"SSH-2.0-server\r\n").await.expect("written");
    let request = request_for(&HTTPGetAction::default(), "10.0.0.1", 80).expect("a request");
    let error = send(Reset(ours), request).await.expect_err("no answer");
    assert!(!error.contains("canceled"), "{error}");
}
