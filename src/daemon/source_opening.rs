//! The sources that a change of the configuration brings are opened while the ones before them go on.
//!
//! So a change that can't be made is found out before anything is lost, and is not made at all. A device that one of the
//! ending sources uses is the exception: many devices can't be opened twice, so it is opened once the other has ended.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::POLL_INTERVAL;
use super::source_status::SourceStatus;
use super::source_thread::{HeldThread, SourceInput};
use super::worker::Activity;
use crate::capture::{Source, SourceKind, SourceSpec, SourceState};

/// For a device to deliver or to fail. `capture` gives up after 10 s in which it does not open, or 5 s in which it delivers nothing.
pub(super) const DEVICE_TIMEOUT: Duration = Duration::from_secs(16);

/// A source whose thread has not begun.
pub(super) struct OpenedSource {
    pub(super) spec: SourceSpec,
    pub(super) status: Arc<SourceStatus>,
    pub(super) thread: HeldThread,
}

/// A source that is there, as whoever opens others sees it.
#[derive(Clone)]
pub(super) struct PresentSource {
    pub(super) spec: SourceSpec,
    pub(super) status: Arc<SourceStatus>,
    /// Whether its thread runs.
    pub(super) runs: bool,
}

impl OpenedSource {
    /// Opens a source.
    ///
    /// # Errors
    /// As [`Source::open`]; a thread that cannot be started.
    pub(super) fn open(spec: &SourceSpec) -> Result<Self> {
        Self::with_input(spec, |spec, status| {
            Ok(SourceInput::Open(Source::open(spec, Arc::clone(&status.capture))?.into()))
        })
    }

    /// Has the device opened once its thread begins.
    fn open_later(spec: &SourceSpec) -> Result<Self> {
        Self::with_input(spec, |spec, status| Ok(SourceInput::Later(spec.clone(), Arc::clone(&status.capture))))
    }

    fn with_input(
        spec: &SourceSpec,
        input: impl FnOnce(&SourceSpec, &SourceStatus) -> Result<SourceInput>,
    ) -> Result<Self> {
        let status = Arc::new(SourceStatus::new(&spec.id, &spec.kind).with_gain(spec.gain));
        let thread = input(spec, &status).and_then(|input| HeldThread::spawn(&spec.id, input));
        let thread = thread.with_context(|| format!("source {}", spec.id))?;
        Ok(Self { spec: spec.clone(), status, thread })
    }
}

/// Opens those of `specs` that are not among the `present`, and waits until their devices deliver or fail. To be called on a
/// thread that may wait.
///
/// # Errors
/// A source that cannot be opened, or a device that does not deliver while the source that it would replace does. Then
/// nothing is open that was not before.
pub(super) fn open_new(
    specs: &[SourceSpec],
    present: &[PresentSource],
    activity: &Activity,
) -> Result<Vec<OpenedSource>> {
    let mut opened = Vec::new();
    let outcome = open_each(specs, present, activity, &mut opened).and_then(|()| check(&opened, present, activity));
    match outcome {
        Ok(()) => Ok(opened),
        Err(error) => {
            opened.into_iter().for_each(|opened| opened.thread.discard());
            Err(error)
        }
    }
}

fn open_each(
    specs: &[SourceSpec],
    present: &[PresentSource],
    activity: &Activity,
    opened: &mut Vec<OpenedSource>,
) -> Result<()> {
    let new: Vec<&SourceSpec> = specs.iter().filter(|spec| !present.iter().any(|known| known.spec == **spec)).collect();
    ensure!(
        !new.iter().any(|spec| matches!(spec.kind, SourceKind::Stdin { .. })),
        "standard input cannot be opened again while clapd runs; restart it"
    );
    let is_used = |spec: &SourceSpec| {
        present.iter().any(|known| known.runs && known.spec.kind == spec.kind && !specs.contains(&known.spec))
    };
    for spec in new {
        activity.set(format!("opening source {}", spec.id));
        opened.push(if spec.kind.is_reopened() && is_used(spec) {
            OpenedSource::open_later(spec)?
        } else {
            OpenedSource::open(spec)?
        });
    }
    Ok(())
}

/// Waits for the devices, and refuses the change where one fails that would replace a source that is live.
fn check(opened: &[OpenedSource], present: &[PresentSource], activity: &Activity) -> Result<()> {
    let deadline = Instant::now() + DEVICE_TIMEOUT;
    for OpenedSource { spec, status, .. } in opened {
        let earlier = present.iter().find(|known| known.spec.id == spec.id && known.runs);
        let Some(earlier) = earlier.filter(|_| matches!(spec.kind, SourceKind::Device { .. })) else { continue };
        // One that is opened later is not known before.
        if earlier.spec.kind == spec.kind || !earlier.status.capture.state().is_flowing() {
            continue;
        }
        activity.set(format!("waiting for the device of source {}", spec.id));
        while status.capture.state() == SourceState::Starting && Instant::now() < deadline {
            thread::sleep(POLL_INTERVAL);
        }
        let failure = status.capture.failure();
        // A device that is busy may be so by the source that it replaces, under another name.
        if !status.capture.state().is_flowing() && !failure.as_ref().is_some_and(|failure| failure.is_busy) {
            let reason = failure.map_or_else(|| "it delivers nothing".into(), |failure| failure.reason);
            bail!(
                "source {}: {reason}; what it would replace is live. Mend it and reload, or restart clapd, which waits for it",
                spec.id
            );
        }
    }
    Ok(())
}
