//! Where a network is trained: on the processor, or on a GPU that this build has a backend for.
//!
//! Every backend but the processor's is a cargo feature of its name. The choice is part of the recipe, and a resume is
//! held to it: backends add up in another order and CUDA multiplies matrices in TF32, so that a run which changed
//! between them would be none that could be made again. A device that is not there is an error; none stands in for it.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result};
use burn::prelude::Device;
#[cfg(any(feature = "cuda", feature = "metal", feature = "vulkan", feature = "wgpu"))]
use burn::tensor::DeviceType;
#[cfg(any(feature = "metal", feature = "vulkan", feature = "wgpu"))]
use burn::tensor::{DeviceKind, Devices};
use serde::{Deserialize, Serialize};

/// What computes. Written as `--device` has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Backend {
    /// The processor.
    #[default]
    Flex,
    /// NVIDIA's GPU of this number, from 0.
    Cuda(u16),
    /// The best GPU that Vulkan finds.
    Vulkan,
    /// The best GPU that any of the system's graphics interfaces finds, in their common shader language.
    Wgpu,
    /// Apple's GPU.
    Metal,
}

impl Backend {
    /// The device.
    ///
    /// # Errors
    /// A backend that this build lacks, or a device that this machine does.
    pub fn open(self) -> Result<Device> {
        let (found, name) = (self.found(), self.name());
        let found = found.with_context(|| {
            format!(
                "--device {self}: this claptune was built without the feature {name}; \
                 `cargo build --release --features {name} --bin claptune` makes one that has it"
            )
        })?;
        found.with_context(|| {
            format!("--device {self}: this machine has no such device, or its driver is not installed; --device flex trains on the processor")
        })
    }

    /// The feature that it needs, except for [`Flex`](Self::Flex), which has none.
    fn name(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::Cuda(_) => "cuda",
            Self::Vulkan => "vulkan",
            Self::Wgpu => "wgpu",
            Self::Metal => "metal",
        }
    }

    /// The device if the machine has it; nothing at all if the build lacks the backend. To ask for a device that isn't there without
    /// looking would end in a panic of Burn's.
    fn found(self) -> Option<Option<Device>> {
        match self {
            Self::Flex => Some(Some(Device::flex())),
            #[cfg(feature = "cuda")]
            Self::Cuda(index) => Some(Device::enumerate(DeviceType::Cuda).get(usize::from(index)).cloned()),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => Some(best(&Device::enumerate(DeviceType::Vulkan), Device::vulkan)),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => Some(best(&Device::enumerate(DeviceType::Wgpu), Device::wgpu)),
            #[cfg(feature = "metal")]
            Self::Metal => Some(best(&Device::enumerate(DeviceType::Metal), Device::metal)),
            #[allow(unreachable_patterns, reason = "a build may have them all")]
            _ => None,
        }
    }
}

/// The one that the graphics interface recommends, if there is any.
#[cfg(any(feature = "metal", feature = "vulkan", feature = "wgpu"))]
fn best(found: &Devices, open: fn(DeviceKind) -> Device) -> Option<Device> {
    (!found.is_empty()).then(|| open(DeviceKind::DefaultDevice))
}

/// What a GPU calls itself; nothing for the processor.
pub fn name(device: &Device) -> Option<String> {
    #[cfg(any(feature = "cuda", feature = "metal", feature = "vulkan", feature = "wgpu"))]
    return device.identity().map(|identity| identity.name);
    #[cfg(not(any(feature = "cuda", feature = "metal", feature = "vulkan", feature = "wgpu")))]
    {
        let _ = device;
        None
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbered = text.strip_prefix("cuda:").and_then(|number| number.parse().ok());
        match (text, numbered) {
            ("flex", _) => Ok(Self::Flex),
            ("cuda", _) => Ok(Self::Cuda(0)),
            ("vulkan", _) => Ok(Self::Vulkan),
            ("wgpu", _) => Ok(Self::Wgpu),
            ("metal", _) => Ok(Self::Metal),
            (_, Some(number)) => Ok(Self::Cuda(number)),
            _ => Err(format!(
                "{text:?} is no device: flex (the processor), cuda, vulkan, wgpu and metal are, and cuda:1 for the second"
            )),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cuda(number) if *number > 0 => write!(f, "cuda:{number}"),
            _ => f.write_str(self.name()),
        }
    }
}

impl TryFrom<String> for Backend {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Backend> for String {
    fn from(backend: Backend) -> Self {
        backend.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_read_as_it_is_written() {
        for text in ["flex", "cuda", "cuda:1", "cuda:12", "vulkan", "wgpu", "metal"] {
            assert_eq!(text.parse::<Backend>().unwrap().to_string(), text);
        }
        // One device has one name, or a resume would be refused for the other.
        assert_eq!("cuda:0".parse(), Ok(Backend::Cuda(0)));
        for text in ["", "cpu", "cuda:", "cuda:-1", "cuda:65536", "cuda:0x1", "vulkan:0", "flex:0", "Cuda"] {
            assert!(text.parse::<Backend>().unwrap_err().contains("is no device"), "{text}");
        }
    }

    #[test]
    fn the_processor_is_always_there() {
        assert_eq!(Backend::default().open().unwrap(), Device::flex());
        assert_eq!(name(&Device::flex()), None);
    }
}
