//! The ONNX Runtime releases that are tested with this server, by hash: the one place.
//!
//! All come from the official packages on PyPI. The hash of the wheel pins everything inside; the
//! hash of the library tells whether an unpacked folder still holds it.

/// Which build of ONNX Runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    /// Processor only.
    Cpu,
    /// CUDA 12.
    Cuda12,
    /// CUDA 13.
    Cuda13,
}

impl Flavor {
    /// All flavors by their names.
    pub const NAMES: [(&'static str, Self); 3] =
        [("cpu", Self::Cpu), ("cuda12", Self::Cuda12), ("cuda13", Self::Cuda13)];

    /// Name on the command line and of the folder.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda12 => "cuda12",
            Self::Cuda13 => "cuda13",
        }
    }
}

/// One release for one machine.
#[derive(Debug, Clone, Copy)]
pub struct Pin {
    /// Build.
    pub flavor: Flavor,
    /// Version of ONNX Runtime.
    pub version: &'static str,
    /// Architecture as Rust names it.
    pub arch: &'static str,
    /// Package on PyPI.
    pub package: &'static str,
    /// Platform tag of its wheel.
    pub platform: &'static str,
    /// SHA-256 of the wheel for [`PYTHON`].
    pub wheel_sha256: &'static str,
    /// Size of that wheel in bytes, for the progress bar.
    pub wheel_bytes: u64,
    /// SHA-256 of `libonnxruntime.so` inside.
    pub library_sha256: &'static str,
}

/// Python version whose wheel is fetched; any would do.
pub const PYTHON: &str = "3.12";

const fn cpu(
    version: &'static str,
    arch: &'static str,
    platform: &'static str,
    wheel: (&'static str, u64),
    library_sha256: &'static str,
) -> Pin {
    Pin {
        flavor: Flavor::Cpu,
        version,
        arch,
        package: "onnxruntime",
        platform,
        wheel_sha256: wheel.0,
        wheel_bytes: wheel.1,
        library_sha256,
    }
}

/// All tested releases; the first of a flavor and architecture is its default.
pub const PINS: &[Pin] = &[
    cpu(
        "1.31.1",
        "x86_64",
        "manylinux_2_28_x86_64",
        ("1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536", 23_760_988),
        "fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3",
    ),
    cpu(
        "1.31.1",
        "aarch64",
        "manylinux_2_28_aarch64",
        ("0b9a492176886992e0e875f06bc0367e333f5fff11711a2d642e18b02f3009cc", 21_420_803),
        "8aa3b76b28c778a2b1dd660d34161adb1d508c9ccd04ff9dc80e26eca5df8467",
    ),
    cpu(
        "1.28.0",
        "x86_64",
        "manylinux_2_28_x86_64",
        ("0a83bdb70d143cede762b677789bf2a7acca54b3fb82565601d5c30695aa933c", 19_214_257),
        "aa4079d18f4ea7a5f3a94d80cd4bbe0f2740436626622d64d793803a20381083",
    ),
    cpu(
        "1.28.0",
        "aarch64",
        "manylinux_2_28_aarch64",
        ("4e81a23df16e7acb9d51b06d30cc098e49315ef9180f97bc2221d167b4b04d9c", 17_050_628),
        "23a37c2994bc273e1d59a4f49af6cba5bf1cfbc29f04907ec27df375aba50a7d",
    ),
    cpu(
        "1.32.0",
        "x86_64",
        "manylinux_2_28_x86_64",
        ("99e1074c4b2197accd5073052a465361be17b89c093b8ffb6e6bd8f986c52df8", 27_780_211),
        "6c1585d1bbf45b0712ea4a21b705c5fcb4ba04ff2e30f1fbf81a49faf658638f",
    ),
    cpu(
        "1.32.0",
        "aarch64",
        "manylinux_2_28_aarch64",
        ("e36c187006e7a7c8b8d6d57f1a209dd63f52430dca6c282b177718ad6b841054", 23_196_724),
        "49852228a93995158b2a813d4df487d47a1b76b0eaa894507ef49e91b6d7954a",
    ),
    Pin {
        flavor: Flavor::Cuda13,
        version: "1.31.1",
        arch: "x86_64",
        package: "onnxruntime-gpu",
        platform: "manylinux_2_28_x86_64",
        wheel_sha256: "05d548956197b9d01f59b625de740e0d6be3593f874e241a12dc0362650ecdf7",
        wheel_bytes: 255_569_273,
        library_sha256: "5104254339ecadae808da771bd0b63b240f0dbd466514234905e54372435c303",
    },
    Pin {
        flavor: Flavor::Cuda12,
        version: "1.26.0",
        arch: "x86_64",
        package: "onnxruntime-gpu",
        platform: "manylinux_2_28_x86_64",
        wheel_sha256: "3c01119ed4d9449d60367fa8ccffcd02bd3fe736754284e4b198d131f54edad6",
        wheel_bytes: 276_971_796,
        library_sha256: "7fe6f3306ea455b3d1493ea8b95bf442b48a216e459c47564152e5f7d5ded2c6",
    },
];

/// The pin of a flavor on an architecture; the default version if none is given.
pub fn find(flavor: Flavor, version: Option<&str>, arch: &str) -> Option<&'static Pin> {
    PINS.iter().find(|pin| {
        pin.flavor == flavor
            && pin.arch == arch
            && version.is_none_or(|version| version == pin.version)
    })
}

/// Versions of a flavor on an architecture, for messages.
pub fn versions(flavor: Flavor, arch: &str) -> Vec<&'static str> {
    let all = PINS.iter().filter(|pin| pin.flavor == flavor && pin.arch == arch);
    all.map(|pin| pin.version).collect()
}
