//! AVX-512 with VNNI: sixteen lanes, `vpdpbusd` with activations as its unsigned and weights as its signed bytes.
//!
//! `vpdpbusd` adds four products of at most 255 * 127 to 32 bits without saturating: exact.

use std::arch::x86_64::*;

use super::simd::{Kernel, Simd, instructions};

/// The proof that the CPU has AVX-512 with VNNI.
#[derive(Clone, Copy)]
pub(super) struct Avx512Vnni(());

impl Avx512Vnni {
    /// # Safety
    /// The CPU must have avx512f, avx512bw, avx512vl, avx512dq, avx512vnni, avx2 and fma.
    pub(super) unsafe fn new() -> Self {
        Self(())
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
#[inline(never)]
fn enter<K: Kernel>(simd: Avx512Vnni, kernel: K) -> K::Output {
    kernel.run(simd)
}

/// A permutation of the pairs of 64 bits of two vectors of 16 floats.
macro_rules! pairs {
    ($a:expr, $b:expr) => {{
        let (a, b) = (_mm512_castps_pd($a), _mm512_castps_pd($b));
        (_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)))
    }};
}

// Every operation below is inlined into `enter`; the CPU has the instructions because a value of the type exists.
impl Simd for Avx512Vnni {
    const LANES: usize = 16;
    const ROWS: usize = 12;
    const VECTORS: usize = 2;
    const GROUP: usize = 4;
    type F = __m512;
    type I = __m512i;
    type W = __m512i;
    type A = __m512i;
    type Quantized = u8;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: self proves the features.
        unsafe { enter(self, kernel) }
    }

    instructions! {
        fn splat(x: f32) -> __m512 { _mm512_set1_ps(x) }
        fn add(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn sub(a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
        fn mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn fma(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        fn max(a: __m512, b: __m512) -> __m512 { _mm512_max_ps(a, b) }
        fn min(a: __m512, b: __m512) -> __m512 { _mm512_min_ps(a, b) }
        fn abs(a: __m512) -> __m512 { _mm512_abs_ps(a) }
        fn round(a: __m512) -> __m512 { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
        fn scale2(a: __m512, n: __m512) -> __m512 { _mm512_scalef_ps(a, n) }
        // An approximation of 14 bits, and one step of Newton's method.
        fn recip(a: __m512) -> __m512 {
            let t = _mm512_rcp14_ps(a);
            _mm512_mul_ps(t, _mm512_fnmadd_ps(a, t, _mm512_set1_ps(2.0)))
        }
        fn reduce_add(a: __m512) -> f32 { _mm512_reduce_add_ps(a) }
        fn reduce_max(a: __m512) -> f32 { _mm512_reduce_max_ps(a) }
        fn reduce_min(a: __m512) -> f32 { _mm512_reduce_min_ps(a) }
        fn dot(acc: __m512i, a: __m512i, w: __m512i) -> __m512i { _mm512_dpbusd_epi32(acc, a, w) }
        fn to_f32(a: __m512i) -> __m512 { _mm512_cvtepi32_ps(a) }

        unsafe fn load(at: *const f32) -> __m512 { _mm512_loadu_ps(at) }
        // Masked lanes are not read.
        unsafe fn load_part(at: *const f32, n: usize) -> __m512 { _mm512_maskz_loadu_ps(mask(n), at) }
        unsafe fn load_half(at: *const u16) -> __m512 { _mm512_cvtph_ps(_mm256_loadu_si256(at.cast())) }
        unsafe fn store(at: *mut f32, a: __m512) { _mm512_storeu_ps(at, a) }
        // Masked lanes are not written.
        unsafe fn store_part(at: *mut f32, a: __m512, n: usize) { _mm512_mask_storeu_ps(at, mask(n), a) }
        // 16 rows of 16 floats on both sides.
        unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
            let zero = _mm512_setzero_ps();
            let mut t = [zero; 16];
            // Floats, then pairs of floats, are interleaved: quarter q of t[4 * g + c] is column 4 * q + c of rows 4 * g..
            for g in 0..4 {
                let row = |i: usize| _mm512_loadu_ps(from.add((4 * g + i) * from_stride));
                let (a, b, c, d) = (row(0), row(1), row(2), row(3));
                (t[4 * g], t[4 * g + 1]) = pairs!(_mm512_unpacklo_ps(a, b), _mm512_unpacklo_ps(c, d));
                (t[4 * g + 2], t[4 * g + 3]) = pairs!(_mm512_unpackhi_ps(a, b), _mm512_unpackhi_ps(c, d));
            }
            // Then quarters are gathered.
            for c in 0..4 {
                let even = _mm512_shuffle_f32x4::<0x88>(t[c], t[4 + c]);
                let odd = _mm512_shuffle_f32x4::<0xdd>(t[c], t[4 + c]);
                let even_high = _mm512_shuffle_f32x4::<0x88>(t[8 + c], t[12 + c]);
                let odd_high = _mm512_shuffle_f32x4::<0xdd>(t[8 + c], t[12 + c]);
                _mm512_storeu_ps(to.add(c * to_stride), _mm512_shuffle_f32x4::<0x88>(even, even_high));
                _mm512_storeu_ps(to.add((4 + c) * to_stride), _mm512_shuffle_f32x4::<0x88>(odd, odd_high));
                _mm512_storeu_ps(to.add((8 + c) * to_stride), _mm512_shuffle_f32x4::<0xdd>(even, even_high));
                _mm512_storeu_ps(to.add((12 + c) * to_stride), _mm512_shuffle_f32x4::<0xdd>(odd, odd_high));
            }
        }
        unsafe fn store_quantized(at: *mut u8, a: __m512) { _mm_storeu_si128(at.cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a))) }
        unsafe fn load_weights(at: *const i8) -> __m512i { _mm512_loadu_si512(at.cast()) }
        unsafe fn splat_quantized(at: *const u8) -> __m512i { _mm512_set1_epi32(at.cast::<i32>().read_unaligned()) }
        unsafe fn initial_sums(_sums: *const i32) -> __m512i { _mm512_setzero_si512() }
    }

    #[inline(always)]
    fn prefetch<T>(self, at: *const T) {
        // SAFETY: a hint; no address faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
    #[cfg(test)]
    unsafe fn store_sums(self, at: *mut i32, a: __m512i) {
        // SAFETY: by the trait's contract.
        unsafe { _mm512_storeu_si512(at.cast(), a) }
    }
}

/// The first n lanes.
#[inline(always)]
fn mask(n: usize) -> __mmask16 {
    (1u32 << n).wrapping_sub(1) as __mmask16
}
