//! `events`: the journal of what this program and its copies did.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use longshore::Filter;
use longshore::events::{Entry, Replay, ReplayFrom, Told};

use crate::arguments::Events;
use crate::open::Site;
use crate::output::say;

/// How often a journal that is followed is looked at.
const LOOK: Duration = Duration::from_millis(100);

pub(crate) async fn print(site: &Site, events: Events) -> Result<u8> {
    let mut filter = Filter::all();
    for text in &events.filter {
        filter = filter.expression(text)?;
    }
    let until = events.until.as_deref().map(moment).transpose()?;
    let from = match &events.since {
        Some(since) => ReplayFrom::Time(moment(since)?),
        None if events.follow => ReplayFrom::Now,
        None => ReplayFrom::Beginning,
    };
    let form = if events.json { as_json } else { as_text };
    let mut replay = Replay::open(site.journal_directory(), from)?;
    loop {
        for entry in replay.by_ref() {
            let entry = entry?;
            if let (Some(event), Some(until)) = (entry.event(), until)
                && event.time > until
            {
                return Ok(0);
            }
            if entry.event().is_none_or(|event| filter.matches(event)) {
                form(&entry)?;
            }
        }
        if !events.follow || until.is_some_and(|until| SystemTime::now() > until) {
            return Ok(0);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn as_json(entry: &Entry) -> Result<()> {
    say!("{}", serde_json::to_string(entry)?);
    Ok(())
}

fn as_text(entry: &Entry) -> Result<()> {
    match &entry.told {
        Told::Event(event) => say!("{event}"),
        Told::Missed(missed) => eprintln!("longshore: {missed} events are missing here"),
        _ => {}
    }
    Ok(())
}

/// A time: in RFC 3339, as seconds since 1970, or as how long ago (`90s`, `10m`, `2h`, `3d`).
pub(crate) fn moment(text: &str) -> Result<SystemTime> {
    if let Ok(seconds) = text.parse::<f64>() {
        let since = Duration::try_from_secs_f64(seconds).with_context(|| format!("'{text}' is no time"))?;
        return UNIX_EPOCH
            .checked_add(since)
            .with_context(|| format!("'{text}' is no time"));
    }
    let unit = match text.chars().last() {
        Some('s') => Some(1),
        Some('m') => Some(60),
        Some('h') => Some(3_600),
        Some('d') => Some(86_400),
        _ => None,
    };
    if let Some(unit) = unit
        && let Ok(count) = text[..text.len() - 1].parse::<u32>()
    {
        let ago = Duration::from_secs(u64::from(count) * unit);
        return SystemTime::now()
            .checked_sub(ago)
            .with_context(|| format!("'{text}' is too long ago"));
    }
    match longshore::events::parse_time(text) {
        Some(time) => Ok(time),
        None => bail!("'{text}' is no time; write 2026-01-31T12:00:00Z, 1769860800 or 10m (ago)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dockers() {
        let at = |text: &str| moment(text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(at("1.5"), UNIX_EPOCH + Duration::from_millis(1500));
        assert_eq!(at("1970-01-01T00:01:00Z"), UNIX_EPOCH + Duration::from_secs(60));
        assert!(at("2h") < at("1h") && at("1h") < at("10m") && at("10m") < SystemTime::now());
        for text in ["", "x", "-1", "h", "1w", "1e300", "2026-13-01T00:00:00Z"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }
}
