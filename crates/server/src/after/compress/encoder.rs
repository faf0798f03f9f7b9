//! The three content codings behind one face: write, flush, finish. Windows are bounded, so that a stream costs a
//! known amount of memory, and the number of streams in the process is bounded too.

use bytes::Bytes;
use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Responses compressed as they flow, at once in the process. A brotli stream takes some megabytes; whoever comes
/// when all are taken gets the content uncoded.
pub const STREAMS_MAX: usize = 64;

/// Window of brotli: 1 MiB, as browsers expect at most 16 MiB and content here is rarely longer.
const BROTLI_WINDOW_BITS: u32 = 20;

/// Window of Zstandard: 1 MiB; RFC 9659 forbids more than 8 MiB.
const ZSTD_WINDOW_BITS: u32 = 20;

/// A content coding that is made on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 7932.
    Br,
    /// RFC 8878.
    Zstd,
}

impl Coding {
    /// How many there are.
    pub(super) const COUNT: usize = 3;

    /// Its registered name.
    pub fn name(self) -> &'static str {
        match self {
            Coding::Gzip => "gzip",
            Coding::Br => "br",
            Coding::Zstd => "zstd",
        }
    }

    /// The coding of this name.
    pub fn from_name(name: &str) -> Option<Coding> {
        [Coding::Gzip, Coding::Br, Coding::Zstd].into_iter().find(|coding| coding.name() == name)
    }
}

/// Effort of each coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Levels {
    /// 1 to 9.
    pub gzip: u8,
    /// 0 to 11.
    pub br: u8,
    /// 1 to 19.
    pub zstd: u8,
}

impl Levels {
    pub(super) fn of(&self, coding: Coding) -> u8 {
        match coding {
            Coding::Gzip => self.gzip,
            Coding::Br => self.br,
            Coding::Zstd => self.zstd,
        }
    }
}

/// Streams of the process.
pub(super) static STREAMS: Streams = Streams(AtomicUsize::new(0));

/// Streams that are taken.
pub(super) struct Streams(AtomicUsize);

/// One of the [`STREAMS_MAX`].
pub(super) struct StreamSlot(&'static Streams);

impl Streams {
    pub(super) fn take(&'static self) -> Option<StreamSlot> {
        let taken = self.0.fetch_add(1, Ordering::Relaxed);
        let slot = StreamSlot(self);
        (taken < STREAMS_MAX).then_some(slot)
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) enum Encoder {
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Br(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    pub(super) fn new(coding: Coding, levels: &Levels) -> io::Result<Encoder> {
        Ok(match coding {
            Coding::Gzip => {
                let level = flate2::Compression::new(u32::from(levels.gzip));
                Encoder::Gzip(flate2::write::GzEncoder::new(Vec::new(), level))
            }
            Coding::Br => {
                let writer =
                    brotli::CompressorWriter::new(Vec::new(), 4096, u32::from(levels.br), BROTLI_WINDOW_BITS);
                Encoder::Br(Box::new(writer))
            }
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), i32::from(levels.zstd))?;
                encoder.window_log(ZSTD_WINDOW_BITS)?;
                Encoder::Zstd(encoder)
            }
        })
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Encoder::Gzip(writer) => writer,
            Encoder::Br(writer) => writer,
            Encoder::Zstd(writer) => writer,
        }
    }

    /// What came out so far.
    fn take(&mut self) -> Bytes {
        let out = match self {
            Encoder::Gzip(writer) => writer.get_mut(),
            Encoder::Br(writer) => writer.get_mut(),
            Encoder::Zstd(writer) => writer.get_mut(),
        };
        std::mem::take(out).into()
    }

    /// Takes input; what came out, which may be nothing yet.
    pub(super) fn write(&mut self, input: &[u8]) -> io::Result<Bytes> {
        self.writer().write_all(input)?;
        Ok(self.take())
    }

    /// Everything that was put in comes out.
    pub(super) fn flush(&mut self) -> io::Result<Bytes> {
        self.writer().flush()?;
        Ok(self.take())
    }

    /// The end.
    pub(super) fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Encoder::Gzip(writer) => writer.finish(),
            Encoder::Br(writer) => Ok(writer.into_inner()),
            Encoder::Zstd(writer) => writer.finish(),
        }
    }

    /// All at once.
    pub(super) fn whole(mut self, input: &[u8]) -> io::Result<Vec<u8>> {
        self.writer().write_all(input)?;
        self.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault G24: so many streams and no more; whoever comes then is told, and costs nothing.
    #[test]
    fn streams_are_bounded() {
        static STREAMS: Streams = Streams(AtomicUsize::new(0));
        let mut taken: Vec<_> = (0..STREAMS_MAX).map(|_| STREAMS.take().unwrap()).collect();
        for _ in 0..3 {
            assert!(STREAMS.take().is_none());
        }
        taken.pop();
        let again = STREAMS.take();
        assert!(again.is_some() && STREAMS.take().is_none());
    }
}
