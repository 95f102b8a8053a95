//! Weights in files of their own, and lists of sums, with the real runtime behind.

use std::fs;
use std::path::Path;

use onnxd::runtime::digest::sha256;
use prost::encoding::{WireType, encode_key, encode_varint};

use crate::harness::{RealServer, floats, output, request};

/// A field with a message, a text or packed numbers in it.
fn field(number: u32, contents: impl AsRef<[u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_key(number, WireType::LengthDelimited, &mut bytes);
    encode_varint(contents.as_ref().len() as u64, &mut bytes);
    bytes.extend(contents.as_ref());
    bytes
}

fn number(number: u32, value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_key(number, WireType::Varint, &mut bytes);
    encode_varint(value, &mut bytes);
    bytes
}

/// `y = x + w`, where `w` is one float at `location`. Source of the numbers: onnx.proto3.
fn model(location: &str) -> Vec<u8> {
    const FLOAT: u64 = 1;
    let tensor_of = |name: &str| {
        let rows = field(1, field(2, "batch"));
        let shape = field(2, [rows, field(1, number(1, 1))].concat());
        let tensor = [number(1, FLOAT), shape].concat();
        [field(1, name), field(2, field(1, tensor))].concat()
    };
    let entry = |key: &str, value: &str| field(13, [field(1, key), field(2, value)].concat());
    let weight = [
        number(1, 1),
        number(2, FLOAT),
        field(8, "w"),
        entry("location", location),
        entry("offset", "0"),
        entry("length", "4"),
        number(14, 1),
    ];
    let node = [field(1, "x"), field(1, "w"), field(2, "y"), field(4, "Add")].concat();
    let graph = [
        field(1, node),
        field(2, "g"),
        field(5, weight.concat()),
        field(11, tensor_of("x")),
        field(12, tensor_of("y")),
    ];
    let opset = field(8, number(2, 17));
    [number(1, 8), opset, field(7, graph.concat())].concat()
}

fn lay_out(root: &Path, name: &str, location: &str, weight: f32) {
    let folder = root.join(name).join("1");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("model.onnx"), model(location)).unwrap();
    fs::write(folder.join("weights"), weight.to_le_bytes()).unwrap();
}

fn list(root: &Path, name: &str, paths: &[&str]) {
    let folder = root.join(name);
    let line = |path: &&str| format!("{}  {path}\n", sha256(&folder.join(path)).unwrap());
    fs::write(folder.join("SHA256SUMS"), paths.iter().map(line).collect::<String>()).unwrap();
}

async fn answer(server: &RealServer, model: &str) -> Vec<f32> {
    let message = request(model, vec![("x", "FP32", &[1, 1], floats(&[3.0]))]);
    output(&server.infer(message).await, 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_beside_the_model_are_read_and_no_others() {
    let root = tempfile::tempdir().unwrap();
    let secret = root.path().join("secret");
    fs::write(&secret, 7.0_f32.to_le_bytes()).unwrap();
    lay_out(root.path(), "good", "weights", 2.0);
    lay_out(root.path(), "up", "../../secret", 2.0);
    lay_out(root.path(), "absolute", secret.to_str().unwrap(), 2.0);
    lay_out(root.path(), "link", "linked", 2.0);
    std::os::unix::fs::symlink(&secret, root.path().join("link/1/linked")).unwrap();
    lay_out(root.path(), "short", "weights", 2.0);
    fs::write(root.path().join("short/1/weights"), [0; 3]).unwrap();
    lay_out(root.path(), "memory", "*/_ORT_MEM_ADDR_/*", 2.0);
    let server = RealServer::start(root.path(), &[]).await;
    assert_eq!(answer(&server, "good").await, [5.0]);
    for (name, wanted) in [
        ("up", "a path inside the folder of the model's file"),
        ("absolute", "a path inside the folder of the model's file"),
        ("link", "leads out of the folder"),
        ("short", "has 3 bytes, and the tensor 4 from byte 0 on"),
        ("memory", "an address in memory"),
    ] {
        let told = server.failure(name);
        assert!(told.contains(wanted) && told.contains("\"w\""), "{name}: {told}");
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_served_only_if_its_files_are_the_listed_ones() {
    let root = tempfile::tempdir().unwrap();
    for name in ["listed", "unlisted", "swapped", "partly", "other"] {
        lay_out(root.path(), name, "weights", 2.0);
        list(root.path(), name, &["1/model.onnx", "1/weights"]);
    }
    fs::remove_file(root.path().join("unlisted/SHA256SUMS")).unwrap();
    fs::write(root.path().join("swapped/1/weights"), 9.0_f32.to_le_bytes()).unwrap();
    list(root.path(), "partly", &["1/weights"]);
    fs::write(root.path().join("other/1/model.onnx"), model("./weights")).unwrap();
    // One whose weights are in its own file.
    let inner = crate::harness::generated().join("add_i64/1/model.onnx");
    fs::create_dir_all(root.path().join("add_i64/1")).unwrap();
    fs::copy(inner, root.path().join("add_i64/1/model.onnx")).unwrap();
    list(root.path(), "add_i64", &["1/model.onnx"]);
    let server = RealServer::start(root.path(), &[("manifests", "required")]).await;
    assert_eq!(answer(&server, "listed").await, [5.0]);
    server.served("add_i64");
    for (name, wanted) in [
        ("unlisted", "SHA256SUMS: is not there, and manifests = required"),
        ("swapped", "1/weights has the SHA-256 "),
        ("partly", "1/model.onnx is not listed in SHA256SUMS"),
        ("other", "1/model.onnx has the SHA-256 "),
    ] {
        let told = server.failure(name);
        assert!(told.starts_with(wanted), "{name}: {told}");
    }
    server.finish().await;
}
