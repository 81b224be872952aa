//! What is wrong with files: how much of it is kept, and what the log says of it.

use tracing::{info, warn};

use crate::definition::assemble;
use crate::definition::live::{FileStatus, Generation};
use crate::definition::plan::limits::Limits;
use crate::definition::problem::{Problem, Severity};
use crate::definition::render;
use crate::definition::workspace::Deployment;
use crate::telemetry::metrics::Metrics;

/// Keeps of what was found as much as the gateway file that was read allows, or the settings in force where it does not
/// count. Without either nothing will be in force, and all of it is told.
pub(super) fn bound(read: &mut Deployment, in_force: Option<&Limits>) {
    let gateway = read.gateway.as_ref().and_then(|gateway| gateway.compiled.clone());
    let most = gateway.as_ref().map(|gateway| &gateway.limits).or(in_force).map(|limits| limits.listed_faults);
    if let Some(most) = most {
        read.bound(most);
    }
}

/// Says in the log what is wrong with files and was not told before, within the bound for it.
pub(super) fn tell(previous: Option<&Generation>, generation: &Generation, metrics: &Metrics) {
    let known = previous.map(|last| assemble::index(&last.files)).unwrap_or_default();
    let is_new =
        |status: &&FileStatus| known.get(status.file.as_os_str()).is_none_or(|before| !has_told(before, status));
    let faulty = generation.files.iter().filter(|status| !status.problems.is_empty());
    let new: Vec<&FileStatus> = faulty.filter(is_new).collect();
    let lines = lines(&new);
    let room = generation.gateway.limits.listed_faults;
    lines.iter().take(room).for_each(|(status, problem)| tell_of(status, problem));
    let more = lines.len().saturating_sub(room) + new.iter().map(|status| status.left_out.errors).sum::<usize>();
    if more > 0 {
        warn!("{more} more faults of definitions are not listed here: `trunkline check` shows all");
        metrics.admin_limits_reached.with_label_values(&["listed_faults"]).inc_by(more as u64);
    }
}

/// What the log says of files: the first error of each, then their other errors, then warnings.
fn lines<'a>(files: &[&'a FileStatus]) -> Vec<(&'a FileStatus, &'a Problem)> {
    let of = |status: &'a FileStatus, severity| {
        let found = status.problems.iter().filter(move |problem| problem.severity == severity);
        found.map(move |problem| (status, problem))
    };
    let first = files.iter().flat_map(|status| of(status, Severity::Error).take(1));
    let others = files.iter().flat_map(|status| of(status, Severity::Error).skip(1));
    first.chain(others).chain(files.iter().flat_map(|status| of(status, Severity::Warning))).collect()
}

/// Whether a file said before all that it says now. It says less when others have more to say.
fn has_told(before: &FileStatus, status: &FileStatus) -> bool {
    let mut told = before.problems.iter();
    status.problems.iter().all(|problem| told.any(|before| before == problem))
}

fn tell_of(status: &FileStatus, problem: &Problem) {
    let code = problem.code.to_string();
    match problem.severity {
        Severity::Error => {
            let line = render::line(problem);
            warn!(problem.code = code, config.file = %status.file.display(), "definition refused: {line}");
        }
        Severity::Warning => info!(problem.code = code, "definition warned about: {}", render::line(problem)),
        Severity::Notice => {}
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;
    use crate::definition::bound::LeftOut;
    use crate::definition::live::FileState;
    use crate::definition::problem::{Code, Place};

    #[test]
    fn the_first_error_of_each_file_is_told_before_anything_else_and_no_notice() {
        let status = |name: &str, severities: &[Severity]| {
            let file = Arc::new(PathBuf::from(name));
            let problem = |(place, severity): (usize, &Severity)| Problem {
                severity: *severity,
                ..Problem::error(Code::Conflict, Place::file(Arc::clone(&file)), format!("{name}{place}"))
            };
            let problems = severities.iter().enumerate().map(problem).collect();
            let (state, left_out) = (FileState::Rejected, LeftOut::default());
            FileStatus { file: Arc::clone(&file), integration: None, state, problems, left_out }
        };
        let [error, warning, notice] = [Severity::Error, Severity::Warning, Severity::Notice];
        let files =
            [status("a", &[warning, error, notice, error]), status("b", &[notice]), status("c", &[error, warning])];
        let told = lines(&files.iter().collect::<Vec<_>>());
        let told: Vec<_> = told.iter().map(|(_, problem)| problem.message.as_str()).collect();
        assert_eq!(told, ["a1", "c0", "a3", "a0", "c1"]);
    }
}
