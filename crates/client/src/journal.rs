//! The journal beside a partial download: what is being fetched, by which validator, and which octets are
//! safely on disk. A later run trusts it and nothing else.
//!
//! Text, one record a line, each with a check value; appended, never rewritten. The caller syncs the data
//! *before* it appends what was received, and syncs the journal after. So a `kill -9` or a power cut at any
//! moment leaves at worst a torn last line, which is ignored, and octets that are fetched again. Pure: makes
//! and reads text.

use crate::segments::RangeSet;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Longest journal that is read, in octets. Beyond it the download begins again.
pub const JOURNAL_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Ranges of one record at most.
const RANGES_MAX: usize = 4096;

/// The first record: what the partial file is a part of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The URI that was asked for, without userinfo.
    pub uri: String,
    /// The strong entity tag, as it stood in ETag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// Last-Modified, as it stood, if it is a strong validator (RFC 9110 §8.8.2.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_modified: Option<String>,
    /// The complete length, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// Repr-Digest, as it stood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repr_digest: Option<String>,
}

impl Subject {
    /// The value of If-Range: the strong tag, else the strong date (9110-13.1.5-04, 9110-13.1.5-05).
    pub fn if_range(&self) -> Option<&str> {
        self.etag.as_deref().or(self.last_modified.as_deref())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Record {
    Eleven(u32),
    Subject(Subject),
    Done(Vec<(u64, u64)>),
}

const VERSION: u32 = 1;

/// What a journal says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journal {
    /// What is being fetched.
    pub subject: Subject,
    /// The octets on disk.
    pub done: RangeSet,
    /// How much of the text was sound: later records are appended there.
    pub sound_bytes: u64,
}

/// Why a journal cannot be used. The download then begins again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// Not a journal, or its first records are torn.
    NotAJournal,
    /// Of a version that is not known here.
    Version(u32),
    /// Longer than [`JOURNAL_BYTES_MAX`].
    TooLong,
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unusable::NotAJournal => f.write_str("it is no journal of a download"),
            Unusable::Version(version) => write!(f, "it has version {version}; this program knows {VERSION}"),
            Unusable::TooLong => write!(f, "it is longer than {JOURNAL_BYTES_MAX} octets"),
        }
    }
}

/// The text of a new journal, with what is already on disk.
pub fn begin(subject: &Subject, done: &RangeSet) -> String {
    let mut text = line(&Record::Eleven(VERSION));
    text.push_str(&line(&Record::Subject(subject.clone())));
    if done.total() > 0 {
        text.push_str(&append(done));
    }
    text
}

/// The record to append when `done` is safely on disk.
pub fn append(done: &RangeSet) -> String {
    line(&Record::Done(done.ranges().to_vec()))
}

fn line(record: &Record) -> String {
    // Serialising these records cannot fail: no maps with odd keys, no floats.
    let text = serde_json::to_string(record).unwrap_or_default();
    format!("{} {text}\n", check(text.as_bytes()))
}

/// The first eight octets of SHA-256, in hexadecimal.
fn check(text: &[u8]) -> String {
    Sha256::digest(text)[..8].iter().map(|b| format!("{b:02x}")).collect()
}

/// Reads a journal. Everything from the first torn or foreign line on is ignored; the last good record of the
/// octets counts.
///
/// # Errors
/// Why nothing in it can be trusted.
pub fn read(text: &[u8]) -> Result<Journal, Unusable> {
    if text.len() > JOURNAL_BYTES_MAX {
        return Err(Unusable::TooLong);
    }
    let mut sound_bytes = 0u64;
    let mut records = text.split_inclusive(|&b| b == b'\n').map_while(|line| {
        let record = read_line(line)?;
        Some((record, line.len() as u64))
    });
    let mut next = || {
        let (record, length) = records.next()?;
        sound_bytes += length;
        Some(record)
    };
    match next() {
        Some(Record::Eleven(VERSION)) => {}
        Some(Record::Eleven(other)) => return Err(Unusable::Version(other)),
        _ => return Err(Unusable::NotAJournal),
    }
    let Some(Record::Subject(subject)) = next() else { return Err(Unusable::NotAJournal) };
    let mut done = RangeSet::new();
    // A record of another kind here is nothing this program wrote; what follows it is not trusted either.
    while let Some(Record::Done(ranges)) = next() {
        if ranges.len() > RANGES_MAX {
            break;
        }
        let mut set = RangeSet::new();
        for (start, end) in ranges {
            set.insert(start, end.min(subject.length.unwrap_or(u64::MAX)));
        }
        done = set;
    }
    Ok(Journal { subject, done, sound_bytes })
}

fn read_line(line: &[u8]) -> Option<Record> {
    let line = line.strip_suffix(b"\n")?;
    let (sum, text) = (line.get(..16)?, line.get(17..)?);
    if line[16] != b' ' || sum != check(text).as_bytes() {
        return None;
    }
    serde_json::from_slice(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> Subject {
        Subject {
            uri: "http://h/x".into(),
            etag: Some("\"v1\"".into()),
            last_modified: None,
            length: Some(1000),
            repr_digest: None,
        }
    }

    fn set(ranges: &[(u64, u64)]) -> RangeSet {
        let mut set = RangeSet::new();
        ranges.iter().for_each(|&(start, end)| set.insert(start, end));
        set
    }

    fn sample() -> String {
        let mut text = begin(&subject(), &RangeSet::new());
        text.push_str(&append(&set(&[(0, 100)])));
        text.push_str(&append(&set(&[(0, 300), (500, 600)])));
        text
    }

    #[test]
    fn written_and_read() {
        let journal = read(sample().as_bytes()).unwrap();
        let sound_bytes = sample().len() as u64;
        assert_eq!(journal, Journal { subject: subject(), done: set(&[(0, 300), (500, 600)]), sound_bytes });
        let torn = format!("{}0123", sample());
        assert_eq!(read(torn.as_bytes()).unwrap(), journal, "a torn end is not built upon");
        assert_eq!(journal.subject.if_range(), Some("\"v1\""));
        let resumed = begin(&journal.subject, &journal.done);
        assert_eq!(read(resumed.as_bytes()).unwrap().done, journal.done);
        let dated = Subject { etag: None, last_modified: Some("Sun".into()), ..subject() };
        assert_eq!(dated.if_range(), Some("Sun"));
    }

    /// A cut at any octet leaves an older truth, never a wrong one.
    /// Fault F22.
    #[test]
    fn torn_at_any_octet() {
        let text = sample();
        let mut last = 0;
        for end in 0..=text.len() {
            let total = match read(&text.as_bytes()[..end]) {
                Ok(journal) => {
                    assert_eq!(journal.subject, subject());
                    journal.done.total()
                }
                Err(why) => {
                    assert_eq!(why, Unusable::NotAJournal);
                    0
                }
            };
            assert!(total >= last && [0, 100, 400].contains(&total), "{end}: {total}");
            last = total;
        }
        assert_eq!(last, 400);
    }

    /// A flipped bit anywhere never adds octets.
    #[test]
    fn damaged_at_any_octet() {
        let text = sample();
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            if let Ok(journal) = read(&bytes) {
                assert_eq!(journal.subject, subject());
                assert!([0, 100, 400].contains(&journal.done.total()), "{at}");
            }
        }
    }

    #[test]
    fn what_is_no_journal() {
        assert_eq!(read(b"").unwrap_err(), Unusable::NotAJournal);
        assert_eq!(read(b"hello\n").unwrap_err(), Unusable::NotAJournal);
        assert_eq!(read(line(&Record::Eleven(2)).as_bytes()).unwrap_err(), Unusable::Version(2));
        assert_eq!(read(line(&Record::Subject(subject())).as_bytes()).unwrap_err(), Unusable::NotAJournal);
        assert_eq!(read(&vec![b'x'; JOURNAL_BYTES_MAX + 1]).unwrap_err(), Unusable::TooLong);
        // Octets beyond the length do not exist.
        let mut text = begin(&subject(), &RangeSet::new());
        text.push_str(&append(&set(&[(0, 5000)])));
        assert_eq!(read(text.as_bytes()).unwrap().done, set(&[(0, 1000)]));
    }
}
