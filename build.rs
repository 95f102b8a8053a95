//! Compiles `proto/` into the build directory: messages and a client, a server with our own
//! codec, the descriptor set for reflection, and the one by which `config.pbtxt` is read. Nothing
//! else.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["inference.proto"], ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("inference_descriptor.bin"), descriptors.encode_to_vec())?;

    // By itself, so that the settings can read it without the messages.
    let model_config = protox::compile(["model_config.proto"], ["proto"])?;
    fs::write(out.join("model_config_descriptor.bin"), model_config.encode_to_vec())?;

    // Raw tensor contents stay slices of the received message.
    tonic_prost_build::configure()
        .bytes(".inference.ModelInferRequest.raw_input_contents")
        .bytes(".inference.ModelInferResponse.raw_output_contents")
        .bytes(".inference.InferTensorContents.bytes_contents")
        .build_server(false)
        .compile_fds(descriptors.clone())?;

    let server = out.join("server");
    fs::create_dir_all(&server)?;
    tonic_prost_build::configure()
        .extern_path(".inference", "crate::pb")
        .codec_path("crate::grpc::wire::BoundedCodec")
        .build_client(false)
        .out_dir(server)
        .compile_fds(descriptors)?;
    Ok(())
}
