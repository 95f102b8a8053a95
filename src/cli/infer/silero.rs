//! A recording through `silero-vad`, over one streaming call, as a live source would do it.
//!
//! Each message carries 512 new samples behind the last 64 of the message before, and the state
//! that the answer before gave back; so one message is in flight at a time.
//!
//! Source: silero-vad 6.2.3, `OnnxWrapper.__call__`; `models/silero-vad/README.md`.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use hound::{SampleFormat, WavReader, WavSpec};

use super::client::{Client, WireTensor};
use super::segments::{self, RATE, Segment, WINDOW};
use super::{plot, refused};
use crate::cli::Outcome;
use crate::tensor::DataType;

/// Samples before a window that the model sees again.
const CONTEXT: usize = 64;
/// Values of the state of one stream: `[2, 1, 128] f32`.
const STATE: usize = 2 * 128;
/// Length of a window.
const WINDOW_MS: usize = WINDOW * 1000 / RATE;
/// What the recording must be.
const WANTED: WavSpec = WavSpec {
    channels: 1,
    sample_rate: 16_000,
    bits_per_sample: 16,
    sample_format: SampleFormat::Int,
};

/// Reads the samples of a WAV file, from -1 to 1.
pub(super) fn read(path: &Path) -> Result<Vec<f32>, String> {
    let name = path.display();
    let mut reader =
        WavReader::open(path).map_err(|error| format!("{name}: not read as WAV: {error}"))?;
    if reader.spec() != WANTED {
        let (wanted, got) = (describe(&WANTED), describe(&reader.spec()));
        return Err(format!("{name}: expected {wanted}, got {got}"));
    }
    let samples: Result<Vec<f32>, _> =
        reader.samples::<i16>().map(|each| each.map(|value| f32::from(value) / 32768.0)).collect();
    let samples = samples.map_err(|error| format!("{name}: {error}"))?;
    if samples.is_empty() { Err(format!("{name}: has no samples")) } else { Ok(samples) }
}

fn describe(spec: &WavSpec) -> String {
    let channels = match spec.channels {
        1 => "mono".to_owned(),
        2 => "stereo".to_owned(),
        many => format!("{many} channels"),
    };
    let kind = match spec.sample_format {
        SampleFormat::Int => "PCM",
        SampleFormat::Float => "floating point",
    };
    format!("{} Hz {channels} {} bit {kind}", spec.sample_rate, spec.bits_per_sample)
}

/// Streams the recording and tells where somebody speaks.
pub(super) async fn listen(
    client: Client,
    file: &Path,
    samples: &[f32],
) -> Result<String, Outcome> {
    let probabilities = probabilities(client, samples).await?;
    let found = segments::find(&probabilities, samples.len());
    Ok(report(file, samples.len(), &probabilities, &found))
}

/// One probability of speech for each window.
async fn probabilities(client: Client, samples: &[f32]) -> Result<Vec<f32>, Outcome> {
    let mut state: Bytes = vec![0; STATE * size_of::<f32>()].into();
    let mut windows = (0..samples.len()).step_by(WINDOW).map(|start| window(samples, start));
    let Some(first) = windows.next() else { return Ok(Vec::new()) };
    let mut stream = client.stream(message(&first, state)).await?;
    let mut probabilities = Vec::with_capacity(samples.len() / WINDOW + 1);
    loop {
        let outputs = stream.answer().await?;
        let output = |name: &str| {
            let found = outputs.iter().find(|tensor| tensor.name == name);
            found.ok_or_else(|| refused(format!("the answer has no output `{name}`")))
        };
        let probability = output("output")?.to_floats();
        let [probability] = probability[..] else {
            let got = probability.len();
            return Err(refused(format!("expected one probability in `output`, got {got}")));
        };
        probabilities.push(probability);
        state = output("stateN")?.raw.clone();
        let Some(next) = windows.next() else { return Ok(probabilities) };
        stream.send(message(&next, state)).await;
    }
}

/// The window at `start` with the context before it; zeros where there are no samples.
fn window(samples: &[f32], start: usize) -> Vec<f32> {
    let mut values = vec![0.0; CONTEXT + WINDOW];
    let context = start.min(CONTEXT);
    let end = samples.len().min(start + WINDOW);
    let known = &samples[start - context..end];
    values[CONTEXT - context..][..known.len()].copy_from_slice(known);
    values
}

/// Inputs: `input` `[1, 576] f32`, `state` `[2, 1, 128] f32`, `sr` scalar `i64`.
fn message(window: &[f32], state: Bytes) -> Vec<WireTensor> {
    let tensor = |name: &str, dtype, shape: &[i64], raw| WireTensor {
        name: name.to_owned(),
        dtype,
        shape: shape.to_vec(),
        raw,
    };
    let rate = Bytes::copy_from_slice(&i64::from(WANTED.sample_rate).to_le_bytes());
    vec![
        WireTensor::floats("input", &[1, 576], window),
        tensor("state", DataType::Fp32, &[2, 1, 128], state),
        tensor("sr", DataType::Int64, &[], rate),
    ]
}

fn report(file: &Path, samples: usize, probabilities: &[f32], found: &[Segment]) -> String {
    let (name, length, windows) = (file.display(), seconds(samples), probabilities.len());
    let mut lines = vec![format!("{name}: {length:.2} s, {windows} windows of {WINDOW_MS} ms")];
    lines.extend(found.iter().map(|Segment { start, end }| {
        format!("speech  {:.2} – {:.2} s", seconds(*start), seconds(*end))
    }));
    if found.is_empty() {
        lines.push("no speech".to_owned());
    }
    let (blocks, axis) = plot::lines(probabilities, WINDOW_MS);
    lines.extend([String::new(), blocks, axis]);
    lines.join("\n")
}

fn seconds(samples: usize) -> f64 {
    let micros = samples * 1_000_000 / RATE;
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wav(spec: WavSpec, samples: &[i16]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = hound::WavWriter::create(file.path(), spec).unwrap();
        for sample in samples {
            writer.write_sample(*sample).unwrap();
        }
        writer.finalize().unwrap();
        file
    }

    #[test]
    fn samples_are_scaled() {
        let file = wav(WANTED, &[0, 16384, -32768]);
        assert_eq!(read(file.path()).unwrap(), [0.0, 0.5, -1.0]);
    }

    #[test]
    fn another_rate_is_refused_with_both() {
        let file = wav(WavSpec { sample_rate: 44_100, channels: 2, ..WANTED }, &[0, 0]);
        let problem = read(file.path()).unwrap_err();
        let told = "expected 16000 Hz mono 16 bit PCM, got 44100 Hz stereo 16 bit PCM";
        assert!(problem.ends_with(told), "{problem}");
        assert!(read(wav(WANTED, &[]).path()).unwrap_err().ends_with("has no samples"));
        let text = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(text.path(), "this is not a recording").unwrap();
        assert!(read(text.path()).unwrap_err().contains("not read as WAV"));
    }

    #[test]
    fn windows_overlap_by_the_context_and_end_in_zeros() {
        let samples: Vec<f32> = (1_u16..=1100).map(f32::from).collect();
        let at = |start| window(&samples, start);
        assert_eq!((at(0)[..64].to_vec(), at(0)[64], at(0)[575]), (vec![0.0; 64], 1.0, 512.0));
        assert_eq!(
            (at(512)[0], at(512)[63], at(512)[64], at(512)[575]),
            (449.0, 512.0, 513.0, 1024.0)
        );
        assert_eq!((at(1024)[64], at(1024)[64 + 75], at(1024)[64 + 76]), (1025.0, 1100.0, 0.0));
        assert!([0, 512, 1024].iter().all(|start| at(*start).len() == 576));
    }

    #[test]
    fn the_report_names_every_segment() {
        let mut probabilities = vec![0.0; 40];
        probabilities[10..30].fill(1.0);
        let found = segments::find(&probabilities, 40 * WINDOW);
        let report = report(Path::new("x.wav"), 40 * WINDOW, &probabilities, &found);
        let blocks = "▁▁▁▁▁▁▁▁▁▁████████████████████▁▁▁▁▁▁▁▁▁▁";
        let axis = "╵0 s           ╵0.5 s          ╵1 s";
        assert_eq!(
            report,
            format!(
                "x.wav: 1.28 s, 40 windows of 32 ms\nspeech  0.29 – 0.99 s\n\n{blocks}\n{axis}"
            )
        );
    }
}
