//! How much a template makes of what it sees: the engine shares what is set, so that a value of a few bytes can have any
//! length once it is written out or compared, which costs no fuel.
//!
//! Each set variable has a weight: how many values of the context, and how many of its own, stand in it. What doubles
//! itself again and again is refused when the template is compiled.

use std::collections::HashMap;

use minijinja::machinery::Span;
use minijinja::machinery::ast::{CallArg, Expr, Stmt};

/// The most values of the context that stand in one variable.
const SEEN: u64 = 64;
/// The most values of the template's own.
const OWN: u64 = 1_000;
/// How often a loop's body is weighed to see how what it sets grows.
const TURNS: usize = 3;

/// How often values stand in one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Weight {
    seen: u64,
    own: u64,
}

impl Weight {
    const SEEN: Self = Self { seen: 1, own: 0 };
    const OWN: Self = Self { seen: 0, own: 1 };

    fn and(self, other: Self) -> Self {
        Self { seen: self.seen.saturating_add(other.seen), own: self.own.saturating_add(other.own) }
    }

    fn max(self, other: Self) -> Self {
        Self { seen: self.seen.max(other.seen), own: self.own.max(other.own) }
    }

    fn is_too_much(self) -> bool {
        self.seen > SEEN || self.own > OWN
    }
}

/// What is too much in a template, and where.
pub(super) fn too_much(template: &Stmt<'_>) -> Option<(&'static str, Span)> {
    let mut scale = Scale::default();
    scale.statement(template);
    scale.fault
}

#[derive(Default)]
struct Scale<'a> {
    set: HashMap<&'a str, Weight>,
    fault: Option<(&'static str, Span)>,
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
                self.turns(&each.body, each.span());
                self.statements(&each.else_body);
            }
            Stmt::Set(set) => {
                let weight = self.of(&set.expr);
                self.bind(&set.target, weight);
                if weight.is_too_much() {
                    self.fault.get_or_insert(("`set` puts a value into itself too often here", set.span()));
                }
            }
            // Nothing else sets anything, or it is refused.
            _ => {}
        }
    }

    /// A loop's body: what it sets is still set in the next turn, so it may grow by the same with each, and no more.
    fn turns(&mut self, body: &[Stmt<'a>], span: Span) {
        let mut last: Option<HashMap<&'a str, Weight>> = None;
        for _ in 0..TURNS {
            let before = self.set.clone();
            self.statements(body);
            let by = |name: &&'a str, after: &Weight| {
                let before = before.get(name).copied().unwrap_or_default();
                Weight { seen: after.seen - before.seen, own: after.own - before.own }
            };
            let steps: HashMap<_, _> = self.set.iter().map(|(name, after)| (*name, by(name, after))).collect();
            let is_faster = |(name, now): (&&'a str, &Weight)| {
                let was = last.as_ref().and_then(|last| last.get(name));
                was.is_some_and(|was| now.seen > was.seen || now.own > was.own)
            };
            // What is set for the first time is there from the second turn on.
            if before.len() == self.set.len() {
                if steps.iter().any(is_faster) {
                    self.fault.get_or_insert(("what this loop sets grows faster with each turn", span));
                }
                last = Some(steps);
            }
        }
    }

    fn bind(&mut self, target: &Expr<'a>, weight: Weight) {
        match target {
            Expr::Var(var) => {
                let known = self.set.entry(var.id).or_default();
                *known = known.max(weight);
            }
            Expr::List(list) => list.items.iter().for_each(|item| self.bind(item, weight)),
            Expr::Tuple(tuple) => tuple.items.iter().for_each(|item| self.bind(item, weight)),
            _ => {}
        }
    }

    fn all<'e>(&self, parts: impl IntoIterator<Item = &'e Expr<'a>>) -> Weight
    where
        'a: 'e,
    {
        parts.into_iter().fold(Weight::default(), |sum, part| sum.and(self.of(part)))
    }

    /// The most that an expression's value can have in it.
    fn of(&self, expr: &Expr<'a>) -> Weight {
        match expr {
            Expr::Var(var) => self.set.get(var.id).copied().unwrap_or(Weight::SEEN),
            Expr::Const(_) | Expr::Test(_) | Expr::Compare(_) => Weight::OWN,
            Expr::Slice(slice) => self.of(&slice.expr),
            Expr::UnaryOp(unary) => self.of(&unary.expr),
            Expr::BinOp(binary) => self.of(&binary.left).and(self.of(&binary.right)),
            Expr::IfExpr(branch) => {
                let other = branch.false_expr.as_ref().map(|other| self.of(other)).unwrap_or_default();
                self.of(&branch.true_expr).max(other)
            }
            Expr::Filter(filter) => self.all(&filter.expr).and(self.arguments(&filter.args)),
            Expr::GetAttr(get) => self.of(&get.expr),
            Expr::GetItem(get) => self.of(&get.expr),
            Expr::Call(call) => Weight::OWN.and(self.arguments(&call.args)),
            Expr::List(list) => Weight::OWN.and(self.all(&list.items)),
            Expr::Tuple(tuple) => Weight::OWN.and(self.all(&tuple.items)),
            Expr::Map(map) => Weight::OWN.and(self.all(&map.keys)).and(self.all(&map.values)),
        }
    }

    fn arguments(&self, arguments: &[CallArg<'a>]) -> Weight {
        let value = |argument: &CallArg<'a>| match argument {
            CallArg::Pos(value) | CallArg::Kwarg(_, value) | CallArg::PosSplat(value) | CallArg::KwargSplat(value) => {
                self.of(value)
            }
        };
        arguments.iter().fold(Weight::default(), |sum, argument| sum.and(value(argument)))
    }
}
