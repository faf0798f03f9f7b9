//! The words of a download with a server: requests for parts, and what of an answer decides over the next one.

use super::Options;
use crate::agent::{Ask, Response};
use crate::error::{Cause, Failure, Phase};
use eleven_net::clock;
use eleven_semantics::{Fields, Known};
use std::time::Duration;

pub(super) fn may_split(response: &Response) -> bool {
    let fields = &response.head().fields;
    !fields.has_member(Known::AcceptRanges, "none")
        && fields.list(Known::ContentEncoding).next().is_none()
        && response.head().version >= eleven_semantics::Version::Http11
}

pub(super) fn unusable(response: &Response, why: &str) -> Failure {
    Failure::new(Phase::Head, Cause::Malformed(why.to_owned()))
        .at(response.uri.host_and_port(), response.address())
}

pub(super) fn add_range(
    ask: &mut Ask,
    start: u64,
    end: Option<u64>,
    if_range: Option<&str>,
) -> Result<(), Failure> {
    let mut value = Vec::new();
    eleven_semantics::range::write_range(&mut value, start, end.map(|end| end - 1));
    let set = |fields: &mut Fields, name: Known, value: &[u8]| {
        fields.set(name, value).map_err(|error| {
            Failure::new(Phase::Prepare, Cause::Unusable(format!("{}: {error}", name.name())))
        })
    };
    set(&mut ask.fields, Known::Range, &value)?;
    if let Some(validator) = if_range {
        set(&mut ask.fields, Known::IfRange, validator.as_bytes())?; // 9110-13.1.5-01
    }
    // Content-Encoding and ranges never mix.
    ask.fields.remove(Known::AcceptEncoding);
    Ok(())
}

/// Retry-After (9110-10.2.3-R1), as a wait from now.
pub(super) fn retry_after(fields: &Fields) -> Option<Duration> {
    let value = fields.only(Known::RetryAfter).one()?;
    if let Some(seconds) = eleven_semantics::grammar::decimal_saturating(value) {
        return Some(Duration::from_secs(seconds.min(u64::from(u32::MAX))));
    }
    let now = eleven_semantics::date::HttpDate(clock::unix_seconds());
    let at = eleven_semantics::date::HttpDate::parse(value, now)?;
    Some(Duration::from_secs(u64::try_from(at.0 - now.0).unwrap_or(0)))
}

/// The pause before a retry; none if the server asks for more patience than there is (fault K43).
pub(super) fn pause(options: &Options, fruitless: u32, retry_after: Option<Duration>) -> Option<Duration> {
    let longest = Duration::from_millis(options.retry_pause_ms_max);
    if let Some(asked) = retry_after {
        return (asked <= longest).then_some(asked);
    }
    if fruitless == 0 {
        return Some(Duration::from_millis(options.retry_pause_ms.min(100)));
    }
    let factor = 1u32.checked_shl(fruitless - 1).unwrap_or(u32::MAX);
    Some(Duration::from_millis(options.retry_pause_ms).saturating_mul(factor).min(longest))
}
