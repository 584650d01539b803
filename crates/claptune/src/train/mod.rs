//! Fine-tuning on human ratings: a checkpoint and rated pairs become a checkpoint that agrees better with those who
//! rated, and a bundle of it.
//!
//! ```text
//! recipe -> dataset (train, validation) -> run: batch_plan -> trainable_model -> objective -> optimizer
//!                                            |-> validate -> best/                   \-> state/
//!                                            \-> metrics_log (metrics.jsonl), progress_display
//! ```
//!
//! The loop ([`run`]) knows no kind of model. What differs between them is behind [`trainable_model::TrainableModel`]:
//! a network of parameters, embeddings of recordings and texts, rates by part, how it is saved and bundled. [`clap`] is
//! that for `ClapModel` checkpoints, [`mini`] for the default bundle.
//!
//! Everything random is a function of the seed, the epoch and the pair, and the rate one of the step: a run that was
//! killed and resumed ends with the numbers of one that was not. No pair of the validation or test split is in a
//! gradient.

pub mod augment;
pub mod backend;
pub mod batch_plan;
pub mod clap;
pub mod dataset;
mod finish;
mod host_state;
pub mod metrics_log;
pub mod mini;
pub mod objective;
pub mod optimizer;
pub mod parts;
mod progress_display;
pub mod recipe;
pub mod run;
pub mod run_record;
pub mod save;
pub mod settings;
pub mod state;
mod train_loop;
pub mod trainable_model;
pub mod validate;
