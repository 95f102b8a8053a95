// Single calls of ModelInfer: the type of a file, and a request that the server refuses.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Code, ConnectError } from "@connectrpc/connect";
import { type Client, explain } from "./call.js";
import { floats, request } from "./tensor.js";

const BLOCK = 4096; // bytes that are looked at, at each end of a file
const SIDE = 1024; // values of the row that come from each end
const PADDING = 256; // stands for no byte

const inTime = { timeoutMs: 5000 };

export async function classify(client: Client, models: string, file: string) {
  const labels = (await readFile(join(models, "magika", "labels.txt"), "utf8")).trim().split("\n");
  const elements = row(await readFile(file));
  const tensor = { name: "bytes", datatype: "INT32", shape: [1, 2 * SIDE], elements };
  const answer = await client.modelInfer(request("magika", tensor), inTime);

  const scores = floats(answer, "target_label");
  if (scores.length !== labels.length) {
    throw new Error("labels.txt belongs to another version of the model");
  }
  const best = scores.indexOf(Math.max(...scores)); // the first one of equals
  console.log(`classify: ${labels[best]} ${scores[best]?.toFixed(4)}`);
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

/** The shape should be [1, 2048]. */
export async function sendMistake(client: Client) {
  const elements = Int32Array.of(1, 2, 3);
  const tensor = { name: "bytes", datatype: "INT32", shape: [1, 3], elements };
  try {
    await client.modelInfer(request("magika", tensor), inTime);
  } catch (error) {
    if (error instanceof ConnectError && error.code === Code.InvalidArgument) {
      console.log(`error: ${explain(error)}`);
      return;
    }
    throw error;
  }
  throw new Error("the server took a row of three values");
}
