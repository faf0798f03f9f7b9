//! Content codings undone while they arrive (RFC 9110 §8.4): gzip, deflate, br and zstd, up to three layers,
//! within an expansion limit (faults G17 to G22). Works on slices and one small buffer per layer; never holds
//! the content.
//!
//! Ranges of encoded content are never decoded here: who asks for ranges asks for no coding.

use brotli::{BrotliDecompressStream, BrotliResult, BrotliState, HeapAlloc, HuffmanCode};
use eleven_semantics::{Fields, Known};
use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, InBuffer, Operation, OutBuffer};

/// What `Accept-Encoding` offers when decoding is wanted.
pub const ACCEPT_ENCODING: &str = "gzip, deflate, br, zstd";

/// Layers undone at most (faults G18, G19).
pub const LAYERS_MAX: usize = 3;

/// Octets of decoded content before the expansion ratio counts.
pub const EXPANSION_FREE_BYTES: u64 = 1024 * 1024;

/// Octets of decoded content per octet received.
pub const EXPANSION_RATIO_MAX: u64 = 200;

/// Largest window that zstd may ask for, as a power of two: 8 MiB (RFC 9659).
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

const BUFFER_BYTES: usize = 16 * 1024;

/// Why content could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undecodable {
    /// A coding that is not known here.
    Unknown,
    /// More than [`LAYERS_MAX`] layers.
    TooManyLayers,
    /// The coded octets are malformed.
    Corrupt,
    /// The content ended inside a coding (fault G21).
    Truncated,
    /// Octets follow the coded content (fault G22).
    TrailingJunk,
    /// More than [`EXPANSION_RATIO_MAX`] times as much came out as went in (fault G17).
    Expansion,
}

impl std::fmt::Display for Undecodable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Undecodable::Unknown => f.write_str("a coding that is not known here"),
            Undecodable::TooManyLayers => write!(f, "more than {LAYERS_MAX} codings on top of each other"),
            Undecodable::Corrupt => f.write_str("the coded content is corrupt"),
            Undecodable::Truncated => f.write_str("the coded content is cut off"),
            Undecodable::TrailingJunk => f.write_str("octets follow the coded content"),
            Undecodable::Expansion => {
                write!(f, "the content expands more than {EXPANSION_RATIO_MAX} times")
            }
        }
    }
}

impl std::error::Error for Undecodable {}

/// An error of decoding, or of whoever takes the decoded octets.
#[derive(Debug)]
pub enum DecodeError<E> {
    /// Of decoding.
    Coding(Undecodable),
    /// Of the sink.
    Sink(E),
}

impl<E> From<Undecodable> for DecodeError<E> {
    fn from(error: Undecodable) -> Self {
        DecodeError::Coding(error)
    }
}

/// The decoder of one content.
pub struct Decoder {
    /// In the order in which they are undone.
    layers: Vec<Layer>,
    received: u64,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Decoder({} layers, {} octets)", self.layers.len(), self.received)
    }
}

struct Layer {
    codec: Codec,
    ended: bool,
    started: bool,
    produced: u64,
    buffer: Box<[u8]>,
}

enum Codec {
    Gzip(Decompress),
    /// "deflate" is zlib (RFC 9110 §8.4.1.2); what many send is bare deflate. The first octet tells.
    Deflate(Option<Decompress>),
    Brotli(Box<BrotliState<HeapAlloc<u8>, HeapAlloc<u32>, HeapAlloc<HuffmanCode>>>),
    Zstd(Box<ZstdDecoder<'static>>),
}

impl Decoder {
    /// The decoder for a message with these fields; `None` if its content is not encoded.
    ///
    /// # Errors
    /// If a coding is unknown, or there are too many, counted over all lines (G19).
    pub fn for_fields(fields: &Fields) -> Result<Option<Decoder>, Undecodable> {
        let mut layers = Vec::new();
        for coding in fields.list(Known::ContentEncoding) {
            if coding.eq_ignore_ascii_case(b"identity") {
                continue;
            }
            if layers.len() == LAYERS_MAX {
                return Err(Undecodable::TooManyLayers);
            }
            layers.push(Layer::new(coding)?);
        }
        layers.reverse();
        Ok((!layers.is_empty()).then_some(Decoder { layers, received: 0 }))
    }

    /// Takes received octets, gives decoded ones to `sink` in pieces of at most 16 KiB.
    ///
    /// # Errors
    /// If they cannot be decoded, or the sink's own.
    pub fn push<E>(
        &mut self,
        octets: &[u8],
        sink: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), DecodeError<E>> {
        self.received += octets.len() as u64;
        run(&mut self.layers, self.received, octets, sink)
    }

    /// Ends it: everything must have been there. Content without any octet is complete (a HEAD, an empty file).
    ///
    /// # Errors
    /// [`Undecodable::Truncated`].
    pub fn finish(&self) -> Result<(), Undecodable> {
        if self.received == 0 || self.layers.iter().all(|layer| layer.ended) {
            Ok(())
        } else {
            Err(Undecodable::Truncated)
        }
    }

    /// Octets received so far.
    pub fn received(&self) -> u64 {
        self.received
    }
}

/// Feeds `input` to the first layer and what comes out to the rest.
fn run<E>(
    layers: &mut [Layer],
    received: u64,
    mut input: &[u8],
    sink: &mut dyn FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), DecodeError<E>> {
    let Some((layer, rest)) = layers.split_first_mut() else {
        return if input.is_empty() { Ok(()) } else { sink(input).map_err(DecodeError::Sink) };
    };
    if input.is_empty() {
        return Ok(());
    }
    // The buffer is lent to the loop, so that the codec and its output can be borrowed at once.
    let mut buffer = std::mem::take(&mut layer.buffer);
    let result = loop {
        let (consumed, produced) = match layer.step(input, &mut buffer) {
            Ok(counts) => counts,
            Err(error) => break Err(error.into()),
        };
        input = &input[consumed..];
        layer.produced += produced as u64;
        if layer.produced > EXPANSION_FREE_BYTES && layer.produced / EXPANSION_RATIO_MAX > received {
            break Err(Undecodable::Expansion.into());
        }
        if produced > 0
            && let Err(error) = run(rest, received, &buffer[..produced], sink)
        {
            break Err(error);
        }
        // A full buffer may mean that more is waiting inside the codec.
        if input.is_empty() && produced < buffer.len() {
            break Ok(());
        }
        if consumed == 0 && produced == 0 {
            break Err(Undecodable::Corrupt.into());
        }
    };
    layer.buffer = buffer;
    result
}

impl Layer {
    fn new(coding: &[u8]) -> Result<Layer, Undecodable> {
        let codec = match coding.to_ascii_lowercase().as_slice() {
            b"gzip" | b"x-gzip" => Codec::Gzip(Decompress::new_gzip(15)),
            b"deflate" => Codec::Deflate(None),
            b"br" => {
                let (a, b, c) =
                    (HeapAlloc::new(0), HeapAlloc::new(0), HeapAlloc::new(HuffmanCode::default()));
                Codec::Brotli(Box::new(BrotliState::new_strict(a, b, c)))
            }
            b"zstd" => {
                let mut decoder = ZstdDecoder::new().map_err(|_| Undecodable::Unknown)?;
                decoder
                    .set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX))
                    .map_err(|_| Undecodable::Unknown)?;
                Codec::Zstd(Box::new(decoder))
            }
            _ => return Err(Undecodable::Unknown),
        };
        let buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
        Ok(Layer { codec, ended: false, started: false, produced: 0, buffer })
    }

    /// One run of the codec: octets consumed and produced.
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<(usize, usize), Undecodable> {
        if self.ended {
            if input.is_empty() {
                return Ok((0, 0));
            }
            match &mut self.codec {
                // Another member follows (RFC 1952 §2.2), or junk.
                Codec::Gzip(inflate) if input[0] == 0x1f => {
                    *inflate = Decompress::new_gzip(15);
                    self.ended = false;
                }
                // Another frame (RFC 8878 §3.1), checked by its magic number as it is read.
                Codec::Zstd(_) if matches!(input[0], 0x28 | 0x50..=0x5f) => self.ended = false,
                _ => return Err(Undecodable::TrailingJunk),
            }
        }
        self.started = true;
        match &mut self.codec {
            Codec::Gzip(inflate) => inflate_step(inflate, input, output, &mut self.ended),
            Codec::Deflate(inflate) => {
                let zlib = input.first().is_some_and(|first| first & 0x0f == 8 && first >> 4 <= 7);
                let inflate = inflate.get_or_insert_with(|| Decompress::new(zlib));
                inflate_step(inflate, input, output, &mut self.ended)
            }
            Codec::Brotli(state) => {
                let (mut available_in, mut consumed) = (input.len(), 0);
                let (mut available_out, mut produced, mut total) = (output.len(), 0, 0);
                let result = BrotliDecompressStream(
                    &mut available_in,
                    &mut consumed,
                    input,
                    &mut available_out,
                    &mut produced,
                    output,
                    &mut total,
                    state,
                );
                match result {
                    BrotliResult::ResultSuccess => self.ended = true,
                    BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
                    BrotliResult::ResultFailure => return Err(Undecodable::Corrupt),
                }
                Ok((consumed, produced))
            }
            Codec::Zstd(decoder) => {
                let mut from = InBuffer::around(input);
                let mut to = OutBuffer::around(output);
                let hint = decoder.run(&mut from, &mut to).map_err(|_| Undecodable::Corrupt)?;
                self.ended = hint == 0;
                Ok((from.pos(), to.pos()))
            }
        }
    }
}

fn inflate_step(
    inflate: &mut Decompress,
    input: &[u8],
    output: &mut [u8],
    ended: &mut bool,
) -> Result<(usize, usize), Undecodable> {
    let (before_in, before_out) = (inflate.total_in(), inflate.total_out());
    let status =
        inflate.decompress(input, output, FlushDecompress::None).map_err(|_| Undecodable::Corrupt)?;
    *ended = status == Status::StreamEnd;
    Ok(((inflate.total_in() - before_in) as usize, (inflate.total_out() - before_out) as usize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(octets: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        out.write_all(octets).unwrap();
        out.finish().unwrap()
    }

    fn zlib(octets: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        out.write_all(octets).unwrap();
        out.finish().unwrap()
    }

    fn deflate(octets: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        out.write_all(octets).unwrap();
        out.finish().unwrap()
    }

    fn br(octets: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        brotli::BrotliCompress(&mut &octets[..], &mut out, &brotli::enc::BrotliEncoderParams::default())
            .unwrap();
        out
    }

    fn zstd(octets: &[u8]) -> Vec<u8> {
        ::zstd::encode_all(octets, 3).unwrap()
    }

    fn fields(lines: &[&str]) -> Fields {
        let mut fields = Fields::new();
        lines.iter().for_each(|line| fields.push(Known::ContentEncoding, line).unwrap());
        fields
    }

    /// Decodes in pieces of `step` octets.
    fn decode(coding: &str, octets: &[u8], step: usize) -> Result<Vec<u8>, Undecodable> {
        let mut decoder = Decoder::for_fields(&fields(&[coding]))?.unwrap();
        let mut out = Vec::new();
        for piece in octets.chunks(step) {
            let mut sink = |octets: &[u8]| {
                out.extend_from_slice(octets);
                Ok::<(), ()>(())
            };
            match decoder.push(piece, &mut sink) {
                Ok(()) => {}
                Err(DecodeError::Coding(error)) => return Err(error),
                Err(DecodeError::Sink(())) => unreachable!("the sink never fails"),
            }
        }
        decoder.finish().map(|()| out)
    }

    fn samples() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
        let text = b"The quick brown fox jumps over the lazy dog. ".repeat(2000);
        vec![
            ("gzip", gzip(&text), text.clone()),
            ("X-GZIP", gzip(&text), text.clone()),
            ("deflate", zlib(&text), text.clone()),
            ("deflate", deflate(&text), text.clone()),
            ("br", br(&text), text.clone()),
            ("zstd", zstd(&text), text.clone()),
            ("gzip, br", br(&gzip(&text)), text.clone()),
            ("zstd, gzip, br", br(&gzip(&zstd(&text))), text.clone()),
            ("gzip", [gzip(b"one"), gzip(b"two")].concat(), b"onetwo".to_vec()),
            ("zstd", [zstd(b"one"), zstd(b"two")].concat(), b"onetwo".to_vec()),
            ("identity, gzip", gzip(b"x"), b"x".to_vec()),
            ("gzip", Vec::new(), Vec::new()),
            ("gzip", gzip(b""), Vec::new()),
        ]
    }

    /// 9110-8.4-01.
    #[test]
    fn every_coding_in_every_cut() {
        for (coding, octets, expected) in samples() {
            for step in [1, 7, 1000, usize::MAX] {
                let step = step.min(octets.len().max(1));
                let got = decode(coding, &octets, step);
                assert!(got.as_ref() == Ok(&expected), "{coding} by {step}: {:?}", got.map(|out| out.len()));
            }
        }
    }

    /// Fault G21: cut at any octet, it is truncated and says so.
    #[test]
    fn truncation_is_found_at_every_octet() {
        let text = b"some content that is not too long".repeat(3);
        for (coding, octets) in
            [("gzip", gzip(&text)), ("deflate", zlib(&text)), ("br", br(&text)), ("zstd", zstd(&text))]
        {
            for end in 1..octets.len() {
                assert_eq!(
                    decode(coding, &octets[..end], 5),
                    Err(Undecodable::Truncated),
                    "{coding} at {end}"
                );
            }
        }
    }

    /// Faults G21 and G22: a flipped octet, or junk behind the end.
    #[test]
    fn corruption_and_junk_are_found() {
        for (coding, octets) in [("gzip", gzip(b"content")), ("deflate", zlib(b"content"))] {
            for at in 0..octets.len() {
                // The time, flags and system of a gzip header carry no check.
                if coding == "gzip" && (4..10).contains(&at) {
                    continue;
                }
                let mut flipped = octets.clone();
                flipped[at] ^= 0x41;
                let got = decode(coding, &flipped, 3);
                assert!(got.is_err(), "{coding} at {at}: {got:?}");
            }
        }
        for (coding, octets) in
            [("gzip", gzip(b"x")), ("deflate", zlib(b"x")), ("br", br(b"x")), ("zstd", zstd(b"x"))]
        {
            let junk = [&octets[..], b"junk"].concat();
            assert_eq!(decode(coding, &junk, 3), Err(Undecodable::TrailingJunk), "{coding}");
            assert_eq!(decode(coding, b"not coded at all", 3).unwrap_err(), Undecodable::Corrupt, "{coding}");
        }
        let half = [&gzip(b"x")[..], b"\x1f\x8b"].concat();
        assert_eq!(decode("gzip", &half, 3), Err(Undecodable::Truncated));
        let wrong = [&gzip(b"x")[..], b"\x1fjunk"].concat();
        assert_eq!(decode("gzip", &wrong, 3), Err(Undecodable::Corrupt));
    }

    /// Faults G17, G18, G19.
    #[test]
    fn bombs_and_towers_are_refused() {
        let zeros = vec![0u8; 4 << 20];
        for (coding, octets) in [("gzip", gzip(&zeros)), ("br", br(&zeros)), ("zstd", zstd(&zeros))] {
            assert_eq!(decode(coding, &octets, 1024), Err(Undecodable::Expansion), "{coding}");
        }
        // Below the free amount any ratio is fine, and so is a large content with an ordinary ratio.
        assert!(decode("gzip", &gzip(&vec![0u8; 1 << 20]), 1024).is_ok());
        let nested = gzip(&gzip(&zeros));
        assert_eq!(decode("gzip, gzip", &nested, 100), Err(Undecodable::Expansion));
        let many = |lines: &[&str]| Decoder::for_fields(&fields(lines)).map(|d| d.is_some());
        assert_eq!(many(&["gzip, gzip, gzip"]), Ok(true));
        assert_eq!(many(&["gzip, gzip, gzip, gzip"]), Err(Undecodable::TooManyLayers));
        assert_eq!(many(&["gzip", "gzip, br", "gzip"]), Err(Undecodable::TooManyLayers));
        assert_eq!(many(&["gzip", "compress"]), Err(Undecodable::Unknown));
        assert_eq!(many(&["identity"]), Ok(false));
        assert_eq!(many(&[]), Ok(false));
    }

    #[test]
    fn the_sinks_error_comes_through() {
        let mut decoder = Decoder::for_fields(&fields(&["gzip"])).unwrap().unwrap();
        let result = decoder.push(&gzip(b"x"), &mut |_| Err("full"));
        assert!(matches!(result, Err(DecodeError::Sink("full"))));
    }
}
