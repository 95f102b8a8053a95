//! Streams of `ModelStreamInfer`: speech in a recording, a deadline, a cancellation.

use std::path::Path;
use std::time::Duration;

use hound::{SampleFormat, WavReader, WavSpec};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};

use crate::pb::{ModelInferRequest, ModelStreamInferResponse};
use crate::{Client, Error, code_name, within};

/// New samples in a step: 32 ms.
const STEP: usize = 512;
/// Samples that a step repeats from the one before.
const CONTEXT: usize = 64;
const RATE: u32 = 16_000;
const SILENCE: [f32; STEP] = [0.0; STEP];

/// A stream, with what each step needs from the one before.
struct Steps {
    requests: mpsc::Sender<ModelInferRequest>,
    answers: Streaming<ModelStreamInferResponse>,
    context: Vec<f32>,
    state: Vec<u8>,
}

impl Steps {
    async fn open(client: &mut Client, limit: Option<Duration>) -> Result<Self, Status> {
        let (requests, outgoing) = mpsc::channel(1);
        let mut call = Request::new(ReceiverStream::new(outgoing));
        if let Some(limit) = limit {
            call.set_timeout(limit);
        }
        let answers = client.model_stream_infer(call).await?.into_inner();
        let state = vec![0; size_of::<[f32; 2 * 128]>()];
        Ok(Self { requests, answers, context: vec![0.0; CONTEXT], state })
    }

    /// Sends up to 512 samples, zeros after them, and waits for their probability of speech.
    async fn step(&mut self, samples: &[f32]) -> Result<f32, Status> {
        let mut input = self.context.clone();
        input.extend(samples);
        input.resize(CONTEXT + STEP, 0.0);
        self.context = input[STEP..].to_vec();

        let input = input.into_iter().flat_map(f32::to_le_bytes).collect();
        let rate = i64::from(RATE).to_le_bytes().to_vec();
        let request = ModelInferRequest::to("silero-vad")
            .input("input", "FP32", &[1, 576], input)
            .input("state", "FP32", &[2, 1, 128], self.state.clone())
            .input("sr", "INT64", &[], rate);
        // Fails only when the call is over; then the answer is its status.
        let _ = self.requests.send(request).await;

        let answer = self.answers.message().await?;
        let answer = answer.ok_or_else(|| Status::internal("the stream ended early"))?;
        if !answer.error_message.is_empty() {
            return Err(Status::unknown(answer.error_message));
        }
        let answer = answer.infer_response.unwrap_or_default();
        self.state = answer.output("stateN")?.to_vec();
        let probability = answer.floats("output")?.first().copied();
        probability.ok_or_else(|| Status::internal("`output` is empty"))
    }

    /// Tells the server that no more steps come, and waits for its status.
    async fn close(mut self) -> Result<(), Status> {
        drop(self.requests);
        while self.answers.message().await?.is_some() {}
        Ok(())
    }
}

pub async fn speech(client: &mut Client, file: &Path) -> Result<(), Error> {
    let samples = read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut steps = Steps::open(client, None).await?;
    let mut probabilities = Vec::new();
    for samples in samples.chunks(STEP) {
        probabilities.push(steps.step(samples).await?);
    }
    steps.close().await?;

    let speech = probabilities.iter().filter(|probability| **probability >= 0.5).count();
    println!("speech: {} steps, {speech} with speech", probabilities.len());
    for line in probabilities.chunks(10) {
        let line: Vec<_> = line.iter().map(|probability| format!("{probability:.3}")).collect();
        println!("{}", line.join(" "));
    }
    Ok(())
}

/// The samples of a WAV file, from -1 to 1.
fn read(file: &Path) -> Result<Vec<f32>, Error> {
    const WANTED: WavSpec = WavSpec {
        channels: 1,
        sample_rate: RATE,
        bits_per_sample: 16,
        sample_format: SampleFormat::Int,
    };
    let mut reader = WavReader::open(file)?;
    if reader.spec() != WANTED {
        return Err("not 16 kHz, mono, 16 bits".into());
    }
    let samples = reader.samples::<i16>();
    Ok(samples.map(|sample| Ok(f32::from(sample?) / 32768.0)).collect::<hound::Result<_>>()?)
}

/// One step, and then nothing until the deadline is over.
pub async fn deadline(client: &mut Client) -> Result<(), Error> {
    const LIMIT: Duration = Duration::from_millis(300);
    let mut answers = 0;
    let ended = within(LIMIT, async {
        let mut steps = Steps::open(client, Some(LIMIT)).await?;
        steps.step(&SILENCE).await?;
        answers += 1;
        steps.answers.message().await
    });
    match ended.await {
        Err(status) if answers == 0 => return Err(status.into()),
        Err(status) => println!("deadline: {} after 1 answer", code_name(status.code())),
        Ok(_) => println!("deadline: {} after 1 answer", code_name(Code::Ok)),
    }
    Ok(())
}

/// Three steps, and then the client goes away.
pub async fn cancel(client: &mut Client) -> Result<(), Error> {
    let mut steps = Steps::open(client, None).await?;
    for _ in 0..3 {
        steps.step(&SILENCE).await?;
    }
    // Dropping both halves is how Rust cancels: the stream is reset with CANCEL, and here nobody is
    // left who could be told CANCELLED. While one half lives, the call goes on.
    drop(steps);
    // The connection is a task of its own; it sends the reset before the program ends.
    tokio::task::yield_now().await;
    println!("cancel: {} after 3 answers", code_name(Code::Cancelled));
    Ok(())
}
