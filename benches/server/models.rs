//! Writes the two models of the workloads: multi-layer perceptrons with seeded weights.
//!
//! Only the few fields of the ONNX format that such a graph needs are declared here; numbers and
//! names are those of `onnx.proto`.

use std::path::Path;

use prost::Message;

#[derive(Message)]
struct Model {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<Opset>,
}

#[derive(Message)]
struct Opset {
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    node: Vec<Node>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<Initializer>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfo>,
}

#[derive(Message)]
struct Node {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, tag = "4")]
    op_type: String,
}

#[derive(Message)]
struct Initializer {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
}

#[derive(Message)]
struct ValueInfo {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    r#type: Option<Type>,
}

#[derive(Message)]
struct Type {
    #[prost(message, optional, tag = "1")]
    tensor_type: Option<TensorType>,
}

#[derive(Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    elem_type: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
}

#[derive(Message)]
struct Shape {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<Dim>,
}

#[derive(Message)]
struct Dim {
    #[prost(int64, optional, tag = "1")]
    dim_value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    dim_param: Option<String>,
}

/// `FLOAT` in ONNX.
const FLOAT: i32 = 1;

fn value(name: &str, width: i64) -> ValueInfo {
    let rows = Dim { dim_value: None, dim_param: Some("batch".to_owned()) };
    let columns = Dim { dim_value: Some(width), dim_param: None };
    let shape = Some(Shape { dim: vec![rows, columns] });
    let tensor_type = Some(TensorType { elem_type: FLOAT, shape });
    ValueInfo { name: name.to_owned(), r#type: Some(Type { tensor_type }) }
}

fn weights(name: String, dims: &[i64], state: &mut u64) -> Initializer {
    let count = dims.iter().product::<i64>();
    let mut raw_data = Vec::new();
    for _ in 0..count {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        let unit = f32::from(u16::try_from(*state >> 48).unwrap_or(0)) / f32::from(u16::MAX);
        raw_data.extend(((unit - 0.5) / 8.0).to_le_bytes());
    }
    Initializer { dims: dims.to_vec(), data_type: FLOAT, name, raw_data }
}

/// Writes a perceptron with these layer widths to `<root>/<name>/1/model.onnx`: `x` FP32
/// `[batch, first]` to `y` FP32 `[batch, last]`.
pub(crate) fn write_mlp(root: &Path, name: &str, widths: &[i64]) -> std::io::Result<()> {
    let mut state = 0x9E37_79B9_7F4A_7C15;
    let (mut node, mut initializer) = (Vec::new(), Vec::new());
    let mut before = "x".to_owned();
    for (index, pair) in widths.windows(2).enumerate() {
        let last = index + 2 == widths.len();
        let (weight, bias) = (format!("w{index}"), format!("b{index}"));
        initializer.push(weights(weight.clone(), pair, &mut state));
        initializer.push(weights(bias.clone(), &pair[1..], &mut state));
        let sum = if last { "y".to_owned() } else { format!("s{index}") };
        let input = vec![before.clone(), weight, bias];
        node.push(Node { input, output: vec![sum.clone()], op_type: "Gemm".to_owned() });
        before = format!("r{index}");
        if !last {
            let op_type = "Relu".to_owned();
            node.push(Node { input: vec![sum], output: vec![before.clone()], op_type });
        }
    }
    let (first, last) = (widths[0], widths[widths.len() - 1]);
    let model = Model {
        ir_version: 8,
        opset_import: vec![Opset { version: 17 }],
        graph: Some(Graph {
            node,
            name: name.to_owned(),
            initializer,
            input: vec![value("x", first)],
            output: vec![value("y", last)],
        }),
    };
    let folder = root.join(name).join("1");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("model.onnx"), model.encode_to_vec())
}
