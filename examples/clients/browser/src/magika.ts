// The type of a file, in one call of ModelInfer.

import type { CallOptions, Client } from "@connectrpc/connect";
import labelsText from "../../../../models/magika/labels.txt";
import type { GRPCInferenceService } from "./gen/inference_pb";
import { floats, request } from "./tensor";

const BLOCK = 4096; // bytes that are looked at, at each end of a file
const SIDE = 1024; // values of the row that come from each end
const PADDING = 256; // stands for no byte
const BATCH = 64; // rows

const labels = labelsText.trim().split("\n");

export interface Score {
  label: string;
  score: number;
}

/** All types with their scores, the likeliest first. */
export async function classify(
  client: Client<typeof GRPCInferenceService>,
  file: Uint8Array,
  signal?: AbortSignal,
): Promise<Score[]> {
  const tensor = { name: "bytes", datatype: "INT32", shape: [1, 2 * SIDE], elements: row(file) };
  const answer = await client.modelInfer(request("magika", tensor), { signal, timeoutMs: 5000 });

  const scores = floats(answer, "target_label");
  if (scores.length !== labels.length) {
    throw new Error("the page was built for another version of magika");
  }
  // Sorting keeps equals in their order.
  return labels
    .map((label, i) => ({ label, score: scores[i] ?? 0 }))
    .sort((a, b) => b.score - a.score);
}

/** The start of a file without its leading white space, the end without its trailing one. */
function row(file: Uint8Array): Int32Array {
  const first = file.subarray(0, BLOCK);
  const start = first.findIndex(isNoSpace);
  const head = start < 0 ? [] : first.subarray(start, start + SIDE);

  const last = file.subarray(-BLOCK);
  const end = last.findLastIndex(isNoSpace) + 1;
  const tail = last.subarray(Math.max(0, end - SIDE), end);

  const row = new Int32Array(2 * SIDE).fill(PADDING);
  row.set(head);
  row.set(tail, row.length - tail.length);
  return row;
}

function isNoSpace(byte: number): boolean {
  return byte !== 0x20 && (byte < 0x09 || byte > 0x0d);
}

/** Sends the largest batch that a server takes unless told otherwise: rows of nothing. */
export async function classifyPadding(
  client: Client<typeof GRPCInferenceService>,
  options: CallOptions,
) {
  const elements = new Int32Array(BATCH * 2 * SIDE).fill(PADDING);
  const tensor = { name: "bytes", datatype: "INT32", shape: [BATCH, 2 * SIDE], elements };
  await client.modelInfer(request("magika", tensor), options);
}

/** The shape should be [1, 2048]; the server refuses it. */
export async function sendMistake(client: Client<typeof GRPCInferenceService>) {
  const elements = Int32Array.of(1, 2, 3);
  const tensor = { name: "bytes", datatype: "INT32", shape: [1, 3], elements };
  await client.modelInfer(request("magika", tensor), { timeoutMs: 5000 });
}
