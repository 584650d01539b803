//! Fine-tuning on human ratings.
//!
//! In: a checkpoint and rated pairs. Out: a checkpoint that agrees better with those who rated.
//! Never: sees a pair of the validation or test split in a gradient.

pub mod objective;
pub mod optimizer;
pub mod save;

use burn::module::{Flag, Module, ModuleMapper, Param};

/// The module with batch norms that keep their statistics: a fine-tuning's batches are too small and too alike to be taken for
/// the world. Their factors and summands are still trained.
pub fn still_statistics<M: Module>(module: M) -> M {
    struct Still;
    impl ModuleMapper for Still {
        fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
            flag.with_value(false)
        }
    }
    module.map(&mut Still)
}
