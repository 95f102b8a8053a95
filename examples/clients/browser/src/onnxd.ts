// What the page can ask of a server. The page uses it, and so does check.mjs, as `window.onnxd`.

import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { GRPCInferenceService } from "./gen/inference_pb";
import * as magika from "./magika";
import { STEP, Steps } from "./silero";
import { readWav } from "./wav";

const silence = new Float32Array(STEP);

export function connect(baseUrl: string) {
  const client = createClient(GRPCInferenceService, createGrpcWebTransport({ baseUrl }));
  return {
    explain: (error: unknown) => explain(error, baseUrl),

    classify: (file: Uint8Array, signal?: AbortSignal) => magika.classify(client, file, signal),

    /** Gives the probabilities of all steps; `onStep` hears them as they come. */
    async speech(
      file: Uint8Array,
      signal?: AbortSignal,
      onStep?: (probabilities: number[], total: number) => void,
    ) {
      const samples = readWav(file);
      const steps = new Steps(client);
      const probabilities: number[] = [];
      for (let at = 0; at < samples.length; at += STEP) {
        const part = samples.subarray(at, at + STEP);
        probabilities.push(await steps.step(part, { signal, timeoutMs: 5000 }));
        onStep?.(probabilities, Math.ceil(samples.length / STEP));
      }
      return probabilities;
    },

    /** One step, and then more than a server can do in a millisecond. */
    async deadline() {
      await new Steps(client).step(silence, { timeoutMs: 5000 });
      return codeOf(magika.classifyPadding(client, { timeoutMs: 1 }));
    },

    /** Three steps, and a fourth that is taken back while it is under way. */
    async cancel() {
      const abort = new AbortController();
      const options = { signal: abort.signal, timeoutMs: 5000 };
      const steps = new Steps(client);
      for (let count = 0; count < 3; count++) {
        await steps.step(silence, options);
      }
      const fourth = codeOf(steps.step(silence, options));
      abort.abort();
      return fourth;
    },

    sendMistake: () => magika.sendMistake(client),
  };
}

export type Onnxd = ReturnType<typeof connect>;

/** Why a call failed: its code, as gRPC spells it, and the message; no code for other errors. */
export interface Failure {
  code?: string;
  message: string;
}

function explain(error: unknown, baseUrl: string): Failure {
  // Without an answer a browser says no more than that; to Connect it is UNKNOWN.
  if (error instanceof ConnectError && error.cause instanceof TypeError) {
    const allow = `--cors-allow-origins ${location.origin}`;
    return { code: "UNAVAILABLE", message: `no answer from ${baseUrl}; does it run with ${allow}?` };
  }
  return error instanceof ConnectError
    ? { code: codeName(error.code), message: error.rawMessage }
    : { message: error instanceof Error ? error.message : String(error) };
}

/** Connect says `InvalidArgument`, and `Canceled` with one l. */
function codeName(code: Code): string {
  return code === Code.Canceled
    ? "CANCELLED"
    : Code[code].replace(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase();
}

/** The name of the code with which a call ends. */
async function codeOf(call: Promise<unknown>): Promise<string> {
  try {
    await call;
    return "OK";
  } catch (error) {
    return codeName(ConnectError.from(error).code);
  }
}
