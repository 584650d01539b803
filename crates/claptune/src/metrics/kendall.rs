//! Kendall's tau-b in n log n steps, since a bootstrap asks for it thousands of times: Knight's method (JASA 61, 1966),
//! which counts discordant pairs as the exchanges of a merge sort.

/// Kendall's tau-b: concordant less discordant pairs, corrected for ties on either side. NaN where a side is constant or
/// shorter than two.
pub fn kendall(a: &[f64], b: &[f64]) -> f64 {
    let mut rows: Vec<(f64, f64)> = a.iter().copied().zip(b.iter().copied()).collect();
    rows.sort_unstable_by(|l, r| l.0.total_cmp(&r.0).then(l.1.total_cmp(&r.1)));
    let all = pairs(rows.len());
    let tied_a = tied(&rows, |l, r| l.0 == r.0);
    let tied_both = tied(&rows, |l, r| l == r);
    let mut column: Vec<f64> = rows.iter().map(|row| row.1).collect();
    let discordant = exchanges(&mut column);
    let tied_b = tied(&column, |l, r| l == r);
    let difference = all as f64 - tied_a as f64 - tied_b as f64 + tied_both as f64 - 2.0 * discordant as f64;
    let (free_a, free_b) = ((all - tied_a) as f64, (all - tied_b) as f64);
    if free_a == 0.0 || free_b == 0.0 {
        return f64::NAN;
    }
    (difference / free_a.sqrt() / free_b.sqrt()).clamp(-1.0, 1.0)
}

fn pairs(rows: usize) -> u64 {
    let rows = rows as u64;
    rows * rows.saturating_sub(1) / 2
}

/// Pairs of equal neighbours' runs in what is sorted.
fn tied<T>(sorted: &[T], equal: impl Fn(&T, &T) -> bool) -> u64 {
    sorted.chunk_by(|l, r| equal(l, r)).map(|run| pairs(run.len())).sum()
}

/// Sorts, and counts the pairs that stood in falling order.
fn exchanges(values: &mut Vec<f64>) -> u64 {
    let (mut count, mut width) = (0, 1);
    let mut merged = Vec::with_capacity(values.len());
    while width < values.len() {
        merged.clear();
        for run in values.chunks(2 * width) {
            let (mut left, mut right) = run.split_at(width.min(run.len()));
            while let ([l, left_rest @ ..], [r, right_rest @ ..]) = (left, right) {
                if l <= r {
                    merged.push(*l);
                    left = left_rest;
                } else {
                    merged.push(*r);
                    count += left.len() as u64;
                    right = right_rest;
                }
            }
            merged.extend_from_slice(left);
            merged.extend_from_slice(right);
        }
        std::mem::swap(values, &mut merged);
        width *= 2;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Straight from the definition.
    fn by_pairs(a: &[f64], b: &[f64]) -> f64 {
        let sign = |x: f64, y: f64| f64::from(i8::from(x > y) - i8::from(x < y));
        let (mut both, mut in_a, mut in_b) = (0.0, 0.0, 0.0);
        for i in 0..a.len() {
            for j in 0..i {
                let (x, y) = (sign(a[i], a[j]), sign(b[i], b[j]));
                both += x * y;
                in_a += x * x;
                in_b += y * y;
            }
        }
        both / f64::sqrt(in_a * in_b)
    }

    proptest! {
        #[test]
        fn is_its_definition(rows in prop::collection::vec((0_i32..12, -3_i32..4), 0..60)) {
            let (a, b): (Vec<f64>, Vec<f64>) = rows.iter().map(|(a, b)| (f64::from(*a), f64::from(*b))).unzip();
            let (fast, plain) = (kendall(&a, &b), by_pairs(&a, &b));
            prop_assert!((fast - plain).abs() < 1e-12 || fast.is_nan() && plain.is_nan(), "{} {}", fast, plain);
            let turned: Vec<f64> = b.iter().map(|x| -x).collect();
            prop_assert!(fast.is_nan() || (fast + kendall(&a, &turned)).abs() < 1e-12);
        }
    }
}
