//! Where words go: data to standard output, everything else to standard error; bars and colours
//! only where a person watches.

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

/// Between two lines about the same work where nobody watches a bar.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Writes a line of data to standard output.
pub(crate) fn say(line: impl Display) {
    write(&format!("{line}\n"));
}

/// Writes a piece of data to standard output, at once.
pub(crate) fn write(text: &str) {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    if written.is_err_and(|error| error.kind() == ErrorKind::BrokenPipe) {
        // Whoever read our output has seen enough, as in `assay … | head`.
        std::process::exit(0);
    }
}

/// Writes one JSON document, on one line, to standard output.
pub(crate) fn say_json(document: &Value) {
    say(document);
}

/// Writes a line for people to standard error.
pub(crate) fn note(line: impl Display) {
    // Where standard error is closed, nobody is left to be told.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Whether errors and logs may be coloured.
pub(crate) fn stderr_has_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && io::stderr().is_terminal()
}

/// Whether data may be coloured.
pub(crate) fn stdout_has_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && io::stdout().is_terminal()
}

/// A colour of the terminal.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Colour {
    Red = 31,
    Green = 32,
    Yellow = 33,
}

/// `text` in a colour, or as it is where colours may not be used.
pub(crate) fn coloured(text: &str, colour: Colour, allowed: bool) -> String {
    if allowed { format!("\x1b[{}m{text}\x1b[0m", colour as u8) } else { text.to_owned() }
}

/// Shows how far some work is: a bar for a person, a line now and then for a log.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    stage: String,
    said: Instant,
    /// Of bytes: when the stage began, and how many there were then.
    pace: Option<(Instant, u64)>,
}

impl Progress {
    /// Work that has not begun.
    pub(crate) fn new() -> Self {
        Self::styled("  {msg:<24} {bar:30} {percent:>3} % {eta:>4}")
    }

    /// Work that has not begun and is counted in bytes: it tells how fast it is, too.
    pub(crate) fn of_bytes() -> Self {
        let style = "  {msg:<10} {bar:24} {bytes} of {total_bytes} {bytes_per_sec} {eta:>4}";
        let mut progress = Self::styled(style);
        progress.pace = Some((Instant::now(), 0));
        progress
    }

    fn styled(style: &str) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(style);
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, stage: String::new(), said: Instant::now(), pace: None }
    }

    /// `done` of `total` units of `stage` are done.
    pub(crate) fn show(&mut self, stage: &str, done: u64, total: u64) {
        let begins = self.stage != stage;
        if begins {
            stage.clone_into(&mut self.stage);
            // What was there before says nothing about the pace.
            self.pace = self.pace.map(|_| (Instant::now(), done));
        }
        match &self.bar {
            Some(bar) => {
                if begins {
                    bar.reset();
                    bar.set_message(stage.to_owned());
                    bar.set_position(done);
                    bar.reset_eta();
                }
                bar.set_length(total);
                bar.set_position(done);
            }
            None if self.said.elapsed() >= LINE_EVERY => {
                self.said = Instant::now();
                let percent = u128::from(done) * 100 / u128::from(total.max(1));
                match self.pace {
                    Some((began, before)) => {
                        let pace = pace(
                            done.saturating_sub(before),
                            total - done.min(total),
                            began.elapsed(),
                        );
                        note(format_args!("  {stage}: {percent} % of {}{pace}", bytes(total)));
                    }
                    None => note(format_args!("  {stage}: {percent} %")),
                }
            }
            None => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// How fast something comes, and how long the rest will take.
fn pace(came: u64, rest: u64, took: Duration) -> String {
    let a_second = came as f64 / took.as_secs_f64().max(1e-3);
    if a_second < 1.0 {
        return String::new();
    }
    let left = rest as f64 / a_second;
    let left = match left as u64 {
        seconds @ 0..100 => format!("{seconds} s"),
        seconds @ 100..6000 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    };
    format!(", {} a second, {left} left", bytes(a_second as u64))
}

/// A number of bytes as people read it.
pub(crate) fn bytes(count: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| count >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", count as f64 / unit as f64),
        None => format!("{count} bytes"),
    }
}

/// Reads a number of bytes, such as `8GiB`, `512 MiB`, `2G` or `1000`.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" | "bytes" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return Err(format!("{text:?} is no number of bytes: write it as 8GiB or 512MiB")),
    };
    let count: f64 = number.parse().map_err(|_| format!("{text:?} begins with no number"))?;
    let found = count * factor as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
    match (1.0..=u64::MAX as f64 / 2.0).contains(&found) {
        true => Ok(found as u64),
        false => Err(format!("{text:?} is not between a byte and eight million TiB")),
    }
}

/// A large number with a separator every three digits.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let texts: Vec<String> = [0, 999, 1000, 869_504, 12_345_678].map(grouped).into();
        assert_eq!(texts, ["0", "999", "1,000", "869,504", "12,345,678"]);
        let sizes = [12, 2048, 956_416, 3 << 30].map(bytes);
        assert_eq!(sizes, ["12 bytes", "2.0 KiB", "934.0 KiB", "3.0 GiB"]);
    }

    #[test]
    fn sizes_are_read() {
        let sizes = ["1000", "2k", "1.5 MiB", "8GiB", "3 tb"].map(parse_bytes);
        let expected = [1000, 2 << 10, 3 << 19, 8 << 30, 3 << 40];
        assert_eq!(sizes, expected.map(Ok));
        for bad in ["", "GiB", "1.2.3", "-1", "0", "1e9", "5 apples", "99999999999TiB"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pace_tells_what_is_left() {
        let pace = |came, rest, seconds| pace(came, rest, Duration::from_secs(seconds));
        assert_eq!(pace(10 << 20, 40 << 20, 5), ", 2.0 MiB a second, 20 s left");
        assert_eq!(pace(1 << 20, 600 << 20, 1), ", 1.0 MiB a second, 10 min left");
        assert_eq!(pace(1 << 10, 1 << 30, 1), ", 1.0 KiB a second, 291 h left");
        assert_eq!(pace(0, 1, 5), "");
    }

    #[test]
    fn colours_only_where_allowed() {
        assert_eq!(coloured("no", Colour::Red, false), "no");
        assert_eq!(coloured("no", Colour::Red, true), "\x1b[31mno\x1b[0m");
    }
}
