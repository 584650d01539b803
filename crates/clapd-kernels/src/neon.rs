//! 64-bit ARM, any: four lanes; products of bytes added two by two in 16 bits, then in 32.
//!
//! Activations are stored as q - 128, signed as the weights are. A group is 16 consecutive weights of a column: a vector.
//! `smull` and `smlal2` add two products in 16 bits: at most 2 * 128 * 127 = 32,512, which never overflows, as no weight is
//! -128. `sadalp` adds pairs of these to 32 bits. So three instructions do 16 products, and what a column has in its four
//! lanes is added up once, behind its last group.
//! It needs no more than ARMv8 (a Pi 3, a Pi 4, a Zero 2).

use std::arch::aarch64::*;

use super::simd::{Kernel, Simd, instructions};

/// 64-bit ARM: every such CPU has these instructions.
#[derive(Clone, Copy)]
pub(super) struct Neon;

/// What a [`Simd`] of four f32 lanes needs but the int8 product: the same on every 64-bit ARM.
macro_rules! four_lanes {
    () => {
        instructions! {
            fn splat(x: f32) -> float32x4_t { vdupq_n_f32(x) }
            fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t { vaddq_f32(a, b) }
            fn sub(a: float32x4_t, b: float32x4_t) -> float32x4_t { vsubq_f32(a, b) }
            fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t { vmulq_f32(a, b) }
            fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t { vfmaq_f32(c, a, b) }
            // `fmax` would pass on either NaN.
            fn max(a: float32x4_t, b: float32x4_t) -> float32x4_t { vbslq_f32(vcgtq_f32(a, b), a, b) }
            // `fmin` would pass on either NaN.
            fn min(a: float32x4_t, b: float32x4_t) -> float32x4_t { vbslq_f32(vcltq_f32(a, b), a, b) }
            fn abs(a: float32x4_t) -> float32x4_t { vabsq_f32(a) }
            fn round(a: float32x4_t) -> float32x4_t { vrndnq_f32(a) }
            // n + 127 in 1..=254 is the exponent of a normal number.
            fn scale2(a: float32x4_t, n: float32x4_t) -> float32x4_t {
                let exponent = vshlq_n_s32::<23>(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)));
                vmulq_f32(a, vreinterpretq_f32_s32(exponent))
            }
            // An approximation of 8 bits, and two steps of Newton's method: a division takes longer.
            fn recip(a: float32x4_t) -> float32x4_t {
                let t = vrecpeq_f32(a);
                let t = vmulq_f32(t, vrecpsq_f32(a, t));
                vmulq_f32(t, vrecpsq_f32(a, t))
            }
            fn reduce_add(a: float32x4_t) -> f32 { vaddvq_f32(a) }
            fn reduce_max(a: float32x4_t) -> f32 { vmaxvq_f32(a) }
            fn reduce_min(a: float32x4_t) -> f32 { vminvq_f32(a) }
            fn to_f32(a: int32x4_t) -> float32x4_t { vcvtq_f32_s32(a) }

            unsafe fn load(at: *const f32) -> float32x4_t { vld1q_f32(at) }
            // Only lanes below n are read.
            unsafe fn load_part(at: *const f32, n: usize) -> float32x4_t {
                let lane = |i: usize| if i < n { at.add(i).read() } else { 0.0 };
                vld1q_f32([lane(0), lane(1), lane(2), 0.0].as_ptr())
            }
            unsafe fn load_half(at: *const u16) -> float32x4_t { super::neon::widen(vld1_u16(at)) }
            unsafe fn store(at: *mut f32, a: float32x4_t) { vst1q_f32(at, a) }
            // Four rows of four floats on both sides.
            unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
                let row = |i: usize| vreinterpretq_f64_f32(vld1q_f32(from.add(i * from_stride)));
                let (a, b, c, d) = (row(0), row(1), row(2), row(3));
                // Halves of rows 0 and 2, and of rows 1 and 3; then the even and the odd floats of both.
                let halves = [vzip1q_f64(a, c), vzip1q_f64(b, d), vzip2q_f64(a, c), vzip2q_f64(b, d)];
                let [a, b, c, d] = halves.map(|half| vreinterpretq_f32_f64(half));
                vst1q_f32(to, vtrn1q_f32(a, b));
                vst1q_f32(to.add(to_stride), vtrn2q_f32(a, b));
                vst1q_f32(to.add(2 * to_stride), vtrn1q_f32(c, d));
                vst1q_f32(to.add(3 * to_stride), vtrn2q_f32(c, d));
            }
            // q - 128 fits into the byte that is left of it.
            unsafe fn store_quantized(at: *mut i8, a: float32x4_t) {
                let halves = vmovn_s32(vsubq_s32(vcvtnq_s32_f32(a), vdupq_n_s32(128)));
                let bytes = vmovn_s16(vcombine_s16(halves, halves));
                at.cast::<i32>().write_unaligned(vget_lane_s32::<0>(vreinterpret_s32_s8(bytes)));
            }
            // The sum of (c - 128) * w lacks 128 * (the sum of w).
            unsafe fn initial_sums(sums: *const i32) -> int32x4_t { vshlq_n_s32::<7>(vld1q_s32(sums)) }
        }

        #[inline(always)]
        unsafe fn store_part(self, at: *mut f32, a: float32x4_t, n: usize) {
            let mut lanes = [0.0; 4];
            // SAFETY: by the trait's contract; only lanes below n are written.
            unsafe {
                vst1q_f32(lanes.as_mut_ptr(), a);
                for (i, lane) in lanes.into_iter().enumerate().take(n) {
                    at.add(i).write(lane);
                }
            }
        }

        #[cfg(test)]
        unsafe fn store_sums(self, at: *mut i32, a: int32x4_t) {
            // SAFETY: by the trait's contract.
            unsafe { vst1q_s32(at, a) }
        }
    };
}
pub(super) use four_lanes;

/// Half-precision numbers as f32. (`vcvt_f32_f16`, which is this, came to stable Rust in 1.94.)
#[inline(always)]
pub(super) fn widen(halves: uint16x4_t) -> float32x4_t {
    let floats;
    // SAFETY: one instruction on registers, which every 64-bit ARM has.
    unsafe {
        std::arch::asm!("fcvtl {0:v}.4s, {1:v}.4h", lateout(vreg) floats, in(vreg) halves,
            options(pure, nomem, nostack, preserves_flags));
    }
    floats
}

impl Simd for Neon {
    const LANES: usize = 4;
    const ROWS: usize = 4;
    const VECTORS: usize = 4;
    const GROUP: usize = 16;
    type F = float32x4_t;
    type I = int32x4_t;
    type W = [int8x16_t; 4];
    type A = int8x16_t;
    type Quantized = i8;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    four_lanes!();

    instructions! {
        fn dot(acc: int32x4_t, a: int8x16_t, w: [int8x16_t; 4]) -> int32x4_t { vaddq_s32(acc, columns(w.map(|w| products(vdupq_n_s32(0), a, w)))) }

        unsafe fn load_weights(at: *const i8) -> [int8x16_t; 4] { [vld1q_s8(at), vld1q_s8(at.add(16)), vld1q_s8(at.add(32)), vld1q_s8(at.add(48))] }
        unsafe fn splat_quantized(at: *const i8) -> int8x16_t { vld1q_s8(at) }
    }

    /// Four columns at a time, and what is in their lanes is added up only at the end: 4 rows * 4 columns are 16 accumulators.
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
            let mut out = [[vdupq_n_s32(0); V]; M];
            for j in 0..V {
                let mut acc = [[vdupq_n_s32(0); 4]; M];
                for g in 0..groups {
                    let w = w.add((g * V + j) * 64);
                    let mut activations = [vdupq_n_s8(0); M];
                    for (r, activations) in activations.iter_mut().enumerate() {
                        *activations = vld1q_s8(a.add(r * stride + g * 16));
                    }
                    for c in 0..4 {
                        let w = vld1q_s8(w.add(c * 16));
                        for r in 0..M {
                            acc[r][c] = products(acc[r][c], activations[r], w);
                        }
                    }
                }
                let start = self.initial_sums(sums.add(j * 4));
                for (out, acc) in out.iter_mut().zip(acc) {
                    out[j] = vaddq_s32(start, columns(acc));
                }
            }
            out
        }
    }
}

/// Adds the 16 products of a and w, four to each lane.
#[inline(always)]
fn products(acc: int32x4_t, a: int8x16_t, w: int8x16_t) -> int32x4_t {
    // SAFETY: every 64-bit ARM has them.
    unsafe { vpadalq_s16(acc, vmlal_high_s8(vmull_s8(vget_low_s8(a), vget_low_s8(w)), a, w)) }
}

/// The sum of the lanes of each of four vectors.
#[inline(always)]
fn columns(lanes: [int32x4_t; 4]) -> int32x4_t {
    // SAFETY: every 64-bit ARM has them.
    unsafe { vpaddq_s32(vpaddq_s32(lanes[0], lanes[1]), vpaddq_s32(lanes[2], lanes[3])) }
}
