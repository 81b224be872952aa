//! What a template names, found when it is compiled: variables with their places, and filters, tests,
//! functions and statements that there are not, or that do not take what they are given.
//!
//! This is the only use of the engine's syntax tree, which has no stable interface: `Cargo.lock` pins
//! the engine, and the tests of this room fail when the tree changes its meaning.

use std::ops::Range;

use minijinja::machinery::ast::{self, CallArg, Expr, Stmt};
use minijinja::machinery::{Span, Token, parse, parse_expr, tokenize};
use minijinja::syntax::SyntaxConfig;

use super::engine::{LIMITS, translate};
use super::guard::{Guarded, Guards, is_guarded, is_watched};
use super::takes::{FILTERS, FUNCTIONS, TESTS, Takes, unknown};
use super::weight;
use super::{TemplateError, TemplateErrorKind};

/// A variable that a template reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The name, dotted where it is: `body.action`.
    pub path: String,
    /// Where it stands in the source, in bytes.
    pub range: Range<usize>,
}

/// Reads a bare expression: the names in it, and what is compiled in its place.
pub(super) fn expression(source: &str) -> Result<(Vec<Name>, Guarded), TemplateError> {
    let tokens = tokens(source, true)?;
    let parsed = parse_expr(source).map_err(|error| translate(&error, |range| range, source))?;
    let mut walk = Walk::over(&tokens);
    walk.expression(&parsed);
    let (names, guarded) = walk.end(source)?;
    let mut again = Walk::checking();
    let parsed = parse_expr(&guarded.source).map_err(|_| unguarded())?;
    again.expression(&parsed);
    again.end(source).map(|_| (names, guarded))
}

/// Reads a text with blocks: the names in it, and what is compiled in its place.
pub(super) fn blocks(source: &str) -> Result<(Vec<Name>, Guarded), TemplateError> {
    let tokens = tokens(source, false)?;
    let read = |source| parse(source, "text", SyntaxConfig::default());
    let parsed = read(source).map_err(|error| translate(&error, |range| range, source))?;
    let mut walk = Walk::over(&tokens);
    walk.statement(&parsed);
    if let Some((message, span)) = weight::too_much(&parsed) {
        walk.refuse(message, span);
    }
    let (names, guarded) = walk.end(source)?;
    let mut again = Walk::checking();
    let parsed = read(&guarded.source).map_err(|_| unguarded())?;
    again.statement(&parsed);
    again.end(source).map(|_| (names, guarded))
}

/// Its words and signs; refuses what has more than [`LIMITS`] says.
fn tokens(source: &str, bare: bool) -> Result<Vec<(Token<'_>, Span)>, TemplateError> {
    // What cannot be taken apart is told by the parser.
    let tokens = tokenize(source, bare, SyntaxConfig::default()).map_while(Result::ok);
    let tokens: Vec<_> =
        tokens.filter(|(token, _)| !matches!(token, Token::TemplateData(_))).take(LIMITS.tokens + 1).collect();
    match tokens.get(LIMITS.tokens) {
        Some((_, span)) => Err(TemplateError {
            kind: TemplateErrorKind::Syntax,
            message: format!("has more than {} words and signs", LIMITS.tokens),
            range: Some(range(*span)),
        }),
        None => Ok(tokens),
    }
}

/// Guards that did not come to stand around their operands. No template is known of which that is so.
fn unguarded() -> TemplateError {
    TemplateError {
        kind: TemplateErrorKind::Failed,
        message:
            "is nested too deeply, or has a `*` or a `~` whose operands are not understood: take it apart with `set`"
                .to_owned(),
        range: None,
    }
}

struct Walk<'a, 't> {
    names: Vec<Name>,
    locals: Vec<&'a str>,
    fault: Option<TemplateError>,
    guards: Guards,
    /// The words and signs of what is read; none where guards are looked for.
    tokens: Option<&'t [(Token<'t>, Span)]>,
}

impl<'a, 't> Walk<'a, 't> {
    fn over(tokens: &'t [(Token<'t>, Span)]) -> Self {
        Self { tokens: Some(tokens), ..Self::checking() }
    }

    /// One that looks whether all guards are there.
    fn checking() -> Self {
        Self { names: Vec::new(), locals: Vec::new(), fault: None, guards: Guards::default(), tokens: None }
    }

    fn end(self, source: &str) -> Result<(Vec<Name>, Guarded), TemplateError> {
        match self.fault {
            Some(fault) => Err(fault),
            None => Ok((self.names, self.guards.put_into(source).ok_or_else(unguarded)?)),
        }
    }

    /// Refuses what is called where there is no such thing, or it does not take these arguments.
    fn call(&mut self, (what, known): (&str, &[Takes]), name: &str, arguments: &[CallArg<'a>], span: Span) {
        let Some(tokens) = self.tokens.filter(|_| self.fault.is_none()) else { return };
        let Some(called) = known.iter().find(|known| known.name == name) else {
            return self.refuse(unknown(what, name, known), span);
        };
        let Some(fault) = called.fault(arguments) else { return };
        let argument = fault.argument.and_then(|at| arguments.get(at));
        let range = Some(range(argument.map_or(span, |argument| place_of(argument, tokens))));
        self.fault = Some(TemplateError { kind: fault.kind, message: fault.message, range });
    }

    fn refuse(&mut self, message: String, span: Span) {
        let kind = TemplateErrorKind::UnknownFilter;
        self.fault.get_or_insert(TemplateError { kind, message, range: Some(range(span)) });
    }

    fn statement(&mut self, statement: &Stmt<'a>) {
        match statement {
            Stmt::Template(template) => self.statements(&template.children),
            Stmt::EmitExpr(emit) => self.expression(&emit.expr),
            Stmt::EmitRaw(_) => {}
            Stmt::IfCond(branch) => {
                self.expression(&branch.expr);
                self.statements(&branch.true_body);
                self.statements(&branch.false_body);
            }
            Stmt::ForLoop(each) => self.each(each),
            Stmt::Set(set) => {
                self.expression(&set.expr);
                self.bind(&set.target);
            }
            Stmt::WithBlock(block) => self.refuse("`with` is not available here".to_owned(), block.span()),
            Stmt::SetBlock(block) => self.refuse("`set` blocks are not available here".to_owned(), block.span()),
            Stmt::AutoEscape(block) => self.refuse("`autoescape` is not available here".to_owned(), block.span()),
            Stmt::FilterBlock(block) => self.refuse("`filter` blocks are not available here".to_owned(), block.span()),
            Stmt::Do(block) => self.refuse("`do` is not available here".to_owned(), block.span()),
            // The pages' own templates have these.
            Stmt::Macro(block) => self.refuse("`macro` is not available here".to_owned(), block.span()),
            Stmt::CallBlock(block) => self.refuse("`call` is not available here".to_owned(), block.span()),
            Stmt::Block(block) => self.refuse("`block` is not available here".to_owned(), block.span()),
            Stmt::Extends(block) => self.refuse("`extends` is not available here".to_owned(), block.span()),
            Stmt::Import(block) => self.refuse("`import` is not available here".to_owned(), block.span()),
            Stmt::FromImport(block) => self.refuse("`from` is not available here".to_owned(), block.span()),
            Stmt::Include(block) => self.refuse("`include` is not available here".to_owned(), block.span()),
        }
    }

    fn statements(&mut self, statements: &[Stmt<'a>]) {
        let locals = self.locals.len();
        for statement in statements {
            self.statement(statement);
        }
        // What an inner block sets is not seen after it.
        self.locals.truncate(locals);
    }

    fn each(&mut self, each: &ast::ForLoop<'a>) {
        match self.tokens {
            Some(tokens) => self.guards.watch(each, tokens),
            None if is_watched(each) => {}
            None => _ = self.fault.get_or_insert_with(unguarded),
        }
        self.expression(&each.iter);
        let locals = self.locals.len();
        self.locals.push("loop");
        self.bind(&each.target);
        each.filter_expr.iter().for_each(|filter| self.expression(filter));
        self.statements(&each.body);
        self.locals.truncate(locals);
        self.statements(&each.else_body);
    }

    fn bind(&mut self, target: &Expr<'a>) {
        match target {
            Expr::Var(var) => self.locals.push(var.id),
            Expr::List(list) => list.items.iter().for_each(|item| self.bind(item)),
            Expr::Tuple(tuple) => tuple.items.iter().for_each(|item| self.bind(item)),
            other => self.expression(other),
        }
    }

    fn expression(&mut self, expr: &Expr<'a>) {
        if let Some((root, path, span)) = path_of(expr) {
            if !self.locals.contains(&root) {
                self.names.push(Name { path, range: range(span) });
            }
            return;
        }
        match expr {
            Expr::Var(_) | Expr::Const(_) => {}
            Expr::Slice(slice) => {
                self.expression(&slice.expr);
                [&slice.start, &slice.stop, &slice.step].into_iter().flatten().for_each(|part| self.expression(part));
            }
            Expr::UnaryOp(unary) => self.expression(&unary.expr),
            Expr::BinOp(binary) => {
                match self.tokens {
                    Some(tokens) => self.guards.add(binary, tokens),
                    None if is_guarded(binary) => {}
                    None => _ = self.fault.get_or_insert_with(unguarded),
                }
                self.expression(&binary.left);
                self.expression(&binary.right);
            }
            Expr::Compare(compare) => {
                self.expression(&compare.expr);
                compare.ops.iter().for_each(|op| self.expression(&op.expr));
            }
            Expr::IfExpr(branch) => {
                self.expression(&branch.test_expr);
                self.expression(&branch.true_expr);
                branch.false_expr.iter().for_each(|other| self.expression(other));
            }
            Expr::Filter(filter) => {
                self.call(("filter", &FILTERS), filter.name, &filter.args, filter.span());
                filter.expr.iter().for_each(|inner| self.expression(inner));
                self.arguments(&filter.args);
            }
            Expr::Test(test) => {
                self.call(("test", &TESTS), test.name, &test.args, test.span());
                self.expression(&test.expr);
                self.arguments(&test.args);
            }
            Expr::GetAttr(get) => self.expression(&get.expr),
            Expr::GetItem(get) => {
                self.expression(&get.expr);
                self.expression(&get.subscript_expr);
            }
            Expr::Call(call) => {
                match &call.expr {
                    Expr::Var(var) => self.call(("function", &FUNCTIONS), var.id, &call.args, var.span()),
                    other => self.refuse("values have no methods here: use a filter".to_owned(), other.span()),
                }
                self.arguments(&call.args);
            }
            Expr::List(list) => list.items.iter().for_each(|item| self.expression(item)),
            Expr::Tuple(tuple) => tuple.items.iter().for_each(|item| self.expression(item)),
            Expr::Map(map) => map.keys.iter().chain(&map.values).for_each(|part| self.expression(part)),
        }
    }

    fn arguments(&mut self, arguments: &[CallArg<'a>]) {
        for argument in arguments {
            match argument {
                CallArg::Pos(value)
                | CallArg::Kwarg(_, value)
                | CallArg::PosSplat(value)
                | CallArg::KwargSplat(value) => {
                    self.expression(value);
                }
            }
        }
    }
}

/// The root and the dotted path of an expression that is nothing but names and dots.
fn path_of<'a>(expr: &Expr<'a>) -> Option<(&'a str, String, Span)> {
    match expr {
        Expr::Var(var) => Some((var.id, var.id.to_owned(), var.span())),
        Expr::GetAttr(get) => {
            let (root, path, begin) = path_of(&get.expr)?;
            let end = get.span();
            let span = Span { end_line: end.end_line, end_col: end.end_col, end_offset: end.end_offset, ..begin };
            Some((root, format!("{path}.{}", get.name), span))
        }
        _ => None,
    }
}

/// Where an argument stands: its name, where it has one.
fn place_of(argument: &CallArg<'_>, tokens: &[(Token<'_>, Span)]) -> Span {
    let (CallArg::Pos(value) | CallArg::Kwarg(_, value) | CallArg::PosSplat(value) | CallArg::KwargSplat(value)) =
        argument;
    let span = value.span();
    let CallArg::Kwarg(name, _) = argument else { return span };
    let is_name = |pair: &&[(Token<'_>, Span)]| match pair {
        [(Token::Ident(ident), place), (Token::Assign, _)] => ident == name && place.end_offset <= span.start_offset,
        _ => false,
    };
    tokens.windows(2).rfind(is_name).and_then(<[_]>::first).map_or(span, |(_, place)| *place)
}

fn range(span: Span) -> Range<usize> {
    span.start_offset as usize..span.end_offset as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(source: &str) -> Vec<(String, String)> {
        let (found, _) = blocks(source).expect("reads");
        found.into_iter().map(|name| (source.get(name.range).unwrap_or_default().to_owned(), name.path)).collect()
    }

    #[test]
    fn names_stand_where_they_are_told_to() {
        let found =
            names("{% for x in body.list %}{{ x.a }} {{ saved.b | default(input.c) }}{% endfor %}{{ headers['y'] }}");
        let expected = ["body.list", "saved.b", "input.c", "headers"].map(|name| (name.to_owned(), name.to_owned()));
        assert_eq!(found, expected);
    }

    #[test]
    fn what_there_is_not_is_refused_at_once() {
        let cases = [
            ("body | tojosn", "there is no filter `tojosn`"),
            ("body is definde", "there is no test `definde`"),
            ("rnge(3)", "there is no function `rnge`"),
            ("body.items()", "values have no methods here: use a filter"),
            ("body | indent(3)", "there is no filter `indent`"),
        ];
        for (source, message) in cases {
            let error = expression(source).expect_err(source);
            assert!(error.message.starts_with(message), "{source}: {error}");
            assert!(error.range.is_some_and(|range| range.end <= source.len()), "{source}");
        }
    }

    #[test]
    fn arguments_that_are_not_taken_are_refused_where_they_stand() {
        let cases = [
            (
                "a | default(value='K')",
                "value",
                "`default` takes no argument by name: `default([value], [also_falsy])`",
            ),
            ("a | replace('x', new='y')", "new", "`replace` takes no argument by name: `replace(old, new)`"),
            ("a | replace('x')", "replace('x')", "`replace` is given too few arguments: `replace(old, new)`"),
            ("a | upper(1)", "1", "`upper` takes no arguments: `upper`"),
            (
                "a | join(sep = d)",
                "sep",
                "`join` takes no `sep`: `join([d], [attribute])`, by name `attribute=…`, `d=…`",
            ),
            ("a | join(d, d=d | join(d=1))", "d", "`join` is given `d` twice, by its place and by its name"),
            (
                "a | map('default', value=1)",
                "value",
                "`map` hands no argument on by name: `map(filter, …)`, by name `attribute=…`, `default=…`",
            ),
            ("a | map('uper')", "'uper'", "there is no filter `uper`"),
            (
                "a | map('map', 'replace', 'x')",
                "'replace'",
                "`replace` is given too few arguments: `replace(old, new)`",
            ),
            (
                "a | map(default=1)",
                "map(default=1)",
                "`map` is given too few arguments: `map(filter, …)`, by name `attribute=…`, `default=…`",
            ),
            (
                "a | map('upper', attribute='x')",
                "'upper'",
                "`map` takes no arguments without a name: `map`, by name `attribute=…`, `default=…`",
            ),
            ("a | selectattr('x', 'eq', other=1)", "other", "`eq` takes no argument by name: `eq(other)`"),
            (
                "a is startingwith(start='x')",
                "start",
                "`startingwith` takes no argument by name: `startingwith(start)`",
            ),
            ("range(stop=3)", "stop", "`range` takes no argument by name: `range(first, [end], [step])`"),
            ("range(1, 2, 3, 4)", "4", "`range` takes at most 3 arguments: `range(first, [end], [step])`"),
            ("a | tojson(**b)", "b", "`tojson` takes no argument by name: `tojson`"),
        ];
        for (source, place, message) in cases {
            let error = expression(source).expect_err(source);
            assert_eq!((source, error.range.and_then(|range| source.get(range))), (source, Some(place)));
            assert_eq!(error.message, message);
        }
        let taken =
            ["a | map(b)", "a | replace(*b)", "a | sort(**b)", "a | select", "a | select(none, 1)", "a | select(b, 1)"];
        for source in taken.into_iter().chain(["a | map(attribute='x', default=1)", "a | groupby(attribute='x')"]) {
            assert!(expression(source).is_ok(), "{source}");
        }
    }

    #[test]
    fn the_longest_expressions_fit_a_small_stack_and_longer_ones_are_refused() {
        use crate::template::{Context, Expr, Text};
        let most = LIMITS.tokens;
        let forms: [(&str, &str, &str, usize); 9] = [
            ("a", " and a", "", 2),
            ("1", " + 1", "", 2),
            ("a", ".a", "", 2),
            ("a", "[0]", "", 3),
            ("a", "|list", "", 2),
            ("", "not ", "a", 1),
            ("", "- ", "a", 1),
            ("a", " if a else a", "", 4),
            ("a", " < a", "", 2),
        ];
        for (head, again, tail, tokens) in forms {
            let source = |count: usize| format!("{head}{}{tail}", again.repeat(count));
            // The parser itself bounds some of them further: then it says so.
            if let Ok(longest) = Expr::compile(&source((most - 1) / tokens)) {
                _ = longest.value(&Context::new().with("a", 1));
            }
            let error = expression(&source(most)).expect_err(again);
            assert!(error.message.starts_with("has more than"), "{again}: {error}");
        }
        let chain = |count: usize| format!("{{% if a %}}1{}{{% endif %}}", "{% elif a %}2".repeat(count));
        let text = Text::compile(&chain(most / 4 - 3)).expect("short enough");
        assert_eq!(text.render(&Context::new().with("a", 1)).as_deref(), Ok("1"));
        assert!(Text::compile(&chain(most)).is_err());
    }

    #[test]
    fn everything_that_is_listed_is_there() {
        use crate::template::{Context, Expr, TemplateErrorKind};
        let context = Context::new().with("x", "text");
        let filters = FILTERS.iter().map(|filter| format!("x | {}", filter.name));
        let tests = TESTS.iter().map(|test| format!("x is {}", test.name));
        for source in filters.chain(tests) {
            let result = Expr::compile(&source).and_then(|expr| expr.value(&context));
            assert!(!result.is_err_and(|error| error.kind == TemplateErrorKind::UnknownFilter), "{source}");
        }
    }
}
