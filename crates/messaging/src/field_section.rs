//! Field lines (RFC 9112 §5) and the line ends between them (§2.2): one reader for header sections and trailer
//! sections, requests and responses.

use crate::error::Malformed;
use eleven_semantics::Fields;
use eleven_semantics::grammar;
use eleven_semantics::names::{self, Known};

/// The line that begins at `at`, without its CRLF, and where the next one begins; `None` if its end has not
/// come yet.
///
/// # Errors
/// [`Malformed::BareLf`].
#[inline]
pub fn line(input: &[u8], at: usize) -> Result<Option<(&[u8], usize)>, Malformed> {
    line_from(input, at, at)
}

/// As [`line()`], where the octets before `searched` are known to hold no LF.
///
/// # Errors
/// As [`line()`].
#[inline]
pub fn line_from(input: &[u8], at: usize, searched: usize) -> Result<Option<(&[u8], usize)>, Malformed> {
    let Some(found) = memchr::memchr(b'\n', &input[searched..]) else { return Ok(None) };
    let lf = searched + found;
    if lf == at || input[lf - 1] != b'\r' {
        return Err(Malformed::BareLf);
    }
    Ok(Some((&input[at..lf - 1], lf + 1)))
}

/// Name and value of a field line, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldLine<'a> {
    /// A token.
    pub name: &'a [u8],
    /// Without surrounding white space; no controls.
    pub value: &'a [u8],
}

/// Reads one non-empty field line.
///
/// # Errors
/// The first rule broken.
#[inline]
pub fn field_line(line: &[u8]) -> Result<FieldLine<'_>, Malformed> {
    let mut colon = 0;
    while colon < line.len() && grammar::is_tchar(line[colon]) {
        colon += 1;
    }
    if line.get(colon) != Some(&b':') || colon == 0 {
        return Err(name_fault(line, colon));
    }
    let value = grammar::trim_ows(&line[colon + 1..]);
    check_value(value)?;
    Ok(FieldLine { name: &line[..colon], value })
}

/// Checks the octets of a field value (9110-5.5-04).
///
/// # Errors
/// [`Malformed::BareCr`] or [`Malformed::FieldValue`].
#[inline]
pub fn check_value(value: &[u8]) -> Result<(), Malformed> {
    if grammar::is_field_value(value) {
        Ok(())
    } else {
        Err(if value.contains(&b'\r') { Malformed::BareCr } else { Malformed::FieldValue })
    }
}

#[cold]
fn name_fault(line: &[u8], at: usize) -> Malformed {
    match line.get(at) {
        Some(b' ' | b'\t') if at == 0 => Malformed::ObsFold,
        Some(b' ' | b'\t') if grammar::trim_ows(&line[at..]).first() == Some(&b':') => {
            Malformed::SpaceBeforeColon
        }
        Some(b'\r') => Malformed::BareCr,
        _ => Malformed::FieldName,
    }
}

/// Adds a checked field line to a section, in one copy where it already reads as we would write it.
///
/// `whole` is the line with its CRLF.
#[inline]
pub fn append(fields: &mut Fields, whole: &[u8], line: FieldLine<'_>, known: Option<Known>) {
    let canonical =
        whole.len() == line.name.len() + line.value.len() + 4 && whole[line.name.len() + 1] == b' ';
    if canonical {
        fields.append_parsed_line(whole, line.name.len(), known);
    } else {
        fields.append_parsed(line.name, line.value, known);
    }
}

/// Whether a received line is left out of its section: its name would read as a framing or connection field
/// to whatever maps `_` and `-` to the same (fault S17).
#[inline]
pub fn is_dropped(name: &[u8], known: Option<Known>, keep_underscore_names: bool) -> bool {
    known.is_none() && !keep_underscore_names && names::collides_by_underscore(name)
}
