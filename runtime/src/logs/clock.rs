use std::io::{Cursor, Write};
use std::time::{Duration, SystemTime};

/// RFC 3339 in UTC with nanoseconds.
pub(super) fn timestamp(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    String::from_utf8_lossy(Timestamp::new(since).as_bytes()).into_owned()
}

/// The same, of a time since 1970, without allocating.
pub(super) struct Timestamp(Cursor<[u8; 40]>);

impl Timestamp {
    pub(super) fn new(since: Duration) -> Self {
        let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let mut text = Cursor::new([0; 40]);
        // There is room for every year of the clock's.
        let _ = write!(
            text,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z",
            since.subsec_nanos()
        );
        Self(text)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.get_ref().get(..self.0.position() as usize).unwrap_or_default()
    }
}

/// The date of a day since 1970-01-01, by the Gregorian calendar's 400-year cycle, counted from the first of March.
fn civil(days: u64) -> (u64, u64, u64) {
    const CYCLE: u64 = 146_097;
    let shifted = days + 719_468;
    let (cycle, of_cycle) = (shifted / CYCLE, shifted % CYCLE);
    let year_of_cycle = (of_cycle - of_cycle / 1_460 + of_cycle / 36_524 - of_cycle / (CYCLE - 1)) / 365;
    let of_year = of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (cycle * 400 + year_of_cycle + u64::from(month <= 2), month, day)
}

/// The day, since 1970-01-01, of a date from then on: [`civil`] the other way.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let counted = year.checked_sub(u64::from(month <= 2))?;
    let (cycle, of_cycle) = (counted / 400, counted % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    (cycle * 146_097 + of_cycle * 365 + of_cycle / 4 - of_cycle / 100 + of_year).checked_sub(719_468)
}

/// Reads a time of RFC 3339, with any fraction, in UTC or with an offset.
pub(super) fn parse(text: &str) -> Option<SystemTime> {
    let (date, rest) = text.split_once('T')?;
    let zone = rest.find(['Z', '+', '-'])?;
    let (clock, zone) = rest.split_at(zone);
    let [year, month, day] = numbers(date, '-')?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [hour, minute, second] = numbers(clock, ':')?;
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || year > 9999 || hour > 23 || minute > 59 || second > 60
    {
        return None;
    }
    let nanos = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    let local = days(year, month, day)? * 86_400 + hour * 3600 + minute * 60 + second;
    let seconds = match zone.split_at(1) {
        ("Z", "") => local,
        (sign, offset) => {
            let [hours, minutes] = numbers(offset, ':')?;
            let offset = hours.min(24) * 3600 + minutes.min(59) * 60;
            match sign {
                "+" => local.checked_sub(offset)?,
                "-" => local + offset,
                _ => return None,
            }
        }
    };
    Some(SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos))
}

fn numbers<const N: usize>(text: &str, separator: char) -> Option<[u64; N]> {
    let mut parts = text.split(separator);
    let mut numbers = [0; N];
    for number in &mut numbers {
        let part = parts.next()?;
        *number = (part.len() <= 4 && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.parse().ok())??;
    }
    parts.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, nanos: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos)
    }

    #[test]
    fn a_timestamp_is_the_utc_date_and_is_read_again() {
        for (seconds, nanos, text) in [
            (0, 0, "1970-01-01T00:00:00.000000000Z"),
            (951_827_696, 5, "2000-02-29T12:34:56.000000005Z"),
            (1_735_689_599, 999_999_999, "2024-12-31T23:59:59.999999999Z"),
        ] {
            assert_eq!(timestamp(at(seconds, nanos)), text);
            assert_eq!(parse(text), Some(at(seconds, nanos)), "{text}");
        }
    }

    #[test]
    fn times_of_others_are_read_too() {
        assert_eq!(parse("1970-01-01T00:00:01Z"), Some(at(1, 0)));
        assert_eq!(parse("1970-01-01T00:00:01.5Z"), Some(at(1, 500_000_000)));
        assert_eq!(parse("1970-01-01T02:00:01.123456789+02:00"), Some(at(1, 123_456_789)));
        assert_eq!(parse("1970-01-01T00:00:01-01:30"), Some(at(5401, 0)));
        for text in [
            "",
            "1970-01-01",
            "1970-13-01T00:00:00Z",
            "1970-01-01T00:00:00",
            "1970-01-01T00:00:00+02:00",
            "x-1-1T0:0:0Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
