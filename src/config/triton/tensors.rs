//! Inputs, outputs and made-up requests of a `config.pbtxt`.

use std::collections::BTreeSet;

use super::Reader;
use super::message::Node;
use crate::model::declared::{DeclaredRows, DeclaredTensor, ImageLayout};
use crate::model::quoted;
use crate::model::reshape::Reshape;
use crate::tensor::DataType;

/// Words of the schema for the protocol's datatypes.
const TYPES: [(&str, DataType); 14] = [
    ("TYPE_BOOL", DataType::Bool),
    ("TYPE_UINT8", DataType::UInt8),
    ("TYPE_UINT16", DataType::UInt16),
    ("TYPE_UINT32", DataType::UInt32),
    ("TYPE_UINT64", DataType::UInt64),
    ("TYPE_INT8", DataType::Int8),
    ("TYPE_INT16", DataType::Int16),
    ("TYPE_INT32", DataType::Int32),
    ("TYPE_INT64", DataType::Int64),
    ("TYPE_FP16", DataType::Fp16),
    ("TYPE_FP32", DataType::Fp32),
    ("TYPE_FP64", DataType::Fp64),
    ("TYPE_STRING", DataType::Bytes),
    ("TYPE_BF16", DataType::Bf16),
];

impl Reader {
    /// All tensors of one kind, `input` or `output`.
    pub(super) fn read_tensors(&mut self, file: Node<'_>, kind: &str) -> Vec<DeclaredTensor> {
        let mut names = BTreeSet::new();
        let mut tensors = Vec::new();
        for (index, tensor) in file.children(kind).into_iter().enumerate() {
            let name = tensor.text("name");
            if name.is_empty() {
                self.errors.push(&format!("{kind}[{index}].name"), "is missing".to_owned());
            } else if names.insert(name) {
                let path = format!("{kind} `{}`", quoted(name));
                tensors.push(self.read_tensor(tensor, kind, &path));
            } else {
                let problem = format!("`{}` is listed twice", quoted(name));
                self.errors.push(&format!("{kind}[{index}].name"), problem);
            }
        }
        tensors
    }

    fn read_tensor(&mut self, tensor: Node<'_>, kind: &str, path: &str) -> DeclaredTensor {
        let name = tensor.text("name").to_owned();
        let word = tensor.word("data_type");
        let dtype = TYPES.iter().find(|(known, _)| *known == word).map(|(_, dtype)| *dtype);
        if dtype.is_none() && word != "TYPE_INVALID" {
            self.errors.push(&format!("{path} data_type"), format!("unknown type {word}"));
        }
        let dims = tensor.numbers("dims");
        let dims = (!dims.is_empty()).then_some(dims);
        let reshape = tensor.child("reshape").map(|reshape| reshape.numbers("shape"));
        let sizes = dims.iter().chain(&reshape).flatten();
        if sizes.clone().any(|size| *size != -1 && *size < 1) {
            let all: Vec<&i64> = sizes.collect();
            let problem = format!("expected -1 or sizes of at least 1, got {all:?}");
            self.errors.push(&format!("{path} dims"), problem);
        } else if let Some(reshape) = &reshape {
            let tried = match &dims {
                None => Err("needs dims".to_owned()),
                Some(dims) => Reshape::new(dims.clone(), reshape.clone(), false).map(drop),
            };
            self.errors.check(&format!("{path} reshape"), tried);
        }
        let mut layout = ImageLayout::None;
        if kind == "input" {
            layout = match tensor.word("format").as_str() {
                "FORMAT_NHWC" => ImageLayout::Nhwc,
                "FORMAT_NCHW" => ImageLayout::Nchw,
                _ => ImageLayout::None,
            };
        } else if !tensor.text("label_filename").is_empty() {
            let labels = tensor.text("label_filename").to_owned();
            self.config.label_files.insert(name.clone(), labels);
        }
        DeclaredTensor { name, dtype, dims, reshape, layout }
    }

    /// Shapes for first runs, from the first made-up request.
    pub(super) fn read_warmup(&mut self, file: Node<'_>) {
        let entries = file.children("model_warmup");
        let Some(first) = entries.first() else { return };
        if entries.len() > 1 {
            self.ignore("model_warmup", "but for the shapes of the first entry");
        }
        let leading = self.config.declared.rows == DeclaredRows::Leading;
        for (name, input) in first.entries("inputs") {
            let Some(input) = input.as_message().map(Node) else { continue };
            let inputs = &mut self.config.declared.inputs;
            match inputs.iter().find(|it| it.name == name) {
                // The shape that the model sees is said already.
                Some(known) if known.reshape.is_some() => continue,
                Some(_) => {}
                // So that a name that the model lacks is found.
                None => {
                    inputs.push(DeclaredTensor { name: name.to_owned(), ..Default::default() });
                }
            }
            let dims = input.numbers("dims");
            if dims.iter().any(|size| *size < 1) {
                let path = format!("model_warmup[0].inputs `{}` dims", quoted(name));
                let problem = format!("expected sizes of at least 1, got {dims:?}");
                self.errors.push(&path, problem);
                continue;
            }
            let rows = leading.then_some(1);
            let shape = rows.into_iter().chain(dims).collect();
            self.config.examples.insert(name.to_owned(), shape);
        }
    }
}
