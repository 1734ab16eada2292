//! The query of a read: the filter of the list, `inactive_since` or `inactiveSince`, an ISO 8601 time; and `stale`.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{Offset, TimeZone};
use jiff::{Span, Timestamp};

/// The filter isn't a time.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("Invalid datestamp '{0}' must be ISO8601.")]
pub(super) struct BadDatestamp(String);

/// Reads the filter from a query. Both names are known; the first value of each counts, and an empty one is none.
pub(super) fn inactive_since(query: &str) -> Result<Option<Timestamp>, BadDatestamp> {
    let first = |name: &str| {
        let value = url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value);
        value.filter(|value| !value.is_empty())
    };
    let Some(value) = first("inactiveSince").or_else(|| first("inactive_since")) else { return Ok(None) };
    match parse_datestamp(&value) {
        Some(time) => Ok(Some(time)),
        None => Err(BadDatestamp(value.into_owned())),
    }
}

/// Whether the caller rather has old routes than none.
pub(super) fn stale(query: &str) -> bool {
    url::form_urlencoded::parse(query.as_bytes()).any(|(key, value)| key == "stale" && value == "true")
}

/// `YYYY`, `YYYY-MM` or `YYYY-MM-DD`, then if wished `THH:MM`, `:SS`, any number of decimals, and `Z` or `+hh:mm`.
/// A date alone is in UTC, a time of day without zone is the machine's local time: so says JavaScript.
fn parse_datestamp(text: &str) -> Option<Timestamp> {
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let date = parse_date(date)?;
    let Some(time) = time else { return instant(date.to_datetime(Time::midnight()), &TimeZone::UTC) };
    let (clock, zone) = split_zone(time)?;
    if clock.len() > 2 && clock.starts_with("24") {
        // The only time of hour 24 is the end of the day.
        let zeros = clock[2..].bytes().all(|b| matches!(b, b'0' | b':' | b'.'));
        parse_clock(&format!("00{}", &clock[2..]))?;
        let midnight = date.to_datetime(Time::midnight()).checked_add(Span::new().days(1)).ok()?;
        return if zeros { instant(midnight, &zone) } else { None };
    }
    instant(date.to_datetime(parse_clock(clock)?), &zone)
}

fn instant(datetime: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    zone.to_ambiguous_zoned(datetime).compatible().ok().map(|zoned| zoned.timestamp())
}

fn parse_date(text: &str) -> Option<Date> {
    let mut parts = text.split('-');
    let year = i16::try_from(digits(parts.next()?, 4)?).ok()?;
    let month = parts.next().map_or(Some(1), |part| digits(part, 2))?;
    let day = parts.next().map_or(Some(1), |part| digits(part, 2))?;
    if parts.next().is_some() {
        return None;
    }
    Date::new(year, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()
}

fn parse_clock(text: &str) -> Option<Time> {
    let (whole, decimals) = match text.split_once('.') {
        Some((whole, decimals)) => (whole, Some(decimals)),
        None => (text, None),
    };
    let mut parts = whole.split(':');
    let (hour, minute) = (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let second = match (parts.next(), decimals) {
        (Some(second), _) => digits(second, 2)?,
        (None, None) => 0,
        (None, Some(_)) => return None,
    };
    if parts.next().is_some() || second > 59 {
        return None;
    }
    let nanosecond = match decimals {
        Some(decimals) if decimals.is_empty() || !decimals.bytes().all(|b| b.is_ascii_digit()) => return None,
        Some(decimals) => format!("{decimals:0<9}")[..9].parse().ok()?,
        None => 0,
    };
    let [hour, minute, second] = [hour, minute, second].map(|part| i8::try_from(part).ok());
    Time::new(hour?, minute?, second?, nanosecond).ok()
}

/// Cuts the zone off the end of a time of day.
fn split_zone(time: &str) -> Option<(&str, TimeZone)> {
    if let Some(clock) = time.strip_suffix('Z') {
        return Some((clock, TimeZone::UTC));
    }
    let Some(at) = time.find(['+', '-']) else { return Some((time, TimeZone::system())) };
    let (hours, minutes) = time[at + 1..].split_once(':')?;
    let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let seconds = i32::try_from(hours * 3600 + minutes * 60).ok()?;
    let seconds = if time.as_bytes()[at] == b'-' { -seconds } else { seconds };
    Some((&time[..at], TimeZone::fixed(Offset::from_seconds(seconds).ok()?)))
}

fn digits(text: &str, length: usize) -> Option<u32> {
    (text.len() == length && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("2026", "2026-01-01T00:00:00Z")]
    #[case("2026-03", "2026-03-01T00:00:00Z")]
    #[case("2026-03-04", "2026-03-04T00:00:00Z")]
    #[case("2026-03-04T05:06Z", "2026-03-04T05:06:00Z")]
    #[case("2026T05:06Z", "2026-01-01T05:06:00Z")]
    #[case("2026-03-04T05:06:07Z", "2026-03-04T05:06:07Z")]
    #[case("2026-03-04T05:06:07.8Z", "2026-03-04T05:06:07.8Z")]
    #[case("2026-03-04T05:06:07.123456789123Z", "2026-03-04T05:06:07.123456789Z")]
    #[case("2026-03-04T05:06:07+01:30", "2026-03-04T03:36:07Z")]
    #[case("2026-03-04T05:06-08:00", "2026-03-04T13:06:00Z")]
    #[case("2026-12-31T24:00Z", "2027-01-01T00:00:00Z")]
    #[case("2028-02-29", "2028-02-29T00:00:00Z")]
    fn iso_8601_is_read(#[case] text: &str, #[case] meant: &str) {
        assert_eq!(parse_datestamp(text), Some(meant.parse().expect("a time")));
    }

    #[test]
    fn a_time_without_zone_is_local() {
        let local = parse_datestamp("2026-03-04T05:06:07").expect("a time");
        assert_eq!(local.to_zoned(TimeZone::system()).datetime().to_string(), "2026-03-04T05:06:07");
    }

    #[rstest]
    #[case("endoftheuniverse")]
    #[case("1")]
    #[case("4102444800")]
    #[case("2026-3-4")]
    #[case("2026-13")]
    #[case("2026-02-30")]
    #[case("2026-03-04T")]
    #[case("2026-03-04T05")]
    #[case("2026-03-04T05:06:07.")]
    #[case("2026-03-04T05:06.5Z")]
    #[case("2026-03-04T05:60Z")]
    #[case("2026-03-04T24:01Z")]
    #[case("2026-03-04T24")]
    #[case("2026-03-04T05:06:60Z")]
    #[case("2026-03-04T05:06:07 00:00")]
    #[case("2026-03-04 05:06:07Z")]
    #[case("2026-03-04T05:06:07+0100")]
    #[case("2026-03-04T05:06:07+24:00")]
    #[case("2026-03-04T05:06:07ZZ")]
    #[case("٢٠٢٦")]
    #[case(" 2026")]
    fn anything_else_is_not(#[case] text: &str) {
        assert_eq!(parse_datestamp(text), None, "{text:?}");
    }

    #[rstest]
    #[case("", None)]
    #[case("inactive_since=", None)]
    #[case("Inactive_Since=x&x=inactive_since", None)]
    #[case("inactive_since=2026", Some("2026-01-01T00:00:00Z"))]
    #[case("inactiveSince=2026", Some("2026-01-01T00:00:00Z"))]
    #[case("inactive_since=bad&inactiveSince=2026", Some("2026-01-01T00:00:00Z"))]
    #[case("inactive_since=2027&inactiveSince=", Some("2027-01-01T00:00:00Z"))]
    #[case("inactive_since=2027&inactive_since=bad", Some("2027-01-01T00:00:00Z"))]
    #[case("inactive_since=2026-03-04T05%3A06%2B01:00", Some("2026-03-04T04:06:00Z"))]
    fn the_filter_of_a_query(#[case] query: &str, #[case] meant: Option<&str>) {
        assert_eq!(inactive_since(query), Ok(meant.map(|text| text.parse().expect("a time"))));
    }

    #[test]
    fn a_bad_filter_is_quoted_decoded() {
        let error = inactive_since("inactive_since=20%2026+x").expect_err("not a time");
        assert_eq!(error.to_string(), "Invalid datestamp '20 26 x' must be ISO8601.");
    }

    proptest! {
        #[test]
        fn nothing_breaks_the_parser(text in "[0-9T:.Z+ é-]{0,30}|.*") {
            let _ = parse_datestamp(&text);
        }

        #[test]
        fn what_a_machine_writes_is_read(seconds in 0_i64..4_000_000_000, nanos in 0_i32..1_000_000_000) {
            let time = Timestamp::new(seconds, nanos).expect("in range");
            prop_assert_eq!(parse_datestamp(&time.to_string()), Some(time));
        }
    }
}
