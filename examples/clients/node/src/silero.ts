// Streams of ModelStreamInfer: speech in a recording, a deadline, a cancellation.

import { type CallOptions, ConnectError } from "@connectrpc/connect";
import { createWritableIterable } from "@connectrpc/connect/protocol";
import { type Client, codeName } from "./call.js";
import type { ModelStreamInferResponse } from "./gen/inference_pb.js";
import { floats, type Request, request } from "./tensor.js";
import { RATE, readWav } from "./wav.js";

const STEP = 512; // new samples of a step: 32 ms
const CONTEXT = 64; // samples that a step repeats from the one before

const silence = new Float32Array(STEP);
const rate = BigInt64Array.of(BigInt(RATE));

/** A stream, with what each step needs from the one before. */
class Steps {
  private readonly requests = createWritableIterable<Request>();
  private readonly answers: AsyncIterator<ModelStreamInferResponse>;
  private context: Float32Array = new Float32Array(CONTEXT);
  private state: Float32Array = new Float32Array(2 * 128);

  constructor(client: Client, options?: CallOptions) {
    this.answers = client.modelStreamInfer(this.requests, options)[Symbol.asyncIterator]();
  }

  /** Sends up to 512 samples, zeros after them, and waits for their probability of speech. */
  async step(samples: Float32Array): Promise<number> {
    const input = new Float32Array(CONTEXT + STEP);
    input.set(this.context);
    input.set(samples, CONTEXT);
    this.context = input.slice(STEP);

    // Writing fails only when the call is over; then the answer tells why.
    this.requests.write(request(
      "silero-vad",
      { name: "input", datatype: "FP32", shape: [1, CONTEXT + STEP], elements: input },
      { name: "state", datatype: "FP32", shape: [2, 1, 128], elements: this.state },
      { name: "sr", datatype: "INT64", shape: [], elements: rate },
    )).catch(() => {});

    const { value: answer } = await this.answers.next();
    if (!answer?.inferResponse) {
      throw new Error(answer?.errorMessage || "the stream ended early");
    }
    this.state = floats(answer.inferResponse, "stateN");
    return floats(answer.inferResponse, "output")[0] ?? NaN;
  }

  /** Tells the server that no more steps come, and waits for the end. */
  async close() {
    this.requests.close();
    await this.end();
  }

  /** Waits for the end, which throws unless it is OK. */
  async end() {
    const { done } = await this.answers.next();
    if (!done) {
      throw new Error("one answer too many");
    }
  }
}

export async function speech(client: Client, file: string) {
  const samples = await readWav(file);
  const steps = new Steps(client);
  const probabilities: number[] = [];
  for (let at = 0; at < samples.length; at += STEP) {
    probabilities.push(await steps.step(samples.subarray(at, at + STEP)));
  }
  await steps.close();

  const voiced = probabilities.filter((probability) => probability >= 0.5);
  console.log(`speech: ${probabilities.length} steps, ${voiced.length} with speech`);
  const shown = probabilities.map((probability) => probability.toFixed(3));
  for (let at = 0; at < shown.length; at += 10) {
    console.log(shown.slice(at, at + 10).join(" "));
  }
}

/** One step, and then nothing until the time is over. */
export async function passDeadline(client: Client) {
  const steps = new Steps(client, { timeoutMs: 300 });
  await steps.step(silence);
  console.log(`deadline: ${await endOf(steps)} after 1 answer`);
}

/** Three steps, and then this side hangs up. */
export async function cancel(client: Client) {
  const hangUp = new AbortController();
  const steps = new Steps(client, { signal: hangUp.signal });
  for (let count = 0; count < 3; count++) {
    await steps.step(silence);
  }
  hangUp.abort();
  console.log(`cancel: ${await endOf(steps)} after 3 answers`);
}

/** The name of the code with which a call ends. */
async function endOf(steps: Steps): Promise<string> {
  try {
    await steps.end();
    return "OK";
  } catch (error) {
    return codeName(ConnectError.from(error).code);
  }
}
