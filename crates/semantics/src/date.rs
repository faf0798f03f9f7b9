//! HTTP dates (RFC 9110 §5.6.7): three forms are read, one is written. Pure arithmetic on the proleptic
//! Gregorian calendar; there is no clock here, so whoever asks says what time it is.
//!
//! The day name must be one of the seven, spelled exactly; whether it is the right one for the date is not
//! checked: it carries nothing, and senders get it wrong.

/// A point in time with the resolution of HTTP: seconds since 1970-01-01 00:00:00 UTC, leap seconds not
/// counted, negative before. Any value is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct HttpDate(pub i64);

const DAY_SECONDS: i64 = 86_400;
/// 0000-01-01 00:00:00, the earliest that four digits of a year can say.
const EARLIEST: i64 = -62_167_219_200;
/// 9999-12-31 23:59:59, the latest.
const LATEST: i64 = 253_402_300_799;

/// From Thursday on, because 1970-01-01 was one.
const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
const LONG_DAYS: [&[u8]; 7] =
    [b"Thursday", b"Friday", b"Saturday", b"Sunday", b"Monday", b"Tuesday", b"Wednesday"];
const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

impl HttpDate {
    /// Reads any of the three forms (9110-5.6.7-01): IMF-fixdate, RFC 850 and asctime. `now` settles the
    /// century of an RFC 850 date. `None` for anything else, including extra white space and dates that no
    /// calendar has.
    pub fn parse(text: &[u8], now: HttpDate) -> Option<HttpDate> {
        match text.get(3)? {
            b',' => parse_imf(text),
            b' ' => parse_asctime(text),
            _ => parse_rfc850(text, now),
        }
    }

    /// The date of these calendar fields; `None` if there is none such. A second of 60 (a leap second) is
    /// allowed and counts as the first of the next minute.
    pub fn from_civil(
        year: i64,
        month: u32,
        day: u32,
        hour: u32,
        minute: u32,
        second: u32,
    ) -> Option<HttpDate> {
        let fits = (0..=9999).contains(&year)
            && (1..=12).contains(&month)
            && day >= 1
            && day <= month_days(year, month)
            && hour <= 23
            && minute <= 59
            && second <= 60;
        fits.then(|| {
            let seconds = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
            // The leap second at the end of the year 9999 has no next minute that could be written.
            HttpDate((days_from_civil(year, month, day) * DAY_SECONDS + seconds).min(LATEST))
        })
    }

    /// Year, month, day, hour, minute and second, UTC. Times outside the years 0000 to 9999 are moved to the
    /// nearest end.
    pub fn civil(self) -> (i64, u32, u32, u32, u32, u32) {
        let seconds = self.0.clamp(EARLIEST, LATEST);
        let (year, month, day) = civil_from_days(seconds.div_euclid(DAY_SECONDS));
        let time = seconds.rem_euclid(DAY_SECONDS) as u32;
        (year, month, day, time / 3600, time / 60 % 60, time % 60)
    }

    /// The date as IMF-fixdate, the only form that is sent (9110-5.6.7-02). Times outside the years 0000 to
    /// 9999 are moved to the nearest end.
    pub fn imf(self) -> [u8; 29] {
        let seconds = self.0.clamp(EARLIEST, LATEST);
        let days = seconds.div_euclid(DAY_SECONDS);
        let time = seconds.rem_euclid(DAY_SECONDS) as u32;
        let (year, month, day) = civil_from_days(days);
        let mut out = *b"Thu, 01 Jan 1970 00:00:00 GMT";
        out[0..3].copy_from_slice(DAYS[days.rem_euclid(7) as usize]);
        two_digits(&mut out[5..7], day);
        out[8..11].copy_from_slice(MONTHS[month as usize - 1]);
        two_digits(&mut out[12..14], year as u32 / 100);
        two_digits(&mut out[14..16], year as u32 % 100);
        two_digits(&mut out[17..19], time / 3600);
        two_digits(&mut out[20..22], time / 60 % 60);
        two_digits(&mut out[23..25], time % 60);
        out
    }

    /// Appends the date as IMF-fixdate.
    pub fn write_imf(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.imf());
    }
}

impl std::fmt::Display for HttpDate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(std::str::from_utf8(&self.imf()).unwrap_or_default())
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn parse_imf(text: &[u8]) -> Option<HttpDate> {
    let text: &[u8; 29] = text.try_into().ok()?;
    let shape = text[4] == b' ' && text[7] == b' ' && text[11] == b' ' && text[16] == b' ';
    if !shape || &text[25..] != b" GMT" || !DAYS.iter().any(|day| day[..] == text[..3]) {
        return None;
    }
    let year = number(&text[12..16])?;
    date_and_time(i64::from(year), month(&text[8..11])?, number(&text[5..7])?, &text[17..25])
}

/// `Sun Nov  6 08:49:37 1994`
fn parse_asctime(text: &[u8]) -> Option<HttpDate> {
    let text: &[u8; 24] = text.try_into().ok()?;
    let shape = text[7] == b' ' && text[10] == b' ' && text[19] == b' ';
    if !shape || !DAYS.iter().any(|day| day[..] == text[..3]) {
        return None;
    }
    // date3 = month SP ( 2DIGIT / ( SP 1DIGIT ))
    let day = if text[8] == b' ' { number(&text[9..10])? } else { number(&text[8..10])? };
    let year = number(&text[20..24])?;
    date_and_time(i64::from(year), month(&text[4..7])?, day, &text[11..19])
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn parse_rfc850(text: &[u8], now: HttpDate) -> Option<HttpDate> {
    let comma =
        LONG_DAYS.iter().find(|day| text.starts_with(day) && text.get(day.len()) == Some(&b','))?.len();
    let rest: &[u8; 23] = text[comma + 1..].try_into().ok()?;
    let shape = rest[0] == b' ' && rest[3] == b'-' && rest[7] == b'-' && rest[10] == b' ';
    if !shape || &rest[19..] != b" GMT" {
        return None;
    }
    let (day, month, digits) = (number(&rest[1..3])?, month(&rest[4..7])?, number(&rest[8..10])?);
    // 9110-5.6.7-04: the latest year with these digits that is not more than 50 years ahead.
    let (this_year, this_month, today) =
        civil_from_days(now.0.clamp(EARLIEST, LATEST).div_euclid(DAY_SECONDS));
    let time_today = now.0.clamp(EARLIEST, LATEST).rem_euclid(DAY_SECONDS);
    let limit = days_from_civil(this_year + 50, this_month, today) * DAY_SECONDS + time_today;
    let mut year = (this_year + 50) / 100 * 100 + i64::from(digits);
    let earlier = if year > this_year + 50 { 100 } else { 0 };
    year -= earlier;
    match date_and_time(year, month, day, &rest[11..19]) {
        Some(date) if date.0 <= limit => Some(date),
        // Also when this century has no such day (29 February): the one before may.
        _ => date_and_time(year - 100, month, day, &rest[11..19]),
    }
}

fn date_and_time(year: i64, month: u32, day: u32, time: &[u8]) -> Option<HttpDate> {
    if time[2] != b':' || time[5] != b':' {
        return None;
    }
    HttpDate::from_civil(year, month, day, number(&time[..2])?, number(&time[3..5])?, number(&time[6..8])?)
}

fn month(name: &[u8]) -> Option<u32> {
    MONTHS.iter().position(|month| month[..] == *name).map(|index| index as u32 + 1)
}

/// At most four digits, so that it fits.
fn number(digits: &[u8]) -> Option<u32> {
    crate::grammar::decimal(digits).map(|n| n as u32)
}

fn two_digits(out: &mut [u8], n: u32) {
    out[0] = b'0' + (n / 10 % 10) as u8;
    out[1] = b'0' + (n % 10) as u8;
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn month_days(year: i64, month: u32) -> u32 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01. Counts in eras of 400 years that begin on 1 March, so that the leap day comes last.
fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = i64::from((month + 9) % 12);
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * month_from_march + 2) / 5 + 1) as u32;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 } as u32;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-24 20:40:00.
    const NOW: HttpDate = HttpDate(1_795_552_800);

    fn parse(text: &str) -> Option<i64> {
        HttpDate::parse(text.as_bytes(), NOW).map(|date| date.0)
    }

    /// 9110-5.6.7-01: the three forms of one instant, and the corners of each.
    #[test]
    fn the_three_forms() {
        for (text, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
            ("Sunday, 06-Nov-94 08:49:37 GMT", 784_111_777),
            ("Sun Nov  6 08:49:37 1994", 784_111_777),
            ("Wed Nov 16 08:49:37 1994", 784_975_777),
            ("Sun Nov 06 08:49:37 1994", 784_111_777),
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Wed, 31 Dec 1969 23:59:59 GMT", -1),
            ("Sat, 01 Jan 0000 00:00:00 GMT", EARLIEST),
            ("Fri, 31 Dec 9999 23:59:59 GMT", LATEST),
            ("Thu, 29 Feb 2024 00:00:00 GMT", 1_709_164_800),
            ("Tue, 29 Feb 2000 00:00:00 GMT", 951_782_400),
            // A leap second, and a day name that is not that day's.
            ("Sat, 31 Dec 2016 23:59:60 GMT", 1_483_228_800),
            ("Fri, 31 Dec 9999 23:59:60 GMT", LATEST),
            ("Mon, 06 Nov 1994 08:49:37 GMT", 784_111_777),
        ] {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
    }

    /// 9110-5.6.7-03: nothing but the grammar. Fault G16.
    #[test]
    fn what_is_no_date() {
        for text in [
            "",
            "0",
            "-1",
            "Sun",
            "Sun,",
            "now",
            "784111777",
            "sun, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 gmt",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 +0000",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 GMT ",
            " Sun, 06 Nov 1994 08:49:37 GMT",
            "Sun,  06 Nov 1994 08:49:37 GMT",
            "Sun, 06  Nov 1994 08:49:37 GMT",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sun, 06 Nov 19940 08:49:37 GMT",
            "Sun, 06 Nov +994 08:49:37 GMT",
            "Sun, +6 Nov 1994 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Thu, 31 Nov 1994 08:49:37 GMT",
            "Thu, 29 Feb 2023 00:00:00 GMT",
            "Thu, 29 Feb 1900 00:00:00 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:00 GMT",
            "Sun, 06 Nov 1994 08:49:61 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 06 Nov 1994 08.49.37 GMT",
            "Xyz, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Xyz 1994 08:49:37 GMT",
            "Sunday, 06 Nov 1994 08:49:37 GMT",
            "Sunday 06-Nov-94 08:49:37 GMT",
            "Sunday, 06-Nov-1994 08:49:37 GMT",
            "Sunday, 6-Nov-94 08:49:37 GMT",
            "Sunday, 32-Nov-94 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 PST",
            "Someday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov 6 08:49:37 1994",
            "Sun Nov  6 08:49:37 1994 GMT",
            "Sun Nov  0 08:49:37 1994",
            "Sun Nov 31 08:49:37 1994",
            "Sun Nov  6 08:49:37 94",
            "Sun  Nov 6 08:49:37 1994",
            "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
            "S\u{fc}n, 06 Nov 1994 08:49:37 GM",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    /// 9110-5.6.7-04, from several centuries' view.
    #[test]
    fn two_digit_years() {
        let at = |year, text: &str| {
            let now = HttpDate::from_civil(year, 11, 24, 20, 40, 0).unwrap();
            HttpDate::parse(text.as_bytes(), now)
                .map(|date| civil_from_days(date.0.div_euclid(DAY_SECONDS)).0)
        };
        for (now, text, expected) in [
            (2026, "Sunday, 06-Nov-94 08:49:37 GMT", 1994),
            (2026, "Sunday, 06-Nov-26 08:49:37 GMT", 2026),
            (2026, "Sunday, 06-Nov-75 08:49:37 GMT", 2075),
            // Exactly 50 years ahead still counts as the future, a second more does not.
            (2026, "Tuesday, 24-Nov-76 20:40:00 GMT", 2076),
            (2026, "Tuesday, 24-Nov-76 20:40:01 GMT", 1976),
            (2026, "Sunday, 06-Nov-77 08:49:37 GMT", 1977),
            (2026, "Sunday, 06-Nov-00 08:49:37 GMT", 2000),
            (1999, "Sunday, 06-Nov-94 08:49:37 GMT", 1994),
            (1999, "Sunday, 06-Nov-01 08:49:37 GMT", 2001),
            (1999, "Sunday, 06-Nov-49 08:49:37 GMT", 2049),
            (1999, "Sunday, 06-Nov-50 08:49:37 GMT", 1950),
            (2080, "Sunday, 06-Nov-94 08:49:37 GMT", 2094),
            (2080, "Sunday, 06-Nov-10 08:49:37 GMT", 2110),
            (2106, "Sunday, 06-Nov-94 08:49:37 GMT", 2094),
            // 2100 has no 29 February: the date cannot mean that year.
            (2080, "Sunday, 29-Feb-00 08:49:37 GMT", 2000),
        ] {
            assert_eq!(at(now, text), Some(expected), "{text} in {now}");
        }
        assert_eq!(at(2026, "Sunday, 29-Feb-23 00:00:00 GMT"), None);
        for now in [i64::MIN, EARLIEST, 0, LATEST, i64::MAX] {
            // No panic whatever the clock says.
            HttpDate::parse(b"Sunday, 06-Nov-94 08:49:37 GMT", HttpDate(now));
        }
    }

    /// 9110-5.6.7-02: what is written reads back: every day of one cycle of 400 years with its first and last
    /// second, and every 29th day of the ten thousand years that four digits can say.
    #[test]
    fn days_round_trip() {
        let check = |day: i64| {
            for at in [day * DAY_SECONDS, (day + 1) * DAY_SECONDS - 1] {
                let text = HttpDate(at).imf();
                assert_eq!(HttpDate::parse(&text, NOW), Some(HttpDate(at)));
                // 0000-01-01 was a Saturday.
                let (year, month, day_of_month, h, m, s) = HttpDate(at).civil();
                assert_eq!(HttpDate::from_civil(year, month, day_of_month, h, m, s), Some(HttpDate(at)));
                let weekday = (day - EARLIEST / DAY_SECONDS + 2) % 7;
                assert_eq!(&text[..3], DAYS[weekday as usize]);
            }
        };
        (days_from_civil(1900, 1, 1)..days_from_civil(2300, 1, 1)).for_each(check);
        (EARLIEST / DAY_SECONDS..=LATEST / DAY_SECONDS).step_by(29).for_each(check);
    }

    #[test]
    fn times_outside_four_digit_years_are_moved_to_the_end() {
        for (seconds, expected) in [
            (i64::MIN, "Sat, 01 Jan 0000 00:00:00 GMT"),
            (EARLIEST - 1, "Sat, 01 Jan 0000 00:00:00 GMT"),
            (-1, "Wed, 31 Dec 1969 23:59:59 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (NOW.0, "Tue, 24 Nov 2026 20:40:00 GMT"),
            (LATEST + 1, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (i64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(HttpDate(seconds).to_string(), expected);
            let mut out = Vec::new();
            HttpDate(seconds).write_imf(&mut out);
            assert_eq!(out, expected.as_bytes());
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text: Vec<u8>, now: i64) {
            let _ = HttpDate::parse(&text, HttpDate(now));
        }
    }
}
