//! What must hold of every instruction set that the machine has.
//!
//! Random and extreme numbers must agree with plain Rust in f64, and integer sums with it bit for bit. No kernel is the reference of
//! itself.

mod blocks;
mod gelu;
mod lanes;
mod linear;
mod math;
mod separable;
mod sums;

use super::Isa;

/// Numbers in -1..1 that look random, from a seed.
pub(super) fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Int8Weights weights that look random.
pub(super) fn bytes(seed: u64, len: usize) -> Vec<i8> {
    noise(seed, len).into_iter().map(|x| (x * 127.0).round() as i8).collect()
}

#[test]
fn a_kernel_is_chosen_by_name() {
    let available = Isa::available();
    assert_eq!(available.last(), Some(&Isa::Scalar));
    assert_eq!(Isa::choose(None).unwrap(), available[0]);
    for isa in &available {
        assert_eq!(Isa::choose(Some(isa.name())).unwrap(), *isa);
    }
    let error = Isa::choose(Some("sse9")).unwrap_err().to_string();
    assert!(error.contains("sse9") && error.contains("scalar") && error.contains("CLAPD_KERNEL"), "{error}");
    let other = if cfg!(target_arch = "x86_64") { Isa::Dotprod } else { Isa::Avx2 };
    let error = Isa::choose(Some(other.name())).unwrap_err().to_string();
    assert!(error.contains("lacks") && error.contains("scalar"), "{error}");
    assert!(super::Linear::f32(other, 1, 1, &[1.0], &[]).is_err());
}
