//! Header blocks: names and values, compressed in one zlib stream per direction for the life of the connection.

use flate2::{Compress, Compression, Decompress, DecompressError, FlushCompress, FlushDecompress, Status};

use super::dictionary::DICTIONARY;
use super::frame::FrameError;

/// A block larger than this when decompressed is an attack, not a header.
const MAX_BLOCK: usize = 256 << 10;

/// The headers of a stream, names in lower case, in the order given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    pub fn new(pairs: &[(&str, &str)]) -> Self {
        Headers(pairs.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.to_string())).collect())
    }

    /// The first value of `name`, in any case; empty when there is none, as Go's headers have it.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map_or("", |(_, v)| v.split('\0').next().unwrap_or(v))
    }

    fn encode(&self) -> Vec<u8> {
        let mut block = (self.0.len() as u32).to_be_bytes().to_vec();
        for text in self.0.iter().flat_map(|(name, value)| [name, value]) {
            block.extend_from_slice(&(text.len() as u32).to_be_bytes());
            block.extend_from_slice(text.as_bytes());
        }
        block
    }

    fn decode(block: &[u8]) -> Result<Self, FrameError> {
        let mut rest = block;
        let count = take_length(&mut rest)?;
        let mut pairs = Vec::new();
        for _ in 0..count {
            let name = take_text(&mut rest)?;
            pairs.push((name.to_ascii_lowercase(), take_text(&mut rest)?));
        }
        Ok(Headers(pairs))
    }
}

fn take_length(rest: &mut &[u8]) -> Result<usize, FrameError> {
    let (head, tail) = rest.split_first_chunk::<4>().ok_or(FrameError::Headers)?;
    *rest = tail;
    Ok(u32::from_be_bytes(*head) as usize)
}

fn take_text(rest: &mut &[u8]) -> Result<String, FrameError> {
    let length = take_length(rest)?;
    let (text, tail) = rest.split_at_checked(length).ok_or(FrameError::Headers)?;
    *rest = tail;
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// The sending end of header compression.
pub(super) struct Compressor(Compress);

impl Compressor {
    pub(super) fn new() -> Self {
        let mut zlib = Compress::new(Compression::default(), true);
        zlib.set_dictionary(&DICTIONARY).expect("a fresh zlib stream takes a dictionary");
        Compressor(zlib)
    }

    pub(super) fn compress(&mut self, headers: &Headers) -> Vec<u8> {
        let block = headers.encode();
        let mut out = Vec::with_capacity(block.len() + 64);
        let start = self.0.total_in();
        loop {
            out.reserve(256);
            let consumed = (self.0.total_in() - start) as usize;
            self.0
                .compress_vec(&block[consumed..], &mut out, FlushCompress::Sync)
                .expect("compressing from memory to memory cannot fail");
            let all_in = (self.0.total_in() - start) as usize == block.len();
            // Room left over after a sync flush means that the flush is complete.
            if all_in && out.len() < out.capacity() {
                return out;
            }
        }
    }
}

/// The receiving end of header compression.
pub(super) struct Decompressor(Decompress);

impl Decompressor {
    pub(super) fn new() -> Self {
        Decompressor(Decompress::new(true))
    }

    pub(super) fn decompress(&mut self, block: &[u8]) -> Result<Headers, FrameError> {
        let mut out = Vec::with_capacity(1024);
        let start = self.0.total_in();
        loop {
            let consumed = (self.0.total_in() - start) as usize;
            let room = out.capacity();
            match self.0.decompress_vec(&block[consumed..], &mut out, FlushDecompress::Sync) {
                Ok(Status::StreamEnd) => return Err(FrameError::Headers),
                Ok(_) => {}
                Err(error) => {
                    self.prime(&error)?;
                    continue;
                }
            }
            let all_in = (self.0.total_in() - start) as usize == block.len();
            if all_in && out.len() < room {
                return Headers::decode(&out);
            }
            if out.len() > MAX_BLOCK || (!all_in && out.len() < room) {
                return Err(FrameError::Headers);
            }
            out.reserve(4096);
        }
    }

    /// The first block announces the dictionary it was made with.
    fn prime(&mut self, error: &DecompressError) -> Result<(), FrameError> {
        error.needs_dictionary().ok_or(FrameError::Headers)?;
        self.0.set_dictionary(&DICTIONARY).map(|_| ()).map_err(|_| FrameError::Headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_share_one_zlib_stream_each_way() {
        let (mut compressor, mut decompressor) = (Compressor::new(), Decompressor::new());
        for n in 0..50 {
            let headers =
                Headers::new(&[("streamType", "stdin"), ("requestID", &n.to_string()), ("x", &"y".repeat(n * 97))]);
            assert_eq!(decompressor.decompress(&compressor.compress(&headers)).unwrap(), headers);
        }
    }

    #[test]
    fn broken_blocks_are_refused() {
        let good = Compressor::new().compress(&Headers::new(&[("a", "b")]));
        assert!(Decompressor::new().decompress(&good[..good.len() / 2]).is_err());
        assert!(Decompressor::new().decompress(b"not zlib").is_err());
        let mut bomb = Compressor::new();
        let huge = bomb.compress(&Headers::new(&[("a", &"b".repeat(4 << 20))]));
        assert!(Decompressor::new().decompress(&huge).is_err());
    }
}
