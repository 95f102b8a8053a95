//! The stubs that `build.rs` makes, and what a client wants to do with requests and answers.

use tonic::Status;

pub use self::generated::*;
use self::model_infer_request::InferInputTensor;

mod generated {
    #![allow(clippy::all, clippy::pedantic, reason = "generated from proto/")]

    tonic::include_proto!("inference");
}

impl ModelInferRequest {
    /// A request to the newest version of `model`, without inputs.
    pub fn to(model: &str) -> Self {
        Self { model_name: model.to_owned(), ..Self::default() }
    }

    /// Adds an input in raw form: `elements` are little-endian, without padding.
    pub fn input(mut self, name: &str, datatype: &str, shape: &[i64], elements: Vec<u8>) -> Self {
        self.inputs.push(InferInputTensor {
            name: name.to_owned(),
            datatype: datatype.to_owned(),
            shape: shape.to_vec(),
            ..InferInputTensor::default()
        });
        self.raw_input_contents.push(elements);
        self
    }
}

impl ModelInferResponse {
    /// The elements of an output in raw form, as they came.
    pub fn output(&self, name: &str) -> Result<&[u8], Status> {
        let mut outputs = self.outputs.iter().zip(&self.raw_output_contents);
        let found = outputs.find(|(tensor, _)| tensor.name == name);
        let (_, elements) =
            found.ok_or_else(|| Status::internal(format!("the answer has no output `{name}`")))?;
        Ok(elements)
    }

    /// The elements of an FP32 output.
    pub fn floats(&self, name: &str) -> Result<Vec<f32>, Status> {
        let (elements, _) = self.output(name)?.as_chunks();
        Ok(elements.iter().copied().map(f32::from_le_bytes).collect())
    }
}
