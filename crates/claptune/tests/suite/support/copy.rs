//! Golden checkpoints, each copied into a folder that goes when its owner does, so that they can be changed.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use claptune::checkpoint::source::{CheckpointSource, locate};
use claptune::export::Precision;
use claptune::import::import;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

pub fn golden(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("tests/golden/clap").join(name)
}

/// A copy of a golden checkpoint, to be changed.
pub struct Copy {
    pub folder: tempfile::TempDir,
}

impl Copy {
    pub fn of(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("model")).unwrap();
        for entry in fs::read_dir(golden(name)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), folder.path().join("model").join(entry.file_name())).unwrap();
        }
        Self { folder }
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join("model").join(file)
    }

    pub fn source(&self) -> CheckpointSource {
        locate(self.path("").to_str().unwrap(), None).unwrap()
    }

    pub fn out(&self) -> PathBuf {
        self.folder.path().join("bundle")
    }

    pub fn change_json(&self, file: &str, change: impl FnOnce(&mut Value)) {
        let mut value: Value = serde_json::from_slice(&fs::read(self.path(file)).unwrap()).unwrap();
        change(&mut value);
        fs::write(self.path(file), value.to_string()).unwrap();
    }

    pub fn change_weights(&self, change: impl FnOnce(&mut Tensors)) {
        let mut tensors = self.tensors();
        change(&mut tensors);
        fs::write(self.path("model.safetensors"), serialized(&tensors)).unwrap();
    }

    pub fn tensors(&self) -> Tensors {
        let bytes = fs::read(self.path("model.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        file.iter().map(|(n, t)| (n.to_string(), (t.dtype(), t.shape().to_vec(), t.data().to_vec()))).collect()
    }

    /// The error of an import, which leaves nothing behind.
    pub fn refused(&self) -> String {
        let message = format!("{:#}", import(&self.source(), &self.out(), Precision::F32).unwrap_err());
        let left: Vec<_> = fs::read_dir(self.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["model"], "{message}");
        message
    }
}

pub type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

pub fn serialized(tensors: &Tensors) -> Vec<u8> {
    let views = tensors.iter().map(|(n, (t, s, d))| (n.as_str(), TensorView::new(*t, s.clone(), d).unwrap()));
    safetensors::serialize(views, None).unwrap()
}
