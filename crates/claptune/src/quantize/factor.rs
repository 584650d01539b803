//! The lower factor L of a symmetric positive definite matrix, A = L L'.
//!
//! It is made block by block, so that nearly all of the work is matrix products: RoBERTa's widest linear has 3,072
//! inputs, where the plain method, a column at a time, waits for memory.
//!
//! Algorithm: left-looking blocked Cholesky; Golub and Van Loan, Matrix Computations, 4.2.

use nalgebra::{Cholesky, DMatrix};

/// Columns of a block: its own factor is small work beside the products, and fits the first cache.
const BLOCK: usize = 64;

/// Factors `matrix`; none where it is not positive definite.
pub fn lower(mut matrix: DMatrix<f64>) -> Option<DMatrix<f64>> {
    let size = matrix.nrows();
    for begin in (0..size).step_by(BLOCK) {
        let width = BLOCK.min(size - begin);
        let below = size - begin - width;
        if begin > 0 {
            let top = matrix.view((begin, 0), (width, begin)).transpose();
            let product = matrix.view((begin, 0), (below + width, begin)) * top;
            let mut panel = matrix.view_mut((begin, begin), (below + width, width));
            panel -= product;
        }
        let corner = Cholesky::new(matrix.view((begin, begin), (width, width)).into_owned())?.unpack();
        let inverse = corner.solve_lower_triangular(&DMatrix::identity(width, width))?;
        let panel = matrix.view((begin + width, begin), (below, width)) * inverse.transpose();
        matrix.view_mut((begin + width, begin), (below, width)).copy_from(&panel);
        matrix.view_mut((begin, begin), (width, width)).copy_from(&corner);
        matrix.view_mut((0, begin), (begin, width)).fill(0.0);
    }
    Some(matrix)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_factor_times_its_transpose_is_the_matrix() {
        let mut random = fastrand::Rng::with_seed(1);
        for size in [1, 3, 63, 64, 65, 200] {
            let root = DMatrix::from_fn(size, size, |_, _| random.f64() - 0.5);
            let matrix = &root * root.transpose() + DMatrix::identity(size, size) * 1e-3;
            let factor = lower(matrix.clone()).unwrap();
            assert_eq!(factor.upper_triangle(), DMatrix::from_diagonal(&factor.diagonal()), "{size}: nothing above");
            let error = (&factor * factor.transpose() - &matrix).amax();
            assert!(error < 1e-12 * matrix.amax() * size as f64, "{size}: {error}");
        }
    }

    #[test]
    fn an_indefinite_matrix_has_no_factor() {
        assert!(lower(DMatrix::from_row_slice(2, 2, &[1.0, 2.0, 2.0, 1.0])).is_none());
        assert!(lower(DMatrix::from_element(70, 70, f64::NAN)).is_none());
    }
}
