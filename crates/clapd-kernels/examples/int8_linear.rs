//! Quantises the weights of a linear to int8, a scale for each output, and compares it with the same linear in f32 on every
//! instruction set that this CPU has.

use std::time::Instant;

use clapd_kernels::{Epilogue, Isa, Linear, Workspace};

/// Rows, outputs and inputs.
const SHAPE: [usize; 3] = [64, 256, 384];

/// `len` numbers in -1..1 that are the same in each run.
fn noise(seed: u32, len: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn main() -> anyhow::Result<()> {
    let [m, n, k] = SHAPE;
    let (x, weights, bias) = (noise(1, m * k), noise(2, n * k), noise(3, n));
    // The largest weight of an output becomes 127.
    let scales: Vec<f32> =
        weights.chunks_exact(k).map(|row| row.iter().fold(1e-9_f32, |most, w| most.max(w.abs())) / 127.0).collect();
    let rounded: Vec<i8> = weights.iter().enumerate().map(|(at, w)| (w / scales[at / k]).round() as i8).collect();

    let mut workspace = Workspace::new(1);
    let mut exact = vec![0.0; m * n];
    Linear::f32(Isa::Scalar, n, k, &weights, &bias)?.run(&x, &mut exact, Epilogue::Store, &mut workspace)?;
    for isa in Isa::available() {
        let linear = Linear::int8(isa, n, k, &rounded, &scales, &bias)?;
        let mut y = vec![0.0; m * n];
        let began = Instant::now();
        linear.run(&x, &mut y, Epilogue::Store, &mut workspace)?;
        let took = began.elapsed();
        let error = y.iter().zip(&exact).fold(0.0_f32, |most, (y, exact)| most.max((y - exact).abs()));
        println!("{:>10}: {took:>10.1?}, at most {error:.3} off", isa.name());
    }
    Ok(())
}
