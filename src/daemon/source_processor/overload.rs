//! A processor whose encoder is too slow, or never comes back: the one seam at which that can be made to happen for
//! certain.

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime};

use clapd_core::channel::Channel;
use clapd_core::model::{Encode, Step};
use proptest::prelude::*;

use super::tests::processor_with;
use super::*;
use crate::capture::{Source, SourceKind, SourceSpec};
use crate::daemon::event_reporter::SourceReport;
use crate::daemon::source_thread::{HeldThread, SourceInput};
use crate::daemon::watchdog::Watchdog;
use crate::levels::Microphone;

const RATE: u32 = 16_000;
/// How often a processor whose encoder is idle gets sound.
const BLOCK_MS: u64 = 100;
/// Scores come on whole frames of the model.
const FRAME_MS: u64 = 10;

/// Takes its time, on a clock of its own.
struct Slow {
    now_ms: Arc<AtomicU64>,
    cost_ms: u64,
}

impl Encode for Slow {
    fn feature_len(&self) -> usize {
        1
    }

    fn embedding_len(&self) -> usize {
        1
    }

    fn encode(&self, _: &[f32], features: &mut [f32]) -> Result<()> {
        self.now_ms.fetch_add(self.cost_ms, Relaxed);
        features[0] = 1.0;
        Ok(())
    }

    fn embed(&self, mean: &[f32], embedding: &mut [f32]) -> Result<()> {
        embedding.copy_from_slice(mean);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// A minute of sound, of which the processor gets what has gathered whenever it has time.
    #[test]
    fn an_encoder_slower_than_the_hop_skips_and_is_never_late(cost_ms in 0_u64..9_000, hop_ms in 200_u64..3_000) {
        let (now_ms, reports) = (Arc::<AtomicU64>::default(), Arc::<Mutex<Vec<(SystemTime, u64)>>>::default());
        let kind = SourceKind::Device { name: "default".into() };
        let (clock, scores) = (Arc::clone(&now_ms), Arc::clone(&reports));
        let sink = Box::new(move |report| {
            if let SourceReport::Score(_, _, at) = report {
                scores.lock().unwrap().push((at, clock.load(Relaxed)));
            }
        });
        let slow = Slow { now_ms: Arc::clone(&now_ms), cost_ms };
        let mut processor = processor_with(Arc::new(slow), Duration::from_millis(hop_ms), &kind, sink);
        let (sound, mut taken) = (vec![0.1; 60 * RATE as usize], 0);
        while taken < sound.len() {
            let before = now_ms.load(Relaxed);
            let gathered = sound.len().min((before * u64::from(RATE) / 1_000) as usize);
            let at = SampleTime::from_samples(taken as u64, RATE);
            let anchor = WallAnchor { at, wall: SystemTime::UNIX_EPOCH + at.since(SampleTime::ZERO) };
            processor.process(RATE, Samples::whole(&sound[taken..gathered]), anchor).unwrap();
            taken = gathered;
            if now_ms.load(Relaxed) == before {
                now_ms.store(before + BLOCK_MS, Relaxed);
            }
        }
        let reports = reports.lock().unwrap();
        // A window whose scoring began when the sound was over has only grown old waiting for more.
        for (at, reported_ms) in reports.iter().filter(|(_, reported_ms)| reported_ms - cost_ms <= 60_000) {
            let late = *reported_ms - at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64;
            prop_assert!(late <= hop_ms + cost_ms + BLOCK_MS + FRAME_MS, "{} ms late", late);
        }
        let (scored, skipped) = (processor.status.scoring.windows_scored.get(), processor.status.scoring.windows_skipped.get());
        prop_assert_eq!(scored, reports.len() as u64);
        let due = (60_000 - 960) / hop_ms;
        prop_assert!((scored + skipped).abs_diff(due) <= due * FRAME_MS / hop_ms + 2, "{} + {} of {}", scored, skipped, due);
        // Falling behind by a little at every window, it must skip only once a whole hop has gathered.
        let behind_ms = (59_040 / cost_ms.max(1)).saturating_sub(1) * cost_ms.saturating_sub(hop_ms + FRAME_MS);
        prop_assert!(skipped > 0 || behind_ms <= hop_ms + BLOCK_MS + FRAME_MS, "none was skipped, {} ms behind", behind_ms);
        prop_assert!(scored > 0);
    }
}

/// Signals that it was called, and returns once the sender of `release` is dropped.
struct Wedged {
    called: SyncSender<()>,
    release: Mutex<Receiver<()>>,
}

impl Encode for Wedged {
    fn feature_len(&self) -> usize {
        1
    }

    fn embedding_len(&self) -> usize {
        1
    }

    fn encode(&self, _: &[f32], features: &mut [f32]) -> Result<()> {
        let _ = self.called.try_send(());
        let _ = self.release.lock().unwrap().recv();
        features[0] = 1.0;
        Ok(())
    }

    fn embed(&self, mean: &[f32], embedding: &mut [f32]) -> Result<()> {
        embedding.copy_from_slice(mean);
        Ok(())
    }
}

#[test]
fn a_wedged_pipeline_starves_the_watchdog_and_a_freed_one_feeds_it() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/audio/demo.ogg").into();
    let kind = SourceKind::File { path, looped: true, realtime: false };
    let ((called, was_called), (hold, release)) = (sync_channel(1), sync_channel(0));
    let wedged = Wedged { called, release: release.into() };
    let processor = processor_with(Arc::new(wedged), Duration::from_secs(1), &kind, Box::new(drop));
    let status = Arc::clone(&processor.status);
    let spec = SourceSpec {
        id: "mic".into(),
        kind,
        channel: Channel::Mix,
        gain: Gain::NONE,
        microphone: Microphone::default(),
    };
    let source = Source::open(&spec, Arc::clone(&status.capture)).unwrap();
    let control = Arc::clone(processor.control());
    let thread = HeldThread::spawn("mic", SourceInput::Open(source.into())).unwrap().begin(processor);
    was_called.recv().unwrap();

    let mut watchdog = Watchdog::with_interval(Some(Duration::ZERO));
    let mut is_satisfied = || watchdog.is_satisfied([&status], []);
    assert!(is_satisfied(), "there is nothing to compare with yet");
    for _ in 0..10 {
        thread::sleep(Duration::from_millis(50));
        assert!(!is_satisfied(), "time passes, and that is no progress");
    }
    drop(hold);
    while !is_satisfied() {
        thread::sleep(Duration::from_millis(50));
    }
    control.stop();
    thread.join().unwrap().unwrap();
}

/// A window that never ends, in many parts.
struct Endless;

impl Encode for Endless {
    fn feature_len(&self) -> usize {
        1
    }

    fn embedding_len(&self) -> usize {
        1
    }

    fn encode(&self, _: &[f32], _: &mut [f32]) -> Result<()> {
        unreachable!("the pipeline encodes stepwise")
    }

    fn encode_stepwise(&self, _: &[f32], _: &mut [f32], step: Step<'_>) -> Result<()> {
        loop {
            step()?;
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn embed(&self, mean: &[f32], embedding: &mut [f32]) -> Result<()> {
        embedding.copy_from_slice(mean);
        Ok(())
    }
}

#[test]
fn a_slow_window_is_not_a_hung_one_and_is_given_up_where_it_is_to_stop() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/audio/demo.ogg").into();
    let kind = SourceKind::File { path, looped: true, realtime: false };
    let processor = processor_with(Arc::new(Endless), Duration::from_secs(1), &kind, Box::new(drop));
    let status = Arc::clone(&processor.status);
    let spec = SourceSpec {
        id: "mic".into(),
        kind,
        channel: Channel::Mix,
        gain: Gain::NONE,
        microphone: Microphone::default(),
    };
    let source = Source::open(&spec, Arc::clone(&status.capture)).unwrap();
    let control = Arc::clone(processor.control());
    let thread = HeldThread::spawn("mic", SourceInput::Open(source.into())).unwrap().begin(processor);
    let mut watchdog = Watchdog::with_interval(Some(Duration::ZERO));
    for _ in 0..5 {
        let before = status.progress.count();
        // More parts than there are blocks before the first window.
        while status.progress.count() < before + 20 {
            thread::sleep(Duration::from_millis(1));
        }
        assert!(watchdog.is_satisfied([&status], []), "it gets on");
    }
    assert_eq!(status.scoring.windows_scored.get(), 0);
    control.stop();
    thread.join().unwrap().unwrap();
}
