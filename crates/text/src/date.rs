//! Tells a date as templates ask for it: Python's `strftime`, of a time that is given.
//!
//! In UTC and English, whatever the machine says: one conversation has one text everywhere.

use minijinja::{Error, ErrorKind};

const DAY_SECONDS: u64 = 24 * 60 * 60;
/// Times after the year 9999 are told as its end, as Python knows none.
const SECONDS_MAX: u64 = 253_402_300_799;
/// Longest format that is read, in bytes.
const FORMAT_BYTES_MAX: usize = 256;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
/// From the weekday of the first day of 1970.
const WEEKDAYS: [&str; 7] =
    ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// A time in the calendar.
pub(crate) struct Moment {
    year: u64,
    /// From 0.
    month: usize,
    /// From 1.
    day: u64,
    /// From 1.
    day_of_year: u64,
    weekday: usize,
    second_of_day: u64,
}

impl Moment {
    /// The time so many seconds after the beginning of 1970.
    pub(crate) fn at(unix_seconds: u64) -> Self {
        let unix_seconds = unix_seconds.min(SECONDS_MAX);
        let days = unix_seconds / DAY_SECONDS;
        let (mut year, mut left) = (1970, days);
        while left >= year_days(year) {
            left -= year_days(year);
            year += 1;
        }
        let day_of_year = left + 1;
        let mut month = 0;
        while left >= month_days(year, month) {
            left -= month_days(year, month);
            month += 1;
        }
        Self {
            year,
            month,
            day: left + 1,
            day_of_year,
            weekday: (days % 7) as usize,
            second_of_day: unix_seconds % DAY_SECONDS,
        }
    }

    /// Writes the time as `format` says.
    ///
    /// # Errors
    /// A letter after `%` that is not among those in use, and a format that is too long.
    pub(crate) fn tell(&self, format: &str) -> Result<String, Error> {
        if format.len() > FORMAT_BYTES_MAX {
            let reason =
                format!("date format of {} bytes, at most {FORMAT_BYTES_MAX}", format.len());
            return Err(Error::new(ErrorKind::InvalidOperation, reason));
        }
        let mut text = String::new();
        let mut letters = format.chars();
        while let Some(letter) = letters.next() {
            if letter != '%' {
                text.push(letter);
                continue;
            }
            let (bare, letter) = match letters.next() {
                Some('-') => (true, letters.next()),
                letter => (false, letter),
            };
            let field = letter.and_then(|letter| self.field(letter)).ok_or_else(|| {
                let reason = format!("unknown field in the date format {format:?}");
                Error::new(ErrorKind::InvalidOperation, reason)
            })?;
            text += if bare { field.trim_start_matches(['0', ' ']) } else { &field };
            // Zero without its leading zeros is zero.
            if bare && !field.is_empty() && field.bytes().all(|digit| digit == b'0') {
                text.push('0');
            }
        }
        Ok(text)
    }

    /// One field of a format, with its zeros.
    fn field(&self, letter: char) -> Option<String> {
        let (month, weekday) = (MONTHS[self.month], WEEKDAYS[self.weekday]);
        let hour = self.second_of_day / 3600;
        Some(match letter {
            'Y' => format!("{:04}", self.year),
            'y' => format!("{:02}", self.year % 100),
            'm' => format!("{:02}", self.month + 1),
            'd' => format!("{:02}", self.day),
            'e' => format!("{:2}", self.day),
            'j' => format!("{:03}", self.day_of_year),
            'B' => month.to_owned(),
            'b' | 'h' => month[..3].to_owned(),
            'A' => weekday.to_owned(),
            'a' => weekday[..3].to_owned(),
            'H' => format!("{hour:02}"),
            'I' => format!("{:02}", (hour + 11) % 12 + 1),
            'p' => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            'M' => format!("{:02}", self.second_of_day / 60 % 60),
            'S' => format!("{:02}", self.second_of_day % 60),
            'F' => format!("{:04}-{:02}-{:02}", self.year, self.month + 1, self.day),
            'T' => [self.field('H')?, self.field('M')?, self.field('S')?].join(":"),
            'Z' => String::new(),
            '%' => "%".to_owned(),
            _ => return None,
        })
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn year_days(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

fn month_days(year: u64, month: usize) -> u64 {
    match month {
        1 if is_leap(year) => 29,
        1 => 28,
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expectations are those of Python's `datetime`.
    fn check(seconds: u64, format: &str, expected: &str) {
        assert_eq!(Moment::at(seconds).tell(format).unwrap(), expected, "{seconds}");
    }

    #[test]
    fn dates_are_pythons() {
        check(0, "%Y-%m-%d %H:%M:%S %A %j", "1970-01-01 00:00:00 Thursday 001");
        check(951_782_400, "%d %b %Y, %a", "29 Feb 2000, Tue");
        check(1_767_225_599, "%B %d, %Y %I:%M %p %y", "December 31, 2025 11:59 PM 25");
        check(4_107_542_400, "%-d.%-m. %F%%", "1.3. 2100-03-01%");
        check(SECONDS_MAX + 1, "%F %T", "9999-12-31 23:59:59");
        check(1_700_000_000, "%-H %-M", "22 13");
        check(0, "%-H:%-S %e %-e", "0:0  1 1");
    }

    #[test]
    fn unknown_fields_are_refused() {
        for format in ["%Q", "%", "%-", "%é", &"%Y".repeat(200)] {
            assert!(Moment::at(0).tell(format).is_err(), "{format}");
        }
    }
}
