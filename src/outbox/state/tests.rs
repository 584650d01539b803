//! The outbox against a model of it, on a disk that fails, in a process that is killed and a computer that loses its power, at any
//! step and any byte: what is said to be written is there, in order, each start has its end, and times are right.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use proptest::prelude::*;

use super::super::log_file::{LogDisk, LogFile, read};
use super::*;

/// A file: what the system has of it, and what the disk has.
#[derive(Debug, Clone, Default)]
struct File {
    cache: Vec<u8>,
    durable: Vec<u8>,
    /// A sync failed: a later one says that all is well, and the disk does not have it.
    lost_pages: bool,
}

/// What goes wrong: at this step of a job, after this share of its bytes.
#[derive(Debug, Clone, Copy)]
struct Fault {
    step: usize,
    share: f64,
    /// All steps after it fail as well, as on a disk that is full.
    lasts: bool,
}

/// A folder whose log outlives the process that writes it.
#[derive(Debug, Default)]
struct Folder {
    log: File,
    /// What the disk takes for the log, where that is another file.
    durable_log: Option<File>,
    new: File,
    fault: Option<Fault>,
    /// Steps of this job so far.
    steps: usize,
}

impl Folder {
    /// Begins a step that writes so many bytes; how many of them are written where it fails.
    fn step(&mut self, bytes: usize) -> Result<(), usize> {
        let step = self.steps;
        self.steps += 1;
        match self.fault {
            Some(fault) if step == fault.step || (fault.lasts && step > fault.step) => {
                Err((bytes as f64 * fault.share) as usize)
            }
            _ => Ok(()),
        }
    }
}

#[derive(Debug, Clone, Default)]
struct TestDisk(Rc<RefCell<Folder>>);

fn full() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

impl LogDisk for TestDisk {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut folder = self.0.borrow_mut();
        let written = folder.step(bytes.len());
        folder.log.cache.extend(&bytes[..written.err().unwrap_or(bytes.len())]);
        written.map_err(|_| full())
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        let mut folder = self.0.borrow_mut();
        folder.step(0).map_err(|_| full())?;
        folder.log.cache.truncate(len as usize);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut folder = self.0.borrow_mut();
        let done = folder.step(0);
        folder.log.lost_pages |= done.is_err();
        if !folder.log.lost_pages {
            folder.log.durable = folder.log.cache.clone();
        }
        done.map_err(|_| full())
    }

    fn create_new(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut folder = self.0.borrow_mut();
        let written = folder.step(bytes.len());
        let part = &bytes[..written.err().unwrap_or(bytes.len())];
        folder.new = File { cache: part.into(), durable: part.into(), lost_pages: false };
        written.map_err(|_| full())
    }

    fn remove_new(&mut self) {
        self.0.borrow_mut().new = File::default();
    }

    fn replace(&mut self) -> io::Result<()> {
        let mut folder = self.0.borrow_mut();
        folder.step(0).map_err(|_| full())?;
        let new = std::mem::take(&mut folder.new);
        let old = std::mem::replace(&mut folder.log, new);
        folder.durable_log.get_or_insert(old);
        Ok(())
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        let mut folder = self.0.borrow_mut();
        folder.step(0).map_err(|_| full())?;
        folder.durable_log = None;
        Ok(())
    }
}

/// What a power cut leaves of what was not synced.
#[derive(Debug, Clone, Copy)]
struct PowerCut {
    /// Where there is an older log, it is that one.
    old: bool,
    /// The share of the later bytes that is there.
    share: f64,
    /// The rest is zeros.
    zeros: bool,
}

fn cut_power(file: &File, cut: PowerCut) -> Vec<u8> {
    let File { cache, durable, .. } = file;
    let kept = cache.iter().zip(durable).take_while(|(a, b)| a == b).count();
    if kept < durable.len() && (cut.old || cache.len() < HEADER.len()) {
        return durable.clone();
    }
    let least = if kept < durable.len() { HEADER.len() } else { durable.len() };
    let end = least + ((cache.len() - least) as f64 * cut.share) as usize;
    let mut bytes = cache[..end].to_vec();
    if cut.zeros {
        bytes.resize(cache.len(), 0);
    }
    bytes
}

/// A message that a caller has added.
#[derive(Debug, Clone)]
struct Message {
    event: usize,
    ended: bool,
    number: u64,
    handed_out: bool,
    /// This or an earlier run has handed it out.
    told: bool,
    acked: bool,
    /// The log has the acknowledgement.
    ack_written: bool,
    synced: bool,
    dropped: bool,
}

#[derive(Debug, Clone)]
struct Event {
    topic: usize,
    /// When it began, on the clock that nobody sets; and the start of the computer that this is of.
    began: Duration,
    boot_id: u128,
    /// `started_at` by each clock that it has had.
    times: Vec<SystemTime>,
    touches: Vec<Duration>,
    duration: Option<Duration>,
}

/// An outbox, its log, and what it was told.
struct World {
    state: OutboxState,
    log: LogFile<TestDisk>,
    disk: TestDisk,
    limits: Limits,
    boot_id: u128,
    boot: Duration,
    suspended: Duration,
    /// The time of day at the start of the computer, since 1970.
    booted_at: Duration,
    events: Vec<Event>,
    messages: Vec<Message>,
    job: Option<Job>,
    job_messages: u64,
}

const TOPICS: usize = 2;

#[derive(Debug, Clone, Copy)]
enum Step {
    Start { topic: usize, ago_s: u64 },
    End(usize),
    Touch(usize, u64),
    HandOut,
    Acknowledge(usize),
    Rewind,
    GiveUp,
    TakeJob,
    FinishJob(Option<Fault>),
    Wait(u64),
    Suspend(u64),
    SetClock(i64),
    Kill,
    KillInJob(usize, f64),
    PowerCut(PowerCut),
    Close,
    Settle,
}

fn fault() -> impl Strategy<Value = Fault> {
    (0_usize..4, 0.0..=1.0, any::<bool>()).prop_map(|(step, share, lasts)| Fault { step, share, lasts })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..TOPICS, 0_u64..5).prop_map(|(topic, ago_s)| Step::Start { topic, ago_s }),
        5 => (0..TOPICS).prop_map(Step::End),
        2 => (0..TOPICS, 1_u64..60).prop_map(|(topic, lasted)| Step::Touch(topic, lasted)),
        5 => Just(Step::HandOut),
        4 => (0_usize..6).prop_map(Step::Acknowledge),
        1 => Just(Step::Rewind),
        1 => Just(Step::GiveUp),
        6 => Just(Step::TakeJob),
        6 => Just(Step::FinishJob(None)),
        3 => fault().prop_map(|fault| Step::FinishJob(Some(fault))),
        4 => (1_u64..12_000).prop_map(Step::Wait),
        1 => (1_u64..20_000).prop_map(Step::Suspend),
        1 => (-90_000_i64..900_000_000).prop_map(Step::SetClock),
        1 => Just(Step::Kill),
        1 => (0_usize..4, 0.0..=1.0).prop_map(|(step, share)| Step::KillInJob(step, share)),
        1 => (any::<bool>(), 0.0..=1.0, any::<bool>())
            .prop_map(|(old, share, zeros)| Step::PowerCut(PowerCut { old, share, zeros })),
        1 => Just(Step::Close),
        1 => Just(Step::Settle),
    ]
}

impl World {
    fn new(max_events: usize, booted_at_s: u64) -> Self {
        let limits = Limits { max_events, max_age: Duration::from_secs(3_000_000_000) };
        let disk = TestDisk::default();
        let (state, log) = Self::open(&disk, limits, 1, clocks(Duration::ZERO, Duration::ZERO, Duration::ZERO));
        Self {
            state,
            log,
            disk,
            limits,
            boot_id: 1,
            boot: Duration::from_secs(100),
            suspended: Duration::ZERO,
            booted_at: Duration::from_secs(booted_at_s),
            events: Vec::new(),
            messages: Vec::new(),
            job: None,
            job_messages: 0,
        }
    }

    fn open(disk: &TestDisk, limits: Limits, boot_id: u128, now: Clocks) -> (OutboxState, LogFile<TestDisk>) {
        let bytes = disk.0.borrow().log.cache.clone();
        disk.0.borrow_mut().fault = None;
        let found = read(&bytes).expect("is a log");
        let (log, found) = LogFile::begin(disk.clone(), &bytes, found).expect("nothing fails");
        let mut state = OutboxState::new(limits, now);
        state.open(found.entries, found.len, true, now);
        state.begin_run(Some(boot_id), now);
        (state, log)
    }

    fn now(&self) -> Clocks {
        clocks(self.boot, self.suspended, self.booted_at)
    }

    fn wall(&self, moment: Duration) -> SystemTime {
        UNIX_EPOCH + self.booted_at + moment
    }

    fn perform(&mut self, step: Step) {
        let now = self.now();
        match step {
            Step::Start { topic, ago_s } => self.start(topic, Duration::from_secs(ago_s)),
            Step::End(topic) => self.end(topic),
            Step::Touch(topic, lasted_s) => {
                let lasted = Duration::from_secs(lasted_s);
                self.state.touch(&topic_name(topic), lasted, 5.0);
                if let Some(event) = self.open_event(topic) {
                    self.events[event].touches.push(lasted);
                }
            }
            Step::HandOut => self.hand_out(),
            Step::Acknowledge(which) => {
                let mut known = self.messages.iter_mut().filter(|message| message.handed_out && !message.acked);
                let Some(message) = known.nth(which) else { return };
                self.state.acknowledge(message.number, now);
                message.acked = true;
                let (event, ended) = (message.event, message.ended);
                // Who has the end has the start.
                let start = self.messages.iter_mut().find(|other| other.event == event && !other.ended);
                start.filter(|_| ended).iter_mut().for_each(|start| start.acked = true);
            }
            Step::Rewind => drop(self.state.rewind(now)),
            Step::GiveUp => drop(self.state.give_up(self.state.next_message())),
            Step::TakeJob => self.take_job(),
            Step::FinishJob(fault) => self.finish_job(fault),
            Step::Wait(millis) => self.boot += Duration::from_millis(millis),
            Step::Suspend(seconds) => {
                self.boot += Duration::from_secs(seconds);
                self.suspended += Duration::from_secs(seconds);
            }
            Step::SetClock(by_s) => self.set_clock(by_s),
            Step::Kill => self.kill(),
            Step::KillInJob(step, share) => {
                self.take_job();
                if let Some(job) = self.job.take() {
                    let mut folder = self.disk.0.borrow_mut();
                    (folder.steps, folder.fault) = (0, Some(Fault { step, share, lasts: true }));
                    drop(folder);
                    let _ = self.log.perform(&job);
                    self.forget_acks();
                }
                self.kill();
            }
            Step::PowerCut(cut) => self.lose_power(cut),
            Step::Close => self.close(),
            Step::Settle => self.settle(),
        }
        self.compare_waiting();
    }

    fn open_event(&self, topic: usize) -> Option<usize> {
        self.events.iter().rposition(|event| event.topic == topic && event.duration.is_none())
    }

    fn add_message(&mut self, event: usize, ended: bool, number: u64) {
        self.messages.push(Message {
            event,
            ended,
            number,
            handed_out: false,
            told: false,
            acked: false,
            ack_written: false,
            synced: false,
            dropped: false,
        });
    }

    fn start(&mut self, topic: usize, ago: Duration) {
        let first = self.state.next_message();
        if let Some(open) = self.open_event(topic) {
            self.events[open].duration = Some(self.events[open].touches.last().copied().unwrap_or_default());
            self.add_message(open, true, first);
        }
        let (event, began) = (self.events.len(), self.boot.saturating_sub(ago));
        let started_at = self.wall(began);
        self.events.push(Event {
            topic,
            began,
            boot_id: self.boot_id,
            times: vec![started_at],
            touches: Vec::new(),
            duration: None,
        });
        self.state.start(&topic_name(topic), record(event, started_at, None), self.now());
        self.add_message(event, false, self.state.next_message() - 1);
    }

    fn end(&mut self, topic: usize) {
        let Some(event) = self.open_event(topic) else { return };
        let duration = Duration::from_secs(1_000 + event as u64);
        self.events[event].duration = Some(duration);
        self.state.end(&record(event, self.events[event].times[0], Some(duration)), self.now());
        self.add_message(event, true, self.state.next_message() - 1);
    }

    fn hand_out(&mut self) {
        let Some(pending) = self.state.next() else { return };
        let message = self.messages.iter_mut().find(|message| message.number == pending.number).expect("was added");
        (message.handed_out, message.told) = (true, true);
        let message = message.clone();
        assert_eq!((pending.record.id, pending.record.duration.is_some()), (message.event.to_string(), message.ended));
        assert!(
            message.number < self.state.written.max(self.state.returned),
            "its caller waits for the disk still: the process may die before it has it"
        );
        self.check_times(message.event, message.ended, pending.record.started_at, pending.record.duration);
    }

    fn check_times(&self, event: usize, ended: bool, started_at: SystemTime, duration: Option<Duration>) {
        let Event { times, duration: expected, .. } = &self.events[event];
        assert!(times.contains(&started_at), "{event}: {started_at:?} is not of {times:?}");
        if ended {
            assert_eq!(duration, *expected, "{event}");
        }
    }

    fn set_clock(&mut self, by_s: i64) {
        let by = Duration::from_secs(by_s.unsigned_abs());
        let set = if by_s > 0 { Some(self.booted_at + by) } else { self.booted_at.checked_sub(by) };
        self.booted_at = set.unwrap_or(self.booted_at);
        for event in self.events.iter_mut().filter(|event| event.boot_id == self.boot_id) {
            event.times.push(UNIX_EPOCH + self.booted_at + event.began);
        }
    }

    fn take_job(&mut self) {
        if self.job.is_none() {
            self.job = self.state.next_job(self.now());
            self.job_messages = self.state.next_message();
            // Acknowledgements so far are in it.
            let acked = self.messages.iter_mut().filter(|message| message.acked && self.job.is_some());
            acked.for_each(|message| message.ack_written = true);
        }
    }

    fn finish_job(&mut self, fault: Option<Fault>) {
        let Some(job) = self.job.take() else { return };
        let mut folder = self.disk.0.borrow_mut();
        (folder.steps, folder.fault) = (0, fault);
        drop(folder);
        let done = self.log.perform(&job);
        self.disk.0.borrow_mut().fault = None;
        if done.is_err() {
            self.forget_acks();
        } else if matches!(job, Job::Sync(_) | Job::Rewrite(_)) {
            let synced = self.messages.iter_mut().filter(|message| message.number < self.job_messages);
            synced.for_each(|message| message.synced = true);
        }
        self.state.finish_job(done, self.now());
    }

    /// What waits is what was added and neither acknowledged nor dropped.
    fn compare_waiting(&mut self) {
        let waiting = self.state.queue.waiting_ids();
        let known: HashSet<_> = waiting.iter().cloned().collect();
        assert_eq!(known.len(), waiting.len(), "twice: {waiting:?}");
        for message in self.messages.iter_mut().filter(|message| !message.acked) {
            let waits = known.contains(&(message.event.to_string(), message.ended));
            assert!(waits || self.limits.max_events < 1000, "{message:?} is gone");
            message.dropped |= !waits;
        }
        let added = self.messages.iter().filter(|message| !message.acked && !message.dropped);
        let added: Vec<_> = added.map(|message| (message.event.to_string(), message.ended)).collect();
        assert_eq!(waiting, added, "in order");
    }

    /// A job was not done: nobody knows what the log has of it.
    fn forget_acks(&mut self) {
        self.messages.iter_mut().for_each(|message| message.ack_written = false);
    }

    fn kill(&mut self) {
        if self.job.is_some() {
            self.forget_acks();
        }
        let must = |message: &Message| message.number < self.state.written;
        let must: Vec<bool> = self.messages.iter().map(must).collect();
        if self.state.storage() == "disk" {
            let returned = |message: &&Message| message.number < self.state.returned;
            assert!(self.messages.iter().filter(returned).all(|message| must[message_at(&self.messages, message)]));
        }
        self.reopen(&must, true, false);
    }

    fn lose_power(&mut self, cut: PowerCut) {
        let must: Vec<bool> = self.messages.iter().map(|message| message.synced).collect();
        let mut folder = self.disk.0.borrow_mut();
        let file = folder.durable_log.take().filter(|_| cut.old).unwrap_or_else(|| folder.log.clone());
        let bytes = cut_power(&file, cut);
        folder.log = File { cache: bytes.clone(), durable: bytes, lost_pages: false };
        folder.new = File::default();
        drop(folder);
        self.booted_at += self.boot;
        (self.boot, self.suspended, self.boot_id) = (Duration::from_secs(20), Duration::ZERO, self.boot_id + 1);
        self.reopen(&must, false, false);
    }

    /// Ends the process in order, if the disk lets it.
    fn close(&mut self) {
        self.finish_job(None);
        self.state.close();
        for _ in 0..20 {
            self.take_job();
            if self.job.is_none() {
                let must = vec![true; self.messages.len()];
                assert_eq!(self.state.storage(), "disk");
                return self.reopen(&must, true, true);
            }
            self.finish_job(None);
        }
        panic!("it has always something to do: {:?}", self.state);
    }

    /// Gives a disk that works all the time that is needed.
    fn settle(&mut self) {
        for _ in 0..(RETRY_AFTER + 3 * SYNC_AFTER).as_secs() {
            for turn in 0.. {
                assert!(turn < 10, "it has always something to do: {:?}", self.state);
                self.take_job();
                if self.job.is_none() {
                    break;
                }
                self.finish_job(None);
            }
            self.boot += Duration::from_secs(1);
        }
        assert_eq!(self.state.storage(), "disk");
        let waits = |message: &&Message| !message.acked && !message.dropped;
        // An end that this run made of what an earlier one left is synced where its start is.
        let unsynced: Vec<_> = self.messages.iter().filter(waits).filter(|message| !message.synced).collect();
        assert!(unsynced.is_empty(), "a power cut would take {unsynced:?}");
        let acked = self.messages.iter().filter(|message| message.acked);
        assert!(acked.clone().all(|message| message.ack_written), "the next run would publish again");
    }

    /// The next run: it has what it `must` have of the messages, and nothing that was never added. `same` says that it is of the
    /// same start of the computer, `whole` that the last run ended in order.
    fn reopen(&mut self, must: &[bool], same: bool, whole: bool) {
        let was_all = whole || self.state.storage() == "disk";
        let (state, log) = Self::open(&self.disk, self.limits, self.boot_id, self.now());
        (self.state, self.log, self.job) = (state, log, None);
        // Looked at in another one, so that nothing is handed out.
        let (mut other, _) = Self::open(&self.disk, self.limits, self.boot_id, self.now());
        let found: Vec<PendingMessage> = std::iter::from_fn(|| other.next()).collect();
        let labels: Vec<(usize, bool)> = found
            .iter()
            .map(|found| (found.record.id.parse().expect("a number"), found.record.duration.is_some()))
            .collect();
        let mut places: BTreeMap<(usize, bool), usize> = BTreeMap::new();
        for (place, label) in labels.iter().enumerate() {
            assert_eq!(places.insert(*label, place), None, "twice: {labels:?}");
        }
        let mut last = None;
        for (message, must) in self.messages.iter().zip(must) {
            let place = places.get(&(message.event, message.ended)).copied();
            // What ended as the last run did may be one too many.
            let waits = !message.acked && !message.dropped && (place.is_some() || self.state.dropped() == 0);
            assert!(place.is_some() || !(waits && *must), "{message:?} is lost: {labels:?}");
            if message.acked && message.ack_written && same {
                assert_eq!(place, None, "{message:?} is published again");
            }
            if whole {
                assert_eq!(place.is_some(), waits, "{message:?} in {labels:?}");
            }
            // An end that was not written yet is made by the next run, behind all others.
            if *must || !message.ended {
                assert!(place.is_none() || place > last, "out of order: {labels:?}");
                last = place.or(last);
            }
        }
        for (place, (event, ended)) in labels.iter().enumerate() {
            let Some(Event { duration, touches, .. }) = self.events.get(*event) else { panic!("{event} never was") };
            let duration_now = found[place].record.duration;
            if *ended && duration_now != *duration {
                let made = duration_now.expect("is an end");
                assert!(made.is_zero() || touches.contains(&made), "{event} ends after {made:?}, not {touches:?}");
                assert!(!whole || Some(&made) == touches.last().or(Some(&Duration::ZERO)), "{event}: {made:?}");
            }
            assert!(*ended || places.get(&(*event, true)).is_some_and(|end| *end > place), "{event} never ends");
        }
        // Who knows of a start hears of its end, where the disk had it.
        for (message, must) in self.messages.iter().zip(must) {
            let done = |other: &Message| other.event == message.event && other.ended && (other.acked || other.dropped);
            if message.handed_out && !message.ended && !message.dropped && *must && was_all && self.state.dropped() == 0
            {
                let ends = places.contains_key(&(message.event, true)) || self.messages.iter().any(done);
                assert!(ends, "{message:?} never ends: {labels:?}");
            }
        }
        self.believe(&found, &labels, same);
    }

    /// What the next run has is what there is now.
    fn believe(&mut self, found: &[PendingMessage], labels: &[(usize, bool)], same: bool) {
        let before = std::mem::take(&mut self.messages);
        let known: HashSet<usize> = labels.iter().map(|(event, _)| *event).collect();
        for (pending, (event, ended)) in found.iter().zip(labels) {
            let old = before.iter().find(|message| (message.event, message.ended) == (*event, *ended));
            let told = old.is_some_and(|old| old.told);
            let Event { began, boot_id, times, .. } = &self.events[*event];
            let started_at = pending.record.started_at;
            if same && *boot_id == self.boot_id && !told {
                assert_eq!(started_at, UNIX_EPOCH + self.booted_at + *began, "{event}: nobody was told another time");
            } else {
                assert!(times.contains(&started_at), "{event}: {started_at:?} is not of {times:?}");
            }
            self.add_message(*event, *ended, pending.number);
            let message = self.messages.last_mut().expect("was added");
            message.told = told;
            message.synced = !same || old.is_some_and(|old| old.synced);
            if *ended {
                self.events[*event].duration = pending.record.duration;
            }
        }
        for (number, event) in self.events.iter_mut().enumerate() {
            if !known.contains(&number) {
                event.duration.get_or_insert_default();
            }
        }
    }
}

fn message_at(messages: &[Message], message: &Message) -> usize {
    messages.iter().position(|other| other.number == message.number).expect("is one of them")
}

fn topic_name(topic: usize) -> Arc<str> {
    format!("topic-{topic}").into()
}

fn record(event: usize, started_at: SystemTime, duration: Option<Duration>) -> EventRecord {
    EventRecord { id: event.to_string(), prompt: "p".into(), score: 7.0, peak: 8.0, started_at, duration, levels: None }
}

fn clocks(boot: Duration, suspended: Duration, booted_at: Duration) -> Clocks {
    Clocks { boot: BootTime::from_start(boot), suspended, wall: UNIX_EPOCH + booted_at + boot }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn whatever_happens_the_disk_has_what_it_is_said_to_have(
        max_events in prop_oneof![Just(1000_usize), Just(3)],
        booted_at_s in prop_oneof![Just(0_u64), Just(2_000_000_000)],
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut world = World::new(max_events, booted_at_s);
        steps.into_iter().for_each(|step| world.perform(step));
        world.perform(Step::Settle);
        world.perform(Step::PowerCut(PowerCut { old: true, share: 0.0, zeros: false }));
        world.perform(Step::Close);
    }
}

/// Every order of a few steps: the first step of an append, a sync and a rewrite is the one that matters most, and the last of a rewrite.
#[test]
fn every_short_history_is_withstood() {
    const STEPS: [Step; 9] = [
        Step::Start { topic: 0, ago_s: 1 },
        Step::End(0),
        Step::HandOut,
        Step::Acknowledge(0),
        Step::TakeJob,
        Step::FinishJob(None),
        Step::FinishJob(Some(Fault { step: 0, share: 0.5, lasts: true })),
        Step::FinishJob(Some(Fault { step: 2, share: 0.5, lasts: false })),
        Step::Wait(11_000),
    ];
    const LENGTH: u32 = 5;
    for history in 0..STEPS.len().pow(LENGTH) {
        let steps = (0..LENGTH).map(|place| STEPS[history / STEPS.len().pow(place) % STEPS.len()]);
        let mut world = World::new(1000, 2_000_000_000);
        steps.for_each(|step| world.perform(step));
        world.perform(Step::Kill);
        world.perform(Step::Close);
    }
}

/// What started while the log was written anew after a fault was in neither file, and health said "disk".
#[test]
fn what_starts_while_the_log_is_written_anew_is_in_it() {
    let mut world = World::new(1000, 2_000_000_000);
    let start = |topic| Step::Start { topic, ago_s: 1 };
    let fault = Fault { step: 0, share: 0.5, lasts: true };
    for step in [start(0), Step::TakeJob, Step::FinishJob(Some(fault))] {
        world.perform(step);
    }
    assert_eq!(world.state.storage(), "memory");
    world.perform(Step::Wait(11_000));
    world.perform(Step::TakeJob);
    assert!(matches!(world.job, Some(Job::Rewrite(_))));
    world.perform(start(1));
    world.perform(Step::End(0));
    world.perform(Step::FinishJob(None));
    assert_eq!(world.state.storage(), "memory", "the log has not what came meanwhile");
    world.perform(Step::TakeJob);
    world.perform(Step::FinishJob(None));
    assert_eq!(world.state.storage(), "disk");
    world.perform(Step::Kill);
    assert_eq!(world.state.waiting(), 4, "two starts and their ends");
}

/// A disk that hangs for hours: what is journalled meanwhile has a bound, and nothing of it is lost.
#[test]
fn a_disk_that_hangs_fills_no_memory() {
    let mut world = World::new(1000, 2_000_000_000);
    world.perform(Step::Start { topic: 0, ago_s: 1 });
    world.perform(Step::TakeJob);
    world.perform(Step::GiveUp);
    assert_eq!(world.state.storage(), "memory", "a caller went on without the disk");
    for event in 1..20_000 {
        let (now, topic) = (world.now(), topic_name(1));
        world.state.start(&topic, record(event, now.wall, None), now);
        let messages = world.state.next_message();
        assert!(!world.state.is_pending(messages), "nobody waits twice for a disk that hangs");
        world.state.end(&record(event, now.wall, Some(Duration::ZERO)), now);
        assert!(world.state.queue.journal_len() <= MAX_JOURNAL + 1000);
    }
    world.finish_job(None);
    world.take_job();
    assert!(matches!(world.job, Some(Job::Rewrite(_))));
    world.finish_job(None);
    assert_eq!((world.state.storage(), world.state.waiting()), ("disk", 2001));
    let (next, _) = World::open(&world.disk, world.limits, 1, world.now());
    assert_eq!((next.waiting(), next.dropped()), (2000, 1), "what was open ends, and is one too many");
}
