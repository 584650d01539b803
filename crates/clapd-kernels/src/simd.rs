//! The seam between the arithmetic and the instruction sets: a few operations on short vectors.
//!
//! A value of a type that implements [`Simd`] is a proof that the CPU has its instructions: only [`super::isa`] makes one.
//! What is above is generic over `Simd`, `#[inline(always)]`, and enters through [`Simd::run`], so that
//! it is compiled once for each instruction set with that set's instructions.

/// What runs inside one instruction set: a closure, generic in it.
pub(super) trait Kernel {
    /// What comes out.
    type Output;
    /// Does it. Must be `#[inline(always)]`, or it is compiled without the set's instructions.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Bytes that weights are asked for ahead of their use: about 200 cycles. Measured on a text of 12 tokens, whose weights all come
/// from far away: 2,048 and more take 11 ms, 1,024 take 12.5 ms.
pub(super) const PREFETCH_BYTES: usize = 2048;

/// Vectors of f32 and the int8 dot product.
///
/// # Quantised activations and weights
/// An activation x is held as 8 bits q in 0..=255 with x = scale * (q - zero). A weight is an int8 in -127..=127. An accumulator
/// is the exact sum of q * w in i32 on every instruction set. An instruction set that multiplies signed bytes stores q - 128
/// as [`Quantized`](Self::Quantized), and its accumulators begin at 128 * (the sum of the column's weights):
/// [`initial_sums`](Self::initial_sums).
pub(super) trait Simd: Copy + Send + Sync + 'static {
    /// f32 (and i32) in a vector; at most 16.
    const LANES: usize;
    /// Rows of the largest tile: 12, 8, 6 or 4. Rows * vectors accumulators must fit into registers.
    const ROWS: usize;
    /// Vectors side by side in a tile, and so in a panel of packed weights: 2, 3 or 4.
    const VECTORS: usize;
    /// Consecutive weights of one column that one dot product takes: 4 or 2.
    const GROUP: usize;
    /// f32 lanes.
    type F: Copy;
    /// i32 lanes.
    type I: Copy;
    /// A vector of weights: GROUP for each lane.
    type W: Copy;
    /// GROUP quantised activations, for all lanes the same.
    type A: Copy;
    /// How a quantised activation is stored.
    type Quantized: Copy + Default + Send + Sync + 'static;

    /// Runs `kernel` compiled for this instruction set.
    fn run<K: Kernel>(self, kernel: K) -> K::Output;

    /// x in all lanes.
    fn splat(self, x: f32) -> Self::F;
    /// a + b.
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// a - b.
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// a * b.
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// a * b + c, rounded once or twice.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The larger; the second where one is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// The smaller; the second where one is NaN.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// Without its sign.
    fn abs(self, a: Self::F) -> Self::F;
    /// To the nearest integer, halves to even. |a| must be below 2^22.
    fn round(self, a: Self::F) -> Self::F;
    /// a * 2^n for integers n in -126..=127.
    fn scale2(self, a: Self::F, n: Self::F) -> Self::F;
    /// 1 / a for a in 1..=1e6, to 3e-7 of it.
    fn recip(self, a: Self::F) -> Self::F;
    /// Sum of the lanes, in any order.
    fn reduce_add(self, a: Self::F) -> f32;
    /// The largest lane.
    fn reduce_max(self, a: Self::F) -> f32;
    /// The smallest lane.
    fn reduce_min(self, a: Self::F) -> f32;

    /// LANES floats at `at`.
    ///
    /// # Safety
    /// They must be readable.
    unsafe fn load(self, at: *const f32) -> Self::F;
    /// The first `n` < LANES at `at`, then zeros; nothing behind them is touched.
    ///
    /// # Safety
    /// `n` floats must be readable.
    unsafe fn load_part(self, at: *const f32, n: usize) -> Self::F;
    /// LANES half-precision numbers at `at`, as f32.
    ///
    /// # Safety
    /// They must be readable.
    unsafe fn load_half(self, at: *const u16) -> Self::F;
    /// Writes LANES floats.
    ///
    /// # Safety
    /// They must be writable.
    unsafe fn store(self, at: *mut f32, a: Self::F);
    /// Writes the first `n` < LANES floats and nothing behind them.
    ///
    /// # Safety
    /// `n` floats must be writable.
    unsafe fn store_part(self, at: *mut f32, a: Self::F, n: usize);
    /// Writes LANES * LANES floats transposed: row r of `to` is column r of `from`. Strides in floats.
    ///
    /// # Safety
    /// LANES rows of LANES floats must be readable at `from` and writable at `to`, which don't overlap.
    unsafe fn transpose(self, from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize);

    /// Rounds to the nearest (halves to even) and stores LANES quantised activations. Lanes must be in 0..=255.
    ///
    /// # Safety
    /// LANES elements must be writable.
    unsafe fn store_quantized(self, at: *mut Self::Quantized, a: Self::F);
    /// LANES * GROUP weights: GROUP of the first column, GROUP of the second, and so on.
    ///
    /// # Safety
    /// They must be readable.
    unsafe fn load_weights(self, at: *const i8) -> Self::W;
    /// GROUP quantised activations for all lanes.
    ///
    /// # Safety
    /// They must be readable.
    unsafe fn splat_quantized(self, at: *const Self::Quantized) -> Self::A;
    /// Asks for the cache line at `at`, which need not be memory of ours. Does nothing where that doesn't pay.
    #[inline(always)]
    fn prefetch<T>(self, _at: *const T) {}
    /// What accumulators begin with; `sums` has LANES sums of a column's weights.
    ///
    /// # Safety
    /// LANES integers must be readable.
    unsafe fn initial_sums(self, sums: *const i32) -> Self::I;
    /// In each lane, acc + sum over GROUP of activation * weight, exactly.
    fn dot(self, acc: Self::I, a: Self::A, w: Self::W) -> Self::I;
    /// As f32, rounded to the nearest.
    fn to_f32(self, a: Self::I) -> Self::F;
    /// Writes LANES integers: only for tests, which compare accumulators.
    ///
    /// # Safety
    /// They must be writable.
    #[cfg(test)]
    unsafe fn store_sums(self, at: *mut i32, a: Self::I);

    /// Accumulators of M rows of activations (`stride` elements from one to the next) and V vectors of columns, over `groups`
    /// groups. The weights of a panel of V vectors lie group by group, and the cache is asked for those `ahead` bytes behind.
    /// An instruction set may do this in its own way: it is what nearly all time goes into.
    ///
    /// # Safety
    /// `a` must have M rows of GROUP * `groups` activations, `w` V vectors of weights for each group, `sums` V * LANES sums.
    #[inline(always)]
    unsafe fn tile<const M: usize, const V: usize>(
        self,
        a: *const Self::Quantized,
        stride: usize,
        w: *const i8,
        sums: *const i32,
        groups: usize,
        ahead: usize,
    ) -> [[Self::I; V]; M] {
        // SAFETY: by this function's contract.
        unsafe {
            let mut start = [self.initial_sums(sums); V];
            for (j, start) in start.iter_mut().enumerate() {
                *start = self.initial_sums(sums.add(j * Self::LANES));
            }
            let mut acc = [start; M];
            let size = Self::LANES * Self::GROUP;
            for g in 0..groups {
                let w = w.add(g * V * size);
                for line in 0..(V * size).div_ceil(64) {
                    self.prefetch(w.wrapping_add(ahead + line * 64));
                }
                let mut weights = [self.load_weights(w); V];
                // Not with skip(): where overflow is checked, its `next` is called instead of inlined, and half the time goes there.
                for (j, weights) in weights.iter_mut().enumerate() {
                    if j > 0 {
                        *weights = self.load_weights(w.add(j * size));
                    }
                }
                for (r, acc) in acc.iter_mut().enumerate() {
                    let activations = self.splat_quantized(a.add(r * stride + g * Self::GROUP));
                    for j in 0..V {
                        acc[j] = self.dot(acc[j], activations, weights[j]);
                    }
                }
            }
            acc
        }
    }
}

/// Methods of [`Simd`] that are CPU instructions, without the words that all of them share. First those that take numbers, then
/// those that take pointers.
macro_rules! instructions {
    (
        $(fn $safe:ident($($a:ident : $A:ty),*) -> $R:ty { $($body:tt)* })*
        $(unsafe fn $unsafe:ident($($b:ident : $B:ty),*) $(-> $Q:ty)? { $($code:tt)* })*
    ) => {
        $(
            #[inline(always)]
            fn $safe(self, $($a: $A),*) -> $R {
                // SAFETY: a value of the type proves that the CPU has the instructions; no memory is touched.
                unsafe { $($body)* }
            }
        )*
        $(
            #[inline(always)]
            unsafe fn $unsafe(self, $($b: $B),*) $(-> $Q)? {
                // SAFETY: a value of the type proves that the CPU has the instructions; memory is as the trait's contract says.
                unsafe { $($code)* }
            }
        )*
    };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) use instructions;
