//! With `--continue`, a name that is taken already: whether what has it is what the server has. An octet behind its end
//! is asked for; that there is none (416, RFC 9110 §15.5.17), and where there is more to compare, times and digests,
//! say that it is complete. Nothing is ever added to such a file: who wrote it, and of what, nobody knows.

use crate::agent::{Agent, Ask, Response};
use crate::error::{Cause, Failure};
use crate::partial::{Directory, Present};
use crate::verify::{Promises, Running};
use eleven_semantics::date::HttpDate;
use eleven_semantics::range::ContentRange;
use eleven_semantics::{Fields, Known, Status};
use std::sync::Arc;

/// What came of the comparison.
pub(super) enum Found {
    /// It is the same, and proven by these digests if by any.
    Same(Vec<&'static str>),
    /// It is another: what speaks against it.
    Other(String),
    /// The server would not say: its status.
    Refused(u16),
}

/// Compares with the digest that the user gave: no server knows better.
pub(super) async fn by_digest(
    directory: &Directory,
    name: &str,
    promises: &Promises,
) -> Result<Found, Failure> {
    let file = Arc::new(directory.read(name)?);
    let made = Running::new(promises.algorithms()).finish(file).await?;
    match promises.check(&made) {
        Ok(kept) => Ok(Found::Same(kept)),
        Err(Failure { cause: Cause::Digest(text), .. }) => Ok(Found::Other(text)),
        Err(failure) => Err(failure),
    }
}

/// Asks the server, by a request for what is behind the file's last octet.
pub(super) async fn by_asking(
    agent: &Agent,
    mut ask: Ask,
    directory: &Directory,
    name: &str,
    present: Present,
) -> Result<(Response, Found), Failure> {
    if present.bytes > 0 {
        super::asks::add_range(&mut ask, present.bytes, None, None)?;
    }
    let response = agent.send(ask).await?;
    let found = judge(&response, directory, name, present).await?;
    Ok((response, found))
}

/// The end of a sentence about a file whose length is another.
fn lengths(here: u64, there: u64) -> String {
    match there {
        there if there > here => {
            format!("the server's has {there}, and nothing proves that these are its beginning")
        }
        there => format!("the server's has {there}"),
    }
}

async fn judge(
    response: &Response,
    directory: &Directory,
    name: &str,
    present: Present,
) -> Result<Found, Failure> {
    let head = response.head();
    let range = head.fields.only(Known::ContentRange).one().map(ContentRange::parse);
    let length = match (head.status, range) {
        (Status::RANGE_NOT_SATISFIABLE, Some(Ok(ContentRange::Unsatisfied { complete }))) => Some(complete),
        (Status::RANGE_NOT_SATISFIABLE, _) => None,
        (Status::PARTIAL_CONTENT, Some(Ok(ContentRange::Part { complete, .. }))) => complete,
        (Status::PARTIAL_CONTENT, _) => None,
        (status, _) if (200..300).contains(&status.code()) => {
            return whole(&head.fields, head.framing.content_length(), directory, name, present).await;
        }
        (status, _) => return Ok(Found::Refused(status.code())),
    };
    Ok(match length {
        Some(length) if length != present.bytes => Found::Other(lengths(present.bytes, length)),
        None => Found::Other("the server does not say how long its file is".into()),
        Some(_) if is_newer(&head.fields, present) => Found::Other(NEWER.into()),
        Some(_) => Found::Same(Vec::new()),
    })
}

const NEWER: &str = "the server's was modified later";

/// Compares with a response that would be all of the server's file.
pub(super) async fn whole(
    fields: &Fields,
    length: Option<u64>,
    directory: &Directory,
    name: &str,
    present: Present,
) -> Result<Found, Failure> {
    let coded = fields.list(Known::ContentEncoding).any(|c| !c.eq_ignore_ascii_case(b"identity"));
    match length.filter(|_| !coded) {
        None => return Ok(Found::Other("the server does not say how long its file is".into())),
        Some(length) if length != present.bytes => return Ok(Found::Other(lengths(present.bytes, length))),
        Some(_) if is_newer(fields, present) => return Ok(Found::Other(NEWER.into())),
        Some(_) => {}
    }
    let mut promises = Promises::default();
    promises.add(fields, true)?;
    if promises.is_empty() {
        Ok(Found::Same(Vec::new()))
    } else {
        by_digest(directory, name, &promises).await
    }
}

/// Whether the server's file was modified after this one was written (to the second: a file system's clock and a
/// server's differ by fractions).
pub(super) fn is_newer(fields: &Fields, present: Present) -> bool {
    modified(fields).is_some_and(|modified| modified.0 > present.modified_seconds)
}

/// When the server's file was modified.
pub(super) fn modified(fields: &Fields) -> Option<HttpDate> {
    let value = fields.only(Known::LastModified).one()?;
    HttpDate::parse(value, HttpDate(eleven_net::clock::unix_seconds()))
}
