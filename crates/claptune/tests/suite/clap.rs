//! CLAP checkpoints become bundles that give transformers' embeddings; what is wrong with one is told whole, and nothing is
//! written then. Checkpoints and expectations: tests/golden/clap/make_clap.py.

use std::fs;
use std::io::Write;
use std::path::Path;

use clapd_core::dsp::clip_patch;
use clapd_core::model::{Bundle, Encode};
use claptune::checkpoint::clap::ClapCheckpoint;
use claptune::checkpoint::source::locate;
use claptune::export::Precision;
use claptune::import::{export_onnx, import};
use claptune::verify::verify;
use safetensors::tensor::Dtype;
use serde_json::{Value, json};

use crate::signals;
use crate::support::copy::{Copy, Tensors, golden, serialized};

/// What is promised of an f32 bundle, per number, from samples to embedding.
const TOLERANCE: f32 = 2e-5;

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

fn difference(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Imports a golden checkpoint and compares all its clips and texts.
fn is_transformers(name: &str) {
    let copy = Copy::of(name);
    import(&copy.source(), &copy.out(), Precision::F32).unwrap();
    let bundle = Bundle::open(copy.out()).unwrap();
    let fused = name == "fused";
    assert_eq!(bundle.manifest().audio.copies, if fused { 4 } else { 1 });
    assert_eq!(bundle.manifest().audio.is_longer, fused.then_some(true));
    let expected: Value = serde_json::from_slice(&fs::read(copy.path("expected.json")).unwrap()).unwrap();
    let (audio, text, spec) = (bundle.audio_encoder().unwrap(), bundle.text_encoder().unwrap(), bundle.frontend());
    for case in expected["audio"].as_array().unwrap() {
        let clip = signals::signal(case["clip"].as_str().unwrap(), spec.sample_rate, spec.patch_samples());
        let mut embedding = vec![0.0; audio.embedding_len()];
        let mut features = vec![0.0; audio.feature_len()];
        audio.encode(&clip_patch(&spec, &clip).unwrap(), &mut features).unwrap();
        audio.embed(&features, &mut embedding).unwrap();
        let off = difference(&embedding, &numbers(&case["embedding"]));
        assert!(off <= TOLERANCE, "{}: {off}", case["clip"]);
    }
    for case in expected["text"].as_array().unwrap() {
        let embedding = text.embed(case["text"].as_str().unwrap()).unwrap().vector;
        let off = difference(&embedding, &numbers(&case["embedding"]));
        assert!(off <= TOLERANCE, "{}: {off}", case["text"]);
    }
    verify(&copy.out(), &copy.source(), &[]).unwrap();
}

#[test]
fn a_fused_checkpoint_gives_transformers_embeddings() {
    is_transformers("fused");
}

#[test]
fn an_unfused_checkpoint_in_f16_gives_transformers_embeddings() {
    is_transformers("unfused");
}

#[test]
fn verify_takes_recordings_and_folders_of_them() {
    let copy = Copy::of("unfused");
    import(&copy.source(), &copy.out(), Precision::F32).unwrap();
    let folder = copy.folder.path().join("recordings");
    fs::create_dir(&folder).unwrap();
    let judge = |path: &Path| verify(&copy.out(), &copy.source(), &[path.to_path_buf()]);
    assert!(format!("{:#}", judge(&folder).unwrap_err()).contains("no recording among the 0 files"));
    fs::write(folder.join("notes.txt"), "not a recording").unwrap();
    fs::copy(golden("../../audio/demo.ogg"), folder.join("demo.ogg")).unwrap();
    judge(&folder).unwrap();
    // What is named itself must be one.
    assert!(format!("{:#}", judge(&folder.join("notes.txt")).unwrap_err()).contains("notes.txt"));
}

#[test]
fn half_precision_is_near_and_another_checkpoint_is_not() {
    let copy = Copy::of("fused");
    import(&copy.source(), &copy.out(), Precision::F16).unwrap();
    assert_eq!(Bundle::open(copy.out()).unwrap().manifest().audio.precision, "f16");
    verify(&copy.out(), &copy.source(), &[]).unwrap();
    copy.change_weights(|tensors| {
        let values = &mut tensors.get_mut("text_projection.linear2.weight").unwrap().2;
        values.chunks_exact_mut(4).step_by(3).for_each(|value| value[3] ^= 0x80);
    });
    let message = format!("{:#}", verify(&copy.out(), &copy.source(), &[]).unwrap_err());
    assert!(message.ends_with(": text"), "{message}");
}

#[test]
fn shards_are_one_checkpoint() {
    let (whole, copy) = (Copy::of("unfused"), Copy::of("unfused"));
    import(&whole.source(), &whole.out(), Precision::F32).unwrap();
    let (mut map, mut shards) = (serde_json::Map::new(), [Tensors::new(), Tensors::new()]);
    for (i, (name, tensor)) in copy.tensors().into_iter().enumerate() {
        map.insert(name.clone(), format!("model-{}.safetensors", i % 2).into());
        shards[i % 2].insert(name, tensor);
    }
    fs::remove_file(copy.path("model.safetensors")).unwrap();
    for (i, shard) in shards.iter().enumerate() {
        fs::write(copy.path(&format!("model-{i}.safetensors")), serialized(shard)).unwrap();
    }
    fs::write(copy.path("model.safetensors.index.json"), json!({"weight_map": map}).to_string()).unwrap();
    import(&copy.source(), &copy.out(), Precision::F32).unwrap();
    let id = |bundle: &Path| Bundle::open(bundle).unwrap().pipeline_id();
    assert_eq!(id(&whole.out()), id(&copy.out()));
    fs::remove_file(copy.path("model-1.safetensors")).unwrap();
    fs::remove_dir_all(copy.out()).unwrap();
    assert!(copy.refused().contains("model-1.safetensors"));
}

#[test]
fn every_import_writes_the_same_bytes() {
    let copy = Copy::of("fused");
    let mut first = None;
    // tract keeps hash tables, whose order is another one each time: twice could agree by chance.
    for _ in 0..6 {
        import(&copy.source(), &copy.out(), Precision::F16).unwrap();
        let towers = ["audio.nnef.tar", "text.nnef.tar"].map(|file| fs::read(copy.out().join(file)).unwrap());
        let equal = *first.get_or_insert_with(|| towers.clone()) == towers;
        assert!(equal, "the bytes of a tower differ");
    }
}

/// What LAION's own training saved, as PyTorch itself wrote it (tests/golden/clap/make_laion.py).
#[test]
fn laions_file_gives_the_same_embeddings_as_the_folder() {
    let copy = Copy::of("fused");
    import(&copy.source(), &copy.out(), Precision::F32).unwrap();
    let file = copy.folder.path().join("clap.pt");
    fs::copy(golden("fused.pt"), &file).unwrap();
    let laion = locate(file.to_str().unwrap(), Some(copy.path("").to_str().unwrap())).unwrap();
    let out = copy.folder.path().join("from-laion");
    import(&laion, &out, Precision::F32).unwrap();
    // The folder was compared with transformers; here the weights must be the same to the bit.
    let tower = |bundle: &Path, file: &str| fs::read(bundle.join(file)).unwrap();
    for file in ["audio.nnef.tar", "text.nnef.tar"] {
        assert!(tower(&copy.out(), file) == tower(&out, file), "{file}");
    }
    verify(&out, &laion, &[]).unwrap();
    // Without a config.json beside the preprocessor, heads are RoBERTa's.
    fs::remove_file(copy.path("config.json")).unwrap();
    assert_eq!(ClapCheckpoint::open(&laion).unwrap().config.text.bert.heads, 1);
    copy.change_json("preprocessor_config.json", |settings| settings["truncation"] = json!("rand_trunc"));
    let message = format!("{:#}", ClapCheckpoint::open(&laion).err().unwrap());
    assert!(message.contains("clap.pt") && message.contains("enable_fusion is true"), "{message}");
}

#[test]
fn a_file_that_is_no_clap_of_laions_is_refused() {
    let copy = Copy::of("fused");
    let refused = |file: &str| {
        let source = locate(copy.path(file).to_str().unwrap(), None).unwrap();
        format!("{:#}", import(&source, &copy.out(), Precision::F32).unwrap_err())
    };
    assert!(refused("model.safetensors").contains("not a sound PyTorch checkpoint"));
    assert!(refused("merges.txt").contains("merges.txt"));
    let message = format!("{:#}", locate("no/such/place/here", None).unwrap_err());
    assert!(message.contains("no folder and no file"), "{message}");
    assert!(!copy.out().exists());
}

#[test]
fn every_tensor_at_fault_is_named() {
    let copy = Copy::of("fused");
    copy.change_weights(|tensors| {
        tensors.remove("audio_model.audio_encoder.norm.weight").unwrap();
        tensors.remove("text_model.pooler.dense.bias").unwrap();
        tensors.insert("text_model.novel.weight".into(), (Dtype::F32, vec![1], vec![0; 4]));
        tensors.insert("lm_head.bias".into(), (Dtype::F32, vec![1], vec![0; 4]));
        let (_, shape, data) = tensors.get_mut("text_projection.linear1.weight").unwrap();
        *shape = vec![1, data.len() / 4];
    });
    let message = copy.refused();
    for fault in [
        "missing  audio_model.audio_encoder.norm.weight [64]",
        "missing  text_model.pooler.dense.bias [32]",
        "extra    text_model.novel.weight [1]",
        "extra    lm_head.bias [1]",
        "shape    text_projection.linear1.weight is [1, 1024], the sizes make it [32, 32]",
    ] {
        assert!(message.contains(fault), "{fault} is not in: {message}");
    }
}

#[test]
fn every_key_at_fault_is_named() {
    let copy = Copy::of("fused");
    copy.change_json("config.json", |config| {
        config["audio_config"]["novel_key"] = json!(1);
        config["audio_config"]["num_hidden_layers"] = json!(9);
        config["audio_config"]["fusion_type"] = json!("channel_map");
        config["text_config"]["hidden_act"] = json!("swish");
        config["text_config"]["projection_dim"] = json!(7);
        config["other"] = json!({});
    });
    let message = copy.refused();
    for key in ["novel_key", "num_hidden_layers", "channel_map", "swish", "text_config.projection_dim", "other"] {
        assert!(message.contains(key), "{key} is not in: {message}");
    }
}

#[test]
fn a_front_end_that_does_not_fit_is_refused() {
    let copy = Copy::of("fused");
    copy.change_json("preprocessor_config.json", |settings| settings["truncation"] = json!("rand_trunc"));
    assert!(copy.refused().contains("enable_fusion"));
    copy.change_json("preprocessor_config.json", |settings| {
        settings["truncation"] = json!("fusion");
        settings["top_db"] = json!(80);
        settings["padding"] = json!("repeat");
    });
    let message = copy.refused();
    assert!(message.contains("top_db") && message.contains("repeat"), "{message}");
    fs::remove_file(copy.path("preprocessor_config.json")).unwrap();
    assert!(copy.refused().contains("--processor"));
}

/// laion/clap-htsat-fused's own settings repeat themselves (transformers 4.27 wrote them).
#[test]
fn published_settings_repeat_themselves() {
    let copy = Copy::of("fused");
    let repeats = json!({"n_fft": 1024, "nb_max_frames": 1000, "chunk_length_s": 10, "nb_frequency_bins": 513,
        "nb_max_samples": 480_000, "processor_class": "ClapProcessor"});
    copy.change_json("preprocessor_config.json", |settings| {
        settings.as_object_mut().unwrap().extend(repeats.as_object().unwrap().clone());
    });
    ClapCheckpoint::open(&copy.source()).unwrap();
    for (key, wrong) in [
        ("n_fft", 2048),
        ("nb_max_frames", 999),
        ("chunk_length_s", 5),
        ("nb_frequency_bins", 512),
        ("nb_max_samples", 1),
    ] {
        copy.change_json("preprocessor_config.json", |settings| settings[key] = json!(wrong));
    }
    let message = copy.refused();
    for fault in ["n_fft is 2048, but", "nb_max_frames is 999", "chunk_length_s is 5", "bins is 512", "samples is 1,"] {
        assert!(message.contains(fault), "{fault} is not in: {message}");
    }
}

#[test]
fn sizes_beyond_reason_are_named_by_their_keys() {
    let copy = Copy::of("fused");
    copy.change_json("config.json", |config| {
        config["text_config"]["num_hidden_layers"] = json!(1_000_000);
        config["text_config"]["vocab_size"] = json!(1_000_000_000_000u64);
        config["audio_config"]["window_size"] = json!(0);
        config["audio_config"]["depths"] = json!([1, 2, 1, 1000]);
    });
    let message = copy.refused();
    for key in ["text_config.num_hidden_layers is 1000000", "vocab_size", "window_size is 0", "depths are"] {
        assert!(message.contains(key), "{key} is not in: {message}");
    }
    let copy = Copy::of("fused");
    copy.change_json("preprocessor_config.json", |settings| {
        settings["max_length_s"] = json!(100);
        settings["nb_max_samples"] = json!(4_800_000);
        settings["chunk_length_s"] = json!(100);
    });
    let message = copy.refused();
    assert!(message.contains("max_length_s") && !message.contains("frontend."), "{message}");
    fs::remove_file(copy.path("tokenizer.json")).unwrap();
    fs::remove_file(copy.path("vocab.json")).unwrap();
    fs::copy(golden("fused/preprocessor_config.json"), copy.path("preprocessor_config.json")).unwrap();
    let message = copy.refused();
    assert!(message.contains("tokenizer.json") && !message.contains(" or /"), "{message}");
}

#[test]
fn a_model_of_texts_alone_is_refused() {
    let copy = Copy::of("fused");
    copy.change_weights(|tensors| tensors.retain(|name, _| name.starts_with("text_")));
    assert!(copy.refused().contains("no audio tower"));
    copy.change_json("config.json", |config| config["model_type"] = json!("roberta"));
    assert!(copy.refused().contains("roberta"));
}

#[test]
fn damaged_weights_are_refused() {
    let copy = Copy::of("fused");
    let sound = fs::read(copy.path("model.safetensors")).unwrap();
    let mut changed = sound.clone();
    changed[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    for bytes in [&changed[..], &sound[..5], &sound[..100], &sound[..sound.len() - 1], b""] {
        fs::write(copy.path("model.safetensors"), bytes).unwrap();
        assert!(copy.refused().contains("model.safetensors"));
    }
    // Two tensors in one place, and a place that is nobody's: every length is right.
    let length = u64::from_le_bytes(sound[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&sound[8..8 + length]).unwrap();
    let layer = "text_model.encoder.layer.0.attention.self";
    header[format!("{layer}.key.weight")] = header[format!("{layer}.query.weight")].clone();
    let header = header.to_string();
    let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &sound[8 + length..]].concat();
    fs::write(copy.path("model.safetensors"), bytes).unwrap();
    assert!(copy.refused().contains("begins at byte"));
    fs::write(copy.path("model.safetensors"), &sound).unwrap();
    copy.change_weights(|tensors| {
        tensors.get_mut("text_model.pooler.dense.bias").unwrap().2[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    assert!(copy.refused().contains("text_model.pooler.dense.bias holds NaN"));
}

#[test]
fn a_compressed_pickle_is_refused_unread() {
    let copy = Copy::of("fused");
    fs::remove_file(copy.path("model.safetensors")).unwrap();
    assert!(copy.refused().contains("holds no weights"));
    let mut zip = zip::ZipWriter::new(fs::File::create(copy.path("pytorch_model.bin")).unwrap());
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    zip.start_file("archive/data.pkl", options).unwrap();
    zip.write_all(&vec![0; 1 << 24]).unwrap();
    zip.finish().unwrap();
    assert!(copy.refused().contains("compressed"));
    fs::write(copy.path("pytorch_model.bin"), b"not a pickle").unwrap();
    assert!(copy.refused().contains("PyTorch"));
}

#[test]
fn a_tokenizer_is_made_of_vocabulary_and_merges() {
    let copy = Copy::of("fused");
    let text = "A dog <pad> barks: hé 犬  twice";
    let whole = ClapCheckpoint::open(&copy.source()).unwrap().tokenizer().unwrap().ids(text).unwrap();
    fs::remove_file(copy.path("tokenizer.json")).unwrap();
    assert_eq!(ClapCheckpoint::open(&copy.source()).unwrap().tokenizer().unwrap().ids(text).unwrap(), whole);
    copy.change_json("vocab.json", |vocab| vocab["a_word_too_many"] = json!(1_000_000));
    assert!(copy.refused().contains("a_word_too_many"));
}

#[test]
fn onnx_files_are_written_under_both_kinds_of_names() {
    let copy = Copy::of("unfused");
    export_onnx(&copy.source(), &copy.out()).unwrap();
    export_onnx(&copy.source(), &copy.out().join("clap.onnx")).unwrap();
    for (one, other) in [("audio.onnx", "clap-audio.onnx"), ("text.onnx", "clap-text.onnx")] {
        let (one, other) = (fs::read(copy.out().join(one)).unwrap(), fs::read(copy.out().join(other)).unwrap());
        assert!(one == other && one.len() > 10_000);
        use tract_onnx::prelude::{Framework, InferenceModelExt};
        tract_onnx::onnx().model_for_read(&mut one.as_slice()).unwrap().into_typed().unwrap();
    }
}
