//! Ratings from the forms in which they are published, screened, split, and with their audio; all data here is made up.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clapd_core::dsp::{FrontendSpec, clip_patch};
use claptune::data::{self, Clips, ListenerNorms, MelCache, Pair, Rating, Screening, Split, split};
use proptest::prelude::*;

use crate::wav::Wav;

/// RELATE's REL.csv: its columns, its spelling of names, truth values and numbers; sounds and listeners are invented.
const RELATE: &str = "\
wavname,text,score,listener_id,audio type,anchor label,in RELATE dataset,in AudioCaps
/audiocaps/train/1.wav,A kettle whistles,9,0000,natural,False,train,train
/tango/train/1.wav,A kettle whistles,4,0000,tango,False,train,train
/tango/train/1.wav,A kettle whistles,6,0001,tango,False,train,train
/audiocaps/test/7.wav,\"A gate creaks, then a dog barks\",8,0001,natural,False,test,test
/audioldm/test/8.wav,A fan hums,3,0000,audioldm,False,validation,test
/audiocaps/train/9.wav,A fan hums,1,0000,natural,True,excluded,
/audiocaps/train/9.wav,A kettle whistles,7,0002,natural,True,excluded,
/tango/test/8.wav,A fan hums,10,0002,tango,False,excluded,test
";

fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
    fs::write(folder.join(name), text).unwrap();
    folder.join(name)
}

fn rating(recording: &str, text: &str, listener: &str, score: f64) -> Rating {
    Rating {
        audio: PathBuf::from(recording),
        recording: recording.into(),
        text: text.into(),
        score,
        listener: Some(listener.into()),
        split: None,
        kind: None,
        category: None,
        anchor: false,
    }
}

#[test]
fn relate_as_published() {
    let dir = tempfile::tempdir().unwrap();
    let ratings = data::read(&file(dir.path(), "REL.csv", RELATE), Some(Path::new("/wave"))).unwrap();
    assert_eq!((ratings.rows.len(), ratings.excluded), (7, 1));
    let gate = &ratings.rows[3];
    assert_eq!(gate.audio, Path::new("/wave/audiocaps/test/7.wav"));
    assert_eq!(
        (gate.text.as_str(), gate.score, gate.split),
        ("A gate creaks, then a dog barks", 8.0, Some(Split::Test))
    );
    assert_eq!((gate.listener.as_deref(), gate.kind.as_deref()), (Some("0001"), Some("natural")));
    let pairs = data::pairs(&ratings.rows).unwrap();
    assert_eq!(pairs.len(), 4, "anchors are in none");
    let kettle = &pairs[1];
    assert_eq!((kettle.mean(), kettle.recording.as_str(), kettle.is_natural()), (5.0, "1", Some(false)));
    assert_eq!(
        pairs[0].recording, kettle.recording,
        "what a generator made for a caption goes with the caption's clip"
    );
    assert_eq!(split::crossing(&ratings.rows).listeners, ["0000", "0001"], "RELATE's listeners are in several splits");
    // IS.csv has no splits of its own, the first revision of REL.csv no label of anchors.
    let old = RELATE.replace(",anchor label", "").replace(",False,", ",").replace("natural,True,", "anchor,");
    let old = data::read(&file(dir.path(), "old.csv", &old), Some(Path::new("/wave"))).unwrap();
    assert_eq!(old.rows.iter().filter(|row| row.anchor).count(), 2);
    let inclusion = "wavname,text,score,listener_id,audio type,anchor label,in AudioCaps\n/tango/test/3.wav,A fan hums,2,5,tango,False,test\n";
    let inclusion = data::read(&file(dir.path(), "IS.csv", inclusion), None).unwrap();
    assert_eq!(inclusion.rows[0].split, Some(Split::Test));
}

#[test]
fn xacle_as_published() {
    let dir = tempfile::tempdir().unwrap();
    let train = "wav_file_name,text,score,listener_id\n00000.wav,A boat passes,8,12\n00000.wav,A boat passes,5,31\n";
    let train = data::read(&file(dir.path(), "train.csv", train), Some(Path::new("/x/wav"))).unwrap();
    assert_eq!(train.rows[1].audio, Path::new("/x/wav/train/00000.wav"));
    assert_eq!((train.rows[1].split, train.rows[1].listener.as_deref()), (Some(Split::Train), Some("31")));
    let average = "wav_file_name,text,average_score\n07500.wav,A boat passes,7.25\n";
    let average = data::read(&file(dir.path(), "validation_average.csv", average), Some(Path::new("/x/wav"))).unwrap();
    assert_eq!(average.rows[0].audio, Path::new("/x/wav/validation/07500.wav"));
    assert_eq!((average.rows[0].score, average.rows[0].listener.as_deref()), (7.25, None));
    let test = data::read(&file(dir.path(), "test.csv", "wav_file_name,text\n1.wav,A boat\n"), None).unwrap_err();
    assert!(format!("{test:#}").contains("no ratings"), "{test:#}");
}

#[test]
fn our_own_form_is_what_write_writes() {
    let dir = tempfile::tempdir().unwrap();
    let lines = "{\"audio\":\"a.wav\",\"text\":\"a \\\"hum\\\", faint\",\"score\":3.5,\"listener\":\"x\",\"split\":\"test\",\"kind\":\"tango\"}\n\n\
                 {\"audio\":\"sub/b.ogg\",\"text\":\"rain\",\"score\":0,\"recording\":\"b\",\"category\":\"weather\",\"anchor\":true}\n";
    let read = data::read(&file(dir.path(), "m.jsonl", lines), None).unwrap();
    assert_eq!(read.rows[0].audio, dir.path().join("a.wav"));
    data::write(&dir.path().join("m.csv"), &read.rows).unwrap();
    assert_eq!(data::read(&dir.path().join("m.csv"), None).unwrap(), read);
    assert!(fs::read_to_string(dir.path().join("m.csv")).unwrap().contains("\nsub/b.ogg,rain,0,"));
}

#[test]
fn faults_name_the_line_and_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    for (text, words) in [
        ("audio,text,score\na.wav,rain,11\n", vec!["m.csv", "line 2", "score is 11", "0 to 10"]),
        ("audio,text,score\na.wav,rain,NaN\n", vec!["line 2", "NaN"]),
        ("audio,text,score\na.wav,rain,1\nb.wav,,1\n", vec!["line 3", "text is empty"]),
        ("audio,text,score,listner\na.wav,rain,1,x\n", vec!["listner", "listener"]),
        ("audio,text,score,split\na.wav,rain,1,dev\n", vec!["\"dev\"", "validation"]),
        ("audio,text\na.wav,rain\n", vec!["audio,text,score"]),
        ("audio,text,score\n", vec!["holds no ratings"]),
        ("audio,text,score\na.wav,rain, then hail,3\n", vec!["line 2", "4 fields", "quotes"]),
    ] {
        let error = format!("{:#}", data::read(&file(dir.path(), "m.csv", text), None).unwrap_err());
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    let two = [Rating { split: Some(Split::Train), ..rating("a", "t", "x", 1.0) }, rating("a", "t", "y", 1.0)];
    assert!(data::pairs(&two).unwrap_err().to_string().contains("claptune split"));
}

#[test]
fn screening_drops_who_does_not_listen_and_who_stands_alone() {
    let anchor = |listener: &str, score: f64| Rating { anchor: true, ..rating("a", "wrong", listener, score) };
    let ratings = vec![
        anchor("lazy", 9.0),
        anchor("lazy", 0.0),
        anchor("good", 1.0),
        rating("a", "t", "lazy", 5.0),
        rating("a", "t", "good", 9.0),
        rating("a", "t", "also", 8.0),
        rating("a", "t", "deaf", 1.0),
        rating("b", "t", "deaf", 1.0),
    ];
    let (kept, counts) = data::screen(ratings.clone(), &Screening::default());
    assert_eq!((counts.listeners, counts.by_anchors, counts.by_disagreement), (1, 1, 1));
    let scores = |rows: &[Rating]| rows.iter().filter(|r| !r.anchor).map(|r| r.score).collect::<Vec<_>>();
    assert_eq!(scores(&kept), [9.0, 8.0, 1.0], "nobody contradicts a single rating");
    assert_eq!(data::screen(ratings.clone(), &Screening::NONE).0, ratings);
}

#[test]
fn standard_scores_are_pandas() {
    // df.groupby("listener")["score"].agg(["mean", "std"]): x 4, 2; y 9, 1.4142; mean of means 6.5, root mean square 1.7321.
    let ratings = [("x", 2.0), ("x", 4.0), ("x", 6.0), ("y", 8.0), ("y", 10.0), ("once", 3.0)];
    let ratings: Vec<Rating> =
        ratings.iter().enumerate().map(|(n, (l, s))| rating(&n.to_string(), "t", l, *s)).collect();
    let pairs = data::pairs(&ratings).unwrap();
    let norms = ListenerNorms::of(&pairs);
    let found: Vec<f64> = pairs.iter().map(|pair| norms.mean(pair)).collect();
    let root = 0.5_f64.sqrt();
    let expected = [-1.0, 0.0, 1.0, -root, root, (3.0 - 6.5) / 3.0_f64.sqrt()];
    assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
    assert!((norms.average().0 - 6.5).abs() < 1e-12);
}

/// Listeners who rated in groups, as in a study with sessions, and some who rated everywhere.
fn dataset(recordings: usize, groups: usize, wanderers: usize, seed: u64) -> Vec<Rating> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut ratings = vec![];
    for recording in 0..recordings {
        for n in 0..4 {
            let listener = format!("{}-{n}", recording % groups);
            ratings.push(rating(&format!("r{recording}"), "a sound", &listener, f64::from(random.u8(0..=10))));
        }
        for n in 0..wanderers {
            ratings.push(rating(&format!("r{recording}"), "a sound", &format!("w{n}"), 5.0));
        }
    }
    random.shuffle(&mut ratings);
    ratings
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn nothing_crosses_splits_and_nothing_is_lost_uncounted(
        recordings in 12_usize..80, groups in 4_usize..20, wanderers in 0_usize..3, seed in 0_u64..1000,
    ) {
        let ratings = dataset(recordings, groups, wanderers, seed);
        let rules = split::SplitRules { shares: [0.6, 0.2, 0.2], listeners: true, seed };
        let Ok(made) = split::split(ratings.clone(), &rules) else { return Ok(()) };
        prop_assert_eq!(split::crossing(&made.ratings), split::Crossing::default());
        prop_assert_eq!(made.ratings.len() + made.dropped, ratings.len());
        let alive: BTreeSet<&String> = made.ratings.iter().map(|r| &r.recording).collect();
        prop_assert_eq!(alive.len() + made.recordings_lost, recordings);
        prop_assert!(made.ratings.iter().all(|rating| rating.split.is_some()));
        // The rows' order decides nothing.
        let mut turned = ratings;
        turned.reverse();
        let convert = split::split(turned, &rules).unwrap();
        let set = |made: &split::SplitResult| made.ratings.iter().map(|r| format!("{r:?}")).collect::<BTreeSet<_>>();
        prop_assert_eq!(set(&made), set(&convert));
    }
}

#[test]
fn a_study_in_groups_keeps_nearly_all_and_its_shares() {
    let ratings = dataset(400, 40, 0, 3);
    let made = split::split(ratings.clone(), &split::SplitRules::default()).unwrap();
    assert!(
        made.dropped * 10 < ratings.len(),
        "{} of {} dropped; blind chance drops a third",
        made.dropped,
        ratings.len()
    );
    let test: BTreeSet<&String> =
        made.ratings.iter().filter(|r| r.split == Some(Split::Test)).map(|r| &r.recording).collect();
    assert!((35..=40).contains(&test.len()), "{} recordings to test on", test.len());
    let shared = split::split(ratings.clone(), &split::SplitRules { listeners: false, ..Default::default() }).unwrap();
    assert_eq!((shared.dropped, shared.ratings.len()), (0, ratings.len()));
    let crossing = split::crossing(&shared.ratings);
    assert!(crossing.recordings.is_empty() && !crossing.listeners.is_empty());
    let error =
        split::split(ratings, &split::SplitRules { shares: [0.9, 0.2, 0.1], ..Default::default() }).unwrap_err();
    assert!(error.to_string().contains("add up to 1"), "{error}");
}

/// A wav file of 16 bits: a tone that rises.
fn wav(path: &Path, rate: u32, seconds: f64) -> Vec<f32> {
    let samples: Vec<i16> = (0..(seconds * f64::from(rate)) as u32)
        .map(|n| {
            let t = f64::from(n) / f64::from(rate);
            ((t * (300.0 + 50.0 * t) * std::f64::consts::TAU).sin() * 9000.0) as i16
        })
        .collect();
    fs::write(path, Wav::mono(rate, samples.iter().copied()).bytes()).unwrap();
    samples.iter().map(|s| f32::from(*s) / 32768.0).collect()
}

#[test]
fn patches_are_the_front_ends_short_and_long_at_any_rate() {
    let dir = tempfile::tempdir().unwrap();
    let (file, spec) = (dir.path().join("a.wav"), FrontendSpec::yamnet());
    for seconds in [0.3, 0.975, 2.5] {
        let samples = wav(&file, 16_000, seconds);
        let first = data::patches(&file, &spec, 0).unwrap();
        assert_eq!(first, clip_patch(&spec, &samples).unwrap(), "{seconds} s");
        let all = data::patches(&file, &spec, 7680).unwrap();
        let count = if samples.len() < 15_600 { 1 } else { (samples.len() - 15_600) / 7680 + 1 };
        assert_eq!(all.len(), count * spec.patch_len(), "{seconds} s");
        let last = clip_patch(&spec, &samples[(count - 1) * 7680..]).unwrap();
        assert_eq!(all[(count - 1) * spec.patch_len()..], last, "{seconds} s");
    }
    // Ten minutes and more: a bound, not the memory of the machine.
    wav(&file, 8_000, 620.0);
    assert_eq!(data::patches(&file, &spec, 7680).unwrap().len(), data::MAX_PATCHES * spec.patch_len());
    assert_eq!(data::patches(&file, &FrontendSpec::clap_fused(), 0).unwrap().len(), 1001 * 64);
    assert!(data::patches(&dir.path().join("none.wav"), &spec, 0).is_err());
}

fn pair(audio: PathBuf, text: &str) -> Pair {
    data::pairs(&[Rating { audio, ..rating("r", text, "x", 5.0) }]).unwrap().remove(0)
}

#[test]
fn broken_audio_is_listed_and_skipped_up_to_its_share() {
    let dir = tempfile::tempdir().unwrap();
    let mut pairs: Vec<Pair> = (0..8)
        .map(|n| {
            let file = dir.path().join(format!("{n}.wav"));
            wav(&file, 16_000, 0.5 + 0.1 * f64::from(n));
            pair(file, "a tone")
        })
        .collect();
    fs::write(dir.path().join("broken.ogg"), b"OggS nothing").unwrap();
    pairs.push(pair(dir.path().join("broken.ogg"), "a tone"));
    pairs.push(pair(dir.path().join("broken.ogg"), "a hum"));
    pairs.push(pair(dir.path().join("gone.wav"), "a tone"));
    let cache = MelCache::open(dir.path().join("cache"), 1 << 20).unwrap();
    let mut clips = Clips::new(FrontendSpec::yamnet(), 7680, Some(cache));
    let prepared = clips.prepare(pairs.clone(), 0.2, |_, _| {}).unwrap();
    assert_eq!((prepared.pairs.len(), prepared.skipped.len()), (8, 2));
    assert!(prepared.skipped.iter().any(|s| s.audio.ends_with("gone.wav") && s.reason.contains("gone.wav")));
    let fresh = clips.load(&pairs[3].audio).unwrap();
    assert_eq!(fresh, data::patches(&pairs[3].audio, &FrontendSpec::yamnet(), 7680).unwrap());
    assert_eq!(clips.cache_counts().unwrap().hits, 1);
    let error = clips.prepare(pairs, 0.1, |_, _| {}).unwrap_err().to_string();
    assert!(error.contains("2 of 10") && error.contains("10%") && error.contains("--audio-root"), "{error}");
}

#[test]
fn the_cache_keeps_its_bound_what_it_uses_and_nothing_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let key = |n: usize| format!("{n:064x}");
    let patches = |n: usize| vec![n as f32; 100];
    fs::write(dir.path().join("notes.txt"), "not the cache's").unwrap();
    // An entry has 440 bytes: room for five.
    let mut first = MelCache::open(dir.path(), 2300).unwrap();
    (0..8).for_each(|n| first.put(&key(n), &patches(n)));
    assert_eq!((first.bytes(), first.counts().refused, first.counts().dropped), (5 * 440, 3, 0));
    let mut second = MelCache::open(dir.path(), 2300).unwrap();
    assert_eq!((second.get(&key(1)), second.get(&key(6))), (Some(patches(1)), None));
    (10..16).for_each(|n| second.put(&key(n), &patches(n)));
    assert_eq!((second.bytes(), second.counts().dropped, second.counts().refused), (5 * 440, 4, 2));
    assert_eq!(second.get(&key(1)), Some(patches(1)), "what this run has used stays");
    let damaged = dir.path().join(format!("{}.mel", key(10)));
    let mut bytes = fs::read(&damaged).unwrap();
    bytes[20] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    assert_eq!(MelCache::open(dir.path(), 2300).unwrap().get(&key(10)), None);
    assert!(dir.path().join("notes.txt").exists());
}

#[test]
fn batches_hold_every_pair_once_and_no_text_twice() {
    let pairs: Vec<Pair> =
        (0..200).map(|n| pair(PathBuf::from(format!("{}.wav", n / 2)), &format!("text {}", n % 50))).collect();
    let epoch = data::batches(&pairs, 16, 1, 0);
    let mut all: Vec<usize> = epoch.concat();
    all.sort_unstable();
    assert_eq!(all, (0..200).collect::<Vec<_>>());
    for batch in &epoch {
        let audio: BTreeSet<_> = batch.iter().map(|&row| &pairs[row].audio).collect();
        let texts: BTreeSet<_> = batch.iter().map(|&row| &pairs[row].text).collect();
        assert_eq!((audio.len(), texts.len()), (batch.len(), batch.len()));
    }
    assert!(epoch.iter().filter(|batch| batch.len() == 16).count() >= 10, "{epoch:?}");
    assert_eq!(data::batches(&pairs, 16, 1, 0), epoch);
    assert_ne!(data::batches(&pairs, 16, 1, 1), epoch);
}
