//! Which instruction set runs.
//!
//! This is the one place where a kernel enters an instruction set: a [`SupportedIsa`] is made only after the CPU was asked. The
//! environment is the caller's to read.

use anyhow::{Result, bail};

use super::scalar::Scalar;
use super::simd::{Kernel, Simd};

#[cfg(target_arch = "x86_64")]
use super::{avx2::Avx2, avx512vnni::Avx512Vnni, avxvnni::AvxVnni};

#[cfg(target_arch = "aarch64")]
use super::{dotprod::Dotprod, neon::Neon};

/// An instruction set that kernels exist for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Plain Rust, on any CPU.
    Scalar,
    /// x86 with AVX2, FMA and F16C (2013 on).
    Avx2,
    /// AVX2 and AVX-VNNI (x86 without AVX-512: from 2021 on).
    AvxVnni,
    /// AVX-512 with VNNI.
    Avx512Vnni,
    /// 64-bit ARM.
    Neon,
    /// 64-bit ARM with the dot product (ARMv8.2: a Pi 5).
    Dotprod,
}

/// All of them, the fastest first.
const ALL: [Isa; 6] = [Isa::Avx512Vnni, Isa::AvxVnni, Isa::Avx2, Isa::Dotprod, Isa::Neon, Isa::Scalar];

impl Isa {
    /// Its name, as `CLAPD_KERNEL` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avxvnni",
            Self::Avx512Vnni => "avx512vnni",
            Self::Neon => "neon",
            Self::Dotprod => "dotprod",
        }
    }

    /// Those that this CPU has, the fastest first; the last is `Scalar`.
    pub fn available() -> Vec<Self> {
        ALL.into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// The fastest that this CPU has, or the one that is `forced` by its name.
    ///
    /// # Errors
    /// A name that is none, or one that this CPU lacks. The error lists what it has.
    pub fn choose(forced: Option<&str>) -> Result<Self> {
        let available = Self::available();
        let Some(name) = forced else { return Ok(available[0]) };
        if let Some(isa) = available.iter().find(|isa| isa.name() == name) {
            return Ok(*isa);
        }
        let names: Vec<_> = available.iter().map(|isa| isa.name()).collect();
        let why =
            if ALL.iter().any(|isa| isa.name() == name) { "this CPU lacks it" } else { "there is no such kernel" };
        bail!("CLAPD_KERNEL is \"{name}\": {why}. Here it may be {}, or unset for the first of these", names.join(", "))
    }

    fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => avx2(),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => avx2() && is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => avx512vnni(),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => true,
            #[cfg(target_arch = "aarch64")]
            Self::Dotprod => std::arch::is_aarch64_feature_detected!("dotprod"),
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }

    /// The fastest that this CPU has.
    pub(super) fn fastest() -> SupportedIsa {
        SupportedIsa(Self::available()[0])
    }

    /// The proof that the CPU has it.
    ///
    /// # Errors
    /// It has not.
    pub(super) fn supported(self) -> Result<SupportedIsa> {
        if !self.is_available() {
            Self::choose(Some(self.name()))?;
        }
        Ok(SupportedIsa(self))
    }
}

#[cfg(target_arch = "x86_64")]
fn avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

#[cfg(target_arch = "x86_64")]
fn avx512vnni() -> bool {
    avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vnni")
}

/// An instruction set that this CPU has: it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SupportedIsa(Isa);

impl SupportedIsa {
    /// Which.
    pub(super) fn isa(self) -> Isa {
        self.0
    }

    /// Runs a kernel compiled for it.
    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: a `SupportedIsa` is made only by `Isa::supported` and `Isa::fastest`, of what the CPU said that it has.
        #[allow(unused_unsafe)]
        unsafe {
            match self.0 {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => Avx2::new().run(kernel),
                #[cfg(target_arch = "x86_64")]
                Isa::AvxVnni => AvxVnni::new().run(kernel),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512Vnni => Avx512Vnni::new().run(kernel),
                #[cfg(target_arch = "aarch64")]
                Isa::Neon => Neon.run(kernel),
                #[cfg(target_arch = "aarch64")]
                Isa::Dotprod => Dotprod::new().run(kernel),
                _ => Scalar.run(kernel),
            }
        }
    }
}
