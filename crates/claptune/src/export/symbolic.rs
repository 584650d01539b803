//! One graph for every length, from recordings of two.
//!
//! Graphs of one network recorded at two lengths differ only in dimensions and in the shape vectors given to Reshape,
//! Expand, Slice and Tile; any other difference is an error. Each number that differs becomes k * length + c, the
//! length read from an input at run time.

use anyhow::{Context, Result, bail, ensure};

use super::onnx::{Constant, Dim, Graph, int};

/// The length that the two recordings differ in.
pub struct SymbolicLength<'a> {
    /// Its name in the exported graph.
    pub symbol: &'a str,
    /// The input that shows it at run time.
    pub input: &'a str,
    /// The axis of that input.
    pub axis: usize,
}

/// Merges two graphs of one network.
///
/// # Errors
/// Says which constant, node or dimension differs in a way that a length can't explain.
pub fn merge(small: Graph, large: &Graph, length: &SymbolicLength) -> Result<Graph> {
    let mut merger = Merger::new(small, large, length)?;
    merger.check_nodes()?;
    merger.edges()?;
    merger.constants()?;
    Ok(merger.graph)
}

struct Merger<'a> {
    graph: Graph,
    large: &'a Graph,
    length: &'a SymbolicLength<'a>,
    lengths: (i64, i64),
    /// Nodes that compute shape vectors; they go in front, since they need the inputs only.
    front: Graph,
}

impl<'a> Merger<'a> {
    fn new(graph: Graph, large: &'a Graph, length: &'a SymbolicLength<'a>) -> Result<Self> {
        let read = |graph: &Graph| -> Result<i64> {
            let edge = graph.inputs.iter().find(|e| e.name == length.input).context("no input of that name")?;
            match edge.shape.get(length.axis) {
                Some(Dim::Fixed(n)) => Ok(*n as i64),
                other => bail!("axis {} of `{}` is {other:?}, not a number", length.axis, length.input),
            }
        };
        let lengths = (read(&graph)?, read(large)?);
        ensure!(lengths.0 != lengths.1, "both recordings have length {}: record two lengths", lengths.0);
        Ok(Self { graph, large, length, lengths, front: Graph::with_prefix("", "length_") })
    }

    fn check_nodes(&self) -> Result<()> {
        ensure!(self.graph.nodes.len() == self.large.nodes.len(), "the two recordings have different operations");
        for (a, b) in self.graph.nodes.iter().zip(&self.large.nodes) {
            ensure!(a == b, "the node {} ({}) differs between the two lengths", a.name, a.op_type);
        }
        Ok(())
    }

    /// `value = k * length + c`, from its values at both lengths.
    fn line(&self, small: i64, large: i64) -> Result<(i64, i64)> {
        let (rise, run) = (large - small, self.lengths.1 - self.lengths.0);
        ensure!(rise % run == 0, "{small} and {large} are no whole multiple of the lengths {:?}", self.lengths);
        let k = rise / run;
        Ok((k, small - k * self.lengths.0))
    }

    fn edges(&mut self) -> Result<()> {
        let lines = |a: &Dim, b: &Dim| -> Result<Dim> {
            match (a, b) {
                (a, b) if a == b => Ok(a.clone()),
                (Dim::Fixed(a), Dim::Fixed(b)) if self.line(*a as i64, *b as i64)? == (1, 0) => {
                    Ok(Dim::Symbol(self.length.symbol.into()))
                }
                _ => Ok(Dim::Free),
            }
        };
        let merged = |a: &[super::onnx::Edge], b: &[super::onnx::Edge]| -> Result<Vec<_>> {
            let mut edges = a.to_vec();
            for (edge, other) in edges.iter_mut().zip(b) {
                let shape = edge.shape.iter().zip(&other.shape).map(|(a, b)| lines(a, b));
                edge.shape = shape.collect::<Result<_>>()?;
            }
            Ok(edges)
        };
        let inputs = merged(&self.graph.inputs, &self.large.inputs)?;
        let outputs = merged(&self.graph.outputs, &self.large.outputs)?;
        (self.graph.inputs, self.graph.outputs) = (inputs, outputs);
        Ok(())
    }

    fn constants(&mut self) -> Result<()> {
        let names: Vec<String> = self.graph.constants.keys().cloned().collect();
        let mut length = None;
        for name in names {
            let (small, large) = (&self.graph.constants[&name], self.large.constants.get(&name));
            let large = large.with_context(|| format!("the constant {name} is in one recording only"))?;
            if small == large {
                continue;
            }
            let (Some(small), Some(large)) = (small.as_ints(), large.as_ints()) else {
                bail!("the constant {name} differs between the two lengths and is no shape: compute it in the graph");
            };
            ensure!(small.len() == large.len(), "the constant {name} has another size at the other length");
            let lines = small.iter().zip(&large).map(|(a, b)| self.line(*a, *b)).collect::<Result<Vec<_>>>()?;
            if self.infer_reshape(&name, &lines) {
                continue;
            }
            let length = length.get_or_insert_with(|| self.read_length()).clone();
            self.compute(&name, &lines, &length);
        }
        let front = std::mem::take(&mut self.front);
        self.graph.constants.extend(front.constants);
        self.graph.nodes.splice(0..0, front.nodes);
        Ok(())
    }

    /// A Reshape can work out one dimension by itself: -1.
    fn infer_reshape(&mut self, name: &str, lines: &[(i64, i64)]) -> bool {
        let mut readers = self.graph.nodes.iter().filter(|n| n.input.iter().any(|i| i == name));
        let only_reshape = readers.all(|n| n.op_type == "Reshape");
        let one = lines.iter().filter(|(k, _)| *k != 0).count() == 1;
        if only_reshape && one {
            let target: Vec<i64> = lines.iter().map(|&(k, c)| if k == 0 { c } else { -1 }).collect();
            self.graph.constants.insert(name.into(), Constant::ints(&target));
        }
        only_reshape && one
    }

    /// The length as a vector of one.
    fn read_length(&mut self) -> String {
        let shape = self.front.node("Shape", &[self.length.input], vec![]);
        let axis = self.front.ints(&[self.length.axis as i64]);
        self.front.node("Gather", &[&shape, &axis], vec![int("axis", 0)])
    }

    /// Replaces a constant vector by c + k * length.
    fn compute(&mut self, name: &str, lines: &[(i64, i64)], length: &str) {
        let (k, c): (Vec<i64>, Vec<i64>) = lines.iter().copied().unzip();
        let (k, c) = (self.front.ints(&k), self.front.ints(&c));
        let scaled = self.front.node("Mul", &[length, &k], vec![]);
        self.front.node_named("Add", &[&scaled, &c], &[name], vec![]);
        self.graph.constants.remove(name);
    }
}
