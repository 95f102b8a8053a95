// WAV files of the only kind that silero-vad hears here: 16 kHz, mono, 16 bits.

import { readFile } from "node:fs/promises";

export const RATE = 16000;

/** The samples of a WAV file, from -1 to 1. */
export async function readWav(file: string): Promise<Float32Array> {
  const chunks = new Map(readChunks(await readFile(file)));
  const format = chunks.get("fmt ");
  const data = chunks.get("data");
  if (!format || !data) {
    throw new Error(`${file}: not a WAV file`);
  }
  const [encoding, channels, bits] = [0, 2, 14].map((at) => format.readUInt16LE(at));
  if (encoding !== 1 || channels !== 1 || bits !== 16 || format.readUInt32LE(4) !== RATE) {
    throw new Error(`${file}: not 16 kHz, mono, 16 bits`);
  }
  return Float32Array.from({ length: data.length >> 1 }, (_, i) => data.readInt16LE(2 * i) / 32768);
}

/** The named parts of a RIFF file; one of odd length has a byte more behind it. */
function* readChunks(file: Buffer): Generator<[string, Buffer]> {
  if (file.toString("latin1", 0, 4) !== "RIFF" || file.toString("latin1", 8, 12) !== "WAVE") {
    return;
  }
  for (let at = 12; at + 8 <= file.length; ) {
    const size = file.readUInt32LE(at + 4);
    if (at + 8 + size > file.length) {
      throw new Error("the file is cut off");
    }
    yield [file.toString("latin1", at, at + 4), file.subarray(at + 8, at + 8 + size)];
    at += 8 + size + (size % 2);
  }
}
