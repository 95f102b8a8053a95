//! Which other files a model names for its weights.
//!
//! A walk over the tags of the file: it goes into the messages in which a tensor can be (graphs within
//! graphs, functions, attributes, sparse tensors, training), passes over all others without reading
//! them, and so takes little memory for a model of any size. What it cannot follow is refused, because
//! the runtime's reader might.
//!
//! Source: onnx.proto3 (`TensorProto.external_data`, `data_location`); ONNX, "External Data".

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

/// Messages within messages that are followed: graphs of a loop in a loop, at a dozen a level.
const MAX_DEPTH: usize = 200;
/// Longest name or location that is read, in bytes: the longest path of a Linux system.
const MAX_TEXT: u64 = 4096;
/// In a location it stands for an address in the runtime's own memory.
const MEMORY_MARKER: &str = "MEM_ADDR_";

/// A message in which tensors can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Model,
    Training,
    Graph,
    Function,
    Node,
    Attribute,
    Sparse,
    Tensor,
}

impl Kind {
    /// What a field of it is, if it has to be looked into.
    fn child(self, field: u64) -> Option<Self> {
        Some(match (self, field) {
            (Self::Model, 7) | (Self::Training, 1 | 2) | (Self::Attribute, 6 | 11) => Self::Graph,
            (Self::Model, 20) => Self::Training,
            (Self::Model, 25) => Self::Function,
            (Self::Graph, 1) | (Self::Function, 7) => Self::Node,
            (Self::Node, 5) | (Self::Function, 11) => Self::Attribute,
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Self::Sparse,
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::Sparse, 1 | 2) => Self::Tensor,
            _ => return None,
        })
    }
}

/// A part of another file that holds a tensor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExternalTensor {
    /// Name of the tensor.
    pub name: String,
    /// Path of the file, relative to the model's.
    pub location: String,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// Its bytes; 0 where it does not say.
    pub length: u64,
}

/// Lists the tensors of the model at `path` that lie in other files.
///
/// # Errors
/// The system's, or what is wrong in the file.
pub fn files(path: &Path) -> io::Result<Vec<ExternalTensor>> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    walk(BufReader::new(file), size)
}

/// The same for bytes of that size.
///
/// # Errors
/// What is wrong in them.
pub fn walk(reader: impl BufRead + Seek, size: u64) -> io::Result<Vec<ExternalTensor>> {
    let mut walk = Walk { reader, at: 0, found: Vec::new() };
    walk.message(Kind::Model, size, 0)?;
    Ok(walk.found)
}

struct Walk<R> {
    reader: R,
    at: u64,
    found: Vec<ExternalTensor>,
}

fn malformed(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no ONNX model: {problem}"))
}

impl<R: BufRead + Seek> Walk<R> {
    fn varint(&mut self, end: u64) -> io::Result<u64> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            if self.at >= end {
                return Err(malformed("a number is cut off"));
            }
            let mut byte = [0];
            self.reader.read_exact(&mut byte)?;
            self.at += 1;
            value |= u64::from(byte[0] & 127).checked_shl(shift).unwrap_or(0);
            if byte[0] < 128 {
                return Ok(value);
            }
        }
        Err(malformed("a number has more than ten bytes"))
    }

    fn skip(&mut self, bytes: u64, end: u64) -> io::Result<()> {
        let next = self.at.checked_add(bytes).filter(|next| *next <= end);
        let next = next.ok_or_else(|| malformed("a field is longer than what it is in"))?;
        let buffered = self.reader.fill_buf()?.len() as u64;
        if bytes <= buffered {
            self.reader.consume(usize::try_from(bytes).unwrap_or(usize::MAX));
        } else {
            self.reader.seek(SeekFrom::Start(next))?;
        }
        self.at = next;
        Ok(())
    }

    /// A text of at most [`MAX_TEXT`] bytes that ends where `end` is.
    fn text(&mut self, length: u64, end: u64) -> io::Result<String> {
        if length > MAX_TEXT || self.at + length > end {
            return Err(malformed("a name or location is too long"));
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        self.reader.read_exact(&mut bytes)?;
        self.at += length;
        String::from_utf8(bytes).map_err(|_| malformed("a name or location is no UTF-8"))
    }

    /// The next field before `end`: its number, its type, and the length of what follows or, of a
    /// number, which nothing follows, the number.
    fn field(&mut self, end: u64) -> io::Result<(u64, u64, u64)> {
        let tag = self.varint(end)?;
        // Readers that keep the lower 32 bits would see another field.
        if tag > u64::from(u32::MAX) || tag < 8 {
            return Err(malformed("a field with a number that there is not"));
        }
        let (field, wire) = (tag >> 3, tag & 7);
        let length = match wire {
            0 => return Ok((field, wire, self.varint(end)?)),
            1 => 8,
            5 => 4,
            2 => self.varint(end)?,
            _ => return Err(malformed("a group, which no version of the format has")),
        };
        if self.at.checked_add(length).is_none_or(|next| next > end) {
            return Err(malformed("a field is longer than what it is in"));
        }
        Ok((field, wire, length))
    }

    fn message(&mut self, kind: Kind, end: u64, depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(malformed("its parts are too deep within each other"));
        }
        if kind == Kind::Tensor {
            return self.tensor(end);
        }
        while self.at < end {
            let (field, wire, length) = self.field(end)?;
            match kind.child(field).filter(|_| wire == 2) {
                Some(child) => self.message(child, self.at + length, depth + 1)?,
                None if wire == 0 => {}
                None => self.skip(length, end)?,
            }
        }
        Ok(())
    }

    fn tensor(&mut self, end: u64) -> io::Result<()> {
        const NAME: u64 = 8;
        const EXTERNAL_DATA: u64 = 13;
        const DATA_LOCATION: u64 = 14;
        let (mut tensor, mut is_external) = (ExternalTensor::default(), false);
        let mut seen = Vec::new();
        while self.at < end {
            let (field, wire, length) = self.field(end)?;
            match (field, wire) {
                (NAME, 2) => tensor.name = self.text(length, end)?,
                (EXTERNAL_DATA, 2) => {
                    is_external = true;
                    let until = self.at + length;
                    self.entry(&mut tensor, &mut seen, until)?;
                }
                (DATA_LOCATION, 0) => is_external |= length > 0,
                (_, 0) => {}
                _ => self.skip(length, end)?,
            }
        }
        if is_external && tensor.location.is_empty() {
            return Err(malformed("a tensor in another file, and no word of which"));
        }
        if is_external {
            self.found.push(tensor);
        }
        Ok(())
    }

    /// A key and its value.
    fn entry(
        &mut self,
        tensor: &mut ExternalTensor,
        seen: &mut Vec<String>,
        end: u64,
    ) -> io::Result<()> {
        let (mut key, mut value) = (String::new(), String::new());
        while self.at < end {
            match self.field(end)? {
                (1, 2, length) => key = self.text(length, end)?,
                (2, 2, length) => value = self.text(length, end)?,
                (_, 0, _) => {}
                (_, _, length) => self.skip(length, end)?,
            }
        }
        let number = |text: &str| {
            text.trim().parse().map_err(|_| malformed("an offset or length that is no number"))
        };
        // Of two, readers may take either.
        if seen.contains(&key) {
            return Err(malformed("a key of external data comes twice"));
        }
        seen.push(key.clone());
        match key.as_str() {
            "location" => tensor.location = value,
            "offset" => tensor.offset = number(&value)?,
            "length" => tensor.length = number(&value)?,
            _ => {}
        }
        Ok(())
    }
}

/// The files of `tensors`, each once; every one within the folder that they lie in `beside` the model,
/// which is as far as the runtime goes, too.
///
/// # Errors
/// The tensor whose location leads elsewhere, or to no file that could hold it.
pub(super) fn inside(tensors: &[ExternalTensor], beside: &Path) -> Result<Vec<PathBuf>, String> {
    let mut files: Vec<PathBuf> = Vec::new();
    if tensors.is_empty() {
        return Ok(files);
    }
    let home = beside.canonicalize().map_err(|error| error.to_string())?;
    for tensor in tensors {
        let path = place(tensor, beside, &home).map_err(|problem| {
            let (name, location) = (&tensor.name, &tensor.location);
            format!("tensor {name:?} in file {location:?}: {problem}")
        })?;
        if !files.contains(&path) {
            files.push(path);
        }
    }
    Ok(files)
}

fn place(tensor: &ExternalTensor, beside: &Path, home: &Path) -> Result<PathBuf, String> {
    let location = &tensor.location;
    if location.contains(MEMORY_MARKER) {
        return Err("an address in memory, which only the runtime itself may write".to_owned());
    }
    let is_plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if location.contains(['\0', '\\']) || !Path::new(location).components().all(is_plain) {
        return Err("expected a path inside the folder of the model's file".to_owned());
    }
    // Without `.`, so that a file has one name.
    let parts = Path::new(location).components().filter(|part| *part != Component::CurDir);
    let path: PathBuf = beside.components().chain(parts).collect();
    let real = path.canonicalize().map_err(|error| error.to_string())?;
    // By components, so that `resnet-secret` is not within `resnet`.
    if !real.starts_with(home) {
        return Err("leads out of the folder of the model's file".to_owned());
    }
    let metadata = real.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("is no regular file".to_owned());
    }
    let (offset, length, size) = (tensor.offset, tensor.length, metadata.len());
    if offset.checked_add(length).is_none_or(|end| end > size) {
        return Err(format!("has {size} bytes, and the tensor {length} from byte {offset} on"));
    }
    Ok(path)
}
