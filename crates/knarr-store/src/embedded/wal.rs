//! The write-ahead log: what makes an acknowledged write durable.
//!
//! Segments are files of a fixed size, written full of zeros once and used again and again: an fsync of blocks that the file
//! system has already allocated and initialised needs no journal commit, which on ext4 makes it tens of times cheaper than an
//! fsync of a file that grows. A segment carries a generation, one higher than any before; every frame's checksum is seeded
//! with it, so that what an earlier use left behind is never taken for the present. Reading stops at the first frame whose
//! checksum fails: that frame was never acknowledged.
//!
//! A segment is free again once the engine has made all of its operations durable by itself (see `checkpoint`).

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::mpsc,
    thread::JoinHandle,
};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::change::Operation;

/// A frame must fit: a batch and the largest value.
const SEGMENT_LENGTH: u64 = 16 << 20;
const MAGIC: &[u8; 8] = b"KNARRWAL";
const SEGMENT_HEADER: u64 = 24;
const FRAME_HEADER: usize = 12;

/// One file of the log.
struct Segment {
    path: PathBuf,
    file: File,
}

impl Segment {
    /// A new file, its blocks allocated and zeroed, durably.
    fn create(path: PathBuf) -> io::Result<Segment> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        let zeros = vec![0u8; 1 << 20];
        for offset in (0..SEGMENT_LENGTH).step_by(zeros.len()) {
            file.write_all_at(&zeros, offset)?;
        }
        file.sync_all()?;
        if let Some(directory) = path.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(Segment { path, file })
    }

    /// The generation, or `None` if the segment was never begun.
    fn generation(&self) -> io::Result<Option<u64>> {
        let mut header = [0u8; SEGMENT_HEADER as usize];
        if self.file.metadata()?.len() < SEGMENT_HEADER {
            return Ok(None);
        }
        self.file.read_exact_at(&mut header, 0)?;
        let generation = u64::from_le_bytes(header[8..16].try_into().expect("eight bytes"));
        let checksum = u64::from_le_bytes(header[16..24].try_into().expect("eight bytes"));
        let valid = &header[..8] == MAGIC && checksum == xxh3_64_with_seed(&header[..16], 0);
        Ok(valid.then_some(generation))
    }

    /// Durable with the first frame's sync.
    fn begin(&self, generation: u64) -> io::Result<()> {
        let mut header = Vec::with_capacity(SEGMENT_HEADER as usize);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&generation.to_le_bytes());
        header.extend_from_slice(&xxh3_64_with_seed(&header, 0).to_le_bytes());
        self.file.write_all_at(&header, 0)
    }

    fn operations(&self, generation: u64) -> io::Result<Vec<Operation>> {
        let contents = Bytes::from(fs::read(&self.path)?);
        let mut operations = Vec::new();
        let mut rest = contents.slice(SEGMENT_HEADER as usize..);
        while let Some(mut payload) = next_frame(&mut rest, generation) {
            while !payload.is_empty() {
                let operation = Operation::decode_from(&mut payload).ok_or_else(|| {
                    io::Error::other(format!("{}: a log record of an unknown form", self.path.display()))
                })?;
                operations.push(operation);
            }
        }
        Ok(operations)
    }
}

fn next_frame(rest: &mut Bytes, generation: u64) -> Option<Bytes> {
    if rest.len() < FRAME_HEADER {
        return None;
    }
    let length = u32::from_le_bytes(rest[..4].try_into().expect("four bytes")) as usize;
    let checksum = u64::from_le_bytes(rest[4..12].try_into().expect("eight bytes"));
    if length == 0 || rest.len() < FRAME_HEADER + length {
        return None;
    }
    let payload = rest.slice(FRAME_HEADER..FRAME_HEADER + length);
    if checksum != xxh3_64_with_seed(&payload, generation) {
        return None;
    }
    *rest = rest.slice(FRAME_HEADER + length..);
    Some(payload)
}

/// What a log holds that the engine may not have made durable by itself, oldest first.
pub(super) struct Recovered {
    pub operations: Vec<Operation>,
    log: WalBuilder,
}

struct WalBuilder {
    directory: PathBuf,
    segments: Vec<Segment>,
    last_generation: u64,
}

/// Reads the log in `directory`, made if it is missing. Segments up to `checkpoint` have nothing to say any more.
pub(super) fn recover(directory: &Path, checkpoint: u64) -> io::Result<Recovered> {
    fs::create_dir_all(directory)?;
    let mut used = Vec::new();
    let mut segments = Vec::new();
    let mut last_generation = checkpoint;
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let segment = Segment { file: OpenOptions::new().read(true).write(true).open(&path)?, path };
        if segment.file.metadata()?.len() < SEGMENT_LENGTH {
            // Its making was cut short, before anything could be written to it.
            fs::remove_file(&segment.path)?;
            continue;
        }
        match segment.generation()? {
            Some(generation) if generation > checkpoint => used.push((generation, segment)),
            _ => segments.push(segment),
        }
    }
    used.sort_by_key(|(generation, _)| *generation);
    let mut operations = Vec::new();
    for (generation, segment) in used {
        operations.extend(segment.operations(generation)?);
        last_generation = last_generation.max(generation);
        segments.push(segment);
    }
    Ok(Recovered { operations, log: WalBuilder { directory: directory.into(), segments, last_generation } })
}

impl Recovered {
    /// The generation to note as checkpoint once the operations are applied and durable.
    pub fn last_generation(&self) -> u64 {
        self.log.last_generation
    }

    /// Starts to write. Call it when the operations are durable elsewhere: their segments are used again.
    pub fn into_wal(self, checkpoint: impl Fn(u64) -> io::Result<()> + Send + 'static) -> io::Result<Wal> {
        Wal::start(self.log, Box::new(checkpoint))
    }
}

type Checkpoint = Box<dyn Fn(u64) -> io::Result<()> + Send>;

/// The writing end. One owner, the committer.
pub(super) struct Wal {
    active: Segment,
    generation: u64,
    offset: u64,
    frame: Vec<u8>,
    free: mpsc::Receiver<io::Result<Segment>>,
    full: Option<mpsc::Sender<(u64, Segment)>>,
    recycler: Option<JoinHandle<()>>,
}

impl Wal {
    fn start(builder: WalBuilder, checkpoint: Checkpoint) -> io::Result<Wal> {
        let WalBuilder { directory, mut segments, last_generation } = builder;
        let active = match segments.pop() {
            Some(segment) => segment,
            None => Segment::create(directory.join("0.wal"))?,
        };
        let (to_recycler, full) = mpsc::channel();
        let (to_writer, free) = mpsc::channel();
        let recycler = std::thread::Builder::new()
            .name("store-log".into())
            .spawn(move || recycle(&directory, segments, &full, &to_writer, &checkpoint))?;
        let generation = last_generation + 1;
        active.begin(generation)?;
        let full = Some(to_recycler);
        let recycler = Some(recycler);
        Ok(Wal { active, generation, offset: SEGMENT_HEADER, frame: Vec::new(), free, full, recycler })
    }

    /// Appends the operations as one frame and makes it durable.
    pub fn append<'a>(&mut self, operations: impl Iterator<Item = &'a Operation>) -> io::Result<()> {
        self.frame.clear();
        self.frame.resize(FRAME_HEADER, 0);
        for operation in operations {
            operation.encode_into(&mut self.frame);
        }
        if self.offset + self.frame.len() as u64 > SEGMENT_LENGTH {
            self.next_segment()?;
        }
        let (header, payload) = self.frame.split_at_mut(FRAME_HEADER);
        header[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        header[4..].copy_from_slice(&xxh3_64_with_seed(payload, self.generation).to_le_bytes());
        self.active.file.write_all_at(&self.frame, self.offset)?;
        self.active.file.sync_data()?;
        self.offset += self.frame.len() as u64;
        self.frame.shrink_to(1 << 20);
        Ok(())
    }

    /// The operations in the full segment are all in the engine by now: its checkpoint may begin.
    fn next_segment(&mut self) -> io::Result<()> {
        let next = self.free.recv().map_err(|_| io::Error::other("the log's recycler has stopped"))??;
        let full = std::mem::replace(&mut self.active, next);
        let sent = self.full.as_ref().map(|sender| sender.send((self.generation, full)));
        if !matches!(sent, Some(Ok(()))) {
            return Err(io::Error::other("the log's recycler has stopped"));
        }
        self.generation += 1;
        self.offset = SEGMENT_HEADER;
        self.active.begin(self.generation)
    }

    /// Ends the recycler, then says which generation is in use.
    pub fn close(mut self) -> u64 {
        self.full = None;
        if let Some(recycler) = self.recycler.take() {
            let _ = recycler.join();
        }
        self.generation
    }
}

/// Keeps one free segment ahead of the writer, and turns full ones into free ones.
fn recycle(
    directory: &Path,
    mut spare: Vec<Segment>,
    full: &mpsc::Receiver<(u64, Segment)>,
    free: &mpsc::Sender<io::Result<Segment>>,
    checkpoint: &Checkpoint,
) {
    let next = || -> io::Result<Segment> {
        let name = (1..).map(|n| directory.join(format!("{n}.wal"))).find(|path| !path.exists());
        Segment::create(name.expect("an endless range ends nowhere"))
    };
    let mut ready = spare.pop().map_or_else(next, Ok);
    while free.send(ready).is_ok() {
        let Ok((generation, segment)) = full.recv() else { return };
        spare.push(segment);
        ready = checkpoint(generation).and_then(|()| spare.pop().map_or_else(next, Ok));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(range: std::ops::Range<u64>) -> Vec<Operation> {
        range.map(Operation::Compact).collect()
    }

    fn open(directory: &Path) -> (Vec<Operation>, Wal) {
        let recovered = recover(directory, 0).unwrap();
        let operations = recovered.operations.clone();
        (operations, recovered.into_wal(|_| Ok(())).unwrap())
    }

    #[test]
    fn what_was_appended_is_recovered_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let (found, mut wal) = open(directory.path());
        assert_eq!(found, []);
        wal.append(numbers(0..3).iter()).unwrap();
        wal.append(numbers(3..5).iter()).unwrap();
        wal.close();
        assert_eq!(recover(directory.path(), 0).unwrap().operations, numbers(0..5));
    }

    #[test]
    fn a_torn_frame_ends_the_log() {
        let directory = tempfile::tempdir().unwrap();
        let (_, mut wal) = open(directory.path());
        wal.append(numbers(0..3).iter()).unwrap();
        let end = wal.offset;
        wal.append(numbers(3..5).iter()).unwrap();
        wal.active.file.write_all_at(b"x", end + FRAME_HEADER as u64 + 2).unwrap();
        wal.close();
        assert_eq!(recover(directory.path(), 0).unwrap().operations, numbers(0..3));
    }

    #[test]
    fn a_segment_used_again_forgets_what_it_held() {
        let directory = tempfile::tempdir().unwrap();
        let (_, mut wal) = open(directory.path());
        wal.append(numbers(0..3).iter()).unwrap();
        wal.append(numbers(3..5).iter()).unwrap();
        wal.begin_again();
        wal.append(numbers(7..8).iter()).unwrap();
        let generation = wal.close();
        let recovered = recover(directory.path(), generation - 1).unwrap();
        assert_eq!(recovered.operations, numbers(7..8));
        assert_eq!(recovered.last_generation(), generation);
    }

    #[test]
    fn a_checkpoint_silences_older_segments() {
        let directory = tempfile::tempdir().unwrap();
        let (_, mut wal) = open(directory.path());
        wal.append(numbers(0..3).iter()).unwrap();
        let generation = wal.close();
        assert_eq!(recover(directory.path(), generation).unwrap().operations, []);
    }

    impl Wal {
        fn begin_again(&mut self) {
            self.generation += 1;
            self.offset = SEGMENT_HEADER;
            self.active.begin(self.generation).unwrap();
        }
    }
}
