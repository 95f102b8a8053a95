//! Example client of onnxd. `examples/clients/README.md` says what it does and prints.

mod magika;
mod pb;
mod silero;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::pb::grpc_inference_service_client::GrpcInferenceServiceClient;

type Client = GrpcInferenceServiceClient<Channel>;
type Error = Box<dyn std::error::Error>;

/// Example client of onnxd
#[derive(Parser)]
struct Arguments {
    /// Address of the server's gRPC port
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8001", global = true)]
    addr: String,
    /// Folder of the models, for their labels
    #[arg(long, value_name = "FOLDER", default_value = "models", global = true)]
    models: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Ask magika for the type of a file
    Classify { file: PathBuf },
    /// Stream a WAV file (16 kHz, mono, 16 bits) through silero-vad
    Speech { file: PathBuf },
    /// Open a stream with a deadline and let it pass
    Deadline,
    /// Open a stream and cancel it
    Cancel,
    /// Send a request that the server refuses
    Error,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Err(error) = run(Arguments::parse()).await else { return ExitCode::SUCCESS };
    match error.downcast_ref::<Status>() {
        Some(status) => eprintln!("{}: {}", code_name(status.code()), status.message()),
        None => eprintln!("{error}"),
    }
    ExitCode::FAILURE
}

async fn run(arguments: Arguments) -> Result<(), Error> {
    // Connects with the first call, so that a server that is away is that call's UNAVAILABLE.
    let channel = Endpoint::from_shared(format!("http://{}", arguments.addr))?.connect_lazy();
    let client = &mut Client::new(channel);
    match arguments.command {
        Command::Classify { file } => magika::classify(client, &arguments.models, &file).await,
        Command::Speech { file } => silero::speech(client, &file).await,
        Command::Deadline => silero::deadline(client).await,
        Command::Cancel => silero::cancel(client).await,
        Command::Error => magika::error(client).await,
    }
}

/// Ends a call with `DEADLINE_EXCEEDED` at its deadline.
///
/// `Request::set_timeout` tells the server. On this side tonic looks at it only until the answer
/// begins, and then says CANCELLED; this timer comes first.
async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    tokio::select! {
        biased;
        () = tokio::time::sleep(limit) => Err(Status::deadline_exceeded("the time is over")),
        ended = call => ended,
    }
}

/// The name that the gRPC specification has for a code.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
