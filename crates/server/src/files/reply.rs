//! What is answered to GET and HEAD for one representation: conditions first, then ranges, in the order of
//! RFC 9110 §13.2.2, and the fields that go with 200, 206, 304 and 416. Opens and sends nothing; the body is
//! described, not read.
//!
//! Content-Length and Date are the connection's to write.

use crate::response::{Content, FileRange, Part, Response, ResponseFields};
use base64::Engine as _;
use bytes::Bytes;
use eleven_net::file::Meta;
use eleven_semantics::conditional::{self, Condition, Verdict};
use eleven_semantics::date::HttpDate;
use eleven_semantics::range::{self, ContentRange, RangeLimits, Ranges, Span};
use eleven_semantics::validator::{EntityTag, Validators};
use eleven_semantics::{Fields, InvalidField, Known, Method, Status};
use std::fs::File;
use std::rc::Rc;

/// What a representation is called, beside its state: the fields that come from names and negotiation.
#[derive(Debug, Clone, Copy, Default)]
pub struct Labels<'a> {
    /// The value of Content-Type.
    pub content_type: &'a str,
    /// The value of Content-Encoding.
    pub coding: Option<&'a str>,
    /// The value of Content-Language.
    pub language: Option<&'a str>,
    /// The value of Content-Location, where negotiation chose another resource.
    pub content_location: Option<&'a [u8]>,
    /// The value of Vary (9110-12.5.5-03).
    pub vary: Option<&'a str>,
}

/// One representation, as GET without conditions and ranges would send it.
#[derive(Debug, Clone)]
pub struct Representation {
    /// The fields of the 200, but Date, Content-Length and what the site adds to every response.
    pub fields: Rc<Fields>,
    /// Length of the content in octets.
    pub length: u64,
    /// The entity tag with its quotes, if it has one.
    etag: Option<Box<[u8]>>,
    last_modified: Option<HttpDate>,
}

impl Representation {
    /// That of a file.
    ///
    /// # Errors
    /// If a label, which may be configured, is no field value.
    pub fn of_file(meta: &Meta, labels: &Labels<'_>, now: HttpDate) -> Result<Representation, InvalidField> {
        let etag = entity_tag(meta);
        // 9110-8.8.2.1-03, 9110-8.8.2.1-04: never later than Date.
        let last_modified = HttpDate(meta.modified_seconds).min(now);
        let mut fields = Fields::with_capacity(256);
        fields.push(Known::ContentType, labels.content_type)?;
        if let Some(coding) = labels.coding {
            fields.push(Known::ContentEncoding, coding)?;
        }
        if let Some(language) = labels.language {
            fields.push(Known::ContentLanguage, language)?;
        }
        if let Some(location) = labels.content_location {
            fields.push(Known::ContentLocation, location)?;
        }
        fields.push(Known::LastModified, last_modified.imf())?;
        fields.push(Known::ETag, &etag)?;
        fields.push(Known::AcceptRanges, "bytes")?;
        if let Some(vary) = labels.vary {
            fields.push(Known::Vary, vary)?;
        }
        Ok(Representation {
            fields: Rc::new(fields),
            length: meta.size,
            etag: Some(etag.into()),
            last_modified: Some(last_modified),
        })
    }

    /// That of content made here: its entity tag is a hash of it, and it has no modification date.
    ///
    /// # Errors
    /// If a label is no field value.
    pub fn of_content(content: &[u8], labels: &Labels<'_>) -> Result<Representation, InvalidField> {
        let etag = tag_of_hash(xxhash_rust::xxh3::xxh3_128(content));
        let mut fields = Fields::with_capacity(256);
        fields.push(Known::ContentType, labels.content_type)?;
        fields.push(Known::ETag, &etag)?;
        fields.push(Known::AcceptRanges, "bytes")?;
        if let Some(vary) = labels.vary {
            fields.push(Known::Vary, vary)?;
        }
        Ok(Representation {
            fields: Rc::new(fields),
            length: content.len() as u64,
            etag: Some(etag.into()),
            last_modified: None,
        })
    }

    /// Memory held, for accounting.
    pub fn memory_bytes(&self) -> usize {
        self.fields.memory_bytes() + size_of::<Fields>() + self.etag.as_ref().map_or(0, |etag| etag.len())
    }

    /// What conditions are compared with.
    pub fn validators(&self) -> Validators<'_> {
        Validators {
            etag: self.etag.as_deref().and_then(EntityTag::parse),
            last_modified: self.last_modified,
            exists: true,
        }
    }
}

/// A strong entity tag from everything the file system tells of a file's state (fault P25), hashed so that
/// it gives away neither inode nor device. The same in every worker and after a restart.
///
/// Strong as far as the file system's clock is fine enough: two writes of equal length within one of its
/// ticks (some milliseconds) cannot be told apart.
pub fn entity_tag(meta: &Meta) -> Vec<u8> {
    let mut state = [0u8; 48];
    let numbers = [
        meta.dev,
        meta.ino,
        meta.size,
        meta.modified_seconds as u64,
        u64::from(meta.modified_nanos) << 32 | u64::from(meta.changed_nanos),
        meta.changed_seconds as u64,
    ];
    for (bytes, number) in state.chunks_exact_mut(8).zip(numbers) {
        bytes.copy_from_slice(&number.to_be_bytes());
    }
    tag_of_hash(xxhash_rust::xxh3::xxh3_128(&state))
}

fn tag_of_hash(hash: u128) -> Vec<u8> {
    let mut tag = vec![b'"'; 24];
    // 16 octets always make 22 characters without padding.
    let engine = &base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let written = engine.encode_slice(hash.to_be_bytes(), &mut tag[1..23]);
    debug_assert_eq!(written, Ok(22));
    tag
}

/// What is sent after the head. For HEAD it is described all the same, so that the fields are those of GET.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Nothing, because the status says so or there is nothing to say.
    Empty,
    /// The whole representation.
    Whole,
    /// One span of it.
    Part(Span),
    /// Several spans as multipart/byteranges.
    Parts(Multipart),
}

/// The body of a multipart/byteranges response (RFC 9110 §14.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Multipart {
    /// For each part what stands before its content (delimiter and fields), and the span that is its content.
    pub parts: Vec<(Vec<u8>, Span)>,
    /// The closing delimiter.
    pub tail: Vec<u8>,
    /// Length of it all in octets.
    pub length: u64,
}

/// Status, fields and body of a response.
#[derive(Debug, Clone)]
pub struct Reply {
    /// 200, 206, 304, 412 or 416.
    pub status: Status,
    /// All fields but Date, Content-Length and what the site adds to every response.
    pub fields: ResponseFields,
    /// What follows the head.
    pub body: Body,
}

/// What a request for a representation comes to, before any field is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// 200.
    Whole,
    /// 206 with one part.
    Part(Span),
    /// 206 with several parts.
    Parts(Vec<Span>),
    /// 304.
    NotModified,
    /// 412.
    PreconditionFailed(Condition),
    /// 416.
    Unsatisfiable,
}

/// The fields that can make the answer another one than 200 with everything.
pub const DECIDING_FIELDS: [Known; 5] =
    [Known::Range, Known::IfNoneMatch, Known::IfModifiedSince, Known::IfMatch, Known::IfUnmodifiedSince];

/// Decides for GET and HEAD (9110-13.2.2-01a to 9110-13.2.2-01e).
pub fn decide(
    method: &Method,
    request: &Fields,
    representation: &Representation,
    now: HttpDate,
    limits: &RangeLimits,
) -> Decision {
    if !request.contains_any(&DECIDING_FIELDS) {
        return Decision::Whole;
    }
    let validators = representation.validators();
    match conditional::evaluate(method, request, &validators, now) {
        Verdict::Proceed => {}
        Verdict::NotModified(_) => return Decision::NotModified,
        Verdict::Failed(condition) => return Decision::PreconditionFailed(condition),
    }
    match range::select(method, request, &validators, representation.length, now, limits) {
        Ranges::Whole(_) => Decision::Whole,
        Ranges::Single(span) => Decision::Part(span),
        Ranges::Several(spans) => Decision::Parts(spans),
        Ranges::Unsatisfiable => Decision::Unsatisfiable,
    }
}

/// Writes the fields that go with a decision. `boundary` is drawn at random for each response, so that no
/// content can hold it on purpose (fault G07).
///
/// # Errors
/// None is known: what is written here is digits and what was a valid field before.
pub fn reply(
    decision: Decision,
    request: &Fields,
    representation: &Representation,
    boundary: [u8; 16],
) -> Result<Reply, InvalidField> {
    let content_range = |span| ContentRange::Part { span, complete: Some(representation.length) }.to_bytes();
    let (status, fields, body) = match decision {
        Decision::Whole => (Status::OK, ResponseFields::Shared(representation.fields.clone()), Body::Whole),
        Decision::Part(span) => {
            let mut fields = part_fields(request, representation);
            fields.push(Known::ContentRange, content_range(span))?;
            (Status::PARTIAL_CONTENT, fields.into(), Body::Part(span))
        }
        Decision::Parts(spans) => {
            let boundary = boundary_text(boundary);
            let mut fields = part_fields(request, representation);
            let content_type = [b"multipart/byteranges; boundary=", &boundary[..]].concat();
            // In the place of Content-Range, which belongs into the parts (9110-15.3.7.2-02).
            fields.set(Known::ContentType, content_type)?;
            let multipart = multipart(&spans, representation, &boundary);
            (Status::PARTIAL_CONTENT, fields.into(), Body::Parts(multipart))
        }
        Decision::NotModified => {
            (Status::NOT_MODIFIED, not_modified_fields(representation).into(), Body::Empty)
        }
        Decision::PreconditionFailed(_) => (Status::PRECONDITION_FAILED, Fields::new().into(), Body::Empty),
        Decision::Unsatisfiable => {
            let mut fields = Fields::new();
            let complete = ContentRange::Unsatisfied { complete: representation.length };
            fields.push(Known::ContentRange, complete.to_bytes())?;
            (Status::RANGE_NOT_SATISFIABLE, fields.into(), Body::Empty)
        }
    };
    Ok(Reply { status, fields, body })
}

/// The fields of a 206: all of the 200 (9110-15.3.7-04), or after If-Range only those that the client must
/// have again (9110-15.3.7-02, 9110-15.3.7-03).
fn part_fields(request: &Fields, representation: &Representation) -> Fields {
    let mut fields = (*representation.fields).clone();
    if request.contains(Known::IfRange) {
        drop_metadata(&mut fields);
    }
    fields
}

/// The fields of a 304: those that could have changed in a cache without a new representation, and no other
/// metadata (9110-15.4.5-01, 9110-15.4.5-02). Without an entity tag the date stays to tell which one it was.
fn not_modified_fields(representation: &Representation) -> Fields {
    let mut fields = (*representation.fields).clone();
    if representation.etag.is_some() {
        drop_metadata(&mut fields);
    } else {
        fields.retain(|field| {
            !field.known.is_some_and(Known::is_representation) || field.known == Some(Known::LastModified)
        });
    }
    fields
}

fn drop_metadata(fields: &mut Fields) {
    fields.retain(|field| match field.known {
        Some(Known::ETag | Known::ContentLocation) | None => true,
        Some(known) => !known.is_representation(),
    });
}

/// 32 hexadecimal digits: within the 70 octets and the alphabet of RFC 2046 §5.1.1, no quotes needed.
fn boundary_text(random: [u8; 16]) -> [u8; 32] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0u8; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(random) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 15)];
    }
    text
}

/// The parts with their own Content-Type and Content-Range (9110-15.3.7.2-03, 9110-15.3.7.2-04), lines ended by
/// CRLF (9110-8.3.3-01).
fn multipart(spans: &[Span], representation: &Representation, boundary: &[u8]) -> Multipart {
    let mut parts = Vec::with_capacity(spans.len());
    let mut length = 0u64;
    for (index, &span) in spans.iter().enumerate() {
        let mut head = Vec::with_capacity(160);
        if index > 0 {
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"--");
        head.extend_from_slice(boundary);
        if let Some(content_type) = representation.fields.get(Known::ContentType) {
            head.extend_from_slice(b"\r\nContent-Type: ");
            head.extend_from_slice(content_type);
        }
        head.extend_from_slice(b"\r\nContent-Range: ");
        ContentRange::Part { span, complete: Some(representation.length) }.write(&mut head);
        head.extend_from_slice(b"\r\n\r\n");
        // No overflow: the spans do not overlap, and there are few parts.
        length = length.saturating_add(head.len() as u64).saturating_add(span.len());
        parts.push((head, span));
    }
    let tail = [b"\r\n--", boundary, b"--\r\n"].concat();
    length = length.saturating_add(tail.len() as u64);
    Multipart { parts, tail, length }
}

/// Where the octets of a representation are.
#[derive(Debug, Clone)]
pub enum Source {
    /// In memory.
    Memory(Bytes),
    /// In an open file, from its beginning.
    File(Rc<File>),
}

impl Source {
    fn span(&self, span: Span) -> Part {
        match self {
            // A span of what is in memory fits its length; the length was that of the representation.
            Source::Memory(bytes) => Part::Bytes(bytes.slice(span.first as usize..=span.last as usize)),
            Source::File(file) => {
                Part::File(FileRange { file: file.clone(), offset: span.first, length: span.len() })
            }
        }
    }

    fn content(self, body: Body, length: u64) -> Content {
        match (body, self) {
            (Body::Empty, _) => Content::Empty,
            (Body::Whole, Source::Memory(bytes)) => Content::Bytes(bytes),
            (Body::Whole, Source::File(_)) if length == 0 => Content::Bytes(Bytes::new()),
            (Body::Whole, Source::File(file)) => Content::File(FileRange { file, offset: 0, length }),
            (Body::Part(span), source) => match source.span(span) {
                Part::Bytes(bytes) => Content::Bytes(bytes),
                Part::File(range) => Content::File(range),
            },
            (Body::Parts(multipart), source) => {
                let mut parts = Vec::with_capacity(multipart.parts.len() * 2 + 1);
                for (head, span) in multipart.parts {
                    parts.push(Part::Bytes(head.into()));
                    parts.push(source.span(span));
                }
                parts.push(Part::Bytes(multipart.tail.into()));
                Content::Parts(parts)
            }
        }
    }
}

/// The response to GET or HEAD for one representation: everything above in one call.
pub fn respond(
    method: &Method,
    request: &Fields,
    representation: &Representation,
    source: Source,
    now: HttpDate,
    limits: &RangeLimits,
    random: impl FnOnce() -> std::io::Result<[u8; 16]>,
) -> Response {
    let decision = decide(method, request, representation, now, limits);
    let (decision, boundary) = match &decision {
        Decision::Parts(_) => match random() {
            Ok(boundary) => (decision, boundary),
            Err(_) => (Decision::Whole, [0; 16]),
        },
        _ => (decision, [0; 16]),
    };
    match reply(decision, request, representation, boundary) {
        Ok(Reply { status, fields, body }) => {
            let content = match body {
                // Errors have content, if only an empty one; what it says is worded elsewhere.
                Body::Empty if !status.never_has_content() => Content::Bytes(Bytes::new()),
                body => source.content(body, representation.length),
            };
            let is_partial = matches!(status, Status::PARTIAL_CONTENT | Status::NOT_MODIFIED);
            let whole = is_partial.then(|| (representation.fields.clone(), representation.length));
            Response { status, fields, content, close: None, notes: None, whole }
        }
        Err(why) => {
            tracing::error!(%why, "the fields of a file's response are invalid");
            Response::new(Status::INTERNAL_SERVER_ERROR)
        }
    }
}
