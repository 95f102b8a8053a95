//! Element types of the Open Inference Protocol and their sizes.
//!
//! Source: Open Inference Protocol, "Tensor Data Types". Used by every room; uses none.

use std::fmt;

/// Type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataType {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned, one byte.
    UInt8,
    /// Unsigned, two bytes.
    UInt16,
    /// Unsigned, four bytes.
    UInt32,
    /// Unsigned, eight bytes.
    UInt64,
    /// Signed, one byte.
    Int8,
    /// Signed, two bytes.
    Int16,
    /// Signed, four bytes.
    Int32,
    /// Signed, eight bytes.
    Int64,
    /// IEEE 754 half precision.
    Fp16,
    /// bfloat16: the upper half of a single precision number.
    Bf16,
    /// IEEE 754 single precision.
    Fp32,
    /// IEEE 754 double precision.
    Fp64,
    /// A string of any octets; the only type without a fixed size.
    Bytes,
}

impl DataType {
    /// All types, in the order of the protocol's table.
    pub const ALL: [Self; 14] = [
        Self::Bool,
        Self::UInt8,
        Self::UInt16,
        Self::UInt32,
        Self::UInt64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Bf16,
        Self::Fp32,
        Self::Fp64,
        Self::Bytes,
    ];

    /// Size of one element in bytes; `None` for [`DataType::Bytes`].
    pub const fn size_bytes(self) -> Option<usize> {
        match self {
            Self::Bool | Self::UInt8 | Self::Int8 => Some(1),
            Self::UInt16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::UInt32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::UInt64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }

    /// Name on the wire, for instance `FP32`.
    pub const fn wire_name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::UInt8 => "UINT8",
            Self::UInt16 => "UINT16",
            Self::UInt32 => "UINT32",
            Self::UInt64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Bf16 => "BF16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bytes => "BYTES",
        }
    }

    /// The type with that name on the wire; names are upper case.
    pub fn from_wire_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.wire_name() == name)
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.wire_name())
    }
}
