//! Where a command's words go: results to standard output, everything else to standard error.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::{Colours, Common};
use crate::base::plain::in_json;

/// A command's way out.
pub struct Output {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    /// Whether results are wanted as JSON.
    pub json: bool,
    /// Whether results may be coloured.
    pub colour: bool,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("json", &self.json).field("colour", &self.colour).finish_non_exhaustive()
    }
}

impl Output {
    /// The process's own.
    pub fn of_process(common: &Common) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colour = match common.color {
            Colours::Auto => io::stdout().is_terminal() && !plain,
            Colours::Always => true,
            Colours::Never => false,
        };
        Self { out: Box::new(io::stdout()), err: Box::new(io::stderr()), json: common.json, colour }
    }

    /// A line of the result.
    ///
    /// # Errors
    /// When standard output is closed or full.
    pub fn line(&mut self, line: impl fmt::Display) -> io::Result<()> {
        writeln!(self.out, "{line}")
    }

    /// A part of the result as it is, without a line's end.
    ///
    /// # Errors
    /// When standard output is closed or full.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.out.flush()
    }

    /// The result as JSON, in which nothing turns or hides text: much of it is what others sent.
    ///
    /// # Errors
    /// When standard output is closed or full.
    pub fn value(&mut self, value: &impl Serialize) -> io::Result<()> {
        writeln!(self.out, "{}", in_json(&serde_json::to_string_pretty(value)?))
    }

    /// Rows under headings, in columns as wide as they need to be.
    ///
    /// # Errors
    /// When standard output is closed or full.
    pub fn table(&mut self, headings: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain(headings.get(column).map(|heading| heading.chars().count())).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..headings.len()).map(width).collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let padded: Vec<_> = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            padded.join("  ").trim_end().to_owned()
        };
        let heading = line(&mut headings.iter().copied());
        self.line(heading)?;
        rows.iter().try_for_each(|row| {
            let row = line(&mut row.iter().map(String::as_str));
            self.line(row)
        })
    }

    /// Something for the person at the terminal that is no result.
    pub fn note(&mut self, line: impl fmt::Display) {
        // When even standard error is closed there is nobody left to tell.
        drop(writeln!(self.err, "{line}"));
    }

    /// An error with its causes.
    pub fn error(&mut self, error: &anyhow::Error) {
        self.note(format_args!("error: {error:#}"));
    }
}

/// Whether an error only says that the reader of our output has gone, as `head` does.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_others_sent_turns_no_text_of_a_result() {
        let written = Written::default();
        let mut output =
            Output { out: Box::new(written.clone()), err: Box::new(io::sink()), json: true, colour: false };
        output.value(&serde_json::json!({ "type": "a\u{202e}b\u{9b}" })).expect("written");
        let bytes = written.0.lock().expect("no panic").clone();
        assert_eq!(String::from_utf8_lossy(&bytes), "{\n  \"type\": \"a\\u202eb\\u009b\"\n}\n");
    }
}
