//! Bodies over a framing: octets of a connection become content, content becomes octets. The encoder gives only
//! what goes around the content, so that the content itself need not be copied.

use crate::chunked;
use crate::error::{Malformed, Misuse};
use crate::framing::Framing;
use crate::gzip;
use crate::limits::Config;
use eleven_semantics::Fields;

/// Reads a body.
#[derive(Debug)]
pub struct BodyDecoder(Decoding);

#[derive(Debug)]
enum Decoding {
    Length(u64),
    Chunked(chunked::Decoder),
    UntilClose,
    Gzip(Box<Gzip>),
    Ended,
}

/// A `gzip` transfer coding inside chunked, or until close.
#[derive(Debug)]
struct Gzip {
    chunked: Option<chunked::Decoder>,
    gzip: gzip::Decoder,
    /// Coded octets that the decoder had no room for yet.
    pending: Vec<u8>,
    /// The framing around the coding has ended.
    outer_ended: bool,
}

/// What one call of [`BodyDecoder::decode`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'b> {
    /// All usable input was taken; call again with more.
    NeedMore,
    /// Content, lent from the input; never empty.
    Data(&'b [u8]),
    /// Content that a transfer coding was taken off; never empty.
    Decoded(Vec<u8>),
    /// The body is complete. Comes once; trailers are [`BodyDecoder::take_trailers`].
    End,
}

impl BodyDecoder {
    /// At the start of a body of this framing.
    pub fn new(framing: Framing) -> BodyDecoder {
        BodyDecoder(match framing {
            Framing::None | Framing::Length(0) => Decoding::Ended,
            Framing::Length(n) => Decoding::Length(n),
            Framing::Chunked { gzip: false } => Decoding::Chunked(chunked::Decoder::new()),
            Framing::UntilClose { gzip: false } => Decoding::UntilClose,
            Framing::Chunked { gzip: true } => Decoding::gzip(Some(chunked::Decoder::new())),
            Framing::UntilClose { gzip: true } => Decoding::gzip(None),
        })
    }

    /// Whether the body is complete.
    pub fn has_ended(&self) -> bool {
        matches!(self.0, Decoding::Ended)
    }

    /// Octets of content still to come, where that is known.
    pub fn remaining(&self) -> Option<u64> {
        match self.0 {
            Decoding::Length(left) => Some(left),
            Decoding::Ended => Some(0),
            _ => None,
        }
    }

    /// As [`BodyDecoder::remaining`], of a body that is plain content: the driver may move it past memory, and says
    /// so by [`BodyDecoder::pass`].
    pub fn passable(&self) -> Option<u64> {
        if let Decoding::Length(left) = self.0 { Some(left) } else { None }
    }

    /// `count` octets of content went another way than through [`BodyDecoder::decode`].
    ///
    /// # Errors
    /// If that many are not to come, or the body is not plain.
    pub fn pass(&mut self, count: u64) -> Result<(), Misuse> {
        match &mut self.0 {
            Decoding::Length(left) if count <= *left => {
                *left -= count;
                Ok(())
            }
            _ => Err(Misuse::OutOfTurn),
        }
    }

    /// Whether only the end of the connection ends this body.
    pub fn ends_with_connection(&self) -> bool {
        match &self.0 {
            Decoding::UntilClose => true,
            Decoding::Gzip(g) => g.chunked.is_none(),
            _ => false,
        }
    }

    /// Reads from the front of `input`; how much was taken, and what it was. `end_of_input` says that the peer
    /// will send nothing after `input`.
    ///
    /// # Errors
    /// The first rule broken; [`Malformed::BodyCut`] if the connection ended too soon.
    pub fn decode<'b>(
        &mut self,
        input: &'b [u8],
        end_of_input: bool,
        config: &Config,
    ) -> Result<(usize, Piece<'b>), Malformed> {
        let (taken, piece) = match &mut self.0 {
            Decoding::Length(left) => {
                let n = (*left).min(input.len() as u64) as usize;
                *left -= n as u64;
                let done = *left == 0;
                match (n, done) {
                    (0, true) => (0, Piece::End),
                    (0, false) => (0, Piece::NeedMore),
                    _ => (n, Piece::Data(&input[..n])),
                }
            }
            Decoding::Chunked(decoder) => {
                let (taken, chunk) = decoder.decode(input, config)?;
                (
                    taken,
                    match chunk {
                        chunked::Chunk::NeedMore => Piece::NeedMore,
                        chunked::Chunk::Data(data) => Piece::Data(data),
                        chunked::Chunk::End => Piece::End,
                    },
                )
            }
            Decoding::UntilClose => match (input.is_empty(), end_of_input) {
                (false, _) => (input.len(), Piece::Data(input)),
                (true, true) => (0, Piece::End),
                (true, false) => (0, Piece::NeedMore),
            },
            Decoding::Gzip(gzip) => gzip.decode(input, end_of_input, config)?,
            Decoding::Ended => return Ok((0, Piece::End)),
        };
        // `end_of_input` speaks of what stands in `input`; a body that wants more than that is cut.
        if piece == Piece::NeedMore && end_of_input {
            return Err(Malformed::BodyCut);
        }
        // Trailers outlive the end; everything else is dropped.
        if piece == Piece::End && !matches!(self.0, Decoding::Chunked(_) | Decoding::Gzip(_)) {
            self.0 = Decoding::Ended;
        }
        Ok((taken, piece))
    }

    /// The trailer section, after [`Piece::End`], if it has any line. Ends the decoder.
    pub fn take_trailers(&mut self) -> Option<Fields> {
        match std::mem::replace(&mut self.0, Decoding::Ended) {
            Decoding::Chunked(mut decoder) => decoder.take_trailers(),
            Decoding::Gzip(gzip) => gzip.chunked.and_then(|mut decoder| decoder.take_trailers()),
            _ => None,
        }
    }
}

impl Decoding {
    fn gzip(chunked: Option<chunked::Decoder>) -> Decoding {
        Decoding::Gzip(Box::new(Gzip {
            chunked,
            gzip: gzip::Decoder::default(),
            pending: Vec::new(),
            outer_ended: false,
        }))
    }
}

impl Gzip {
    fn decode<'b>(
        &mut self,
        input: &'b [u8],
        end_of_input: bool,
        config: &Config,
    ) -> Result<(usize, Piece<'b>), Malformed> {
        let mut at = 0;
        loop {
            if !self.pending.is_empty() {
                let (taken, plain) = self.gzip.decode(&self.pending, &config.limits)?;
                self.pending.drain(..taken);
                if !plain.is_empty() {
                    return Ok((at, Piece::Decoded(plain)));
                }
                continue;
            }
            if self.outer_ended {
                return if self.gzip.has_ended() { Ok((at, Piece::End)) } else { Err(Malformed::Gzip) };
            }
            match &mut self.chunked {
                Some(decoder) => {
                    let (taken, chunk) = decoder.decode(&input[at..], config)?;
                    at += taken;
                    match chunk {
                        chunked::Chunk::NeedMore => return Ok((at, Piece::NeedMore)),
                        chunked::Chunk::Data(data) => self.pending.extend_from_slice(data),
                        chunked::Chunk::End => self.outer_ended = true,
                    }
                }
                None if at < input.len() => {
                    self.pending.extend_from_slice(&input[at..]);
                    at = input.len();
                }
                None if end_of_input => self.outer_ended = true,
                None => return Ok((at, Piece::NeedMore)),
            }
        }
    }
}

/// Writes a body: what goes before, between and after its content.
#[derive(Debug)]
pub struct BodyEncoder(Encoding);

#[derive(Debug)]
enum Encoding {
    /// Nothing may be sent (HEAD, 204, 304 …). Content handed in is an error.
    None,
    Length(u64),
    Chunked,
    UntilClose,
    Gzip {
        encoder: Box<gzip::Encoder>,
        chunked: bool,
    },
    Ended,
}

impl BodyEncoder {
    /// For a body of this framing.
    pub fn new(framing: Framing) -> BodyEncoder {
        BodyEncoder(match framing {
            Framing::None => Encoding::None,
            Framing::Length(n) => Encoding::Length(n),
            Framing::Chunked { gzip: false } => Encoding::Chunked,
            Framing::UntilClose { gzip: false } => Encoding::UntilClose,
            Framing::Chunked { gzip: true } => Encoding::Gzip { encoder: Box::default(), chunked: true },
            Framing::UntilClose { gzip: true } => Encoding::Gzip { encoder: Box::default(), chunked: false },
        })
    }

    /// Whether content may be written between [`BodyEncoder::begin`] and [`BodyEncoder::after`] as it is. If
    /// not, it goes through [`BodyEncoder::write`].
    pub fn is_transparent(&self) -> bool {
        !matches!(self.0, Encoding::Gzip { .. })
    }

    /// Whether this response sends no content at all.
    pub fn is_silent(&self) -> bool {
        matches!(self.0, Encoding::None)
    }

    /// Whether the length was announced, so that no octets stand around the content.
    pub fn is_plain(&self) -> bool {
        matches!(self.0, Encoding::Length(_) | Encoding::UntilClose)
    }

    /// Announces `length` octets of content, which the caller sends right after what is appended here. Nothing
    /// is appended for no content.
    ///
    /// # Errors
    /// [`Misuse::TooMuchContent`] past the announced length, and then nothing is appended.
    pub fn begin(&mut self, length: usize, out: &mut Vec<u8>) -> Result<(), Misuse> {
        match &mut self.0 {
            _ if length == 0 => Ok(()),
            Encoding::Length(left) => {
                *left = left.checked_sub(length as u64).ok_or(Misuse::TooMuchContent)?;
                Ok(())
            }
            Encoding::Chunked => {
                chunked::push_size(out, length);
                Ok(())
            }
            Encoding::UntilClose => Ok(()),
            Encoding::None => Err(Misuse::NoContentAllowed),
            Encoding::Gzip { .. } | Encoding::Ended => Err(Misuse::OutOfTurn),
        }
    }

    /// What follows content that [`BodyEncoder::begin`] announced.
    pub fn after(&self) -> &'static [u8] {
        if matches!(self.0, Encoding::Chunked) { b"\r\n" } else { b"" }
    }

    /// Appends `data` with everything around it.
    ///
    /// # Errors
    /// As [`BodyEncoder::begin`].
    pub fn write(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), Misuse> {
        if data.is_empty() {
            return Ok(());
        }
        if let Encoding::Gzip { encoder, chunked } = &mut self.0 {
            if !*chunked {
                encoder.encode(data, out);
                return Ok(());
            }
            let mut coded = Vec::new();
            encoder.encode(data, &mut coded);
            push_chunk(&coded, out);
            return Ok(());
        }
        self.begin(data.len(), out)?;
        out.extend_from_slice(data);
        out.extend_from_slice(self.after());
        Ok(())
    }

    /// Appends the end of the body. Trailers are sent where the framing has a place for them, and dropped
    /// elsewhere.
    ///
    /// # Errors
    /// [`Misuse::TooLittleContent`] before the announced length, [`Misuse::ForbiddenField`] for a trailer that
    /// may be none (RFC 9110 §6.5.1).
    pub fn finish(&mut self, trailers: Option<&Fields>, out: &mut Vec<u8>) -> Result<(), Misuse> {
        if let Some(trailers) = trailers
            && trailers.iter().any(|t| t.known.is_some_and(|known| !known.allowed_in_trailers()))
        {
            return Err(Misuse::ForbiddenField);
        }
        match std::mem::replace(&mut self.0, Encoding::Ended) {
            Encoding::None | Encoding::Length(0) | Encoding::UntilClose => Ok(()),
            Encoding::Length(_) => Err(Misuse::TooLittleContent),
            Encoding::Chunked => {
                chunked::push_end(out, trailers);
                Ok(())
            }
            Encoding::Gzip { mut encoder, chunked: false } => {
                encoder.finish(out);
                Ok(())
            }
            Encoding::Gzip { mut encoder, chunked: true } => {
                let mut coded = Vec::new();
                encoder.finish(&mut coded);
                push_chunk(&coded, out);
                chunked::push_end(out, trailers);
                Ok(())
            }
            Encoding::Ended => Err(Misuse::OutOfTurn),
        }
    }
}

fn push_chunk(data: &[u8], out: &mut Vec<u8>) {
    if !data.is_empty() {
        chunked::push_size(out, data.len());
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
    }
}
