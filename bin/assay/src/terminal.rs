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
}

impl Progress {
    /// Work that has not begun.
    pub(crate) fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style =
                ProgressStyle::with_template("  {msg:<24} {bar:30} {percent:>3} % {eta:>4}");
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, stage: String::new(), said: Instant::now() }
    }

    /// `done` of `total` units of `stage` are done.
    pub(crate) fn show(&mut self, stage: &str, done: u64, total: u64) {
        let begins = self.stage != stage;
        if begins {
            stage.clone_into(&mut self.stage);
        }
        match &self.bar {
            Some(bar) => {
                if begins {
                    bar.reset();
                    bar.set_message(stage.to_owned());
                }
                bar.set_length(total);
                bar.set_position(done);
            }
            None if self.said.elapsed() >= LINE_EVERY => {
                self.said = Instant::now();
                note(format_args!("  {stage}: {} %", done * 100 / total.max(1)));
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

/// A number of bytes as people read it.
pub(crate) fn bytes(count: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| count >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", count as f64 / unit as f64),
        None => format!("{count} bytes"),
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
    fn colours_only_where_allowed() {
        assert_eq!(coloured("no", Colour::Red, false), "no");
        assert_eq!(coloured("no", Colour::Red, true), "\x1b[31mno\x1b[0m");
    }
}
