//! Structured field values (RFC 9651): lists, dictionaries and items, read and written with all bare types of
//! that RFC. Does not know any field; combining the lines of a field is [`crate::Fields::combined`].
//!
//! Parsing fails whole: one wrong octet and the value counts as absent, as RFC 9651 §4.2 asks for. The parser
//! works left to right with one octet of look-ahead and recursion nowhere (inner lists do not nest).

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// RFC 9651 §4.2.7: parsers should not fail on missing padding or non-zero pad bits.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Largest integer: fifteen digits (RFC 9651 §3.3.1).
pub const INTEGER_MAX: i64 = 999_999_999_999_999;

/// A bare item (RFC 9651 §3.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BareItem {
    /// At most fifteen digits.
    Integer(i64),
    /// At most twelve digits before the point and three after it.
    Decimal(Decimal),
    /// Printable ASCII in quotes.
    String(String),
    /// A token: begins with a letter or `*`.
    Token(String),
    /// `:base64:`.
    Bytes(Vec<u8>),
    /// `?1` or `?0`.
    Boolean(bool),
    /// `@` and seconds since 1970.
    Date(i64),
    /// `%"…"`: any Unicode text, percent-encoded.
    DisplayString(String),
}

/// A decimal, kept exactly as thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decimal {
    /// The value times 1,000.
    pub thousandths: i64,
}

/// Parameters in order; a repeated key keeps its first place and its last value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parameters(pub Vec<(String, BareItem)>);

/// A bare item with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The value.
    pub value: BareItem,
    /// Its parameters.
    pub parameters: Parameters,
}

/// A parenthesised list of items.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InnerList {
    /// The items.
    pub items: Vec<Item>,
    /// The parameters of the whole.
    pub parameters: Parameters,
}

/// A member of a list or dictionary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Member {
    /// A single item.
    Item(Item),
    /// An inner list.
    InnerList(InnerList),
}

/// A list (RFC 9651 §3.1).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct List(pub Vec<Member>);

/// A dictionary (RFC 9651 §3.2), in order; a repeated key keeps its first place and its last value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dictionary(pub Vec<(String, Member)>);

/// Why a value was refused, and at which octet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invalid {
    /// Offset of the octet at which parsing stopped.
    pub at: usize,
    /// What was wrong there.
    pub why: Why,
}

/// What was wrong with a structured value, or with a value that was to become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Octets follow the end of the value, or a list ends with a comma.
    Trailing,
    /// The value ends too early.
    End,
    /// A key does not begin with a lower-case letter or `*`, or holds another octet than keys may.
    Key,
    /// No bare item begins with this octet.
    Item,
    /// A number with too many digits, no digits, or a bad point.
    Number,
    /// A string with an octet that strings may not hold, or a bad escape.
    String,
    /// A byte sequence that is not base64.
    Bytes,
    /// A boolean other than `?0` and `?1`.
    Boolean,
    /// A date that is no integer.
    Date,
    /// A display string with bad percent-encoding, upper-case digits, or that is not UTF-8.
    DisplayString,
    /// Members of an inner list without a space between them.
    InnerList,
    /// A token with an octet that tokens may not hold (serialising only).
    Token,
}

impl std::fmt::Display for Invalid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not a structured field value ({:?} at octet {})", self.why, self.at)
    }
}

impl std::error::Error for Invalid {}

impl BareItem {
    /// The integer, if it is one.
    pub fn integer(&self) -> Option<i64> {
        if let BareItem::Integer(n) = self { Some(*n) } else { None }
    }

    /// The string, if it is one.
    pub fn string(&self) -> Option<&str> {
        if let BareItem::String(s) = self { Some(s) } else { None }
    }

    /// The text of a string or a token.
    pub fn text(&self) -> Option<&str> {
        match self {
            BareItem::String(s) | BareItem::Token(s) => Some(s),
            _ => None,
        }
    }

    /// Whether it is `?1`.
    pub fn is_true(&self) -> bool {
        *self == BareItem::Boolean(true)
    }
}

impl Parameters {
    /// The value of this key.
    pub fn get(&self, key: &str) -> Option<&BareItem> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, value)| value)
    }
}

impl From<BareItem> for Item {
    fn from(value: BareItem) -> Item {
        Item { value, parameters: Parameters::default() }
    }
}

impl Dictionary {
    /// The member of this key.
    pub fn get(&self, key: &str) -> Option<&Member> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, member)| member)
    }

    /// The bare item of this key, if the member is an item.
    pub fn item(&self, key: &str) -> Option<&BareItem> {
        match self.get(key)? {
            Member::Item(item) => Some(&item.value),
            Member::InnerList(_) => None,
        }
    }
}

/// Reads a list (RFC 9651 §4.2.1). An empty value is an empty list.
///
/// # Errors
/// If any octet is out of place.
pub fn parse_list(value: &[u8]) -> Result<List, Invalid> {
    let mut parser = Parser::new(value);
    let mut members = Vec::new();
    parser.skip_spaces();
    while !parser.at_end() {
        members.push(parser.member()?);
        if !parser.next_member()? {
            break;
        }
    }
    Ok(List(members))
}

/// Reads a dictionary (RFC 9651 §4.2.2). An empty value is an empty dictionary.
///
/// # Errors
/// If any octet is out of place.
pub fn parse_dictionary(value: &[u8]) -> Result<Dictionary, Invalid> {
    let mut parser = Parser::new(value);
    let mut members = Vec::new();
    parser.skip_spaces();
    while !parser.at_end() {
        let key = parser.key()?;
        let member = if parser.take(b'=') {
            parser.member()?
        } else {
            let parameters = parser.parameters()?;
            Member::Item(Item { value: BareItem::Boolean(true), parameters })
        };
        put(&mut members, key, member);
        if !parser.next_member()? {
            break;
        }
    }
    Ok(Dictionary(members))
}

/// Reads an item (RFC 9651 §4.2.3).
///
/// # Errors
/// If any octet is out of place.
pub fn parse_item(value: &[u8]) -> Result<Item, Invalid> {
    let mut parser = Parser::new(value);
    parser.skip_spaces();
    let item = parser.item()?;
    parser.skip_spaces();
    if parser.at_end() { Ok(item) } else { Err(parser.invalid(Why::Trailing)) }
}

/// Sets a key: the last value wins, the first place is kept.
fn put<T>(entries: &mut Vec<(String, T)>, key: String, value: T) {
    match entries.iter_mut().find(|(k, _)| *k == key) {
        Some(entry) => entry.1 = value,
        None => entries.push((key, value)),
    }
}

struct Parser<'a> {
    input: &'a [u8],
    at: usize,
}

impl<'a> Parser<'a> {
    fn new(input: &'a [u8]) -> Parser<'a> {
        Parser { input, at: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.input.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let b = self.peek()?;
        self.at += 1;
        Some(b)
    }

    fn take(&mut self, b: u8) -> bool {
        let there = self.peek() == Some(b);
        self.at += usize::from(there);
        there
    }

    fn at_end(&self) -> bool {
        self.at >= self.input.len()
    }

    fn invalid(&self, why: Why) -> Invalid {
        Invalid { at: self.at, why: if self.at_end() && why != Why::Trailing { Why::End } else { why } }
    }

    fn skip_spaces(&mut self) {
        while self.take(b' ') {}
    }

    fn skip_ows(&mut self) {
        while self.take(b' ') || self.take(b'\t') {}
    }

    /// After a member: whether another follows.
    fn next_member(&mut self) -> Result<bool, Invalid> {
        self.skip_ows();
        if self.at_end() {
            return Ok(false);
        }
        if !self.take(b',') {
            return Err(self.invalid(Why::Trailing));
        }
        self.skip_ows();
        if self.at_end() { Err(self.invalid(Why::Trailing)) } else { Ok(true) }
    }

    fn member(&mut self) -> Result<Member, Invalid> {
        if self.peek() == Some(b'(') {
            self.inner_list().map(Member::InnerList)
        } else {
            self.item().map(Member::Item)
        }
    }

    fn inner_list(&mut self) -> Result<InnerList, Invalid> {
        self.at += 1;
        let mut items = Vec::new();
        loop {
            self.skip_spaces();
            if self.take(b')') {
                return Ok(InnerList { items, parameters: self.parameters()? });
            }
            items.push(self.item()?);
            if !matches!(self.peek(), Some(b' ' | b')')) {
                return Err(self.invalid(Why::InnerList));
            }
        }
    }

    fn item(&mut self) -> Result<Item, Invalid> {
        let value = self.bare_item()?;
        Ok(Item { value, parameters: self.parameters()? })
    }

    fn parameters(&mut self) -> Result<Parameters, Invalid> {
        let mut parameters = Vec::new();
        while self.take(b';') {
            self.skip_spaces();
            let key = self.key()?;
            let value = if self.take(b'=') { self.bare_item()? } else { BareItem::Boolean(true) };
            put(&mut parameters, key, value);
        }
        Ok(Parameters(parameters))
    }

    fn key(&mut self) -> Result<String, Invalid> {
        let start = self.at;
        if !self.peek().is_some_and(|b| b.is_ascii_lowercase() || b == b'*') {
            return Err(self.invalid(Why::Key));
        }
        while self.peek().is_some_and(is_key_octet) {
            self.at += 1;
        }
        Ok(self.text(start))
    }

    /// The ASCII octets from `start` to here.
    fn text(&self, start: usize) -> String {
        String::from_utf8_lossy(&self.input[start..self.at]).into_owned()
    }

    fn bare_item(&mut self) -> Result<BareItem, Invalid> {
        match self.peek() {
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'"') => self.string().map(BareItem::String),
            Some(b'*' | b'a'..=b'z' | b'A'..=b'Z') => Ok(self.token()),
            Some(b':') => self.bytes(),
            Some(b'?') => self.boolean(),
            Some(b'@') => self.date(),
            Some(b'%') => self.display_string(),
            _ => Err(self.invalid(Why::Item)),
        }
    }

    fn number(&mut self) -> Result<BareItem, Invalid> {
        let sign = if self.take(b'-') { -1 } else { 1 };
        let (whole, digits) = self.digits(15)?;
        if digits == 0 {
            return Err(self.invalid(Why::Number));
        }
        if self.peek() != Some(b'.') {
            return Ok(BareItem::Integer(sign * whole));
        }
        if digits > 12 {
            return Err(self.invalid(Why::Number));
        }
        self.at += 1;
        let (fraction, digits) = self.digits(3)?;
        let scale = match digits {
            1 => 100,
            2 => 10,
            3 => 1,
            _ => return Err(self.invalid(Why::Number)),
        };
        Ok(BareItem::Decimal(Decimal { thousandths: sign * (whole * 1000 + fraction * scale) }))
    }

    /// A run of at most `most` digits, and how many there were.
    fn digits(&mut self, most: usize) -> Result<(i64, usize), Invalid> {
        let (mut n, start) = (0, self.at);
        while let Some(b @ b'0'..=b'9') = self.peek() {
            if self.at - start == most {
                return Err(self.invalid(Why::Number));
            }
            n = n * 10 + i64::from(b - b'0');
            self.at += 1;
        }
        Ok((n, self.at - start))
    }

    fn string(&mut self) -> Result<String, Invalid> {
        self.at += 1;
        let mut out = String::new();
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    self.at += 1;
                    match self.peek() {
                        Some(b @ (b'"' | b'\\')) => out.push(char::from(b)),
                        _ => return Err(self.invalid(Why::String)),
                    }
                }
                Some(b @ 0x20..=0x7e) => out.push(char::from(b)),
                _ => return Err(self.invalid(Why::String)),
            }
            self.at += 1;
        }
    }

    fn token(&mut self) -> BareItem {
        let start = self.at;
        while self.peek().is_some_and(is_token_octet) {
            self.at += 1;
        }
        BareItem::Token(self.text(start))
    }

    fn bytes(&mut self) -> Result<BareItem, Invalid> {
        self.at += 1;
        let start = self.at;
        let length = memchr::memchr(b':', &self.input[start..])
            .ok_or(Invalid { at: self.input.len(), why: Why::End })?;
        let bytes = BASE64.decode(&self.input[start..start + length]);
        let bytes = bytes.map_err(|_| Invalid { at: start, why: Why::Bytes })?;
        self.at = start + length + 1;
        Ok(BareItem::Bytes(bytes))
    }

    fn boolean(&mut self) -> Result<BareItem, Invalid> {
        self.at += 1;
        match self.peek() {
            Some(b @ (b'0' | b'1')) => {
                self.at += 1;
                Ok(BareItem::Boolean(b == b'1'))
            }
            _ => Err(self.invalid(Why::Boolean)),
        }
    }

    fn date(&mut self) -> Result<BareItem, Invalid> {
        self.at += 1;
        match self.number()? {
            BareItem::Integer(seconds) => Ok(BareItem::Date(seconds)),
            _ => Err(Invalid { at: self.at, why: Why::Date }),
        }
    }

    fn display_string(&mut self) -> Result<BareItem, Invalid> {
        let start = self.at;
        self.at += 1;
        if !self.take(b'"') {
            return Err(self.invalid(Why::DisplayString));
        }
        let mut out = Vec::new();
        loop {
            let at = self.at;
            match self.next() {
                Some(b'"') => break,
                Some(b'%') => match (self.next().and_then(lower_hex), self.next().and_then(lower_hex)) {
                    (Some(high), Some(low)) => out.push(high << 4 | low),
                    _ => return Err(Invalid { at, why: Why::DisplayString }),
                },
                Some(b @ 0x20..=0x7e) => out.push(b),
                Some(_) => return Err(Invalid { at, why: Why::DisplayString }),
                None => return Err(Invalid { at, why: Why::End }),
            }
        }
        String::from_utf8(out)
            .map(BareItem::DisplayString)
            .map_err(|_| Invalid { at: start, why: Why::DisplayString })
    }
}

fn is_key_octet(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'.' | b'*')
}

fn is_token_octet(b: u8) -> bool {
    crate::grammar::is_tchar(b) || b == b':' || b == b'/'
}

/// Upper-case digits are refused in display strings (RFC 9651 §4.2.10).
fn lower_hex(b: u8) -> Option<u8> {
    if b.is_ascii_uppercase() { None } else { crate::grammar::hex_digit(b) }
}

/// Appends a list (RFC 9651 §4.1.1).
///
/// # Errors
/// If a key, token, string or number cannot be written; `out` then holds a part of it.
pub fn write_list(out: &mut Vec<u8>, list: &List) -> Result<(), Why> {
    for (i, member) in list.0.iter().enumerate() {
        if i > 0 {
            out.extend_from_slice(b", ");
        }
        write_member(out, member)?;
    }
    Ok(())
}

/// Appends a dictionary (RFC 9651 §4.1.2).
///
/// # Errors
/// As [`write_list`].
pub fn write_dictionary(out: &mut Vec<u8>, dictionary: &Dictionary) -> Result<(), Why> {
    for (i, (key, member)) in dictionary.0.iter().enumerate() {
        if i > 0 {
            out.extend_from_slice(b", ");
        }
        write_key(out, key)?;
        match member {
            Member::Item(item) if item.value.is_true() => write_parameters(out, &item.parameters)?,
            member => {
                out.push(b'=');
                write_member(out, member)?;
            }
        }
    }
    Ok(())
}

/// Appends an item (RFC 9651 §4.1.3).
///
/// # Errors
/// As [`write_list`].
pub fn write_item(out: &mut Vec<u8>, item: &Item) -> Result<(), Why> {
    write_bare(out, &item.value)?;
    write_parameters(out, &item.parameters)
}

fn write_member(out: &mut Vec<u8>, member: &Member) -> Result<(), Why> {
    match member {
        Member::Item(item) => write_item(out, item),
        Member::InnerList(list) => {
            out.push(b'(');
            for (i, item) in list.items.iter().enumerate() {
                if i > 0 {
                    out.push(b' ');
                }
                write_item(out, item)?;
            }
            out.push(b')');
            write_parameters(out, &list.parameters)
        }
    }
}

/// Appends parameters, each with its `;`.
///
/// # Errors
/// As [`write_list`].
pub fn write_parameters(out: &mut Vec<u8>, parameters: &Parameters) -> Result<(), Why> {
    for (key, value) in &parameters.0 {
        out.push(b';');
        write_key(out, key)?;
        if !value.is_true() {
            out.push(b'=');
            write_bare(out, value)?;
        }
    }
    Ok(())
}

fn write_key(out: &mut Vec<u8>, key: &str) -> Result<(), Why> {
    let starts = key.as_bytes().first().is_some_and(|&b| b.is_ascii_lowercase() || b == b'*');
    if !starts || !key.bytes().all(is_key_octet) {
        return Err(Why::Key);
    }
    out.extend_from_slice(key.as_bytes());
    Ok(())
}

/// Appends a bare item (RFC 9651 §4.1.3.1).
///
/// # Errors
/// If it cannot be written.
pub fn write_bare(out: &mut Vec<u8>, value: &BareItem) -> Result<(), Why> {
    match value {
        BareItem::Integer(n) => write_integer(out, *n, Why::Number)?,
        BareItem::Decimal(d) => write_decimal(out, *d)?,
        BareItem::String(text) => {
            if !text.bytes().all(|b| matches!(b, 0x20..=0x7e)) {
                return Err(Why::String);
            }
            crate::grammar::push_quoted(out, text.as_bytes());
        }
        BareItem::Token(text) => {
            let starts = text.as_bytes().first().is_some_and(|&b| b.is_ascii_alphabetic() || b == b'*');
            if !starts || !text.bytes().all(is_token_octet) {
                return Err(Why::Token);
            }
            out.extend_from_slice(text.as_bytes());
        }
        BareItem::Bytes(bytes) => {
            out.push(b':');
            out.extend_from_slice(BASE64.encode(bytes).as_bytes());
            out.push(b':');
        }
        BareItem::Boolean(b) => out.extend_from_slice(if *b { b"?1" } else { b"?0" }),
        BareItem::Date(seconds) => {
            out.push(b'@');
            write_integer(out, *seconds, Why::Date)?;
        }
        BareItem::DisplayString(text) => {
            out.extend_from_slice(b"%\"");
            for b in text.bytes() {
                if matches!(b, 0x20..=0x7e) && b != b'%' && b != b'"' {
                    out.push(b);
                } else {
                    const HEX: &[u8; 16] = b"0123456789abcdef";
                    out.extend_from_slice(&[b'%', HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
                }
            }
            out.push(b'"');
        }
    }
    Ok(())
}

fn write_integer(out: &mut Vec<u8>, n: i64, why: Why) -> Result<(), Why> {
    if !(-INTEGER_MAX..=INTEGER_MAX).contains(&n) {
        return Err(why);
    }
    if n < 0 {
        out.push(b'-');
    }
    crate::grammar::push_decimal(out, n.unsigned_abs());
    Ok(())
}

fn write_decimal(out: &mut Vec<u8>, d: Decimal) -> Result<(), Why> {
    if d.thousandths.unsigned_abs() > INTEGER_MAX as u64 {
        return Err(Why::Number);
    }
    if d.thousandths < 0 {
        out.push(b'-');
    }
    let magnitude = d.thousandths.unsigned_abs();
    crate::grammar::push_decimal(out, magnitude / 1000);
    let fraction = format!(".{:03}", magnitude % 1000);
    let kept = fraction.trim_end_matches('0');
    out.extend_from_slice(if kept == "." { b".0" } else { kept.as_bytes() });
    Ok(())
}

#[cfg(test)]
mod tests;
