// Speech in a recording. A browser can not stream requests, so each step is a call of its own;
// the state that goes with it is the same.

import type { CallOptions, Client } from "@connectrpc/connect";
import type { GRPCInferenceService } from "./gen/inference_pb";
import { floats, request } from "./tensor";
import { RATE } from "./wav";

export const STEP = 512; // new samples of a step: 32 ms
const CONTEXT = 64; // samples that a step repeats from the one before

const rate = BigInt64Array.of(BigInt(RATE));

/** One recording, with what each step needs from the one before. */
export class Steps {
  private context: Float32Array = new Float32Array(CONTEXT);
  private state: Float32Array = new Float32Array(2 * 128);

  constructor(private readonly client: Client<typeof GRPCInferenceService>) {}

  /** Sends up to 512 samples, zeros after them, and waits for their probability of speech. */
  async step(samples: Float32Array, options: CallOptions): Promise<number> {
    const input = new Float32Array(CONTEXT + STEP);
    input.set(this.context);
    input.set(samples, CONTEXT);

    const answer = await this.client.modelInfer(request(
      "silero-vad",
      { name: "input", datatype: "FP32", shape: [1, CONTEXT + STEP], elements: input },
      { name: "state", datatype: "FP32", shape: [2, 1, 128], elements: this.state },
      { name: "sr", datatype: "INT64", shape: [], elements: rate },
    ), options);

    this.context = input.slice(STEP);
    this.state = floats(answer, "stateN");
    return floats(answer, "output")[0] ?? NaN;
  }
}
