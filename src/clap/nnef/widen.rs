//! Weights that are stored narrow (f16, int8 with scales), widened once when a graph is loaded.
//!
//! In: a graph as it was read. Out: the same graph, where a cast of a constant to f32, and a product of constants,
//! is a constant. tract folds these too, but none that grows beyond 4 MiB
//! (`tract_core::optim::CONST_FOLD_MEM_BUDGET`): those it would work out anew for every window.
//! Never: widens what is not a constant, so of an embedding table only the rows that a lookup has picked.

use std::sync::Arc;

use tract_nnef::internal::*;
use tract_nnef::tract_core::ops::binary::TypedBinOp;
use tract_nnef::tract_core::ops::cast::Cast;
use tract_nnef::tract_core::ops::konst::Const;
use tract_nnef::tract_core::ops::math::Mul;

/// Most bytes that widening may make of a graph: all of RoBERTa's layers in f32 have 340 MB. What is beyond it stays
/// narrow, which is slow and not wrong.
const MAX_WIDENED: usize = 1 << 30;

/// Replaces casts to f32 and products whose inputs are constants by what they come to.
///
/// # Errors
/// An operator that does not take its own inputs.
pub(super) fn widen_constants(model: &mut TypedModel) -> TractResult<()> {
    let mut widened = 0;
    // Inputs come first, so a product meets the constant that a cast has become.
    for id in model.eval_order()? {
        let node = model.node(id);
        let bytes = node.outputs.first().map_or(usize::MAX, |output| bytes(&output.fact));
        if !is_widening(node) || bytes > MAX_WIDENED - widened {
            continue;
        }
        let Some(inputs) = node.inputs.iter().map(|from| constant(model, *from)).collect::<Option<TVec<_>>>() else {
            continue;
        };
        // A product of a row and a column is a matrix: only what is as large as its largest input is a stored weight.
        if node.outputs[0].fact.shape.volume().to_usize().ok() > inputs.iter().map(|input| input.len()).max() {
            continue;
        }
        let inputs = inputs.into_iter().map(IntoTValue::into_tvalue).collect();
        let Some(mut outputs) = node.op.eval_out_of_plan(inputs)? else { continue };
        let mut patch = TypedModelPatch::default();
        let wide = patch.add_const(&node.name, outputs.remove(0).into_arc_tensor())?;
        patch.shunt_outside(model, id.into(), wide)?;
        patch.apply(model)?;
        widened += bytes;
    }
    Ok(())
}

fn is_widening(node: &TypedNode) -> bool {
    node.op_as::<Cast>().is_some_and(|cast| cast.to == f32::datum_type())
        || node.op_as::<TypedBinOp>().is_some_and(|op| op.0.is::<Mul>())
}

fn constant(model: &TypedModel, outlet: OutletId) -> Option<Arc<Tensor>> {
    model.node(outlet.node).op_as::<Const>().map(|constant| Arc::clone(constant.val()))
}

/// What a value takes, as far as its shape is known.
fn bytes(fact: &TypedFact) -> usize {
    fact.mem_size().to_usize().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use half::f16;
    use tract_nnef::tensors::write_tensor;

    use super::super::{Archive, Compute, Graph, plan, read, run};
    use super::*;

    /// 8 MB in f16 and 16 MB in f32: more than tract folds.
    const SIDE: usize = 2048;

    /// An archive of a graph of `inputs` and `body` with these tensors, each declared as a variable of its name.
    fn archive(inputs: &str, body: &str, tensors: &[(&str, &Tensor)]) -> Archive {
        let variables: String = tensors
            .iter()
            .map(|(name, tensor)| format!("{name} = variable<scalar>(label=\"{name}\", shape={:?});\n", tensor.shape()))
            .collect();
        let graph = format!(
            "version 1.0;\nextension tract_registry tract_core;\ngraph g(x) -> (y) {{\n{inputs}\n{variables}{body}\n}}\n"
        );
        let mut tar = tar::Builder::new(Vec::new());
        let mut add = |name: String, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, bytes).unwrap();
        };
        add("graph.nnef".into(), graph.as_bytes());
        for (name, tensor) in tensors {
            let mut bytes = Vec::new();
            write_tensor(&mut bytes, tensor).unwrap();
            add(format!("{name}.dat"), &bytes);
        }
        let bytes = tar.into_inner().unwrap();
        read(bytes.as_slice(), bytes.len() as u64).unwrap()
    }

    /// Numbers that f16 holds, another in every place.
    fn weight(index: usize) -> f32 {
        ((index * 7919) % 255) as f32 - 127.0
    }

    /// What would be worked out anew at every run although no input has a say in it.
    fn left_to_do(graph: &Graph) -> Vec<String> {
        let model = graph.plan.model();
        let constant = |outlet: &OutletId| model.node(outlet.node).op_is::<Const>();
        let all = model.nodes.iter().filter(|node| !node.inputs.is_empty() && node.inputs.iter().all(constant));
        all.map(ToString::to_string).collect()
    }

    const VECTOR: &str = "x = external(shape=[1, 2048]);";

    fn product(graph: &Graph, scale: f32) {
        let input = Tensor::from_shape(&[1, SIDE], &vec![1.0_f32; SIDE]).unwrap();
        let output = run(graph, tvec!(input.into())).unwrap().remove(0);
        for column in [0, 1, SIDE - 1] {
            let sum: f32 = (0..SIDE).map(|row| weight(row * SIDE + column) * scale).sum();
            assert!((output[column] - sum).abs() <= 1e-3 * sum.abs().max(1.0), "{} {sum}", output[column]);
        }
    }

    #[test]
    fn large_half_precision_weights_are_widened_once() {
        let weights: Vec<f16> = (0..SIDE * SIDE).map(|index| f16::from_f32(weight(index))).collect();
        let weights = Tensor::from_shape(&[SIDE, SIDE], &weights).unwrap();
        let body = "w = tract_core_cast(w16, to=\"f32\");\ny = matmul(x, w);";
        let graph = plan("test", archive(VECTOR, body, &[("w16", &weights)]), Compute::default()).unwrap();
        assert_eq!(left_to_do(&graph), Vec::<String>::new());
        product(&graph, 1.0);
    }

    #[test]
    fn large_integers_are_multiplied_by_their_scales_once() {
        let weights: Vec<i8> = (0..SIDE * SIDE).map(|index| weight(index) as i8).collect();
        let weights = Tensor::from_shape(&[SIDE, SIDE], &weights).unwrap();
        let scales = Tensor::from_shape(&[1, SIDE], &vec![0.5_f32; SIDE]).unwrap();
        let body = "w = mul(tract_core_cast(w8, to=\"f32\"), s);\ny = matmul(x, w);";
        let graph =
            plan("test", archive(VECTOR, body, &[("w8", &weights), ("s", &scales)]), Compute::default()).unwrap();
        assert_eq!(left_to_do(&graph), Vec::<String>::new());
        product(&graph, 0.5);
    }

    #[test]
    fn a_table_that_rows_are_picked_from_stays_narrow() {
        let table: Vec<f16> = (0..SIDE * SIDE).map(|index| f16::from_f32(weight(index))).collect();
        let table = Tensor::from_shape(&[SIDE, SIDE], &table).unwrap();
        let inputs = "x = tract_core_external(shape=[1, 3], datum_type=\"I64\");";
        let body = "y = tract_core_cast(tract_core_gather(t16, x, axis=0), to=\"f32\");";
        let graph = plan("test", archive(inputs, body, &[("t16", &table)]), Compute::default()).unwrap();
        let widest = graph.plan.model().nodes.iter().filter_map(|node| node.op_as::<Const>());
        assert!(widest.into_iter().all(|constant| constant.val().datum_type() != f32::datum_type()));
        let output = run(&graph, tvec!(Tensor::from_shape(&[1, 3], &[7_i64, 0, 9]).unwrap().into())).unwrap().remove(0);
        assert_eq!((output[0], output[SIDE]), (weight(7 * SIDE), weight(0)));
    }

    #[test]
    fn a_product_that_grows_is_left_alone() {
        let row = Tensor::from_shape(&[1, SIDE], &vec![1.0_f32; SIDE]).unwrap();
        let column = Tensor::from_shape(&[SIDE, 1], &vec![1.0_f32; SIDE]).unwrap();
        let archive = archive(VECTOR, "w = mul(a, b);\ny = matmul(x, w);", &[("a", &row), ("b", &column)]);
        let mut model = super::super::registry().model_for_proto_model(&archive.parse().unwrap()).unwrap();
        widen_constants(&mut model).unwrap();
        assert!(model.nodes.iter().any(|node| node.op_is::<TypedBinOp>()), "{model}");
    }
}
