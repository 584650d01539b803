//! The computer's clocks, and where they meet a source's own.
//!
//! A [`WallAnchor`] turns a source's [`SampleTime`] into the time of day; [`Clocks`] and [`ClockStep`] find out when
//! somebody has set the time of day. Waiting times are [`BootTime`]s, since the standard library's `Instant` stands still while
//! the computer is suspended. Here only [`Clocks::now`] asks the operating system what time it is, and only `capture`,
//! `outbox`, `history` and the daemon's quiet hours call it.

use std::fs;
use std::ops::Add;
use std::time::{Duration, SystemTime};

use clapd_core::time::SampleTime;
use rustix::time::{ClockId, clock_gettime};

/// Where a source's sample clock meets the wall clock.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WallAnchor {
    /// A moment on the sample clock.
    pub at: SampleTime,
    /// The time of day at that moment.
    pub wall: SystemTime,
}

impl WallAnchor {
    /// The time of day at `time`.
    pub fn wall_time(&self, time: SampleTime) -> SystemTime {
        if time >= self.at { self.wall + time.since(self.at) } else { self.wall - self.at.since(time) }
    }
}

/// Read one after the other, the clocks are microseconds apart. A thread that was made to wait in between reads them again:
/// times are published to the millisecond.
const MAX_DISTANCE: Duration = Duration::from_millis(1);
/// Tries to read them together. To be interrupted each time takes a machine on which a millisecond is no matter.
const TRIES: usize = 10;
/// Less than this is no step. Network time moves a clock that is off by less gently (0.128 s in ntpd, 0.4 s in timesyncd, 1 s in
/// chrony as distributions set it up), and the steady clock with it.
const SMALLEST_STEP: Duration = Duration::from_secs(1);

/// A moment on the clock that counts from the computer's start, also while it is suspended. Nobody sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(Duration);

impl BootTime {
    /// The moment this long after the computer's start.
    pub fn from_start(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// Since the computer's start.
    pub fn since_start(self) -> Duration {
        self.0
    }

    /// The time from `earlier` to this moment; none where that is later.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for BootTime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// The id of this start of the computer, which no other one has: of one start, the [`BootTime`]s of two processes are of one clock.
/// None where the system does not say (`/proc` is missing).
pub fn boot_id() -> Option<u128> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    u128::from_str_radix(&text.trim().replace('-', ""), 16).ok()
}

/// The computer's clocks at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    /// The clock that nobody sets: it ends with the computer.
    pub boot: BootTime,
    /// How long the computer was suspended since its start.
    pub suspended: Duration,
    /// The time of day, which may be wrong and may be set: a small computer has no clock of its own.
    pub wall: SystemTime,
}

impl Clocks {
    /// Now.
    pub fn now() -> Self {
        let mut read = Self::read();
        for _ in 1..TRIES {
            if read_clock(ClockId::Boottime).saturating_sub(read.boot.since_start()) < MAX_DISTANCE {
                break;
            }
            read = Self::read();
        }
        read
    }

    fn read() -> Self {
        let boot = read_clock(ClockId::Boottime);
        let awake = read_clock(ClockId::Monotonic);
        Self { boot: BootTime(boot), suspended: boot.saturating_sub(awake), wall: SystemTime::now() }
    }

    /// How the time of day was set since `earlier`, if it was. That the computer was suspended meanwhile is no such step.
    pub fn step_since(&self, earlier: &Self) -> Option<ClockStep> {
        self.step_after(earlier, self.boot.since(earlier.boot))
    }

    /// The same for whoever counts the time that the computer is awake, as a stream of sound does: to it, time that was slept
    /// through is a step, too.
    pub fn awake_step_since(&self, earlier: &Self) -> Option<ClockStep> {
        let slept = self.suspended.saturating_sub(earlier.suspended);
        self.step_after(earlier, self.boot.since(earlier.boot).saturating_sub(slept))
    }

    fn step_after(&self, earlier: &Self, elapsed: Duration) -> Option<ClockStep> {
        let expected = earlier.wall.checked_add(elapsed)?;
        let step = match self.wall.duration_since(expected) {
            Ok(by) => ClockStep { forwards: true, by },
            Err(error) => ClockStep { forwards: false, by: error.duration() },
        };
        (step.by >= SMALLEST_STEP).then_some(step)
    }
}

fn read_clock(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    Duration::new(now.tv_sec.try_into().unwrap_or_default(), now.tv_nsec.try_into().unwrap_or_default())
}

/// By how much the time of day was set, and in which direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockStep {
    /// Towards the future.
    pub forwards: bool,
    /// How far, at least a second.
    pub by: Duration,
}

impl ClockStep {
    /// What a time that was read before the step should have been; the time itself where there is no such time.
    pub fn correct(&self, read: SystemTime) -> SystemTime {
        let corrected = if self.forwards { read.checked_add(self.by) } else { read.checked_sub(self.by) };
        corrected.unwrap_or(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clocks(boot_s: f64, suspended_s: f64, wall_s: f64) -> Clocks {
        Clocks {
            boot: BootTime(Duration::from_secs_f64(boot_s)),
            suspended: Duration::from_secs_f64(suspended_s),
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs_f64(2e9 + wall_s),
        }
    }

    #[test]
    fn a_step_is_told_from_time_that_passes() {
        let began = clocks(100.0, 0.0, 0.0);
        let later = |boot_s: f64, wall_s: f64| clocks(100.0 + boot_s, 0.0, wall_s);
        assert_eq!(later(1e6, 1e6).step_since(&began), None);
        assert_eq!(later(10.0, 10.9).step_since(&began), None, "moved gently");
        let forwards = later(10.0, 3_610.0).step_since(&began).unwrap();
        assert_eq!(forwards, ClockStep { forwards: true, by: Duration::from_secs(3_600) });
        assert_eq!(forwards.correct(began.wall), began.wall + Duration::from_secs(3_600));
        let back = later(100.0, 40.0).step_since(&began).unwrap();
        assert_eq!(back, ClockStep { forwards: false, by: Duration::from_secs(60) });
        assert_eq!(back.correct(began.wall), began.wall - Duration::from_secs(60));
    }

    #[test]
    fn a_suspension_is_a_step_to_sound_and_to_nobody_else() {
        let (began, hour) = (clocks(100.0, 7.0, 0.0), Duration::from_secs(3_600));
        let resumed = clocks(3_710.0, 3_607.0, 3_610.0);
        assert_eq!(resumed.step_since(&began), None);
        assert_eq!(resumed.awake_step_since(&began), Some(ClockStep { forwards: true, by: hour }));
        let set_too = Clocks { wall: resumed.wall - 2 * hour, ..resumed };
        assert_eq!(set_too.step_since(&began), Some(ClockStep { forwards: false, by: 2 * hour }));
        assert_eq!(set_too.awake_step_since(&began), Some(ClockStep { forwards: false, by: hour }));
    }

    #[test]
    fn the_system_has_these_clocks() {
        let (before, after) = (Clocks::now(), Clocks::now());
        assert!(after.boot >= before.boot && before.boot.since_start() > before.suspended);
        assert_eq!(boot_id(), boot_id());
        assert!(boot_id().is_some_and(|id| id != 0));
    }

    #[test]
    fn an_anchor_reaches_both_ways() {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let anchor = WallAnchor { at: SampleTime::from_samples(10, 1), wall };
        assert_eq!(anchor.wall_time(SampleTime::from_samples(12, 1)), wall + Duration::from_secs(2));
        assert_eq!(anchor.wall_time(SampleTime::from_samples(7, 1)), wall - Duration::from_secs(3));
    }
}
