//! Our own kernels: linears in int8, f16 and f32, and the fused blocks of CLAP's towers and of a MobileNet, for each CPU's instructions.
//!
//! In: slices of f32, weights packed once. Out: slices of f32.
//! `simd` is the seam: one file below it for each instruction set, everything above it written once. `isa` chooses.
//! The only room with unsafe code. What is public here is safe: lengths and numbers are checked before a pointer is made.
//! Never: knows tract, a bundle, an environment variable.

// Tiles are indexed [row][vector]; iterators over one of the two hide the other.
#![allow(clippy::needless_range_loop)]

mod activations;
mod attention;
mod buffer;
mod gelu;
mod gemm;
mod isa;
mod linear;
mod math;
mod merge;
mod norm;
mod rows;
mod scalar;
mod scratch;
mod separable;
mod simd;
mod swin;
mod transformer;
mod weights;
mod workspace;

#[cfg(test)]
mod tests;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512vnni;
#[cfg(target_arch = "x86_64")]
mod avxvnni;

#[cfg(target_arch = "aarch64")]
mod dotprod;
#[cfg(target_arch = "aarch64")]
mod neon;

pub use gelu::Gelu;
pub use gemm::Epilogue;
pub use isa::Isa;
pub use linear::{Linear, MAX_K};
pub use merge::PatchMerge;
pub use norm::Norm;
pub use rows::{blend_rows, norm_rows};
pub use separable::SeparableBlock;
pub use swin::{SwinBlock, SwinLayers, SwinShape};
pub use transformer::{TransformerLayer, TransformerLayers};
pub use workspace::Workspace;
