//! What the engine does without a bound is kept from lists and maps: it repeats lists lazily (`*`), and writes lists and
//! maps out whole where a text is wanted (`~`, `upper`…), none of which costs fuel.
//!
//! Operators cannot be replaced in the engine, so their operands are: each becomes the argument of a function that lets
//! through what may stand there. What is compiled is longer than what was written for it; [`Guarded`] knows by what.

use std::ops::Range;

use minijinja::machinery::ast::{BinOp, BinOpKind, Expr, Spanned};
use minijinja::machinery::{Span, Token};
use minijinja::value::{Rest, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, filters, tests};

/// The function around an operand of `*`.
const MULTIPLIED: &str = "_multiplied";
/// The function around an operand of `~`.
const JOINED: &str = "_joined";

/// What is compiled in place of a source.
#[derive(Debug, Clone)]
pub(super) struct Guarded {
    /// What the engine reads.
    pub source: String,
    /// Where bytes were put in, by places of what was written, and how many.
    inserted: Vec<(usize, usize)>,
}

impl Guarded {
    /// A stretch of what was written that one of what is compiled was made of.
    pub fn written(&self, compiled: &Range<usize>) -> Range<usize> {
        let back = |place: usize| {
            let mut before = 0;
            for (at, count) in &self.inserted {
                if at + before + count > place {
                    return place.saturating_sub(before).min(*at);
                }
                before += count;
            }
            place - before
        };
        let start = back(compiled.start);
        start..back(compiled.end).max(start)
    }
}

/// The operators of a template whose operands are guarded.
#[derive(Default)]
pub(super) struct Guards {
    /// Where something is put in, and what; those of one place in the order in which they were found.
    inserted: Vec<(usize, &'static str)>,
    is_lost: bool,
}

impl Guards {
    /// Guards the operands of an operator, where it is one that needs it. `tokens` are all of the source.
    pub fn add(&mut self, binary: &Spanned<BinOp<'_>>, tokens: &[(Token<'_>, Span)]) {
        let Some((function, sign)) = of(binary.op) else { return };
        let (span, left_end) = (binary.span(), binary.left.span().end_offset);
        let from = tokens.partition_point(|(_, token)| token.start_offset < left_end);
        let mut rest = tokens.get(from..).unwrap_or_default().iter();
        let next = rest.find(|(token, _)| !matches!(token, Token::ParenClose));
        let Some((_, operator)) =
            next.filter(|(token, _)| std::mem::discriminant(token) == std::mem::discriminant(&sign))
        else {
            self.is_lost = true;
            return;
        };
        if needs(&binary.left, binary.op) {
            self.inserted.push((span.start_offset as usize, function));
            self.inserted.push((operator.start_offset as usize, ")"));
        }
        if needs(&binary.right, binary.op) {
            self.inserted.push((operator.end_offset as usize, function));
            self.inserted.push((span.end_offset as usize, ")"));
        }
    }

    /// What is compiled; `None` where an operator's operands were not found.
    pub fn put_into(mut self, source: &str) -> Option<Guarded> {
        // Stable, so that what opens at one place and what closes there stand as they were found: the outer first where
        // it opens, and where it closes what was found later is the inner one, which closes with the same sign.
        self.inserted.sort_by_key(|(at, _)| *at);
        let (mut guarded, mut from) = (String::with_capacity(source.len() + 16 * self.inserted.len()), 0);
        for (at, text) in &self.inserted {
            guarded.push_str(source.get(from..*at)?);
            guarded.push_str(text);
            from = *at;
        }
        guarded.push_str(source.get(from..)?);
        let inserted = self.inserted.iter().map(|(at, text)| (*at, text.len())).collect();
        (!self.is_lost).then_some(Guarded { source: guarded, inserted })
    }
}

/// Whether both operands of an operator are guarded.
pub(super) fn is_guarded(binary: &BinOp<'_>) -> bool {
    let Some((function, _)) = of(binary.op) else { return true };
    let name = function.trim_end_matches('(');
    let holds = |operand: &Expr<'_>| match operand {
        Expr::Call(call) => matches!(&call.expr, Expr::Var(var) if var.id == name),
        other => !needs(other, binary.op),
    };
    holds(&binary.left) && holds(&binary.right)
}

fn of(operator: BinOpKind) -> Option<(&'static str, Token<'static>)> {
    match operator {
        BinOpKind::Mul => Some(("_multiplied(", Token::Mul)),
        BinOpKind::Concat => Some(("_joined(", Token::Tilde)),
        _ => None,
    }
}

/// Whether an operand could be a list or a map: what the same operator made is none, nor is what is written as a number
/// or a text.
fn needs(operand: &Expr<'_>, operator: BinOpKind) -> bool {
    match operand {
        Expr::BinOp(inner) => std::mem::discriminant(&inner.op) != std::mem::discriminant(&operator),
        Expr::Const(written) => is_container(&written.value),
        _ => true,
    }
}

fn is_container(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable | ValueKind::Map)
}

fn refused(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// Puts the guards into an environment.
pub(super) fn add(env: &mut Environment<'static>) {
    env.add_function(MULTIPLIED, |value: Value| {
        let is_list = matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable);
        if is_list { Err(refused("a list is not repeated here: use `range` and a loop")) } else { Ok(value) }
    });
    env.add_function(JOINED, |value: Value| {
        let message = "`~` joins texts: put `| tojson` behind a list or a map";
        if is_container(&value) { Err(refused(message)) } else { Ok(value) }
    });
    for (name, filter) in [
        ("upper", Value::from_function(filters::upper)),
        ("lower", Value::from_function(filters::lower)),
        ("trim", Value::from_function(filters::trim)),
        ("replace", Value::from_function(filters::replace)),
        ("split", Value::from_function(filters::split)),
        ("int", Value::from_function(filters::int)),
        ("float", Value::from_function(filters::float)),
        ("attr", Value::from_function(filters::attr)),
    ] {
        let all = usize::from(name == "attr");
        env.add_filter(name, move |state: &mut State<'_, '_>, arguments: Rest<Value>| {
            // What `attr` looks into is a map; what it looks for is not.
            texts_only(arguments.iter().skip(all))?;
            filter.call(state, &arguments)
        });
    }
    let join = Value::from_function(filters::join);
    env.add_filter("join", move |state: &mut State<'_, '_>, arguments: Rest<Value>| {
        if let Some(list) = arguments.first().filter(|list| is_container(list)) {
            let items: Vec<Value> = list.try_iter()?.collect();
            texts_only(&items)?;
        }
        join.call(state, &arguments)
    });
    for (name, test) in [
        ("startingwith", Value::from_function(tests::is_startingwith)),
        ("endingwith", Value::from_function(tests::is_endingwith)),
    ] {
        env.add_test(name, move |state: &mut State<'_, '_>, arguments: Rest<Value>| {
            texts_only(arguments.iter())?;
            test.call(state, &arguments).map(|held| held.is_true())
        });
    }
}

fn texts_only<'a>(values: impl IntoIterator<Item = &'a Value>) -> Result<(), Error> {
    if values.into_iter().any(is_container) {
        return Err(refused("a text is wanted here: put `| tojson` behind a list or a map"));
    }
    Ok(())
}
