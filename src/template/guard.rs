//! What the engine does without a bound is kept from lists and maps: it repeats lists lazily (`*`), writes lists and maps
//! out whole where a text is wanted (`~`, `upper`…), and compares what is nested, none of which costs fuel. A loop has a
//! time, so that what one turn of it does cannot be done ten thousand times.
//!
//! Operators cannot be replaced in the engine, so their operands are: each becomes the argument of a function that lets
//! through what may stand there. What is compiled is longer than what was written for it; [`Guarded`] knows by what.

use std::ops::Range;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use minijinja::machinery::ast::{BinOp, BinOpKind, Expr, ForLoop, Spanned};
use minijinja::machinery::{Span, Token};
use minijinja::value::{Enumerator, Kwargs, Object, ObjectRepr, Rest, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, filters, tests};

use crate::base::clock::{Clock, SystemClock};

/// The function around an operand of `*`.
const MULTIPLIED: &str = "_multiplied";
/// The function around an operand of `~`.
const JOINED: &str = "_joined";
/// The function around what a loop goes over.
const WATCHED: &str = "_watched";
/// How long a loop may take. What fuel allows takes a fiftieth of it.
const PATIENCE: Duration = Duration::from_secs(2);
/// The most items of which a loop can take any: each turn takes fuel.
const ITEMS: usize = 100_001;
/// The most values inside of the items that a filter or a test compares.
const COMPARED: usize = 1_000;

static CLOCK: LazyLock<SystemClock> = LazyLock::new(SystemClock::default);

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

    /// Has a loop watched.
    pub fn watch(&mut self, each: &ForLoop<'_>, tokens: &[(Token<'_>, Span)]) {
        let behind = |end: u32| tokens.partition_point(|(_, token)| token.start_offset < end);
        let mut target = tokens.get(behind(each.target.span().end_offset)..).unwrap_or_default().iter();
        let begin = target.find(|(token, _)| matches!(token, Token::Ident("in")));
        let mut over = tokens.get(behind(each.iter.span().end_offset)..).unwrap_or_default().iter();
        let end = over.find(|(token, _)| !matches!(token, Token::ParenClose));
        match (begin, end) {
            (Some((_, begin)), Some((_, end))) => {
                self.inserted.push((begin.end_offset as usize, " _watched("));
                self.inserted.push((end.start_offset as usize, ") "));
            }
            _ => self.is_lost = true,
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

/// Whether a loop is watched.
pub(super) fn is_watched(each: &ForLoop<'_>) -> bool {
    matches!(&each.iter, Expr::Call(call) if matches!(&call.expr, Expr::Var(var) if var.id == WATCHED))
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
    env.add_function(WATCHED, |value: Value| -> Result<Value, Error> {
        if !is_container(&value) {
            return Ok(value);
        }
        let items = value.try_iter()?.take(ITEMS).collect();
        Ok(Value::from_object(Watched { items, ends: CLOCK.monotonic().saturating_add(PATIENCE) }))
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
        env.add_filter(name, move |state: &mut State<'_, '_>, arguments: Rest<Value>, named: Kwargs| {
            // What `attr` looks into is a map; what it looks for is not.
            texts_only(arguments.iter().skip(all))?;
            filter.call(state, &with_named(&arguments, named))
        });
    }
    add_comparing(env);
    add_join(env);
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

/// `join`, whose items are texts.
fn add_join(env: &mut Environment<'static>) {
    let join = Value::from_function(filters::join);
    env.add_filter("join", move |state: &mut State<'_, '_>, arguments: Rest<Value>, named: Kwargs| {
        if let Some(list) = arguments.first().filter(|list| is_container(list)) {
            let attribute = match arguments.get(2) {
                Some(positional) => positional.as_str().map(str::to_owned),
                None => named.peek::<Option<String>>("attribute").ok().flatten(),
            };
            let part = |item: Value| match &attribute {
                Some(path) => path.split('.').try_fold(item, |item, name| item.get_attr(name)).unwrap_or_default(),
                None => item,
            };
            let items: Vec<Value> = list.try_iter()?.take(ITEMS).map(part).collect();
            texts_only(&items)?;
        }
        texts_only(arguments.iter().skip(1).take(1))?;
        join.call(state, &with_named(&arguments, named))
    });
}

/// Filters and tests that compare: the engine counts what they compare, and not what is inside of it.
fn add_comparing(env: &mut Environment<'static>) {
    for (name, filter) in [
        ("max", Value::from_function(filters::max)),
        ("min", Value::from_function(filters::min)),
        ("sort", Value::from_function(filters::sort)),
        ("unique", Value::from_function(filters::unique)),
    ] {
        env.add_filter(name, move |state: &mut State<'_, '_>, arguments: Rest<Value>, named: Kwargs| {
            few_inside(arguments.first())?;
            filter.call(state, &with_named(&arguments, named))
        });
    }
    env.add_test("eq", |one: &Value, other: &Value| -> Result<bool, Error> {
        few_inside([one, other])?;
        Ok(one == other)
    });
}

/// All arguments of a filter, those with names as the engine hands them on.
fn with_named(arguments: &Rest<Value>, named: Kwargs) -> Vec<Value> {
    let has_named = named.args().next().is_some();
    let named = has_named.then(|| Value::from(named));
    arguments.iter().cloned().chain(named).collect()
}

/// Whether lists and maps have few values inside of their items; items that are neither count for nothing.
fn few_inside<'a>(values: impl IntoIterator<Item = &'a Value>) -> Result<(), Error> {
    let mut left = COMPARED;
    for value in values.into_iter().filter(|value| is_container(value)) {
        for item in parts(value)?.take(ITEMS) {
            count(&item, &mut left)?;
        }
    }
    Ok(())
}

fn count(value: &Value, left: &mut usize) -> Result<(), Error> {
    if !is_container(value) {
        return Ok(());
    }
    for item in parts(value)? {
        let Some(fewer) = left.checked_sub(1) else {
            return Err(refused("lists and maps inside of others have too many values to be compared"));
        };
        *left = fewer;
        count(&item, left)?;
    }
    Ok(())
}

/// The items of a list, or the values of a map.
fn parts(value: &Value) -> Result<Box<dyn Iterator<Item = Value> + '_>, Error> {
    let is_map = value.kind() == ValueKind::Map;
    let items = value.try_iter()?;
    Ok(if is_map { Box::new(items.filter_map(|key| value.get_item(&key).ok())) } else { Box::new(items) })
}

/// What a loop goes over: a list that ends in an error when it takes too long.
#[derive(Debug)]
struct Watched {
    items: Vec<Value>,
    ends: Duration,
}

impl Object for Watched {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let item = self.items.get(key.as_usize()?)?;
        if CLOCK.monotonic() > self.ends {
            return Some(Value::from(Error::new(ErrorKind::OutOfFuel, "the loop takes too long")));
        }
        Some(item.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.items.len())
    }
}

fn texts_only<'a>(values: impl IntoIterator<Item = &'a Value>) -> Result<(), Error> {
    if values.into_iter().any(is_container) {
        return Err(refused("a text is wanted here: put `| tojson` behind a list or a map"));
    }
    Ok(())
}
