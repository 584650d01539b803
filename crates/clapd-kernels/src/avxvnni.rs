//! AVX2 with AVX-VNNI: eight lanes, `vpdpbusd` with activations as its unsigned and weights as its signed bytes.
//!
//! It adds four products of at most 255 * 127 to 32 bits without saturating: exact.

use std::arch::x86_64::*;

use super::avx2::eight_lanes;
use super::simd::{Kernel, Simd, instructions};

/// The proof that the CPU has AVX2, FMA, F16C and AVX-VNNI.
#[derive(Clone, Copy)]
pub(super) struct AvxVnni(());

impl AvxVnni {
    /// # Safety
    /// The CPU must have avx2, fma, f16c and avxvnni.
    pub(super) unsafe fn new() -> Self {
        Self(())
    }
}

#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
#[inline(never)]
fn enter<K: Kernel>(simd: AvxVnni, kernel: K) -> K::Output {
    kernel.run(simd)
}

// Every operation below is inlined into `enter`; the CPU has the instructions because a value of the type exists.
impl Simd for AvxVnni {
    const LANES: usize = 8;
    const ROWS: usize = 6;
    const VECTORS: usize = 2;
    const GROUP: usize = 4;
    type F = __m256;
    type I = __m256i;
    type W = __m256i;
    type A = __m256i;
    type Quantized = u8;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: self proves the features.
        unsafe { enter(self, kernel) }
    }

    eight_lanes!();

    instructions! {
        fn dot(acc: __m256i, a: __m256i, w: __m256i) -> __m256i { _mm256_dpbusd_avx_epi32(acc, a, w) }

        // Both narrowings keep 0..=255 as they are.
        unsafe fn store_quantized(at: *mut u8, a: __m256) {
            let a = _mm256_cvtps_epi32(a);
            let a = _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
            _mm_storel_epi64(at.cast(), _mm_packus_epi16(a, a));
        }
        unsafe fn load_weights(at: *const i8) -> __m256i { _mm256_loadu_si256(at.cast()) }
        unsafe fn splat_quantized(at: *const u8) -> __m256i { _mm256_set1_epi32(at.cast::<i32>().read_unaligned()) }
    }
}
