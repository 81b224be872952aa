//! Problems as text with excerpts, carets and help.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fmt::{self, Write};
use std::ops::Range;
use std::rc::Rc;

use super::redact::{self, Line, Page};
use super::{Report, known};
use crate::base::plain;
use crate::base::span::Span;
use crate::definition::problem::{Code, Place, Problem, Severity};

/// The widest excerpt; longer lines are cut around the caret.
const WIDTH: usize = 110;

/// The escape sequences of a style, or nothing.
struct Paint {
    on: bool,
}

impl Paint {
    fn write(&self, out: &mut String, style: &str, text: impl fmt::Display) -> fmt::Result {
        if self.on { write!(out, "\u{1b}[{style}m{text}\u{1b}[0m") } else { write!(out, "{text}") }
    }
}

const BOLD: &str = "1";
const BLUE: &str = "1;34";
const GREEN: &str = "1;32";

pub(super) fn render(report: &Report, colours: bool) -> String {
    let (paint, mut out) = (Paint { on: colours }, String::new());
    let (notices, problems): (Vec<_>, Vec<_>) = report
        .problems
        .iter()
        .partition(|problem| problem.severity == Severity::Notice && problem.code == Code::NotYetRun);
    let mut sources = Sources::of(report);
    for problem in problems {
        // Writing to a string cannot fail.
        let written = one(&mut out, &mut sources, problem, &paint);
        debug_assert!(written.is_ok());
    }
    for of_file in notices.chunk_by(|a, b| a.place.file == b.place.file) {
        let written = not_yet(&mut out, of_file, &paint);
        debug_assert!(written.is_ok());
    }
    out.push_str(&summary(report));
    out
}

/// The parts of one file that are declared and not yet run, in one block: there is nothing to mend, so
/// each is one line.
fn not_yet(out: &mut String, notices: &[&Problem], paint: &Paint) -> fmt::Result {
    let Some(first) = notices.first() else { return Ok(()) };
    paint.write(out, "1;36", format_args!("notice[{}]", first.code))?;
    paint.write(out, BOLD, format_args!(": {}", path(&first.place)))?;
    out.push('\n');
    // By what follows from them, each said once.
    let mut helps: Vec<Option<&str>> = Vec::new();
    for notice in notices {
        if !helps.contains(&notice.help.as_deref()) {
            helps.push(notice.help.as_deref());
        }
    }
    for help in helps {
        for notice in notices.iter().filter(|notice| notice.help.as_deref() == help) {
            paint.write(out, BLUE, "  =")?;
            writeln!(out, " line {}: {}", notice.place.span.start.line, notice.message)?;
        }
        let Some(help) = help else { continue };
        paint.write(out, BLUE, "  =")?;
        out.push(' ');
        paint.write(out, GREEN, "help:")?;
        writeln!(out, " {help}")?;
    }
    out.push('\n');
    Ok(())
}

fn one(out: &mut String, sources: &mut Sources<'_>, problem: &Problem, paint: &Paint) -> fmt::Result {
    let (word, colour) = match problem.severity {
        Severity::Error => ("error", "1;31"),
        Severity::Warning => ("warning", "1;33"),
        Severity::Notice => ("notice", "1;36"),
    };
    paint.write(out, colour, format_args!("{word}[{}]", problem.code))?;
    paint.write(out, BOLD, format_args!(": {}", problem.message))?;
    let place = &problem.place;
    let number = place.span.start.line.to_string();
    let margin = " ".repeat(number.len());
    out.push('\n');
    paint.write(out, BLUE, format_args!("{margin}-->"))?;
    writeln!(out, " {}:{}", path(place), place.span.start)?;
    if let Some(line) = sources.line(place) {
        let excerpt = Excerpt::new(&line, place.span);
        paint.write(out, BLUE, format_args!("{margin} |"))?;
        out.push('\n');
        paint.write(out, BLUE, format_args!("{number} |"))?;
        writeln!(out, " {}", excerpt.text)?;
        paint.write(out, BLUE, format_args!("{margin} |"))?;
        let carets = "^".repeat(excerpt.carets.len().max(1));
        let label = problem.label.as_deref().map(|label| format!(" {label}")).unwrap_or_default();
        write!(out, " {}", " ".repeat(excerpt.carets.start))?;
        paint.write(out, colour, format_args!("{carets}{label}"))?;
        out.push('\n');
    }
    for (head, text) in [
        ("did you mean", problem.suggestion.as_ref().map(|name| format!("`{name}`?"))),
        ("help:", problem.help.clone()),
    ] {
        let Some(text) = text else { continue };
        paint.write(out, BLUE, format_args!("{margin} ="))?;
        out.push(' ');
        paint.write(out, GREEN, head)?;
        writeln!(out, " {text}")?;
    }
    out.push('\n');
    Ok(())
}

/// A file's name as a terminal can show it: whoever names it may put into it what turns the line around.
fn path(place: &Place) -> String {
    plain::shown(&place.file.display().to_string()).into_owned()
}

/// The lines that problems begin on. Each file is looked through once, and each line once for all problems on it.
struct Sources<'a> {
    files: HashMap<&'a OsStr, Source<'a>>,
    /// The line that was asked for last, with its file: problems come in order.
    last: Option<(&'a OsStr, usize, Rc<Line>)>,
}

struct Source<'a> {
    page: Page<'a>,
    /// The secrets on the lines that problems begin on, in characters from zero.
    secrets: BTreeMap<usize, Vec<Range<usize>>>,
}

impl<'a> Sources<'a> {
    fn of(report: &'a Report) -> Self {
        let mut of_files: HashMap<&OsStr, Vec<&Problem>> = HashMap::new();
        for problem in &report.problems {
            of_files.entry(problem.place.file.as_os_str()).or_default().push(problem);
        }
        let mut hidden: HashMap<&OsStr, Vec<&Place>> = HashMap::new();
        let literal = report.problems.iter().filter(|problem| problem.code == Code::LiteralSecret);
        for place in report.hidden.iter().chain(literal.map(|problem| &problem.place)) {
            hidden.entry(place.file.as_os_str()).or_default().push(place);
        }
        let texts = report.texts.iter().map(|(file, text)| (file.as_os_str(), text));
        let files = texts.filter_map(|(file, text)| {
            let problems = of_files.get(file)?;
            let lines = problems.iter().filter(|problem| !is_whole_file(&problem.place));
            let mut secrets = lines.map(|problem| (problem.place.span.start.line, Vec::new())).collect();
            redact::spread(hidden.get(file).into_iter().flatten().copied(), &mut secrets);
            let page = Page::new(text, known(problems.iter().copied()));
            Some((file, Source { page, secrets }))
        });
        Self { files: files.collect(), last: None }
    }

    /// The line a problem begins on, when there is something to point at.
    fn line(&mut self, place: &Place) -> Option<Rc<Line>> {
        let number = place.span.start.line;
        let (file, source) = self.files.get_key_value(place.file.as_os_str()).filter(|_| !is_whole_file(place))?;
        if let Some((_, _, line)) = self.last.as_ref().filter(|(last, line, _)| last == file && *line == number) {
            return Some(Rc::clone(line));
        }
        let line = Rc::new(source.page.line(number, source.secrets.get(&number)?)?);
        self.last = Some((*file, number, Rc::clone(&line)));
        Some(line)
    }
}

fn is_whole_file(place: &Place) -> bool {
    place.span.start == place.span.end && place.pointer.is_empty()
}

/// A line that is safe to show and fits, and where the carets stand in it.
struct Excerpt {
    text: String,
    carets: Range<usize>,
}

impl Excerpt {
    fn new(safe: &Line, span: Span) -> Self {
        let width = safe.text.chars().count();
        let start = safe.column(span.start.column.saturating_sub(1));
        let end = if span.end.line > span.start.line { width } else { safe.column(span.end.column.saturating_sub(1)) };
        let end = end.min(width).max(start + 1);
        if width <= WIDTH {
            return Self { text: safe.text.clone(), carets: start..end };
        }
        let from = start.saturating_sub(WIDTH / 3);
        let shown: String = safe.text.chars().skip(from).take(WIDTH).collect();
        let (head, shift) = if from > 0 { ("…", 1) } else { ("", 0) };
        let tail = if from + WIDTH < width { "…" } else { "" };
        let carets = start - from + shift..(end - from).min(WIDTH) + shift;
        Self { text: format!("{head}{shown}{tail}"), carets }
    }
}

/// `2 errors and 1 warning in 3 files`.
fn summary(report: &Report) -> String {
    let counted = |count: usize, noun: &str| match count {
        0 => None,
        1 => Some(format!("1 {noun}")),
        count => Some(format!("{count} {noun}s")),
    };
    let found = [
        counted(report.count(Severity::Error), "error"),
        counted(report.count(Severity::Warning), "warning"),
        counted(report.count(Severity::Notice), "notice"),
    ];
    let found: Vec<String> = found.into_iter().flatten().collect();
    let found = if found.is_empty() { "no problems".to_owned() } else { found.join(", ") };
    let files = if report.files == 1 { "1 file".to_owned() } else { format!("{} files", report.files) };
    format!("{found} in {files}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::span::Position;
    use crate::definition::problem::Place;
    use std::path::PathBuf;
    use std::sync::Arc;

    fn report(text: &str, problems: &[(Code, usize, Range<usize>)]) -> Report {
        let file = Arc::new(PathBuf::from("a.yaml"));
        let problems = problems.iter().map(|(code, line, columns)| {
            let at = |column| Position { line: *line, column };
            let span = Span { start: at(columns.start), end: at(columns.end) };
            let place = Place { file: Arc::clone(&file), span, pointer: "/x".to_owned() };
            Problem::error(*code, place, "something is wrong").label("here").help("Mend it.")
        });
        Report {
            files: 1,
            problems: problems.collect(),
            texts: [(Arc::clone(&file), text.into())].into(),
            hidden: Vec::new(),
        }
    }

    #[test]
    fn a_problem_is_shown_with_its_line() {
        let text = report("a: 1\nb: é wrong\n", &[(Code::WrongType, 2, 6..11)]).text(false);
        let expected = "error[wrong-type]: something is wrong\n --> a.yaml:2:6\n  |\n2 | b: é wrong\n  |      ^^^^^ here\n  \
                        = help: Mend it.\n\n1 error in 1 file\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_literal_secret_is_hidden_from_every_problem_on_its_line() {
        let problems = [(Code::UnknownField, 1, 3..4), (Code::LiteralSecret, 1, 6..14), (Code::WrongType, 1, 19..20)];
        let text = report("{ a: swordfis, c: d }", &problems).text(false);
        assert!(!text.contains("swordfis"), "{text}");
        assert!(text.contains("1 | { a: ••••••, c: d }\n  |                 ^ here"), "{text}");
    }

    #[test]
    fn a_files_name_does_not_turn_its_line() {
        let mut report = report("a: 1\n", &[(Code::WrongType, 1, 4..5)]);
        report.problems[0].place.file = Arc::new(PathBuf::from("a\u{202e}lmay.b"));
        assert!(report.text(false).contains("--> a\\u{202e}lmay.b:1:4"), "{}", report.text(false));
    }

    #[test]
    fn long_lines_are_cut_around_the_caret() {
        let line = format!("a: \"{}X{}\"", "-".repeat(400), "-".repeat(400));
        let text = report(&line, &[(Code::BadFormat, 1, 405..406)]).text(false);
        assert!(text.lines().all(|line| line.chars().count() < 130), "{text}");
        let (shown, carets) = (text.lines().nth(3).expect("a line"), text.lines().nth(4).expect("carets"));
        assert_eq!(shown.chars().position(|c| c == 'X'), carets.chars().position(|c| c == '^'));
    }

    #[test]
    fn colours_are_for_terminals_only() {
        let report = report("a: 1", &[(Code::WrongType, 1, 4..5)]);
        assert!(report.text(true).contains("\u{1b}[") && !report.text(false).contains('\u{1b}'));
    }
}
