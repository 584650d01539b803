//! 64-bit ARM with the dot product (ARMv8.2's option that every core since the Cortex-A76 has): `sdot`.
//!
//! Activations are stored as q - 128, signed as the weights are. All but the int8 product is [`super::neon`]'s.
//! `sdot` adds four products of bytes to 32 bits without saturating: exact.

use std::arch::aarch64::*;

use super::neon::four_lanes;
use super::simd::{Kernel, Simd, instructions};

/// The proof that the CPU has the dot product.
#[derive(Clone, Copy)]
pub(super) struct Dotprod(());

impl Dotprod {
    /// # Safety
    /// The CPU must have dotprod.
    pub(super) unsafe fn new() -> Self {
        Self(())
    }
}

#[target_feature(enable = "dotprod")]
#[inline(never)]
fn enter<K: Kernel>(simd: Dotprod, kernel: K) -> K::Output {
    kernel.run(simd)
}

impl Simd for Dotprod {
    const LANES: usize = 4;
    const ROWS: usize = 8;
    const VECTORS: usize = 2;
    const GROUP: usize = 4;
    type F = float32x4_t;
    type I = int32x4_t;
    type W = int8x16_t;
    type A = int8x16_t;
    type Quantized = i8;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: self proves the feature.
        unsafe { enter(self, kernel) }
    }

    four_lanes!();

    instructions! {
        fn dot(acc: int32x4_t, a: int8x16_t, w: int8x16_t) -> int32x4_t { sdot::<0>(acc, a, w) }

        unsafe fn load_weights(at: *const i8) -> int8x16_t { vld1q_s8(at) }
        unsafe fn splat_quantized(at: *const i8) -> int8x16_t { vreinterpretq_s8_s32(vdupq_n_s32(at.cast::<i32>().read_unaligned())) }
    }

    /// Four groups at a time: a vector has those of a row, and `sdot` takes any of them; to copy each to all lanes would cost
    /// as much as a dot product.
    #[inline(always)]
    unsafe fn tile<const M: usize, const V: usize>(
        self,
        a: *const i8,
        stride: usize,
        w: *const i8,
        sums: *const i32,
        groups: usize,
        _ahead: usize,
    ) -> [[int32x4_t; V]; M] {
        // SAFETY: by the trait's contract.
        unsafe {
            let mut acc = [[vdupq_n_s32(0); V]; M];
            for j in 0..V {
                let start = self.initial_sums(sums.add(j * 4));
                acc.iter_mut().for_each(|acc| acc[j] = start);
            }
            let fours = groups / 4;
            for g in 0..fours {
                let mut activations = [vdupq_n_s8(0); M];
                for (r, activations) in activations.iter_mut().enumerate() {
                    *activations = vld1q_s8(a.add(r * stride + g * 16));
                }
                let w = w.add(g * V * 64);
                step::<M, V, 0>(&mut acc, &activations, w);
                step::<M, V, 1>(&mut acc, &activations, w.add(V * 16));
                step::<M, V, 2>(&mut acc, &activations, w.add(V * 32));
                step::<M, V, 3>(&mut acc, &activations, w.add(V * 48));
            }
            for g in fours * 4..groups {
                let mut activations = [vdupq_n_s8(0); M];
                for (r, activations) in activations.iter_mut().enumerate() {
                    *activations = self.splat_quantized(a.add(r * stride + g * 4));
                }
                step::<M, V, 0>(&mut acc, &activations, w.add(g * V * 16));
            }
            acc
        }
    }
}

/// Group `GROUP` of four groups of M rows of activations, times V vectors of weights.
///
/// # Safety
/// The CPU must have dotprod, and V vectors must be readable at `w`.
#[inline(always)]
unsafe fn step<const M: usize, const V: usize, const GROUP: i32>(
    acc: &mut [[int32x4_t; V]; M],
    activations: &[int8x16_t; M],
    w: *const i8,
) {
    // SAFETY: by this function's contract.
    unsafe {
        let mut weights = [vdupq_n_s8(0); V];
        for (j, weights) in weights.iter_mut().enumerate() {
            *weights = vld1q_s8(w.add(j * 16));
        }
        for r in 0..M {
            for j in 0..V {
                acc[r][j] = sdot::<GROUP>(acc[r][j], activations[r], weights[j]);
            }
        }
    }
}

/// In each lane i, acc + the sum over k of a[4 * GROUP + k] * w[4 * i + k]. (`vdotq_laneq_s32`, which is this, is not in stable
/// Rust.)
///
/// # Safety
/// The CPU must have dotprod.
#[inline(always)]
unsafe fn sdot<const GROUP: i32>(mut acc: int32x4_t, a: int8x16_t, w: int8x16_t) -> int32x4_t {
    // SAFETY: one instruction on registers, which the CPU has by this function's contract.
    unsafe {
        std::arch::asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.4b[{3}]", inout(vreg) acc, in(vreg) w, in(vreg) a, const GROUP,
            options(pure, nomem, nostack, preserves_flags));
    }
    acc
}
