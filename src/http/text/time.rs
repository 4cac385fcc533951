//! Dates, times and intervals.
//!
//! Dates are written as ISO 8601 writes them, which every `DateStyle` reads, and each part of an interval has a sign of its own,
//! which every `IntervalStyle` reads.

use super::reader::show;

const MICROS: u64 = 1_000_000;
const DAY: i64 = 86_400_000_000;

/// Appends a date, given in days since 2000-01-01.
pub(super) fn push_date(text: &mut String, days: i32) {
    match days {
        i32::MAX => text.push_str("infinity"),
        i32::MIN => text.push_str("-infinity"),
        days => {
            let era = push_day(text, days.into());
            text.push_str(era);
        }
    }
}

/// Appends a time of the day, given in microseconds.
pub(super) fn push_time(text: &mut String, micros: i64) {
    if micros < 0 {
        text.push('-');
    }
    push_clock(text, micros.unsigned_abs());
}

/// Appends a time of the day, and a zone given in seconds west of Greenwich.
pub(super) fn push_time_with_zone(text: &mut String, micros: i64, west: i32) {
    push_time(text, micros);
    text.push(if west > 0 { '-' } else { '+' });
    let offset = west.unsigned_abs();
    let (hours, minutes, seconds) = (offset / 3600, offset / 60 % 60, offset % 60);
    show(text, format_args!("{hours:02}:{minutes:02}:{seconds:02}"));
}

/// Appends a moment, given in microseconds since 2000-01-01, with its zone.
pub(super) fn push_timestamp(text: &mut String, micros: i64, zone: &str) {
    match micros {
        i64::MAX => text.push_str("infinity"),
        i64::MIN => text.push_str("-infinity"),
        micros => {
            let era = push_day(text, micros.div_euclid(DAY));
            text.push(' ');
            push_clock(text, micros.rem_euclid(DAY).unsigned_abs());
            text.push_str(zone);
            text.push_str(era);
        }
    }
}

/// Appends an interval.
pub(super) fn push_interval(text: &mut String, micros: i64, days: i32, months: i32) {
    match (micros, days, months) {
        // Before PostgreSQL 17 these were an interval like others.
        (i64::MAX, i32::MAX, i32::MAX) => text.push_str("infinity"),
        (i64::MIN, i32::MIN, i32::MIN) => text.push_str("-infinity"),
        _ => {
            show(text, format_args!("{months:+} mons {days:+} days "));
            match micros {
                // The server reads no clock that is so far behind, and servers before 15 read no microseconds alone.
                i64::MIN => show(text, format_args!("{micros} us")),
                _ => {
                    text.push(if micros < 0 { '-' } else { '+' });
                    push_clock(text, micros.unsigned_abs());
                }
            }
        }
    }
}

fn push_clock(text: &mut String, micros: u64) {
    let (seconds, rest) = (micros / MICROS, micros % MICROS);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    show(text, format_args!("{hours:02}:{minutes:02}:{seconds:02}"));
    if rest > 0 {
        show(text, format_args!(".{rest:06}"));
    }
}

/// Appends a day, given in days since 2000-01-01; returns its era, which is written last.
fn push_day(text: &mut String, days: i64) -> &'static str {
    let (year, month, day) = civil(days);
    let (year, era) = match year {
        ..=0 => (1 - year, " BC"),
        _ => (year, ""),
    };
    show(text, format_args!("{year:04}-{month:02}-{day:02}"));
    era
}

/// Returns the year, the month and the day of the Gregorian calendar, extended to all times; the year 0 is 1 BC.
///
/// The calculation is Howard Hinnant's `civil_from_days`: its years begin with March, so that the leap day is their last.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 730_425; // since 0000-03-01
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(push: impl Fn(&mut String)) -> String {
        let mut text = String::new();
        push(&mut text);
        text
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (days, text) in [
            (0, "2000-01-01"),
            (59, "2000-02-29"),
            (60, "2000-03-01"),
            (-1, "1999-12-31"),
            (-730_119, "0001-01-01"),
            (-730_120, "0001-12-31 BC"),
            (-2_451_545, "4714-11-24 BC"),
            (2_145_031_948, "5874897-12-31"),
            (i32::MAX, "infinity"),
            (i32::MIN, "-infinity"),
        ] {
            assert_eq!(shown(|t| push_date(t, days)), text, "{days}");
        }
    }

    #[test]
    fn moments_and_intervals_keep_each_microsecond() {
        let moment = |micros| shown(|t| push_timestamp(t, micros, "+00"));
        assert_eq!(moment(0), "2000-01-01 00:00:00+00");
        assert_eq!(moment(-1), "1999-12-31 23:59:59.999999+00");
        assert_eq!(moment(-730_120 * DAY), "0001-12-31 00:00:00+00 BC");
        assert_eq!(moment(i64::MAX), "infinity");
        let interval = |m, d, n| shown(|t| push_interval(t, m, d, n));
        assert_eq!(interval(-1, 2, -3), "-3 mons +2 days -00:00:00.000001");
        assert_eq!(
            interval(i64::MIN, 0, 0),
            "+0 mons +0 days -9223372036854775808 us"
        );
        assert_eq!(shown(|t| push_time(t, DAY)), "24:00:00");
        assert_eq!(
            shown(|t| push_time_with_zone(t, 1, 5400)),
            "00:00:00.000001-01:30:00"
        );
    }
}
