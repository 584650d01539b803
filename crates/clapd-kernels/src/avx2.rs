//! AVX2 with FMA and F16C: eight lanes; the int8 dot product by `vpmaddwd` on bytes widened to 16 bits.
//!
//! `vpmaddubsw` would multiply bytes at once, but its sums of two products (up to 2 * 255 * 127) saturate at 16 bits. Activations are
//! stored as 16 bits and weights widened as they are loaded, so that two products (up to 2 * 255 * 127) meet in 32: exact.

use std::arch::x86_64::*;

use super::simd::{Kernel, Simd, instructions};

/// The proof that the CPU has AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    /// # Safety
    /// The CPU must have avx2, fma and f16c.
    pub(super) unsafe fn new() -> Self {
        Self(())
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline(never)]
fn enter<K: Kernel>(simd: Avx2, kernel: K) -> K::Output {
    kernel.run(simd)
}

/// The operations on f32, the same with and without AVX-VNNI. A value of the type proves that the CPU has AVX2, FMA and F16C.
macro_rules! eight_lanes {
    () => {
        instructions! {
            fn splat(x: f32) -> __m256 { _mm256_set1_ps(x) }
            fn add(a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
            fn sub(a: __m256, b: __m256) -> __m256 { _mm256_sub_ps(a, b) }
            fn mul(a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
            fn fma(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fmadd_ps(a, b, c) }
            fn max(a: __m256, b: __m256) -> __m256 { _mm256_max_ps(a, b) }
            fn min(a: __m256, b: __m256) -> __m256 { _mm256_min_ps(a, b) }
            fn abs(a: __m256) -> __m256 { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
            fn round(a: __m256) -> __m256 { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
            // n + 127, shifted to where an exponent stands, is 2^n.
            fn scale2(a: __m256, n: __m256) -> __m256 {
                let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
                _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
            }
            fn recip(a: __m256) -> __m256 { _mm256_div_ps(_mm256_set1_ps(1.0), a) }
            fn reduce_add(a: __m256) -> f32 {
                let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
                let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
                _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
            }
            fn reduce_max(a: __m256) -> f32 {
                let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
                let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
                _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)))
            }
            fn reduce_min(a: __m256) -> f32 {
                let a = _mm_min_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
                let a = _mm_min_ps(a, _mm_movehl_ps(a, a));
                _mm_cvtss_f32(_mm_min_ss(a, _mm_movehdup_ps(a)))
            }
            fn to_f32(a: __m256i) -> __m256 { _mm256_cvtepi32_ps(a) }

            unsafe fn load(at: *const f32) -> __m256 { _mm256_loadu_ps(at) }
            // Masked lanes are not read.
            unsafe fn load_part(at: *const f32, n: usize) -> __m256 { _mm256_maskload_ps(at, super::avx2::mask(n)) }
            unsafe fn load_half(at: *const u16) -> __m256 { _mm256_cvtph_ps(_mm_loadu_si128(at.cast())) }
            unsafe fn store(at: *mut f32, a: __m256) { _mm256_storeu_ps(at, a) }
            // Masked lanes are not written.
            unsafe fn store_part(at: *mut f32, a: __m256, n: usize) { _mm256_maskstore_ps(at, super::avx2::mask(n), a) }
            // 8 rows of 8 floats on both sides.
            unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
                // Half h of t[4 * g + c] is column 4 * h + c of rows 4 * g..
                let mut t = [_mm256_setzero_ps(); 8];
                for g in 0..2 {
                    let row = |i: usize| _mm256_loadu_ps(from.add((4 * g + i) * from_stride));
                    let (a, b, c, d) = (row(0), row(1), row(2), row(3));
                    let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
                    t[4 * g] = _mm256_shuffle_ps::<0x44>(ab, cd);
                    t[4 * g + 1] = _mm256_shuffle_ps::<0xee>(ab, cd);
                    let (ab, cd) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
                    t[4 * g + 2] = _mm256_shuffle_ps::<0x44>(ab, cd);
                    t[4 * g + 3] = _mm256_shuffle_ps::<0xee>(ab, cd);
                }
                for c in 0..4 {
                    _mm256_storeu_ps(to.add(c * to_stride), _mm256_permute2f128_ps::<0x20>(t[c], t[4 + c]));
                    _mm256_storeu_ps(to.add((4 + c) * to_stride), _mm256_permute2f128_ps::<0x31>(t[c], t[4 + c]));
                }
            }
            unsafe fn initial_sums(_sums: *const i32) -> __m256i { _mm256_setzero_si256() }
        }

        #[inline(always)]
        fn prefetch<T>(self, at: *const T) {
            // SAFETY: a hint; no address faults.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
        }
        #[cfg(test)]
        unsafe fn store_sums(self, at: *mut i32, a: __m256i) {
            // SAFETY: by the trait's contract.
            unsafe { _mm256_storeu_si256(at.cast(), a) }
        }
    };
}
pub(super) use eight_lanes;

/// The first n < 8 lanes, as the masked moves take them.
#[inline(always)]
pub(super) fn mask(n: usize) -> __m256i {
    const LANES: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: eight integers from 8 - n on lie inside the sixteen; a caller's value of the type proves AVX.
    unsafe { _mm256_loadu_si256(LANES.as_ptr().add(8 - n.min(8)).cast()) }
}

// Every operation below is inlined into `enter`; the CPU has the instructions because a value of the type exists.
impl Simd for Avx2 {
    const LANES: usize = 8;
    const ROWS: usize = 6;
    const VECTORS: usize = 2;
    const GROUP: usize = 2;
    type F = __m256;
    type I = __m256i;
    type W = __m256i;
    type A = __m256i;
    type Quantized = i16;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: self proves the features.
        unsafe { enter(self, kernel) }
    }

    eight_lanes!();

    instructions! {
        fn dot(acc: __m256i, a: __m256i, w: __m256i) -> __m256i { _mm256_add_epi32(acc, _mm256_madd_epi16(a, w)) }

        unsafe fn store_quantized(at: *mut i16, a: __m256) {
            let a = _mm256_cvtps_epi32(a);
            let a = _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
            _mm_storeu_si128(at.cast(), a);
        }
        unsafe fn load_weights(at: *const i8) -> __m256i { _mm256_cvtepi8_epi16(_mm_loadu_si128(at.cast())) }
        unsafe fn splat_quantized(at: *const i16) -> __m256i { _mm256_set1_epi32(at.cast::<i32>().read_unaligned()) }
    }
}
