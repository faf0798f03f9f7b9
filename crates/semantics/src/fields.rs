//! A field section (RFC 9110 §5): field lines in the order received, names in the case received, repetitions
//! kept, in one buffer.
//!
//! The buffer holds the lines as a sender writes them (`Name: value CRLF`), so writing a section out is one
//! copy, whether it was received, built here, or stored. Every octet in it is valid: nothing that could end a
//! line early can get in (9112-11.1-R1).

use crate::grammar;
use crate::names::Known;
use std::borrow::Cow;

/// An ordered list of field lines.
#[derive(Clone, Default)]
pub struct Fields {
    wire: Vec<u8>,
    lines: Vec<Line>,
    present: u128,
}

#[derive(Clone, Copy)]
struct Line {
    at: u32,
    name_len: u32,
    value_len: u32,
    known: Option<Known>,
}

impl Line {
    fn end(&self) -> usize {
        self.value_end() + 2
    }
    fn value_at(&self) -> usize {
        self.at as usize + self.name_len as usize + 2
    }
    fn value_end(&self) -> usize {
        self.value_at() + self.value_len as usize
    }
}

/// One field line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name as received or set.
    pub name: &'a [u8],
    /// The value without surrounding white space.
    pub value: &'a [u8],
    /// The row of the table of known fields, if it has one.
    pub known: Option<Known>,
}

/// Why a field line could not be added. A wrong call, not a fault of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidField {
    /// The name is empty or not a token (RFC 9110 §5.1).
    Name,
    /// The value holds CR, LF, NUL or another control (RFC 9110 §5.5), or white space at an end.
    Value,
    /// The section would pass 4 GiB.
    TooLarge,
}

impl std::fmt::Display for InvalidField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            InvalidField::Name => "field name is not a token",
            InvalidField::Value => "field value holds a control character or outer white space",
            InvalidField::TooLarge => "field section is too large",
        })
    }
}

impl std::error::Error for InvalidField {}

/// All lines of a field that may have only one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Only<'a> {
    /// No line.
    Absent,
    /// Exactly one line, with this value.
    One(&'a [u8]),
    /// Several lines: what that means is for the field's rule to say.
    Several,
}

impl<'a> Only<'a> {
    /// The value if there is exactly one line.
    pub fn one(self) -> Option<&'a [u8]> {
        if let Only::One(value) = self { Some(value) } else { None }
    }
}

/// A field name in a call: a [`Known`] field, or text compared without regard to case.
pub trait Name: Copy {
    /// The octets of the name.
    fn octets(&self) -> &[u8];
    /// The known field it is, if any.
    fn known(&self) -> Option<Known>;
}

impl Name for Known {
    fn octets(&self) -> &[u8] {
        self.name().as_bytes()
    }
    fn known(&self) -> Option<Known> {
        Some(*self)
    }
}

impl Name for &str {
    fn octets(&self) -> &[u8] {
        self.as_bytes()
    }
    fn known(&self) -> Option<Known> {
        Known::lookup(self.as_bytes())
    }
}

impl Name for &[u8] {
    fn octets(&self) -> &[u8] {
        self
    }
    fn known(&self) -> Option<Known> {
        Known::lookup(self)
    }
}

impl Fields {
    /// An empty section. Allocates nothing.
    pub const fn new() -> Fields {
        Fields { wire: Vec::new(), lines: Vec::new(), present: 0 }
    }

    /// An empty section with room for `octets` of lines.
    pub fn with_capacity(octets: usize) -> Fields {
        Fields { wire: Vec::with_capacity(octets), lines: Vec::with_capacity(octets / 32), present: 0 }
    }

    /// Removes all lines, keeping the memory for the next message.
    pub fn clear(&mut self) {
        self.wire.clear();
        self.lines.clear();
        self.present = 0;
    }

    /// Number of lines.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// No line at all.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The section as a sender writes it, each line with its CRLF, without the closing empty line.
    pub fn wire(&self) -> &[u8] {
        &self.wire
    }

    /// Octets of memory held, for accounting.
    pub fn memory_bytes(&self) -> usize {
        self.wire.capacity() + self.lines.capacity() * size_of::<Line>()
    }

    fn field(&self, line: &Line) -> Field<'_> {
        let at = line.at as usize;
        Field {
            name: &self.wire[at..at + line.name_len as usize],
            value: &self.wire[line.value_at()..line.value_end()],
            known: line.known,
        }
    }

    /// All lines in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Field<'_>> + Clone {
        self.lines.iter().map(|line| self.field(line))
    }

    fn matches(&self, line: &Line, name: &[u8], known: Option<Known>) -> bool {
        match known {
            Some(_) => line.known == known,
            None => line.known.is_none() && self.field(line).name.eq_ignore_ascii_case(name),
        }
    }

    /// Whether any line has this name. Constant time for known fields.
    #[inline]
    pub fn contains(&self, name: impl Name) -> bool {
        match name.known() {
            Some(known) => self.present & known.mask() != 0,
            None => self.lines.iter().any(|line| self.matches(line, name.octets(), None)),
        }
    }

    /// Whether any line has one of these names. Constant time.
    #[inline]
    pub fn contains_any(&self, names: &[Known]) -> bool {
        names.iter().fold(0, |mask, known| mask | known.mask()) & self.present != 0
    }

    /// The values of all lines of this name, in order.
    pub fn all<'a, N: Name>(&'a self, name: N) -> impl Iterator<Item = &'a [u8]> + use<'a, N> {
        let known = name.known();
        let skip = known.is_some_and(|known| self.present & known.mask() == 0);
        // Unknown names are rare and compared as text; the name is copied so that the iterator owns it.
        let text: Option<Box<[u8]>> = if known.is_none() { Some(name.octets().into()) } else { None };
        let lines = if skip { &[][..] } else { &self.lines[..] };
        lines
            .iter()
            .filter(move |line| match &text {
                None => line.known == known,
                Some(text) => self.matches(line, text, None),
            })
            .map(|line| self.field(line).value)
    }

    /// The value of the first line of this name. For fields where all lines matter use [`Fields::only`],
    /// [`Fields::all`] or [`Fields::list`].
    pub fn get(&self, name: impl Name) -> Option<&[u8]> {
        let known = name.known();
        if known.is_some_and(|known| self.present & known.mask() == 0) {
            return None;
        }
        self.lines
            .iter()
            .find(|line| self.matches(line, name.octets(), known))
            .map(|line| self.field(line).value)
    }

    /// The value of a field that may have one line only, or that there are several.
    pub fn only(&self, name: impl Name) -> Only<'_> {
        let mut lines = self.all(name);
        match (lines.next(), lines.next()) {
            (None, _) => Only::Absent,
            (Some(value), None) => Only::One(value),
            _ => Only::Several,
        }
    }

    /// The members of a list-based field, over all of its lines in order (RFC 9110 §5.6.1).
    pub fn list<'a, N: Name>(&'a self, name: N) -> impl Iterator<Item = &'a [u8]> + use<'a, N> {
        self.all(name).flat_map(grammar::list)
    }

    /// Whether a list-based field has this member, compared without regard to case.
    pub fn has_member(&self, name: impl Name, member: &str) -> bool {
        self.list(name).any(|m| m.eq_ignore_ascii_case(member.as_bytes()))
    }

    /// All lines of a list-based field as one value, joined by `, ` (RFC 9110 §5.3). Not for Set-Cookie.
    pub fn combined<'a, N: Name>(&'a self, name: N) -> Option<Cow<'a, [u8]>> {
        let mut lines = self.all(name);
        let first = lines.next()?;
        let Some(second) = lines.next() else { return Some(Cow::Borrowed(first)) };
        let mut joined = first.to_vec();
        for value in std::iter::once(second).chain(lines) {
            joined.extend_from_slice(b", ");
            joined.extend_from_slice(value);
        }
        Some(Cow::Owned(joined))
    }

    /// Adds a line at the end.
    ///
    /// # Errors
    /// If the name is no token or the value holds what no field value may hold.
    pub fn push(&mut self, name: impl Name, value: impl AsRef<[u8]>) -> Result<(), InvalidField> {
        let (octets, value, known) = (name.octets(), value.as_ref(), name.known());
        // Known names are tokens.
        if known.is_none() && !grammar::is_token(octets) {
            return Err(InvalidField::Name);
        }
        let outer = [value.first(), value.last()];
        if outer.into_iter().flatten().any(|&b| grammar::is_ows(b)) || !grammar::is_field_value(value) {
            return Err(InvalidField::Value);
        }
        if self.wire.len() + octets.len() + value.len() + 4 > u32::MAX as usize {
            return Err(InvalidField::TooLarge);
        }
        self.append(octets, value, known);
        Ok(())
    }

    /// Replaces all lines of this name by one at the end.
    ///
    /// # Errors
    /// As [`Fields::push`]; then nothing is changed.
    pub fn set(&mut self, name: impl Name, value: impl AsRef<[u8]>) -> Result<(), InvalidField> {
        let before = self.lines.len();
        self.push(name, value)?;
        let (known, mut index) = (name.known(), 0);
        let octets = name.octets();
        if before > 0 {
            self.retain_lines(|fields, line| {
                index += 1;
                index > before || !fields.matches(line, octets, known)
            });
        }
        Ok(())
    }

    /// Removes all lines of this name; how many there were.
    pub fn remove(&mut self, name: impl Name) -> usize {
        if !self.contains(name) {
            return 0;
        }
        let (before, octets, known) = (self.lines.len(), name.octets(), name.known());
        self.retain_lines(|fields, line| !fields.matches(line, octets, known));
        before - self.lines.len()
    }

    /// Keeps the lines for which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(Field<'_>) -> bool) {
        self.retain_lines(|fields, line| keep(fields.field(line)));
    }

    /// Keeps the lines of known fields for which `keep` says so, and all others.
    pub fn retain_known(&mut self, keep: impl Fn(Known) -> bool) {
        self.retain_lines(|_, line| line.known.is_none_or(&keep));
    }

    /// Adds all lines of `other` at the end.
    pub fn extend(&mut self, other: &Fields) {
        let base = self.wire.len() as u32;
        self.wire.extend_from_slice(&other.wire);
        self.lines.extend(other.lines.iter().map(|line| Line { at: line.at + base, ..*line }));
        self.present |= other.present;
    }

    fn retain_lines(&mut self, mut keep: impl FnMut(&Fields, &Line) -> bool) {
        let mut kept = 0;
        // Lines that stay together move together, when the next one goes: up to here all is in place.
        let (mut write_at, mut run_at, mut read_at) = (0usize, 0usize, 0usize);
        let mut present = 0;
        for read in 0..self.lines.len() {
            let line = self.lines[read];
            let (start, end) = (line.at as usize, line.end());
            read_at = end;
            if keep(self, &line) {
                let at = (write_at + (start - run_at)) as u32;
                self.lines[kept] = Line { at, ..line };
                present |= line.known.map_or(0, Known::mask);
                kept += 1;
                continue;
            }
            self.move_run(run_at, start, write_at);
            write_at += start - run_at;
            run_at = end;
        }
        self.move_run(run_at, read_at, write_at);
        write_at += read_at - run_at;
        self.present = present;
        self.lines.truncate(kept);
        self.wire.truncate(write_at);
    }

    fn move_run(&mut self, from: usize, to: usize, write_at: usize) {
        if from != write_at && from != to {
            self.wire.copy_within(from..to, write_at);
        }
    }

    #[inline]
    fn append(&mut self, name: &[u8], value: &[u8], known: Option<Known>) {
        let at = self.wire.len() as u32;
        self.wire.reserve(name.len() + value.len() + 4);
        self.wire.extend_from_slice(name);
        self.wire.extend_from_slice(b": ");
        self.wire.extend_from_slice(value);
        self.wire.extend_from_slice(b"\r\n");
        self.note(at, name.len(), value.len(), known);
    }

    #[inline]
    fn note(&mut self, at: u32, name_len: usize, value_len: usize, known: Option<Known>) {
        if let Some(known) = known {
            self.present |= known.mask();
        }
        self.lines.push(Line { at, name_len: name_len as u32, value_len: value_len as u32, known });
    }

    /// For parsers: adds a line whose name and value were already found valid. Skips the second check.
    #[inline]
    pub fn append_parsed(&mut self, name: &[u8], value: &[u8], known: Option<Known>) {
        debug_assert!(grammar::is_token(name) && grammar::is_field_value(value));
        self.append(name, value, known);
    }

    /// For parsers: as [`Fields::append_parsed`] for a line that already reads `name: value CRLF`, in one copy.
    #[inline]
    pub fn append_parsed_line(&mut self, line: &[u8], name_len: usize, known: Option<Known>) {
        debug_assert!(line.ends_with(b"\r\n") && &line[name_len..name_len + 2] == b": ");
        let at = self.wire.len() as u32;
        self.wire.extend_from_slice(line);
        self.note(at, name_len, line.len() - name_len - 4, known);
    }
}

/// For parsers that find many lines and then copy them at once.
impl Fields {
    /// Describes a line that reads `name: value CRLF` and begins `offset` octets into the next
    /// [`Fields::append_run`]. Before that call the section is of no use, except to [`Fields::clear`].
    #[inline]
    pub fn describe_line(&mut self, offset: usize, name_len: usize, value_len: usize, known: Option<Known>) {
        self.note((self.wire.len() + offset) as u32, name_len, value_len, known);
    }

    /// Adds the octets of the lines that were described, nothing between or after them.
    #[inline]
    pub fn append_run(&mut self, lines: &[u8]) {
        self.wire.extend_from_slice(lines);
        debug_assert!(self.lines.last().is_none_or(|line| line.end() == self.wire.len()));
    }
}

impl std::fmt::Debug for Field<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Secrets never reach a log through a careless `{:?}` (fault L05).
        let secret = matches!(
            self.known,
            Some(Known::Authorization | Known::ProxyAuthorization | Known::Cookie | Known::SetCookie)
        );
        let value = if secret { Cow::Borrowed("<hidden>") } else { String::from_utf8_lossy(self.value) };
        write!(f, "{}: {}", String::from_utf8_lossy(self.name), value.escape_debug())
    }
}

impl std::fmt::Debug for Fields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for Fields {
    fn eq(&self, other: &Fields) -> bool {
        self.wire == other.wire
    }
}

impl Eq for Fields {}

impl<'a, N: Name + 'a, V: AsRef<[u8]> + 'a> FromIterator<&'a (N, V)> for Fields {
    /// For tables in code and tests.
    ///
    /// # Panics
    /// If a pair is not a valid field.
    fn from_iter<I: IntoIterator<Item = &'a (N, V)>>(pairs: I) -> Fields {
        let mut fields = Fields::new();
        for (name, value) in pairs {
            fields.push(*name, value).expect("a valid field in a literal table");
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        pairs.iter().collect()
    }

    #[test]
    fn order_case_and_repetition_are_kept() {
        let f = fields(&[("x-B", "1"), ("Accept", "a"), ("X-b", "2"), ("accept", "b, c")]);
        assert_eq!(f.wire(), b"x-B: 1\r\nAccept: a\r\nX-b: 2\r\naccept: b, c\r\n");
        assert_eq!(f.all("X-B").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!(f.list(Known::Accept).collect::<Vec<_>>(), [b"a", b"b", b"c"]);
        assert_eq!(f.combined(Known::Accept).unwrap().as_ref(), b"a, b, c");
        assert_eq!(f.only(Known::Accept), Only::Several);
        assert_eq!(f.only("x-c"), Only::Absent);
        assert!(f.has_member(Known::Accept, "C"));
    }

    #[test]
    fn removing_and_setting_keep_the_rest_in_order() {
        let mut f = fields(&[("A", "1"), ("Host", "h"), ("B", "2"), ("A", "3")]);
        assert_eq!(f.remove("a"), 2);
        assert_eq!(f.wire(), b"Host: h\r\nB: 2\r\n");
        f.set(Known::Host, "other").unwrap();
        assert_eq!(f.wire(), b"B: 2\r\nHost: other\r\n");
        assert_eq!(f.get(Known::Host), Some(&b"other"[..]));
        assert_eq!(f.remove(Known::Host), 1);
        assert!(!f.contains(Known::Host));
        assert_eq!(f.remove(Known::Host), 0);
        f.retain(|_| false);
        assert!(f.is_empty() && f.wire().is_empty());
    }

    /// 9112-11.1-R1, faults R21 and H22: nothing that could split a message gets in.
    #[test]
    fn invalid_lines_are_refused_and_change_nothing() {
        let mut f = fields(&[("Host", "h")]);
        for name in ["", "a b", "a:", "a\r\n", "ä", "a\0"] {
            assert_eq!(f.push(name, "v"), Err(InvalidField::Name), "{name:?}");
        }
        for value in ["a\r\nb: c", "a\nb", "a\rb", "a\0b", "\x0b", "\x7f", " a", "a ", "\ta"] {
            assert_eq!(f.push("X", value), Err(InvalidField::Value), "{value:?}");
            assert_eq!(f.set(Known::Host, value), Err(InvalidField::Value), "{value:?}");
        }
        assert_eq!(f.wire(), b"Host: h\r\n");
        f.push("X", "").unwrap();
        f.push("X", [0x80, 0xff]).unwrap();
        assert_eq!(f.len(), 3);
    }

    #[test]
    fn secrets_are_hidden_in_debug_output() {
        let f = fields(&[("Authorization", "Basic c2VjcmV0"), ("Cookie", "sid=secret"), ("X", "plain")]);
        let text = format!("{f:?}");
        assert!(!text.contains("c2VjcmV0") && !text.contains("sid") && text.contains("plain"), "{text}");
    }

    #[test]
    fn extending_moves_every_line() {
        let mut f = fields(&[("A", "1")]);
        f.extend(&fields(&[("Host", "h"), ("B", "2")]));
        assert_eq!(f.wire(), b"A: 1\r\nHost: h\r\nB: 2\r\n");
        assert_eq!(f.get("b"), Some(&b"2"[..]));
        assert!(f.contains(Known::Host));
    }
}
