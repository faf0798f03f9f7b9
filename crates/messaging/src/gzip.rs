//! The `gzip` transfer coding (RFC 9112 §7.2) over flate2: decoding with a limit on expansion, encoding with a
//! flush after each piece so that a stream stays a stream.

use crate::error::Malformed;
use crate::limits::Limits;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Octets handed out at a time.
const PIECE: usize = 32 * 1024;

/// Takes a `gzip` coding off.
#[derive(Debug)]
pub struct Decoder {
    inner: Decompress,
    ended: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder { inner: Decompress::new_gzip(15), ended: false }
    }
}

impl Decoder {
    /// Decodes from the front of `input`; how much was taken, and the plain octets (at most 32 KiB, maybe none).
    ///
    /// # Errors
    /// [`Malformed::Gzip`] for broken data or octets after its end (fault G22), [`Malformed::GzipBomb`] past
    /// the limits.
    pub fn decode(&mut self, input: &[u8], limits: &Limits) -> Result<(usize, Vec<u8>), Malformed> {
        if self.ended {
            return if input.is_empty() { Ok((0, Vec::new())) } else { Err(Malformed::Gzip) };
        }
        let mut plain = Vec::with_capacity(PIECE);
        let before = self.inner.total_in();
        let status = self
            .inner
            .decompress_vec(input, &mut plain, FlushDecompress::None)
            .map_err(|_| Malformed::Gzip)?;
        let taken = (self.inner.total_in() - before) as usize;
        self.ended = status == Status::StreamEnd;
        let ceiling = self.inner.total_in().saturating_mul(limits.gzip_ratio_max);
        if self.inner.total_out() > limits.gzip_free_bytes && self.inner.total_out() > ceiling {
            return Err(Malformed::GzipBomb);
        }
        if taken == 0 && plain.is_empty() && !input.is_empty() && !self.ended {
            return Err(Malformed::Gzip);
        }
        Ok((taken, plain))
    }

    /// Whether the coding has come to its own end: a body that stops before is cut (fault G21).
    pub fn has_ended(&self) -> bool {
        self.ended
    }
}

/// Applies a `gzip` coding.
#[derive(Debug)]
pub struct Encoder(Compress);

impl Default for Encoder {
    fn default() -> Self {
        Encoder(Compress::new_gzip(Compression::new(5), 15))
    }
}

impl Encoder {
    /// Appends the coded form of `data`, flushed, so that the receiver can read all of it.
    pub fn encode(&mut self, data: &[u8], out: &mut Vec<u8>) {
        self.run(data, out, FlushCompress::Sync);
    }

    /// Appends the end of the coding.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.run(&[], out, FlushCompress::Finish);
    }

    fn run(&mut self, mut data: &[u8], out: &mut Vec<u8>, flush: FlushCompress) {
        loop {
            out.reserve(data.len() / 2 + 256);
            let before = self.0.total_in();
            let room = out.capacity() - out.len();
            let written_before = self.0.total_out();
            // Compressing into memory fails only for a wrong call, which this is not.
            let status = self.0.compress_vec(data, out, flush).unwrap_or(Status::StreamEnd);
            data = &data[(self.0.total_in() - before) as usize..];
            let written = (self.0.total_out() - written_before) as usize;
            let done = match flush {
                FlushCompress::Finish => status == Status::StreamEnd,
                _ => data.is_empty() && written < room,
            };
            if done {
                return;
            }
        }
    }
}
