//! The filters, tests and functions there are, and what each takes: the engine itself would find a wrong argument only
//! when a webhook is already waiting for it. Called by [`super::syntax`].
//!
//! A test runs all of them, so that the tables say what the engine does.

use minijinja::machinery::ast::{CallArg, Expr};

use super::TemplateErrorKind;

/// A filter, a test or a function, and what it takes besides the value it is put behind.
#[derive(Debug, Clone, Copy)]
pub struct Takes {
    /// What it is called.
    pub name: &'static str,
    /// How many arguments it must have.
    least: usize,
    /// Arguments by their places.
    places: &'static [&'static str],
    /// Arguments by their names, those among them that have a place as well.
    named: &'static [&'static str],
    then: Then,
}

/// What may follow the last place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Nothing,
    /// The last place names a filter, which takes what follows.
    Filter,
    /// The last place names a test, which takes what follows.
    Test,
}

/// What is wrong with the arguments of a call.
pub(super) struct Fault {
    /// What it is, and what could be there.
    pub message: String,
    /// Which of the arguments it is, where it is one.
    pub argument: Option<usize>,
    pub kind: TemplateErrorKind,
}

const fn takes(name: &'static str, least: usize, places: &'static [&'static str]) -> Takes {
    Takes { name, least, places, named: &[], then: Then::Nothing }
}

/// The filters there are.
pub static FILTERS: [Takes; 41] = [
    takes("abs", 0, &[]),
    takes("attr", 1, &["name"]),
    takes("base64decode", 0, &[]),
    takes("base64encode", 0, &[]),
    takes("base64urlencode", 0, &[]),
    takes("batch", 1, &["count", "filler"]),
    takes("bool", 0, &[]),
    takes("count", 0, &[]),
    takes("default", 0, &["value", "also_falsy"]),
    takes("dictsort", 0, &[]).named(&["by", "case_sensitive", "reverse"]),
    takes("first", 0, &[]),
    takes("float", 0, &["default"]).named(&["default"]),
    takes("groupby", 1, &["attribute"]).named(&["attribute", "case_sensitive", "default"]),
    takes("hmac", 1, &["key"]).named(&["algorithm", "encoding"]),
    takes("int", 0, &["default", "base"]).named(&["base", "default"]),
    takes("items", 0, &[]),
    takes("join", 0, &["d", "attribute"]).named(&["attribute", "d"]),
    takes("last", 0, &[]),
    takes("length", 0, &[]),
    takes("list", 0, &[]),
    takes("lower", 0, &[]),
    takes("map", 1, &["filter"]).named(OF_MAP).then(Then::Filter),
    takes("max", 0, &[]).named(&["attribute", "case_sensitive"]),
    takes("min", 0, &[]).named(&["attribute", "case_sensitive"]),
    takes("reject", 0, &["test"]).then(Then::Test),
    takes("rejectattr", 1, &["attribute", "test"]).then(Then::Test),
    takes("replace", 2, &["old", "new"]),
    takes("rfc3339", 0, &[]),
    takes("round", 0, &["precision", "method"]).named(&["method", "precision"]),
    takes("select", 0, &["test"]).then(Then::Test),
    takes("selectattr", 1, &["attribute", "test"]).then(Then::Test),
    takes("sha1", 0, &["encoding"]),
    takes("sha256", 0, &["encoding"]),
    takes("sha512", 0, &["encoding"]),
    takes("sort", 0, &[]).named(&["attribute", "case_sensitive", "reverse"]),
    takes("split", 0, &["separator", "most"]),
    takes("string", 0, &[]),
    takes("tojson", 0, &[]),
    takes("trim", 0, &["characters"]),
    takes("unique", 0, &[]).named(&["attribute", "case_sensitive"]),
    takes("upper", 0, &[]),
];

/// Those that the engine has besides: some have no bound, and `map` would reach all of them by their names.
pub(super) const TAKEN_AWAY: [&str; 16] = [
    "capitalize",
    "chain",
    "d",
    "e",
    "escape",
    "format",
    "indent",
    "lines",
    "pprint",
    "reverse",
    "safe",
    "slice",
    "sum",
    "title",
    "urlencode",
    "zip",
];

/// `map` with an attribute in place of a filter.
static MAP_OF_ATTRIBUTE: Takes = takes("map", 0, &[]).named(OF_MAP);
const OF_MAP: &[&str] = &["attribute", "default"];

/// The tests there are, for `x is TEST`.
pub static TESTS: [Takes; 15] = [
    takes("defined", 0, &[]),
    takes("endingwith", 1, &["end"]),
    takes("eq", 1, &["other"]),
    takes("even", 0, &[]),
    takes("false", 0, &[]),
    takes("integer", 0, &[]),
    takes("iterable", 0, &[]),
    takes("mapping", 0, &[]),
    takes("none", 0, &[]),
    takes("number", 0, &[]),
    takes("odd", 0, &[]),
    takes("sequence", 0, &[]),
    takes("startingwith", 1, &["start"]),
    takes("string", 0, &[]),
    takes("true", 0, &[]),
];

/// Those that only `select` and its like reach, by their names.
static SELECTED_TESTS: [Takes; 27] = [
    takes("!=", 1, &["other"]),
    takes("<", 1, &["other"]),
    takes("<=", 1, &["other"]),
    takes("==", 1, &["other"]),
    takes(">", 1, &["other"]),
    takes(">=", 1, &["other"]),
    takes("boolean", 0, &[]),
    takes("divisibleby", 1, &["other"]),
    takes("equalto", 1, &["other"]),
    takes("escaped", 0, &[]),
    takes("filter", 0, &[]),
    takes("float", 0, &[]),
    takes("ge", 1, &["other"]),
    takes("greaterthan", 1, &["other"]),
    takes("gt", 1, &["other"]),
    takes("in", 1, &["list"]),
    takes("int", 0, &[]),
    takes("le", 1, &["other"]),
    takes("lessthan", 1, &["other"]),
    takes("lower", 0, &[]),
    takes("lt", 1, &["other"]),
    takes("ne", 1, &["other"]),
    takes("safe", 0, &[]),
    takes("sameas", 1, &["other"]),
    takes("test", 0, &[]),
    takes("undefined", 0, &[]),
    takes("upper", 0, &[]),
];

/// The functions there are.
pub static FUNCTIONS: [Takes; 1] = [takes("range", 1, &["first", "end", "step"])];

impl Takes {
    const fn named(mut self, named: &'static [&'static str]) -> Self {
        self.named = named;
        self
    }

    const fn then(mut self, then: Then) -> Self {
        self.then = then;
        self
    }

    /// What is wrong with these arguments, as far as what is written says.
    pub(super) fn fault(&self, arguments: &[CallArg<'_>]) -> Option<Fault> {
        let of_attribute = |argument: &CallArg<'_>| matches!(argument, CallArg::Kwarg("attribute", _));
        let (offered, others, what): (&[Self], &[Self], _) = match self.then {
            Then::Nothing => return self.fault_of_own(arguments),
            Then::Filter if arguments.iter().any(of_attribute) => return MAP_OF_ATTRIBUTE.fault_of_own(arguments),
            Then::Filter => (&FILTERS, &[], "filter"),
            Then::Test => (&TESTS, &SELECTED_TESTS, "test"),
        };
        let is_place = |argument: &CallArg<'_>| matches!(argument, CallArg::Pos(_));
        let last = self.places.len().saturating_sub(1);
        let Some(name) = arguments.get(last).filter(|_| arguments.iter().take(last + 1).all(is_place)) else {
            return self.fault_of_own(arguments);
        };
        // The engine drops them without a word.
        let dropped = arguments.iter().position(|argument| matches!(argument, CallArg::Kwarg(..)));
        if let Some(at) = dropped.filter(|_| self.then == Then::Filter) {
            let message = format!("`{}` hands no argument on by name: {}", self.name, self.usage());
            let kind = TemplateErrorKind::WrongArguments(&[]);
            return Some(Fault { message, argument: Some(at), kind });
        }
        // What stands in a variable is found when it is run.
        let CallArg::Pos(Expr::Const(name)) = name else { return None };
        let name = name.value.as_str()?;
        let Some(called) = offered.iter().chain(others).find(|called| called.name == name) else {
            let kind = TemplateErrorKind::UnknownFilter;
            return Some(Fault { message: unknown(what, name, offered), argument: Some(last), kind });
        };
        let fault = called.fault(arguments.get(last + 1..).unwrap_or_default())?;
        Some(Fault { argument: fault.argument.map(|at| at + last + 1).or(Some(last)), ..fault })
    }

    fn fault_of_own(&self, arguments: &[CallArg<'_>]) -> Option<Fault> {
        let kind = TemplateErrorKind::WrongArguments(self.named);
        let fault = |message, argument| Some(Fault { message, argument, kind });
        let places = arguments.iter().filter(|argument| matches!(argument, CallArg::Pos(_))).count();
        for (at, argument) in arguments.iter().enumerate() {
            let message = match argument {
                CallArg::Kwarg(..) | CallArg::KwargSplat(_) if self.named.is_empty() => {
                    format!("`{}` takes no argument by name: {}", self.name, self.usage())
                }
                CallArg::Kwarg(name, _) if !self.named.contains(name) => {
                    format!("`{}` takes no `{name}`: {}", self.name, self.usage())
                }
                CallArg::Kwarg(name, _) if self.places.iter().take(places).any(|place| place == name) => {
                    format!("`{}` is given `{name}` twice, by its place and by its name", self.name)
                }
                _ => continue,
            };
            return fault(message, Some(at));
        }
        let is_spread = |argument: &CallArg<'_>| matches!(argument, CallArg::PosSplat(_) | CallArg::KwargSplat(_));
        let is_known = !arguments.iter().any(is_spread);
        let of_places = |argument: &&CallArg<'_>| match argument {
            CallArg::Kwarg(name, _) => self.places.contains(name),
            _ => true,
        };
        let most = self.places.len();
        if self.then == Then::Nothing && places > most {
            let count = if most == 0 { "no".to_owned() } else { format!("at most {most}") };
            let noun = if most == 1 { "argument" } else { "arguments" };
            let by_place = if self.named.is_empty() { "" } else { " without a name" };
            return fault(format!("`{}` takes {count} {noun}{by_place}: {}", self.name, self.usage()), Some(most));
        }
        if is_known && arguments.iter().filter(of_places).count() < self.least {
            return fault(format!("`{}` is given too few arguments: {}", self.name, self.usage()), None);
        }
        None
    }

    /// How it is written, in words for people.
    fn usage(&self) -> String {
        let place =
            |(at, place): (usize, &&str)| if at < self.least { (*place).to_owned() } else { format!("[{place}]") };
        let mut places: Vec<_> = self.places.iter().enumerate().map(place).collect();
        places.extend((self.then != Then::Nothing).then(|| "…".to_owned()));
        let places = if places.is_empty() { String::new() } else { format!("({})", places.join(", ")) };
        let named = match self.named {
            [] => String::new(),
            named => {
                format!(", by name {}", named.iter().map(|name| format!("`{name}=…`")).collect::<Vec<_>>().join(", "))
            }
        };
        format!("`{}{places}`{named}", self.name)
    }
}

/// That there is none of a name.
pub(super) fn unknown(what: &str, name: &str, known: &[Takes]) -> String {
    // The nearest name is the caller's to tell; without one, what there is helps more.
    if known.iter().any(|known| strsim::damerau_levenshtein(known.name, name) <= 2) {
        return format!("there is no {what} `{name}`");
    }
    let known: Vec<_> = known.iter().map(|known| known.name).collect();
    format!("there is no {what} `{name}`: there are {}", known.join(", "))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use regex::Regex;

    use super::*;
    use crate::template::engine::ENVIRONMENT;
    use crate::template::syntax::expression;

    /// What values and arguments are tried as.
    const VALUES: [&str; 7] = ["[7]", "'WyJhIl0'", "7", "1.5", "[{'key': 'a'}]", "['a']", "{'key': 1}"];
    const ARGUMENTS: [&str; 9] = ["'eq'", "'hex'", "'key'", "'sha1'", "'floor'", "'upper'", "3", "true", "[1]"];
    /// One that nothing takes.
    const NO_NAME: &str = "nothing_takes_this";

    fn all() -> impl Iterator<Item = (&'static Takes, Call)> {
        let of = |call| move |takes| (takes, call);
        let filters = FILTERS.iter().map(of(Call::Filter));
        let tests = TESTS.iter().map(of(Call::Test)).chain(SELECTED_TESTS.iter().map(of(Call::Selected)));
        filters.chain(tests).chain(FUNCTIONS.iter().map(of(Call::Function)))
    }

    /// How something is called.
    #[derive(Clone, Copy)]
    enum Call {
        Filter,
        Test,
        Selected,
        Function,
    }

    impl Call {
        fn source(self, name: &str, value: &str, arguments: &[String]) -> String {
            let listed = arguments.join(", ");
            match self {
                Self::Filter => format!("{value} | {name}({listed})"),
                Self::Test => format!("{value} is {name}({listed})"),
                Self::Selected => format!("[{value}] | select('{name}', {listed})"),
                Self::Function => format!("{name}({listed})"),
            }
        }
    }

    /// Arguments of so many places: alike, and two that are taken without names, of all kinds that are tried.
    fn lists(takes: &Takes, places: usize, name: Option<&str>) -> Vec<Vec<String>> {
        let alike = || ARGUMENTS.iter().map(|argument| vec![(*argument).to_owned(); places]);
        match (places, name) {
            (0, _) => vec![Vec::new()],
            (2, None) if takes.places.len() > 1 || takes.then != Then::Nothing => {
                alike().flat_map(|list| ARGUMENTS.map(|last| vec![list[0].clone(), last.to_owned()])).collect()
            }
            _ => alike().collect(),
        }
    }

    fn runs(source: &str) -> bool {
        ENVIRONMENT.compile_expression(source).is_ok_and(|compiled| compiled.eval(()).is_ok())
    }

    /// Whether one of the calls is let through, and whether one of them runs.
    fn tried(takes: &Takes, call: Call, places: usize, name: Option<&str>) -> (bool, bool) {
        let (mut is_let, mut has_run) = (false, false);
        for list in lists(takes, places, name) {
            for named in ARGUMENTS.iter().take(if name.is_some() { ARGUMENTS.len() } else { 1 }) {
                let named = name.map(|name| format!("{name}={named}"));
                let arguments: Vec<_> = list.iter().cloned().chain(named).collect();
                for value in VALUES {
                    let source = call.source(takes.name, value, &arguments);
                    let (lets, run) = (expression(&source).is_ok(), runs(&source));
                    assert!(lets || !run, "refused, and runs: {source}");
                    is_let |= lets;
                    has_run |= run;
                }
            }
        }
        (is_let, has_run)
    }

    #[test]
    fn what_is_taken_runs_and_what_is_refused_does_not() {
        for (takes, call) in all() {
            for places in 0..takes.places.len() + 2 {
                let (is_let, has_run) = tried(takes, call, places, None);
                assert_eq!(is_let, has_run, "{} of {places}", takes.name);
            }
            if takes.then == Then::Filter {
                // What `map` drops runs.
                continue;
            }
            let names: BTreeSet<_> = takes.named.iter().chain(takes.places).chain(&[NO_NAME]).collect();
            for name in names {
                let (is_let, has_run) = tried(takes, call, takes.least, Some(name));
                assert_eq!(is_let, has_run, "{} with {name}", takes.name);
            }
        }
    }

    #[test]
    fn a_name_in_a_variable_reaches_no_more_than_a_written_one() {
        let mapped = |name: &str| {
            let source = "['a'] | map(name) | list";
            ENVIRONMENT.compile_expression(source).expect("compiles").eval(minijinja::context! { name })
        };
        assert_eq!(mapped("upper").expect("is one").to_string(), "['A']");
        for name in TAKEN_AWAY {
            let refused = mapped(name).expect_err(name);
            assert_eq!(refused.kind(), minijinja::ErrorKind::UnknownFilter, "{name}: {refused}");
        }
    }

    #[test]
    fn all_that_the_engine_has_is_in_the_tables() {
        let printed = format!("{:?}", &*ENVIRONMENT);
        let within = |field: &str, end: &str| -> BTreeSet<String> {
            let keys = printed.split_once(&format!(" {field}: ")).and_then(|(_, rest)| rest.split_once(end));
            let key = Regex::new(r#""([^"]+)""#).expect("a pattern");
            key.captures_iter(keys.expect("printed").0).map(|key| key[1].to_owned()).collect()
        };
        let of = |tables: [&[Takes]; 2]| -> BTreeSet<String> {
            tables.into_iter().flatten().map(|takes| takes.name.to_owned()).collect()
        };
        assert_eq!(within("filters", "templates:"), of([&FILTERS, &[]]));
        assert_eq!(within("tests", "filters:"), of([&TESTS, &SELECTED_TESTS]));
        // Other functions are not reached by their names.
        let others = ["_joined", "_multiplied", "_watched", "debug", "dict", "namespace"].map(str::to_owned);
        let globals: BTreeSet<_> = ENVIRONMENT.globals().map(|(name, _)| name.to_owned()).collect();
        assert_eq!(globals, of([&FUNCTIONS, &[]]).into_iter().chain(others).collect());
    }
}
