//! What an operator is called, what it takes, and how it is made ready: one table entry an operator.
//!
//! Reading, writing and checking follow from the [`OpSpec`]s.

use anyhow::Result;
use clapd_kernels::Workspace;
use tract_nnef::ast::{Parameter, TypeName};
use tract_nnef::internal::*;

use super::OpParams;
use crate::model::compute::Compute;

/// A named parameter of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Weight, perhaps scales, perhaps biases.
    Linear(&'static str),
    /// Rows to be looked up: a table and perhaps scales, one a row.
    Rows(&'static str),
    /// Weight and bias of a norm.
    Norm(&'static str),
    /// Numbers in f32.
    Table(&'static str),
    /// A whole number.
    Size(&'static str),
    /// A number.
    Real(&'static str),
}

/// A length of an axis; none for the number of a text's tokens.
pub type Length = Option<usize>;

/// What comes in and what goes out.
#[derive(Clone, Debug)]
pub struct Signature {
    /// Type and shape of each input.
    pub inputs: Vec<(DatumType, Vec<Length>)>,
    /// Shape of the output, which is f32.
    pub output: Vec<Length>,
}

/// A layer that is ready to run.
pub trait PackedLayer: Send + Sync {
    /// Runs it on inputs of the types and shapes of its [`Signature`].
    ///
    /// # Errors
    /// Numbers that are not finite, or ids that are out of range.
    fn run(&self, inputs: TVec<TValue>, workspace: &mut Workspace) -> Result<Tensor>;
}

/// A kind of operator, of which graphs have many.
#[derive(Debug)]
pub struct OpSpec {
    /// Its name in a graph.
    pub name: &'static str,
    /// Names of its inputs.
    pub inputs: &'static [&'static str],
    /// All that it may have.
    pub fields: &'static [Field],
    /// Shapes, from its parameters; checks what they depend on.
    pub signature: fn(&OpParams) -> Result<Signature>,
    /// Makes it ready to run.
    pub pack: fn(&OpParams, Compute) -> Result<Box<dyn PackedLayer>>,
}

impl Field {
    /// The arguments that it is in a graph.
    pub(super) fn arguments(self) -> Vec<String> {
        let with = |name: &str, ends: &[&str]| ends.iter().map(|end| format!("{name}{end}")).collect();
        match self {
            Self::Linear(name) => with(name, &["_weight", "_scale", "_bias"]),
            Self::Rows(name) => with(name, &["", "_scale"]),
            Self::Norm(name) => with(name, &["_weight", "_bias"]),
            Self::Table(name) | Self::Size(name) | Self::Real(name) => vec![name.into()],
        }
    }
}

impl OpSpec {
    /// Its arguments, as NNEF declares them.
    pub(super) fn parameters(&self) -> Vec<Parameter> {
        let inputs = self.inputs.iter().map(|name| TypeName::Scalar.tensor().named(name));
        let fields = self.fields.iter().flat_map(|field| {
            field.arguments().into_iter().map(|name| match field {
                Field::Size(_) => TypeName::Integer.named(name),
                Field::Real(_) => TypeName::Scalar.named(name),
                _ => TypeName::Scalar.tensor().named(name),
            })
        });
        inputs.chain(fields).collect()
    }
}
