//! Arithmetic of embeddings: dot products, cosines, unit vectors.

/// Scales to unit length, in f64. A vector of zeros (digital silence in some models), or one whose length is not finite, becomes
/// zero: its cosine with everything is 0.
pub fn normalize(vector: &mut [f32]) {
    let norm = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    if norm > 0.0 && norm.is_finite() {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
    } else {
        vector.fill(0.0);
    }
}

/// The sum of the products, in eight running sums: the compiler keeps them in one vector register, which a single sum in order
/// would forbid. Of vectors of different lengths the longer one's rest does not count.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 8];
    let (left, right) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = left.remainder().iter().zip(right.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in left.zip(right) {
        for (sum, (x, y)) in sums.iter_mut().zip(x.iter().zip(y)) {
            *sum += x * y;
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// The cosine of two vectors of any length, in f64; 0 where one of them is zero. (Of unit vectors, [`dot`] is the cosine.)
pub fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 { (dot(a, b) / lengths) as f32 } else { 0.0 }
}

/// Appends `vector` to `packed` in 16 bits a number, for whoever stores many. Returns the scale that [`unpack`] takes: the largest
/// number has all 15 bits, so that none is off by more than 1/65,534 of it.
pub fn pack(vector: &[f32], packed: &mut Vec<i16>) -> f32 {
    let largest = vector.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    let scale = largest / f32::from(i16::MAX);
    // A vector of zeros, or of what is no number, becomes zero.
    let (scale, factor) = if scale.is_normal() { (scale, scale.recip()) } else { (0.0, 0.0) };
    packed.extend(vector.iter().map(|x| (x * factor).round() as i16));
    scale
}

/// The numbers of a packed vector, into `vector` of the same length.
pub fn unpack(packed: &[i16], scale: f32, vector: &mut [f32]) {
    vector.iter_mut().zip(packed).for_each(|(x, code)| *x = f32::from(*code) * scale);
}

/// The [`dot`] of a packed vector and one that is not, without a place to unpack it into. (21,600 vectors of 940 numbers take 7 ms on an x86
/// core, as they do unpacked.)
pub fn dot_packed(packed: &[i16], scale: f32, vector: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 8];
    let (left, right) = (packed.chunks_exact(8), vector.chunks_exact(8));
    let rest: f32 = left.remainder().iter().zip(right.remainder()).map(|(code, y)| f32::from(*code) * y).sum();
    for (codes, y) in left.zip(right) {
        for (sum, (code, y)) in sums.iter_mut().zip(codes.iter().zip(y)) {
            *sum += f32::from(*code) * y;
        }
    }
    (sums.iter().sum::<f32>() + rest) * scale
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cosine_is_the_dot_product_of_unit_vectors(mut a in prop::collection::vec(-1.0_f32..1.0, 1..40), shift in 0_usize..40) {
            let mut b = a.clone();
            b.rotate_left(shift % a.len());
            let expected = cosine(&a, &b);
            normalize(&mut a);
            normalize(&mut b);
            prop_assert!((dot(&a, &b) - expected).abs() < 1e-5);
            prop_assert!(expected.abs() <= 1.000_001);
        }
    }

    proptest! {
        #[test]
        fn packed_numbers_are_off_by_half_a_step_at_the_most(vector in prop::collection::vec(-1.0_f32..1.0, 0..40)) {
            let (mut packed, mut unpacked) = (vec![7], vec![0.0; vector.len()]);
            let scale = pack(&vector, &mut packed);
            unpack(&packed[1..], scale, &mut unpacked);
            let largest = vector.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
            for (x, y) in vector.iter().zip(&unpacked) {
                prop_assert!((x - y).abs() <= largest / 65_534.0 * 1.01 + 1e-7, "{} {}", x, y);
            }
            let product = dot_packed(&packed[1..], scale, &vector);
            prop_assert!((product - dot(&unpacked, &vector)).abs() < 1e-4, "{}", product);
        }
    }

    #[test]
    fn what_is_no_number_is_packed_as_zero() {
        for vector in [[0.0, 0.0], [f32::NAN, f32::NAN], [f32::INFINITY, 1.0]] {
            let (mut packed, mut unpacked) = (Vec::new(), [9.0; 2]);
            let scale = pack(&vector, &mut packed);
            unpack(&packed, scale, &mut unpacked);
            assert_eq!(unpacked, [0.0, 0.0]);
        }
    }

    #[test]
    fn what_has_no_direction_becomes_zero() {
        for mut vector in [vec![0.0, 0.0], vec![f32::INFINITY, 1.0], vec![f32::NAN, 1.0]] {
            normalize(&mut vector);
            assert_eq!(vector, [0.0, 0.0]);
        }
        assert_eq!(cosine(&[0.0, 0.0], &[1.0, 0.0]), 0.0);
    }
}
