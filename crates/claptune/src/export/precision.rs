//! How weights are stored.

/// How weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// As they are.
    F32,
    /// Half precision.
    F16,
    /// 8-bit integers with an f32 scale for each row.
    Int8,
}

impl Precision {
    /// The word in `bundle.toml`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
        }
    }
}
