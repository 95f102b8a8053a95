// Calls an onnxd server in five ways; examples/clients/README.md says what each of them prints.

import { parseArgs } from "node:util";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { explain } from "./call.js";
import { GRPCInferenceService } from "./gen/inference_pb.js";
import { classify, sendMistake } from "./magika.js";
import { cancel, passDeadline, speech } from "./silero.js";

const usage = `usage: client [--addr HOST:PORT] [--models FOLDER] COMMAND

  classify FILE   tell the type of a file
  speech FILE     tell where a WAV file has speech
  deadline        let the deadline of a stream pass
  cancel          cancel a stream
  error           send a request that the server refuses
`;

function readArguments() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      addr: { type: "string", default: "127.0.0.1:8001" },
      models: { type: "string", default: "models" },
    },
  });
  return { ...values, command: positionals };
}

/** The call that the arguments ask for, if they make sense. */
function chooseCall(): (() => Promise<void>) | undefined {
  const { addr, models, command: [name, file, ...rest] } = readArguments();
  if (rest.length > 0) {
    return undefined;
  }
  const transport = createGrpcTransport({ baseUrl: `http://${addr}` });
  const client = createClient(GRPCInferenceService, transport);
  if (file !== undefined) {
    switch (name) {
      case "classify": return () => classify(client, models, file);
      case "speech": return () => speech(client, file);
      default: return undefined;
    }
  }
  switch (name) {
    case "deadline": return () => passDeadline(client);
    case "cancel": return () => cancel(client);
    case "error": return () => sendMistake(client);
    default: return undefined;
  }
}

function fail(text: string, exitCode: number): never {
  console.error(text);
  process.exit(exitCode);
}

let call: ReturnType<typeof chooseCall>;
try {
  call = chooseCall();
} catch (error) {
  fail(`${explain(error)}\n\n${usage}`, 2);
}
if (!call) {
  fail(usage, 2);
}
try {
  await call();
} catch (error) {
  fail(explain(error), 1);
}
