//! The shape of the source: who imports whom, how large things are, what is said of them.
//!
//! The numbers of the whole tree are printed by `cargo test --test it architecture -- --nocapture`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

/// Lines of a file without its tests; the aim is 400.
const MAX_FILE: usize = 600;
/// Lines of a function; the aim is 40.
const MAX_FUNCTION: usize = 80;

struct Source {
    path: PathBuf,
    room: String,
    /// The text before the file's tests.
    code: String,
    test_lines: usize,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap().to_owned();
        let test_lines = text.lines().count() - code.lines().count();
        let relative = path.strip_prefix(&src).unwrap().to_owned();
        let room = relative.components().next().unwrap().as_os_str().to_string_lossy().trim_end_matches(".rs").into();
        Source { path: relative, room, code, test_lines }
    };
    rust_files(&src).into_iter().map(read).collect()
}

fn rooms() -> Vec<String> {
    let list = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    list.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).map(str::to_owned).collect()
}

/// The rooms that a text names by `crate::ROOM` or `crate::{ROOM, …}`, comments left out.
fn imported(code: &str) -> BTreeSet<String> {
    let code: Vec<_> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let direct = Regex::new(r"\bcrate::([a-z_]+)").unwrap();
    let grouped = Regex::new(r"\bcrate::\{\s*([a-z_]+)").unwrap();
    let code = code.join("\n");
    direct.captures_iter(&code).chain(grouped.captures_iter(&code)).map(|found| found[1].to_owned()).collect()
}

#[test]
fn rooms_import_only_rooms_listed_before_them() {
    let rooms = rooms();
    let place = |room: &str| rooms.iter().position(|known| known == room);
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(own) = place(&source.room) else { continue };
        for target in imported(&source.code) {
            if place(&target).is_some_and(|target| target > own) {
                wrong.push(format!("{} imports `{target}`", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "imports that go up the list in src/lib.rs:\n{}", wrong.join("\n"));
}

#[test]
fn every_module_says_what_it_is_for() {
    let silent: Vec<_> =
        sources().iter().filter(|s| !s.code.starts_with("//!")).map(|s| s.path.display().to_string()).collect();
    assert!(silent.is_empty(), "modules without `//!`: {silent:?}");
}

#[test]
fn no_module_is_a_drawer_for_odds_and_ends() {
    let drawers = ["util", "utils", "common", "helpers", "helper", "types", "misc"];
    for source in sources() {
        let parts = source.path.with_extension("");
        let found = parts.components().find(|part| drawers.iter().any(|name| part.as_os_str() == *name));
        assert!(found.is_none(), "{}", source.path.display());
    }
}

#[test]
fn only_the_clock_asks_the_machine_for_the_time() {
    for source in sources() {
        let asks = ["SystemTime::now", "Instant::now"].iter().any(|call| source.code.contains(call));
        assert!(!asks || source.path == Path::new("base/clock.rs"), "{}", source.path.display());
    }
}

/// What stops at the first difference tells, by its time, how much of a guess was right.
#[test]
fn no_plain_comparison_touches_what_proves_a_sender() {
    let places = ["webhook/verify", "request/standard_webhooks.rs", "proxy/caller.rs", "admin/guard.rs"];
    let word = r"(?:signature|signatures|mac|digest|offered|secret|password|token|key_hash|token_hash|hash)";
    let plain = [
        format!(r"\b{word}\)?(?:\.as_\w+\(\)|\.expose\(\))*\s*[!=]="),
        format!(r"[!=]=\s*[&*(]*(?:\w+\.)*{word}\b"),
        format!(r"\b{word}(?:\.\w+\(\))*\.(?:eq|ne|cmp|starts_with|ends_with|contains)\("),
    ];
    let plain: Vec<Regex> = plain.iter().map(|pattern| Regex::new(pattern).unwrap()).collect();
    let found_by = |line: &str| plain.iter().any(|pattern| pattern.is_match(line)) && !line.contains(".len()");
    for (line, found) in [
        ("if signature == expected {", true),
        ("if ours != secret.expose() {", true),
        ("offered.iter().any(|digest| digest.as_slice() == right)", true),
        ("secret.expose().starts_with(given)", true),
        ("digest.len() == length", false),
        ("mac.verify_slice(signature).is_ok()", false),
    ] {
        assert_eq!(found_by(line), found, "{line}");
    }
    for source in sources() {
        let path = source.path.to_string_lossy().into_owned();
        if places.iter().any(|place| path.starts_with(place)) {
            let wrong = source.code.lines().find(|line| !line.trim_start().starts_with("//") && found_by(line));
            assert_eq!(wrong, None, "{path}: compare in constant time");
        }
    }
}

#[test]
fn files_and_functions_keep_their_budgets_and_the_numbers_are_printed() {
    let sources = sources();
    let mut files: Vec<_> = sources.iter().map(|source| source.code.lines().count()).collect();
    let mut functions: Vec<_> = sources.iter().flat_map(|source| function_lengths(&source.code)).collect();
    let code: usize = files.iter().sum();
    let in_files: usize = sources.iter().map(|source| source.test_lines).sum();
    let tests = in_files + rust_files(&root().join("tests")).iter().map(|path| lines_of(path)).sum::<usize>();
    let comments = sources.iter().flat_map(|s| s.code.lines()).filter(|l| l.trim_start().starts_with("//")).count();
    println!("files      {:4}  lines median/p90/max {}", files.len(), spread(&mut files));
    println!("functions  {:4}  lines median/p90/max {}", functions.len(), spread(&mut functions));
    println!("code {code} lines, comments {} %, tests/code {:.2}", comments * 100 / code, ratio(tests, code));
    for source in &sources {
        let lines = source.code.lines().count();
        assert!(lines <= MAX_FILE, "{} has {lines} lines", source.path.display());
        let longest = function_lengths(&source.code).into_iter().max().unwrap_or(0);
        assert!(longest <= MAX_FUNCTION, "{} has a function of {longest} lines", source.path.display());
    }
}

fn lines_of(path: &Path) -> usize {
    fs::read_to_string(path).unwrap().lines().count()
}

#[expect(clippy::cast_precision_loss, reason = "line counts are small")]
fn ratio(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}

fn spread(numbers: &mut [usize]) -> String {
    numbers.sort_unstable();
    let at = |share: usize| numbers.get((numbers.len() * share / 100).min(numbers.len() - 1)).copied().unwrap_or(0);
    format!("{}/{}/{}", at(50), at(90), at(100))
}

/// Lengths of the functions in formatted code: from `fn` to the brace at the same indentation.
fn function_lengths(code: &str) -> Vec<usize> {
    let head = Regex::new(r"^(\s*)(?:pub(?:\([a-z ]+\))? )?(?:const )?(?:async )?fn ").unwrap();
    let lines: Vec<_> = code.lines().collect();
    let mut lengths = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(found) = head.captures(line) else { continue };
        if line.ends_with(';') || line.ends_with('}') {
            continue;
        }
        let end = format!("{}}}", &found[1]);
        let length =
            lines[start..].iter().position(|line| **line == end || line.ends_with(';') && indent_is(line, &found[1]));
        lengths.extend(length.map(|length| length + 1));
    }
    lengths
}

/// Whether a line stands at exactly this indentation: the end of a function without a body.
fn indent_is(line: &str, indent: &str) -> bool {
    line.strip_prefix(indent).is_some_and(|rest| !rest.starts_with(' '))
}
