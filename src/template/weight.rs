//! How much a template makes of what it sees: the engine shares what is set, so that a list of a few bytes can have any
//! length once it is written out or compared, which costs no fuel.
//!
//! Each set variable has a weight: how many values stand in it, one of the context counting as one. What doubles itself
//! again and again is refused when the template is compiled. What is no list and no map has none: fuel bounds it. A loop
//! forgets with each turn what it has set.

use std::collections::HashMap;

use minijinja::machinery::Span;
use minijinja::machinery::ast::{BinOpKind, CallArg, Expr, Stmt};

use super::engine::LIMITS;

/// Filters whose results are neither lists nor maps.
const SCALAR: [&str; 22] = [
    "abs",
    "base64decode",
    "base64encode",
    "base64urlencode",
    "bool",
    "count",
    "float",
    "hmac",
    "int",
    "join",
    "length",
    "lower",
    "replace",
    "rfc3339",
    "round",
    "sha1",
    "sha256",
    "sha512",
    "string",
    "tojson",
    "trim",
    "upper",
];

/// What is too much in a template, and where.
pub(super) fn too_much(template: &Stmt<'_>) -> Option<(String, Span)> {
    let mut scale = Scale::default();
    scale.statement(template);
    scale.fault
}

#[derive(Default)]
struct Scale<'a> {
    set: HashMap<&'a str, usize>,
    fault: Option<(String, Span)>,
}

impl<'a> Scale<'a> {
    fn statements(&mut self, statements: &[Stmt<'a>]) {
        for statement in statements {
            self.statement(statement);
        }
    }

    fn statement(&mut self, statement: &Stmt<'a>) {
        match statement {
            Stmt::Template(template) => self.statements(&template.children),
            Stmt::IfCond(branch) => {
                self.statements(&branch.true_body);
                self.statements(&branch.false_body);
            }
            Stmt::ForLoop(each) => {
                let item = self.of(&each.iter);
                self.bind(&each.target, item);
                self.statements(&each.body);
                self.statements(&each.else_body);
            }
            Stmt::Set(set) => {
                let weight = self.of(&set.expr);
                self.bind(&set.target, weight);
                // No more than a template without `set` can write.
                if weight > LIMITS.tokens {
                    let message = format!("`set` makes one of more than {} values here, by itself", LIMITS.tokens);
                    self.fault.get_or_insert((message, set.span()));
                }
            }
            // Nothing else sets anything, or it is refused.
            _ => {}
        }
    }

    fn bind(&mut self, target: &Expr<'a>, weight: usize) {
        match target {
            Expr::Var(var) => {
                let known = self.set.entry(var.id).or_default();
                *known = (*known).max(weight);
            }
            Expr::List(list) => list.items.iter().for_each(|item| self.bind(item, weight)),
            Expr::Tuple(tuple) => tuple.items.iter().for_each(|item| self.bind(item, weight)),
            _ => {}
        }
    }

    fn all<'e>(&self, parts: impl IntoIterator<Item = &'e Expr<'a>>) -> usize
    where
        'a: 'e,
    {
        parts.into_iter().fold(0, |sum, part| self.of(part).saturating_add(sum))
    }

    /// The most values that can stand in an expression's.
    fn of(&self, expr: &Expr<'a>) -> usize {
        match expr {
            Expr::Var(var) => self.set.get(var.id).copied().unwrap_or(1),
            Expr::Const(_) | Expr::Test(_) | Expr::Compare(_) | Expr::UnaryOp(_) => 1,
            Expr::Slice(slice) => self.of(&slice.expr),
            // Lists are joined by it. What else there is of operators gives one of both, or neither a list nor a map.
            Expr::BinOp(binary) => match binary.op {
                BinOpKind::Add => self.of(&binary.left).saturating_add(self.of(&binary.right)),
                BinOpKind::ScAnd | BinOpKind::ScOr => self.of(&binary.left).max(self.of(&binary.right)),
                _ => 1,
            },
            Expr::IfExpr(branch) => {
                let other = branch.false_expr.as_ref().map_or(0, |other| self.of(other));
                self.of(&branch.true_expr).max(other)
            }
            Expr::Filter(filter) if SCALAR.contains(&filter.name) => 1,
            Expr::Filter(filter) => self.all(&filter.expr).saturating_add(self.arguments(&filter.args)),
            Expr::GetAttr(get) => self.of(&get.expr),
            Expr::GetItem(get) => self.of(&get.expr),
            Expr::Call(call) => self.arguments(&call.args).saturating_add(1),
            Expr::List(list) => self.all(&list.items),
            Expr::Tuple(tuple) => self.all(&tuple.items),
            Expr::Map(map) => self.all(&map.values),
        }
    }

    fn arguments(&self, arguments: &[CallArg<'a>]) -> usize {
        let value = |argument: &CallArg<'a>| match argument {
            CallArg::Pos(value) | CallArg::Kwarg(_, value) | CallArg::PosSplat(value) | CallArg::KwargSplat(value) => {
                self.of(value)
            }
        };
        arguments.iter().fold(0, |sum, argument| value(argument).saturating_add(sum))
    }
}
