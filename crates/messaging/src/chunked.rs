//! The chunked transfer coding (RFC 9112 §7.1): a decoder that lends data out of its input, and the few octets
//! an encoder adds. Extensions are checked, counted and ignored; trailers are read like any field section.

use crate::error::Malformed;
use crate::field_section::{self, append, field_line, is_dropped};
use crate::limits::Config;
use eleven_semantics::Fields;
use eleven_semantics::grammar::{hex_digit, is_field_octet, is_tchar};
use eleven_semantics::names::Known;

/// Where the decoder stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// At the start of a chunk-size line.
    #[default]
    Size,
    /// Inside chunk data, so many octets before its end.
    Data(u64),
    /// At the CRLF after chunk data.
    DataEnd,
    /// In the trailer section.
    Trailers,
    Ended,
}

/// Reads a chunked body.
#[derive(Debug, Clone, Default)]
pub struct Decoder {
    state: State,
    extension_bytes: usize,
    framing_bytes: u64,
    data_bytes: u64,
    /// Most bodies have none, and pay one word for it.
    trailers: Option<Box<Trailers>>,
}

#[derive(Debug, Clone, Default)]
struct Trailers {
    fields: Fields,
    bytes: usize,
    lines: usize,
}

/// What one call of [`Decoder::decode`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Chunk<'b> {
    /// All usable input was taken; call again with more.
    NeedMore,
    /// Some data, never empty. A chunk may come in several.
    Data(&'b [u8]),
    /// The body has ended. The trailer section is [`Decoder::take_trailers`].
    End,
}

impl Decoder {
    /// At the start of a body.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Reads from the front of `input`; how much was taken, and what it was.
    ///
    /// # Errors
    /// The first rule broken. The decoder is of no use afterwards.
    pub fn decode<'b>(&mut self, input: &'b [u8], config: &Config) -> Result<(usize, Chunk<'b>), Malformed> {
        let mut at = 0;
        loop {
            match self.state {
                State::Size => {
                    let Some((line, next)) = self.line(input, at, config, Decoder::unfinished_size)? else {
                        return Ok((at, Chunk::NeedMore));
                    };
                    let size = self.size_line(line, config)?;
                    self.count_framing((next - at) as u64 + 2, config)?;
                    at = next;
                    self.state = if size == 0 { State::Trailers } else { State::Data(size) };
                }
                State::Data(left) => {
                    let available = (input.len() - at) as u64;
                    let n = left.min(available) as usize;
                    if n == 0 {
                        return Ok((at, Chunk::NeedMore));
                    }
                    self.data_bytes = self.data_bytes.saturating_add(n as u64);
                    self.state = if n as u64 == left { State::DataEnd } else { State::Data(left - n as u64) };
                    return Ok((at + n, Chunk::Data(&input[at..at + n])));
                }
                State::DataEnd => match input[at..] {
                    [b'\r', b'\n', ..] => {
                        at += 2;
                        self.state = State::Size;
                    }
                    [] | [b'\r'] => return Ok((at, Chunk::NeedMore)),
                    [b'\n', ..] => return Err(Malformed::BareLf),
                    _ => return Err(Malformed::ChunkEnd),
                },
                State::Trailers => {
                    let Some((line, next)) = self.line(input, at, config, Decoder::unfinished_trailer)?
                    else {
                        return Ok((at, Chunk::NeedMore));
                    };
                    if line.is_empty() {
                        self.state = State::Ended;
                        return Ok((next, Chunk::End));
                    }
                    self.trailer_line(line, &input[at..next], config)?;
                    at = next;
                }
                State::Ended => return Ok((at, Chunk::End)),
            }
        }
    }

    /// Whether the last chunk and the trailer section were read.
    pub fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// The trailer section, if it has any line. Kept apart from the header section (9112-7.1.2-02).
    pub fn take_trailers(&mut self) -> Option<Fields> {
        let trailers = self.trailers.take()?;
        (!trailers.fields.is_empty()).then_some(trailers.fields)
    }

    /// The line at `at`. However the octets come, the answer is the one of their coming one by one: what is
    /// wrong before the line ends is found first.
    #[inline]
    fn line<'b>(
        &self,
        input: &'b [u8],
        at: usize,
        config: &Config,
        unfinished: fn(&Decoder, &[u8], &Config) -> Result<(), Malformed>,
    ) -> Result<Option<(&'b [u8], usize)>, Malformed> {
        match field_section::line(input, at) {
            Ok(Some(found)) => Ok(Some(found)),
            Ok(None) => unfinished(self, &input[at..], config).map(|()| None),
            Err(fault) => {
                let rest = &input[at..];
                let lf = memchr::memchr(b'\n', rest).unwrap_or(0);
                unfinished(self, &rest[..lf], config).and(Err(fault))
            }
        }
    }

    fn size_line(&mut self, line: &[u8], config: &Config) -> Result<u64, Malformed> {
        let (size, extensions) = split_size(line)?;
        if extensions.is_empty() {
            return Ok(size);
        }
        self.extension_bytes += extensions.len();
        if self.extension_bytes > config.limits.chunk_extension_bytes_max {
            return Err(Malformed::ChunkExtensionsTooLarge);
        }
        check_extensions(extensions)?;
        Ok(size)
    }

    /// A size line whose end has not come: wrong already? So that nothing waits for a line end that never comes.
    fn unfinished_size(&self, rest: &[u8], config: &Config) -> Result<(), Malformed> {
        if rest.is_empty() {
            return Ok(());
        }
        // A CR at the end may belong to the line end.
        let (_, extensions) = split_size(rest)?;
        let extensions = extensions.strip_suffix(b"\r").unwrap_or(extensions);
        if self.extension_bytes + extensions.len() > config.limits.chunk_extension_bytes_max {
            return Err(Malformed::ChunkExtensionsTooLarge);
        }
        Ok(())
    }

    /// A trailer line whose end has not come. A CR alone may begin the empty line, which is not counted.
    fn unfinished_trailer(&self, rest: &[u8], config: &Config) -> Result<(), Malformed> {
        if rest == b"\r" { Ok(()) } else { self.check_trailer_bytes(rest.len(), config) }
    }

    fn check_trailer_bytes(&self, more: usize, config: &Config) -> Result<(), Malformed> {
        let before = self.trailers.as_ref().map_or(0, |trailers| trailers.bytes);
        if before + more > config.limits.trailer_section_bytes_max {
            Err(Malformed::TrailersTooLarge)
        } else {
            Ok(())
        }
    }

    fn count_framing(&mut self, octets: u64, config: &Config) -> Result<(), Malformed> {
        self.framing_bytes = self.framing_bytes.saturating_add(octets);
        let limits = &config.limits;
        let charged = self.framing_bytes.saturating_sub(limits.chunk_overhead_free_bytes);
        if charged > self.data_bytes.saturating_mul(limits.chunk_overhead_ratio_max) {
            return Err(Malformed::ChunkOverhead);
        }
        Ok(())
    }

    fn trailer_line(&mut self, line: &[u8], whole: &[u8], config: &Config) -> Result<(), Malformed> {
        self.check_trailer_bytes(whole.len(), config)?;
        let field = field_line(line)?;
        let trailers = self.trailers.get_or_insert_default();
        trailers.bytes += whole.len();
        trailers.lines += 1;
        if trailers.lines > config.limits.trailer_lines_max {
            return Err(Malformed::TrailersTooLarge);
        }
        let known = Known::lookup(field.name);
        // 9110-6.5.1: what frames, routes or authenticates may not come so late; it is left out, and so can
        // never be merged into the header section (fault S68).
        let forbidden = known.is_some_and(|known| !known.allowed_in_trailers());
        if !forbidden && !is_dropped(field.name, known, config.options.keep_underscore_names) {
            append(&mut trailers.fields, whole, field, known);
        }
        Ok(())
    }
}

/// The size and what follows it, which can only be an extension, or white space before one, or a line end.
///
/// 9112-7.1-R1 and 9112-7.1-03: hexadecimal digits only, and no more than fit (faults S58 to S61).
#[inline]
fn split_size(line: &[u8]) -> Result<(u64, &[u8]), Malformed> {
    let mut size = 0u64;
    let mut digits = 0;
    while let Some(value) = line.get(digits).and_then(|&b| hex_digit(b)) {
        if digits == 16 {
            return Err(Malformed::ChunkSize);
        }
        size = size << 4 | u64::from(value);
        digits += 1;
    }
    match line.get(digits) {
        _ if digits == 0 => Err(Malformed::ChunkSize),
        None | Some(b';' | b' ' | b'\t' | b'\r') => Ok((size, &line[digits..])),
        Some(_) => Err(Malformed::ChunkSize),
    }
}

/// `chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )`. White space alone is no
/// extension (fault S62), nor is a `;` without a name.
fn check_extensions(mut rest: &[u8]) -> Result<(), Malformed> {
    const BAD: Malformed = Malformed::ChunkExtension;
    while !rest.is_empty() {
        rest = skip_ws(rest).strip_prefix(b";").ok_or(match skip_ws(rest) {
            [] => Malformed::ChunkSize,
            [b'\r', ..] => Malformed::BareCr,
            _ => BAD,
        })?;
        rest = token(skip_ws(rest)).ok_or(BAD)?;
        let after = skip_ws(rest);
        if let Some(value) = after.strip_prefix(b"=") {
            let value = skip_ws(value);
            rest = if value.first() == Some(&b'"') { quoted(value) } else { token(value) }.ok_or(BAD)?;
        }
    }
    Ok(())
}

fn skip_ws(bytes: &[u8]) -> &[u8] {
    &bytes[bytes.iter().take_while(|&&b| b == b' ' || b == b'\t').count()..]
}

/// What follows a non-empty token.
fn token(bytes: &[u8]) -> Option<&[u8]> {
    let n = bytes.iter().take_while(|&&b| is_tchar(b)).count();
    (n > 0).then(|| &bytes[n..])
}

/// What follows a quoted string.
fn quoted(bytes: &[u8]) -> Option<&[u8]> {
    let mut i = 1;
    loop {
        match bytes.get(i)? {
            b'"' => return Some(&bytes[i + 1..]),
            b'\\' if is_field_octet(*bytes.get(i + 1)?) => i += 2,
            &b if is_field_octet(b) && b != b'\\' => i += 1,
            _ => return None,
        }
    }
}

/// Appends the size line of a chunk of `length` octets. A length of zero would end the body: never call with it.
#[inline]
pub fn push_size(out: &mut Vec<u8>, length: usize) {
    debug_assert!(length > 0);
    let digits = (usize::BITS - length.leading_zeros()).div_ceil(4).max(1);
    for i in (0..digits).rev() {
        out.push(b"0123456789abcdef"[length >> (i * 4) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the last chunk, the trailer section, and the end.
pub fn push_end(out: &mut Vec<u8>, trailers: Option<&Fields>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        out.extend_from_slice(trailers.wire());
    }
    out.extend_from_slice(b"\r\n");
}
