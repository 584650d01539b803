//! What the variables of an NNEF document are used for.
//!
//! In: the graph's assignments. Out: for each variable, along which axis its scales should run, and whether it is a table
//! that only lookups read.
//! Never: changes anything.

use std::collections::BTreeMap;

use tract_nnef::ast::{Argument, Assignment, Identifier, Invocation, Literal, RValue};

/// NNEF's name for a lookup, as tract writes it.
pub const GATHER: &str = "tract_core_gather";

/// What a variable is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Read by lookups along this axis only.
    Lookup(usize),
    /// A factor of a product or a convolution, whose output channels are this axis, counted from the last one.
    Channels(Channels),
    /// Anything else.
    Other,
}

/// Where a weight has its output channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// First axis.
    First,
    /// Last axis but one.
    LastButOne,
    /// Last axis.
    Last,
}

impl Channels {
    /// The axis, for a tensor of `rank` dimensions.
    pub fn axis(self, rank: usize) -> usize {
        match self {
            Self::First => 0,
            Self::LastButOne => rank.saturating_sub(2),
            Self::Last => rank.saturating_sub(1),
        }
    }
}

/// The use of every name that is read. Of several different uses, [`Use::Other`].
pub fn uses(body: &[Assignment]) -> BTreeMap<String, Use> {
    let mut uses = BTreeMap::new();
    for assignment in body {
        visit(&assignment.right, Use::Other, &mut uses);
    }
    uses
}

fn visit(value: &RValue, purpose: Use, uses: &mut BTreeMap<String, Use>) {
    match value {
        RValue::Identifier(id) => {
            let entry = uses.entry(id.0.clone()).or_insert(purpose);
            if *entry != purpose {
                *entry = Use::Other;
            }
        }
        RValue::Array(items) | RValue::Tuple(items) => items.iter().for_each(|item| visit(item, Use::Other, uses)),
        RValue::Invocation(call) => {
            for (place, argument) in call.arguments.iter().enumerate() {
                visit(&argument.rvalue, purpose_of(call, place), uses);
            }
        }
        RValue::Binary(a, _, b) => [a, b].into_iter().for_each(|v| visit(v, Use::Other, uses)),
        RValue::Unary(_, a) => visit(a, Use::Other, uses),
        // The writer makes none of the other forms.
        _ => {}
    }
}

/// What the argument at `place` is for.
fn purpose_of(call: &Invocation, place: usize) -> Use {
    let transposed = |name: &str| matches!(argument(call, name), Some(RValue::Literal(Literal::Logical(true))));
    match (call.id.0.as_str(), place) {
        (GATHER, 0) => lookup(call).map_or(Use::Other, |(_, axis)| Use::Lookup(axis)),
        ("conv", 1) => Use::Channels(Channels::First),
        ("matmul", 0) if transposed("transposeA") => Use::Channels(Channels::Last),
        ("matmul", 0) => Use::Channels(Channels::LastButOne),
        ("matmul", 1) if transposed("transposeB") => Use::Channels(Channels::LastButOne),
        ("matmul", 1) => Use::Channels(Channels::Last),
        _ => Use::Other,
    }
}

/// The table and axis of a lookup.
pub fn lookup(call: &Invocation) -> Option<(&Identifier, usize)> {
    let table = call.arguments.first().filter(|_| call.id.0 == GATHER)?;
    match (&table.rvalue, argument(call, "axis")?) {
        (RValue::Identifier(table), RValue::Literal(Literal::Numeric(axis))) => Some((table, axis.parse().ok()?)),
        _ => None,
    }
}

/// An argument by its name.
pub fn argument<'a>(call: &'a Invocation, name: &str) -> Option<&'a RValue> {
    let named = |a: &&Argument| a.id.as_ref().is_some_and(|id| id.0 == name);
    call.arguments.iter().find(named).map(|a| &a.rvalue)
}
