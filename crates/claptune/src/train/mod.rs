//! Fine-tuning on human ratings.
//!
//! In: a checkpoint and rated pairs. Out: a checkpoint that agrees better with those who rated, and a bundle of it.
//!
//! ```text
//! recipe -> study (train, validation) -> run: schedule -> towers -> objective -> optimizer
//!                                          |-> validate -> best/          \-> state/
//!                                          \-> journal (metrics.jsonl), show
//! ```
//!
//! The loop ([`run`]) knows no kind of model. What differs between them is behind [`towers::Towers`]: a network of parameters,
//! embeddings of recordings and texts, rates by part, how it is saved and bundled. [`clap`] is that for `ClapModel` checkpoints.
//! Everything random is a function of the seed, the epoch and the pair, and the rate one of the step: a run that was killed and
//! resumed ends with the numbers of one that was not.
//! Never: sees a pair of the validation or test split in a gradient.

pub mod augment;
pub mod backend;
pub mod clap;
mod finish;
mod host_state;
pub mod journal;
mod looping;
pub mod mini;
pub mod objective;
pub mod optimizer;
pub mod parts;
pub mod recipe;
pub mod run;
pub mod save;
pub mod schedule;
mod show;
pub mod state;
pub mod study;
pub mod towers;
pub mod validate;

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
