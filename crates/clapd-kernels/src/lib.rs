//! SIMD kernels for neural networks on small computers: linears in int8, f16 and f32, and the fused blocks of Swin transformers, text
//! transformers and MobileNets, each compiled for every instruction set and chosen when the program starts.
//!
//! ```
//! use clapd_kernels::{Epilogue, Isa, Linear, Workspace};
//!
//! # fn main() -> anyhow::Result<()> {
//! // y = relu(x W^T + b), from 3 numbers to 2. Row o of W is an output's weights: int8 times a scale.
//! let isa = Isa::choose(None)?;
//! let linear = Linear::int8(isa, 2, 3, &[127, 0, -127, 64, 64, 64], &[0.01, 0.02], &[0.5, -0.5])?;
//! let (x, mut y) = ([1.0, 2.0, 3.0], [0.0; 2]);
//! linear.run(&x, &mut y, Epilogue::Relu, &mut Workspace::new(1))?;
//! // 0.01 * (127 - 381) + 0.5 is below 0; 0.02 * 64 * 6 - 0.5 is 7.18.
//! assert_eq!(y[0], 0.0);
//! assert!((y[1] - 7.18).abs() < 0.05);
//! # Ok(())
//! # }
//! ```
//!
//! # How it is built
//! The trait of the module `simd` is the seam: a few operations on short vectors and the int8 dot product. Below it is a file for
//! each instruction set; everything above it is written once, generic in the trait and inlined, so that it is compiled once for each
//! instruction set with that set's instructions.
//!
//! [`Isa::choose`] asks the CPU and takes the fastest, or the one that the caller names; [`Isa::available`] lists them. Weights are
//! packed for one instruction set as a layer is made. Int8 sums are exact and quantised activations the same on all of them, bit for
//! bit; results in floating point differ in rounding only, and not at all between numbers of threads.
//!
//! # Safety
//! All that is public is safe: lengths and numbers are checked before a pointer is made, and numbers that are not finite are refused
//! with an error. Inside, a value of a type that implements the trait is the proof that the CPU has its instructions: only the module
//! `isa` makes one, after it has asked. Every `unsafe` block says why it holds.

#![deny(missing_docs)]
#![deny(clippy::undocumented_unsafe_blocks, clippy::missing_safety_doc)]
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
