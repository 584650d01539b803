//! No instruction set at all: plain Rust, four lanes that a compiler may turn into what the CPU has.
//!
//! It is the reference for all others, and what runs on a CPU that has none of them. It fuses no multiplication with an addition:
//! without such an instruction that is a slow library call.

use half::f16;

use super::simd::{Kernel, Simd};

/// Plain Rust.
#[derive(Clone, Copy)]
pub(super) struct Scalar;

const LANES: usize = 4;

#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> [f32; LANES] {
    [f(0), f(1), f(2), f(3)]
}

impl Simd for Scalar {
    const LANES: usize = LANES;
    const ROWS: usize = 4;
    const VECTORS: usize = 2;
    const GROUP: usize = 4;
    type F = [f32; LANES];
    type I = [i32; LANES];
    type W = [[i8; 4]; LANES];
    type A = [u8; 4];
    type Quantized = u8;

    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; LANES]
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        each(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn abs(self, a: Self::F) -> Self::F {
        each(|i| a[i].abs())
    }
    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        // Adding 1.5 * 2^23 leaves no bits for a fraction; the addition rounds halves to even.
        const SHIFT: f32 = 12_582_912.0;
        each(|i| (a[i] + SHIFT) - SHIFT)
    }
    #[inline(always)]
    fn scale2(self, a: Self::F, n: Self::F) -> Self::F {
        each(|i| a[i] * f32::from_bits(((n[i] as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    fn recip(self, a: Self::F) -> Self::F {
        each(|i| 1.0 / a[i])
    }
    #[inline(always)]
    fn reduce_add(self, a: Self::F) -> f32 {
        (a[0] + a[2]) + (a[1] + a[3])
    }
    #[inline(always)]
    fn reduce_max(self, a: Self::F) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    fn reduce_min(self, a: Self::F) -> f32 {
        a.into_iter().fold(f32::INFINITY, f32::min)
    }

    #[inline(always)]
    unsafe fn load(self, at: *const f32) -> Self::F {
        // SAFETY: by the trait's contract.
        unsafe { at.cast::<[f32; LANES]>().read() }
    }
    #[inline(always)]
    unsafe fn load_part(self, at: *const f32, n: usize) -> Self::F {
        // SAFETY: by the trait's contract; only lanes below n are read.
        each(|i| if i < n { unsafe { at.add(i).read() } } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn load_half(self, at: *const u16) -> Self::F {
        // SAFETY: by the trait's contract.
        each(|i| f16::from_bits(unsafe { at.add(i).read() }).to_f32())
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut f32, a: Self::F) {
        // SAFETY: by the trait's contract.
        unsafe { at.cast::<[f32; LANES]>().write(a) }
    }
    #[inline(always)]
    unsafe fn store_part(self, at: *mut f32, a: Self::F, n: usize) {
        for (i, a) in a.into_iter().enumerate().take(n) {
            // SAFETY: by the trait's contract; only lanes below n are written.
            unsafe { at.add(i).write(a) }
        }
    }
    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        for r in 0..LANES {
            // SAFETY: by the trait's contract: LANES rows of LANES floats on both sides.
            unsafe { self.store(to.add(r * to_stride), each(|i| from.add(i * from_stride + r).read())) }
        }
    }

    #[inline(always)]
    unsafe fn store_quantized(self, at: *mut u8, a: Self::F) {
        let a = self.round(a);
        // SAFETY: by the trait's contract.
        unsafe { at.cast::<[u8; LANES]>().write([a[0] as u8, a[1] as u8, a[2] as u8, a[3] as u8]) }
    }
    #[inline(always)]
    unsafe fn load_weights(self, at: *const i8) -> Self::W {
        // SAFETY: by the trait's contract.
        unsafe { at.cast::<[[i8; 4]; LANES]>().read() }
    }
    #[inline(always)]
    unsafe fn splat_quantized(self, at: *const u8) -> Self::A {
        // SAFETY: by the trait's contract.
        unsafe { at.cast::<[u8; 4]>().read() }
    }
    #[inline(always)]
    unsafe fn initial_sums(self, _: *const i32) -> Self::I {
        [0; LANES]
    }
    #[inline(always)]
    fn dot(self, acc: Self::I, a: Self::A, w: Self::W) -> Self::I {
        let one = |i: usize| (0..4).map(|k| i32::from(a[k]) * i32::from(w[i][k])).sum::<i32>();
        [acc[0] + one(0), acc[1] + one(1), acc[2] + one(2), acc[3] + one(3)]
    }
    #[inline(always)]
    fn to_f32(self, a: Self::I) -> Self::F {
        each(|i| a[i] as f32)
    }
    #[cfg(test)]
    unsafe fn store_sums(self, at: *mut i32, a: Self::I) {
        // SAFETY: by the trait's contract.
        unsafe { at.cast::<[i32; LANES]>().write(a) }
    }
}
