//! Times as RFC 3339 in UTC, e.g. `2026-01-31T23:59:59.123456789Z`: what is shown, and what the journal holds.

use std::time::{Duration, SystemTime};

const DAY: i128 = 86_400;
const NANOS: i128 = 1_000_000_000;

/// Days since 1970-01-01 to year, month, day in the proleptic Gregorian calendar (the 400-year cycle starts in March of year 0).
fn date_of(days: i128) -> (i128, i128, i128) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i128::from(month <= 2), month, day)
}

/// The inverse of [`date_of`].
fn days_of(year: i128, month: i128, day: i128) -> i128 {
    let year = year - i128::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn nanos_of(time: SystemTime) -> i128 {
    let nanos = |d: Duration| i128::try_from(d.as_nanos()).unwrap_or(i128::MAX);
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => nanos(after),
        Err(before) => -nanos(before.duration()),
    }
}

pub(crate) fn format(time: SystemTime) -> String {
    let nanos = nanos_of(time);
    let (seconds, fraction) = (nanos.div_euclid(NANOS), nanos.rem_euclid(NANOS));
    let (year, month, day) = date_of(seconds.div_euclid(DAY));
    let second = seconds.rem_euclid(DAY);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:09}Z")
}

/// Reads a time in RFC 3339, in UTC, as events are shown with: `2026-01-31T23:59:59.123456789Z`. The fraction may have fewer digits, or none.
pub fn parse(text: &str) -> Option<SystemTime> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let [year, month, day] = numbers(date, '-')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let [hour, minute, second] = numbers(time, ':')?;
    if fraction.len() > 9 || !(1..=12).contains(&month) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = days_of(year, month, day);
    if date_of(days) != (year, month, day) {
        return None;
    }
    let fraction = match fraction {
        "" => 0,
        digits => number(digits)? * 10_i128.pow(9 - u32::try_from(digits.len()).ok()?),
    };
    let nanos = (days * DAY + hour * 3_600 + minute * 60 + second) * NANOS + fraction;
    let distance = Duration::new(
        u64::try_from(nanos.unsigned_abs() / NANOS.unsigned_abs()).ok()?,
        u32::try_from(nanos.unsigned_abs() % NANOS.unsigned_abs()).ok()?,
    );
    if nanos < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    }
}

fn numbers(text: &str, separator: char) -> Option<[i128; 3]> {
    let mut parts = text.split(separator).map(number);
    let three = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(three)
}

fn number(digits: &str) -> Option<i128> {
    let plain = (1..=12).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok())?
}

/// For `#[serde(with = "...")]`.
pub(crate) mod rfc3339 {
    use std::borrow::Cow;
    use std::time::SystemTime;

    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format(*time))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        super::parse(&text).ok_or_else(|| D::Error::custom(format!("'{text}' is no time in RFC 3339, UTC")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, nanos: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos)
    }

    #[test]
    fn known_times() {
        for (time, text) in [
            (at(0, 0), "1970-01-01T00:00:00.000000000Z"),
            (at(951_782_400, 5), "2000-02-29T00:00:00.000000005Z"),
            (at(1_769_903_999, 123_000_000), "2026-01-31T23:59:59.123000000Z"),
            (
                SystemTime::UNIX_EPOCH - Duration::from_nanos(1),
                "1969-12-31T23:59:59.999999999Z",
            ),
        ] {
            assert_eq!(format(time), text);
            assert_eq!(parse(text), Some(time));
        }
        assert_eq!(parse("2026-01-31T23:59:59.123Z"), Some(at(1_769_903_999, 123_000_000)));
        assert_eq!(parse("2026-01-31T23:59:59Z"), Some(at(1_769_903_999, 0)));
    }

    #[test]
    fn every_day_of_eight_centuries_comes_back() {
        for day in 0..300_000 {
            let (year, month, dom) = date_of(day);
            assert_eq!(days_of(year, month, dom), day);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "Z",
            "T",
            "2026-02-30T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00+01:00",
            "2026-01-01T00:00:00.1234567890Z",
            "-2026-01-01T00:00:00Z",
            "2026-01-01T00:+1:00Z",
            "99999999999999999999-01-01T00:00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
