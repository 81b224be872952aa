//! `log`: a line of the definition's own in the log.

use crate::definition::plan::rule::LogLevel;
use crate::queue::{Again, Report, Task};
use crate::telemetry::trace;
use crate::template::Text;

/// The most bytes of a line.
const LONGEST: usize = 4_096;

/// Writes the line. Its control characters are escaped, so that a value cannot forge a second line.
pub fn run(task: &Task, level: LogLevel, message: &Text) -> Report {
    let line = match message.render(&task.seen.context) {
        Ok(line) => line,
        Err(error) => {
            let why = format!("the message cannot be made: {}", task.seen.explain(&error));
            return Report::failed(None, why, Again::Never);
        }
    };
    let (kept, _) = line.split_at(line.floor_char_boundary(LONGEST));
    let line: String = kept.chars().flat_map(escaped).collect();
    let (event, integration) = (task.event.head.id, &*task.integration.id);
    let trace_id = trace::current().map(|place| place.trace.to_string());
    match level {
        LogLevel::Debug => tracing::debug!(event.id = %event, integration, trace_id, "{line}"),
        LogLevel::Info => tracing::info!(event.id = %event, integration, trace_id, "{line}"),
        LogLevel::Warn => tracing::warn!(event.id = %event, integration, trace_id, "{line}"),
        LogLevel::Error => tracing::error!(event.id = %event, integration, trace_id, "{line}"),
    }
    Report::done(None)
}

fn escaped(c: char) -> impl Iterator<Item = char> {
    let control = c.is_control();
    c.escape_default().filter(move |_| control).chain((!control).then_some(c))
}
