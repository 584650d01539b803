//! The int8 linears, attention and norms of CLAP's audio tower (HTSAT-tiny) on one 10 s window, with weights out of a generator:
//! what tools/cross/count counts. Without the patch embedding and the last projection (1% of the work).
//! Arguments: how many windows, and the instruction set.

use clapd_kernels::{Isa, Linear, Norm, PatchMerge, SwinBlock, SwinLayers, SwinShape, Workspace};

/// Numbers in -1..1 that are the same in each run.
struct Noise(u32);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) as f32 / (1 << 23) as f32 - 1.0
    }

    fn many(&mut self, n: usize, size: f32) -> Vec<f32> {
        (0..n).map(|_| self.next() * size).collect()
    }

    fn norm(&mut self, n: usize) -> Norm {
        Norm::new(self.many(n, 1.0), self.many(n, 0.1), 1e-5)
    }

    /// An int8 linear whose outputs are about as large as its inputs.
    fn linear(&mut self, isa: Isa, n: usize, k: usize) -> anyhow::Result<Linear> {
        let weights: Vec<i8> = (0..n * k).map(|_| (self.next() * 127.0) as i8).collect();
        let bias = self.many(n, 0.1);
        Linear::int8(isa, n, k, &weights, &vec![(k as f32).sqrt().recip() / 73.0; n], &bias)
    }
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let windows: usize = arguments.first().map_or(Ok(1), |n| n.parse())?;
    let isa = Isa::choose(arguments.get(1).map(String::as_str))?;
    let mut noise = Noise(1);
    let (mut blocks, mut merges) = (Vec::new(), Vec::new());
    // (blocks, heads) of each stage; the image halves and the channels double from one to the next.
    for (stage, (depth, heads)) in [(2, 4), (2, 8), (6, 16), (2, 32)].into_iter().enumerate() {
        let (side, c) = (64 >> stage, 96 << stage);
        for i in 0..depth {
            let shift = if i % 2 == 1 && side > 8 { 4 } else { 0 };
            let layers = SwinLayers {
                norm_before: noise.norm(c),
                qkv: noise.linear(isa, 3 * c, c)?,
                output: noise.linear(isa, c, c)?,
                norm_after: noise.norm(c),
                inner: noise.linear(isa, 4 * c, c)?,
                outer: noise.linear(isa, c, 4 * c)?,
            };
            let shape = SwinShape { height: side, width: side, window: 8, shift, heads };
            blocks.push((stage, SwinBlock::new(shape, layers, &noise.many(15 * 15 * heads, 1.0))?));
        }
        if stage < 3 {
            merges.push(PatchMerge::new(side, side, noise.norm(4 * c), noise.linear(isa, 2 * c, 4 * c)?)?);
        }
    }
    let mut workspace = Workspace::new(1);
    for _ in 0..windows {
        let mut x = noise.many(64 * 64 * 96, 1.0);
        let mut at = 0;
        for (stage, block) in &blocks {
            if *stage > at {
                let mut merged = vec![0.0; x.len() / 2];
                merges[at].run(&x, &mut merged, &mut workspace)?;
                (x, at) = (merged, *stage);
            }
            block.run(&mut x, &mut workspace)?;
        }
        println!("{}: mean {}", isa.name(), x.iter().sum::<f32>() / x.len() as f32);
    }
    Ok(())
}
