//! A connection: one task reads frames and hands them to streams, one writes what streams send.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::frame::{Frame, FrameEncoder, FrameError, FrameReader, StreamId};
use super::stream::Stream;
use super::{Error, Headers};

/// How many pieces wait for a reader before its connection is held back.
const STREAM_BACKLOG: usize = 32;
const FRAME_BACKLOG: usize = 32;
/// More open streams than any Kubernetes client uses at once.
const MAX_STREAMS: usize = 4096;
/// Upstream's patience for a SYN_REPLY.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a closing connection may take to send what is queued.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
const WRITE_BATCH: usize = 64 << 10;

const PROTOCOL_ERROR: u32 = 1;
const REFUSED_STREAM: u32 = 3;

/// Which end of the connection this is: it decides who numbers streams and pings odd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

impl Side {
    fn first_id(self) -> u32 {
        match self {
            Side::Client => 1,
            Side::Server => 2,
        }
    }

    fn owns(self, id: u32) -> bool {
        id % 2 == self.first_id() % 2
    }
}

/// A handle on the connection; it closes when the last one is dropped, after what is queued was sent.
#[derive(Clone)]
pub struct Connection {
    shared: Arc<Shared>,
    _close_on_drop: Arc<DropGuard>,
}

/// The streams the peer opens, in order.
pub struct Incoming {
    opened: mpsc::Receiver<(StreamId, Headers, mpsc::Receiver<Piece>)>,
    shared: Arc<Shared>,
}

type Piece = Result<Bytes, Error>;

/// What the tasks, the handles and the streams of one connection share.
pub(super) struct Shared {
    pub(super) frames: mpsc::Sender<Frame>,
    state: Mutex<State>,
    closing: CancellationToken,
    closed: CancellationToken,
}

struct State {
    side: Side,
    /// The next stream this side opens; never handed out twice, and sent in ascending order.
    next_id: StreamId,
    peer_last_id: StreamId,
    going_away: bool,
    streams: HashMap<StreamId, Entry>,
}

struct Entry {
    pieces: mpsc::Sender<Piece>,
    reply: Option<oneshot::Sender<Result<(), Error>>>,
}

impl Connection {
    /// Starts the connection over an upgraded byte stream.
    pub fn start<T>(io: T, side: Side) -> (Connection, Incoming)
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (frames, queued) = mpsc::channel(FRAME_BACKLOG);
        let (open, opened) = mpsc::channel(STREAM_BACKLOG);
        let state =
            State { side, next_id: side.first_id(), peer_last_id: 0, going_away: false, streams: HashMap::new() };
        let shared = Arc::new(Shared {
            frames,
            state: Mutex::new(state),
            closing: CancellationToken::new(),
            closed: CancellationToken::new(),
        });
        let (read, write) = tokio::io::split(io);
        tokio::spawn(receive(shared.clone(), FrameReader::new(read), open));
        tokio::spawn(transmit(shared.clone(), write, queued));
        let close_on_drop = Arc::new(shared.closing.clone().drop_guard());
        (Connection { shared: shared.clone(), _close_on_drop: close_on_drop }, Incoming { opened, shared })
    }

    /// Opens a stream and waits for the peer to agree.
    pub async fn open(&self, headers: Headers) -> Result<Stream, Error> {
        let (pieces, received) = mpsc::channel(STREAM_BACKLOG);
        let (reply, replied) = oneshot::channel();
        let permit = self.shared.frames.reserve().await.map_err(|_| Error::Closed)?;
        let id = {
            let mut state = self.shared.state();
            // Who abandons the streams closes first: what is entered after that would wait for nobody.
            if self.shared.closed.is_cancelled() {
                return Err(Error::Closed);
            }
            let id = state.take_id()?;
            state.streams.insert(id, Entry { pieces, reply: Some(reply) });
            permit.send(Frame::SynStream { id, headers: headers.clone(), fin: false });
            id
        };
        // A peer that agreed, said all and left before this task ran has still agreed: only the reply is asked, which
        // goes with its entry when the connection does.
        match tokio::time::timeout(REPLY_TIMEOUT, replied).await {
            Ok(reply) => reply.unwrap_or(Err(Error::Closed))?,
            Err(_) => {
                self.shared.forget(id);
                return Err(Error::Timeout);
            }
        }
        Ok(Stream::new(id, headers, received, self.shared.clone()))
    }

    /// Closes politely: what is queued is sent, then GOAWAY. Returns at once.
    pub fn close(&self) {
        self.shared.closing.cancel();
    }

    /// Waits until the connection is gone, whichever end closed it.
    pub async fn closed(&self) {
        self.shared.closed.cancelled().await;
    }
}

impl Incoming {
    /// The next stream the peer opens; `None` when the connection is gone.
    pub async fn next(&mut self) -> Option<Stream> {
        let (id, headers, pieces) = self.opened.recv().await?;
        let reply = Frame::SynReply { id, headers: Headers::default(), fin: false };
        self.shared.frames.send(reply).await.ok()?;
        Some(Stream::new(id, headers, pieces, self.shared.clone()))
    }
}

impl State {
    fn take_id(&mut self) -> Result<StreamId, Error> {
        if self.going_away || self.next_id > 0x7fff_fffd {
            return Err(Error::NoMoreStreams);
        }
        let id = self.next_id;
        self.next_id += 2;
        Ok(id)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held, and the map would be sound if it did.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frames of this stream that still come are passed over.
    pub(super) fn forget(&self, id: StreamId) -> Option<mpsc::Sender<Piece>> {
        self.state().streams.remove(&id).map(|entry| entry.pieces)
    }

    async fn send(&self, frame: Frame) {
        // A failure means that the connection is gone, which the caller's next read tells.
        let _ = self.frames.send(frame).await;
    }

    /// Ends everything that waits on the connection.
    fn abandon(&self) {
        self.closed.cancel();
        let streams = std::mem::take(&mut self.state().streams);
        for entry in streams.into_values() {
            // A full queue means the reader has more to read first, and then finds the queue closed.
            let _ = entry.pieces.try_send(Err(Error::Closed));
        }
    }
}

type NewStreams = mpsc::Sender<(StreamId, Headers, mpsc::Receiver<Piece>)>;

async fn receive<T: AsyncRead + Send>(shared: Arc<Shared>, mut frames: FrameReader<ReadHalf<T>>, open: NewStreams) {
    let outcome = tokio::select! {
        outcome = receive_frames(&shared, &mut frames, &open) => outcome,
        () = shared.closed.cancelled() => Ok(()),
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "SPDY connection ended");
    }
    shared.abandon();
    shared.closing.cancel();
}

async fn receive_frames<T: AsyncRead + Send>(
    shared: &Arc<Shared>,
    frames: &mut FrameReader<ReadHalf<T>>,
    open: &NewStreams,
) -> Result<(), FrameError> {
    while let Some(frame) = frames.read().await? {
        match frame {
            Frame::SynStream { id, headers, fin } => accept(shared, open, id, headers, fin).await,
            Frame::SynReply { id, fin, .. } => replied(shared, id, fin),
            Frame::Data { id, bytes, fin } => deliver(shared, id, bytes, fin).await,
            Frame::Headers { id, fin: true, .. } => drop(shared.forget(id)),
            Frame::RstStream { id, status } => reset(shared, id, status).await,
            Frame::Ping { id } => answer_ping(shared, id).await,
            Frame::GoAway { .. } => shared.state().going_away = true,
            Frame::Headers { .. } | Frame::Other => {}
        }
    }
    Ok(())
}

async fn accept(shared: &Shared, open: &NewStreams, id: StreamId, headers: Headers, fin: bool) {
    let (pieces, received) = mpsc::channel(STREAM_BACKLOG);
    let registered = register(&mut shared.state(), id, pieces, fin);
    if let Err(status) = registered {
        return shared.send(Frame::RstStream { id, status }).await;
    }
    if open.send((id, headers, received)).await.is_err() {
        shared.forget(id);
        shared.send(Frame::RstStream { id, status: REFUSED_STREAM }).await;
    }
}

fn register(state: &mut State, id: StreamId, pieces: mpsc::Sender<Piece>, fin: bool) -> Result<(), u32> {
    if state.side.owns(id) || id <= state.peer_last_id {
        return Err(PROTOCOL_ERROR);
    }
    if state.streams.len() >= MAX_STREAMS {
        return Err(REFUSED_STREAM);
    }
    state.peer_last_id = id;
    if !fin {
        state.streams.insert(id, Entry { pieces, reply: None });
    }
    Ok(())
}

fn replied(shared: &Shared, id: StreamId, fin: bool) {
    let mut state = shared.state();
    if let Some(reply) = state.streams.get_mut(&id).and_then(|entry| entry.reply.take()) {
        let _ = reply.send(Ok(()));
    }
    if fin {
        state.streams.remove(&id);
    }
}

async fn deliver(shared: &Shared, id: StreamId, bytes: Bytes, fin: bool) {
    let pieces =
        if fin { shared.forget(id) } else { shared.state().streams.get(&id).map(|entry| entry.pieces.clone()) };
    if let Some(pieces) = pieces
        && !bytes.is_empty()
    {
        // Nobody reads any more: the bytes have no meaning left.
        let _ = pieces.send(Ok(bytes)).await;
    }
}

async fn reset(shared: &Shared, id: StreamId, status: u32) {
    let Some(entry) = shared.state().streams.remove(&id) else { return };
    if let Some(reply) = entry.reply {
        let _ = reply.send(Err(Error::Reset(status)));
    }
    let _ = entry.pieces.send(Err(Error::Reset(status))).await;
}

/// A ping with the peer's parity is a question; one with ours is an answer to a question we did not ask.
async fn answer_ping(shared: &Shared, id: u32) {
    let ours = shared.state().side.owns(id);
    if !ours {
        shared.send(Frame::Ping { id }).await;
    }
}

async fn transmit<T: AsyncWrite + Send>(shared: Arc<Shared>, mut io: WriteHalf<T>, mut queued: mpsc::Receiver<Frame>) {
    let sent = tokio::select! {
        sent = send_frames(&shared, &mut io, &mut queued) => sent,
        () = overdue(&shared) => {
            tracing::debug!("SPDY connection closed before all was sent");
            Ok(())
        }
    };
    drop(queued);
    if let Err(error) = sent {
        tracing::debug!(%error, "SPDY connection cannot be written to");
        // The peer left, perhaps after it said how a command ended: the reading task finds the end behind that.
        tokio::select! {
            () = shared.closed.cancelled() => {}
            () = overdue(&shared) => {}
        }
    }
    shared.abandon();
}

/// A closing connection whose peer does not read is given up.
async fn overdue(shared: &Shared) {
    shared.closing.cancelled().await;
    tokio::time::sleep(DRAIN_TIMEOUT).await;
}

async fn send_frames<W: AsyncWrite + Unpin>(
    shared: &Shared,
    io: &mut W,
    queued: &mut mpsc::Receiver<Frame>,
) -> std::io::Result<()> {
    let mut encoder = FrameEncoder::new();
    let mut batch = BytesMut::new();
    loop {
        tokio::select! {
            frame = queued.recv() => match frame {
                Some(frame) => encoder.encode(&frame, &mut batch),
                None => break,
            },
            () = shared.closing.cancelled() => break,
        }
        while batch.len() < WRITE_BATCH
            && let Ok(frame) = queued.try_recv()
        {
            encoder.encode(&frame, &mut batch);
        }
        io.write_all(&batch).await?;
        io.flush().await?;
        batch.clear();
    }
    while let Ok(frame) = queued.try_recv() {
        encoder.encode(&frame, &mut batch);
    }
    let peer_last_id = shared.state().peer_last_id;
    encoder.encode(&Frame::GoAway { last: peer_last_id, status: 0 }, &mut batch);
    io.write_all(&batch).await?;
    io.shutdown().await
}
