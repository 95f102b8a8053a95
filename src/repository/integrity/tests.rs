//! Files that are where they must be and what they must be, and every way not to.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::external::{ExternalTensor, walk};
use super::*;
use crate::config::Config;
use crate::model::{ModelKey, ModelName, ModelVersion};
use crate::runtime::digest::hex;
use sha2::{Digest, Sha256};

/// A field with a message or text in it.
fn field(number: u32, contents: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut bytes);
    prost::encoding::encode_varint(contents.len() as u64, &mut bytes);
    bytes.extend(contents);
    bytes
}

fn entry(key: &str, value: &str) -> Vec<u8> {
    field(13, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat())
}

/// A tensor called `w` that lies elsewhere.
fn tensor(location: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let more = more.iter().flat_map(|(key, value)| entry(key, value)).collect();
    [field(8, b"w"), entry("location", location), more, vec![14 << 3, 1]].concat()
}

/// A model with that tensor among the weights of its graph.
fn model(tensor: &[u8]) -> Vec<u8> {
    field(7, &field(5, tensor))
}

fn found(model: &[u8]) -> Vec<String> {
    let found = walk(std::io::Cursor::new(model), model.len() as u64).unwrap();
    found.into_iter().map(|tensor| tensor.location).collect()
}

#[test]
fn tensors_are_found_wherever_they_can_be() {
    let tensor = tensor("there", &[("offset", "4"), ("length", "8")]);
    let attribute = |tensor: &[u8]| field(1, &field(5, tensor));
    let cases = [
        ("weights", model(&tensor)),
        ("sparse values", field(7, &field(15, &field(1, &tensor)))),
        ("sparse indices", field(7, &field(15, &field(2, &tensor)))),
        ("an attribute", field(7, &attribute(&field(5, &tensor)))),
        ("a list", field(7, &attribute(&field(10, &tensor)))),
        ("a sparse attribute", field(7, &attribute(&field(22, &field(1, &tensor))))),
        ("a list of sparse", field(7, &attribute(&field(23, &field(2, &tensor))))),
        ("a graph inside", field(7, &attribute(&field(6, &field(5, &tensor))))),
        ("graphs inside", field(7, &attribute(&field(11, &field(5, &tensor))))),
        ("a function", field(25, &field(7, &field(5, &field(5, &tensor))))),
        ("a function's default", field(25, &field(11, &field(5, &tensor)))),
        ("training", field(20, &field(1, &field(5, &tensor)))),
        ("a training step", field(20, &field(2, &field(5, &tensor)))),
        ("behind much else", [field(6, &vec![0; 100_000]), model(&tensor)].concat()),
    ];
    for (what, model) in cases {
        assert_eq!(found(&model), ["there"], "{what}");
    }
    let whole = walk(std::io::Cursor::new(model(&tensor)), model(&tensor).len() as u64).unwrap();
    let (name, location) = ("w".to_owned(), "there".to_owned());
    assert_eq!(whole, [ExternalTensor { name, location, offset: 4, length: 8 }]);
    assert!(found(&model(&field(8, b"w"))).is_empty());
}

#[test]
fn what_cannot_be_followed_is_refused() {
    let mut deep = tensor("there", &[]);
    for _ in 0..80 {
        deep = field(5, &field(1, &field(5, &field(6, &field(5, &deep)))));
    }
    let mut graph = field(5, &tensor("there", &[]));
    for _ in 0..100 {
        graph = field(1, &field(5, &field(6, &graph)));
    }
    let long = "x".repeat(5000);
    for (what, model) in [
        ("text", b"this is no model".to_vec()),
        ("a length too long", vec![7 << 3 | 2, 200, 1]),
        ("a length of the whole memory", [&[7 << 3 | 2][..], &[255; 9], &[1]].concat()),
        ("a number without end", vec![255; 20]),
        ("a group", vec![7 << 3 | 3]),
        ("depth", field(7, &graph)),
        ("a number beyond 32 bits", [&[0xba, 0x80, 0x80, 0x80, 0x10, 2][..], &[0, 0]].concat()),
        ("no number of a field", vec![2, 0]),
        ("two locations", model(&[tensor("there", &[]), entry("location", "")].concat())),
        ("no location", model(&[field(8, b"w"), vec![14 << 3, 1]].concat())),
        ("a long location", model(&tensor(&long, &[]))),
        ("no number", model(&tensor("there", &[("offset", "-1")]))),
    ] {
        let size = model.len() as u64;
        assert!(walk(std::io::Cursor::new(model), size).is_err(), "{what}");
    }
}

/// A repository with a model of one version.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(contents: &[u8]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(folder.path("m/1")).unwrap();
        fs::write(folder.path("m/1/model.onnx"), contents).unwrap();
        fs::write(folder.path("m/1/weights"), [7; 16]).unwrap();
        folder
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// Writes the sums of these files.
    fn list(&self, paths: &[&str]) {
        let line = |path: &&str| {
            let contents = fs::read(self.path("m").join(path)).unwrap();
            format!("{}  {path}\n", hex(&Sha256::digest(contents)))
        };
        fs::write(self.path("m/SHA256SUMS"), paths.iter().map(line).collect::<String>()).unwrap();
    }

    fn verify(&self, manifests: Manifests) -> Result<ModelSource, String> {
        let key = ModelKey { name: ModelName::new("m").unwrap(), version: ModelVersion::FIRST };
        let source = ModelSource { key, path: self.path("m/1/model.onnx"), sha256: None };
        verify(&source, &Config::resolve(|_| None).unwrap().model, manifests)
    }
}

#[test]
fn files_lie_in_the_models_folder() {
    let outside = tempfile::NamedTempFile::new().unwrap();
    let outside = outside.path();
    let absolute = outside.to_str().unwrap();
    let prepare = |folder: &Folder| {
        symlink(outside, folder.path("m/1/out")).unwrap();
        fs::create_dir_all(folder.path("m/1/..data")).unwrap();
        fs::write(folder.path("m/1/..data/real"), [7; 16]).unwrap();
        symlink("..data/real", folder.path("m/1/in")).unwrap();
        fs::create_dir_all(folder.path("m-secret")).unwrap();
        fs::write(folder.path("m-secret/weights"), [7; 16]).unwrap();
        symlink("../../m-secret/weights", folder.path("m/1/sibling")).unwrap();
        fs::create_dir(folder.path("m/1/folder")).unwrap();
        let pipe = folder.path("m/1/pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
    };
    let cases: [(&str, &[_], Result<(), &str>); 17] = [
        ("weights", &[], Ok(())),
        ("./weights", &[("offset", "8"), ("length", "8")], Ok(())),
        // As Kubernetes mounts files.
        ("in", &[], Ok(())),
        ("weights", &[("offset", "8"), ("length", "9")], Err("has 16 bytes, and the tensor 9")),
        ("weights", &[("offset", "18446744073709551615"), ("length", "1")], Err("has 16 bytes")),
        ("absent", &[], Err("No such file")),
        ("../1/weights", &[], Err("expected a path inside")),
        ("a/../../../x", &[], Err("expected a path inside")),
        ("..\\x", &[], Err("expected a path inside")),
        ("weights\0", &[], Err("expected a path inside")),
        (absolute, &[], Err("expected a path inside")),
        ("out", &[], Err("leads out of the folder")),
        ("sibling", &[], Err("leads out of the folder")),
        ("folder", &[], Err("no regular file")),
        ("pipe", &[], Err("no regular file")),
        ("*/_ORT_MEM_ADDR_/*", &[], Err("an address in memory")),
        ("*/_ORT_NATIVE_ENDIAN_MEM_ADDR_/*", &[], Err("an address in memory")),
    ];
    for (location, more, wanted) in cases {
        let folder = Folder::new(&model(&tensor(location, more)));
        prepare(&folder);
        let found = folder.verify(Manifests::Optional);
        match wanted {
            Ok(()) => assert!(found.is_ok(), "{location}: {found:?}"),
            Err(wanted) => {
                let told = found.unwrap_err();
                assert!(told.contains(wanted) && told.contains("\"w\""), "{location}: {told}");
                let home = folder.0.path().to_str().unwrap();
                assert!(!told.contains(home), "{told}");
            }
        }
    }
}

#[test]
fn every_file_is_the_listed_one() {
    let inner = Folder::new(&model(&field(8, b"w")));
    assert!(inner.verify(Manifests::Optional).unwrap().sha256.is_none());
    assert!(inner.verify(Manifests::Required).unwrap_err().contains("SHA256SUMS: is not there"));
    inner.list(&["1/model.onnx"]);
    let source = inner.verify(Manifests::Required).unwrap();
    assert!(source.pinned().unwrap().is_some());
    // Changed after it was checked: what is loaded is what is compared.
    fs::write(&source.path, "other").unwrap();
    assert!(source.pinned().unwrap_err().contains("SHA256SUMS says"));

    let outer = Folder::new(&model(&tensor("weights", &[])));
    outer.list(&["1/model.onnx"]);
    assert_eq!(
        outer.verify(Manifests::Required).unwrap_err(),
        "1/weights is not listed in SHA256SUMS"
    );
    outer.list(&["1/model.onnx", "1/weights"]);
    outer.verify(Manifests::Required).unwrap();
    fs::write(outer.path("m/1/weights"), [8; 16]).unwrap();
    let told = outer.verify(Manifests::Optional).unwrap_err();
    assert!(told.starts_with("1/weights has the SHA-256 "), "{told}");
    outer.list(&["1/model.onnx", "1/weights"]);
    fs::write(outer.path("m/model.toml"), "").unwrap();
    assert_eq!(
        outer.verify(Manifests::Required).unwrap_err(),
        "model.toml is not listed in SHA256SUMS"
    );
    fs::write(outer.path("m/SHA256SUMS"), "nothing").unwrap();
    assert!(outer.verify(Manifests::Optional).unwrap_err().starts_with("SHA256SUMS: line 1: "));
    assert!(Path::new(&outer.path("m/1/weights")).exists());
}
