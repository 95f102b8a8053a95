// WAV files of the only kind that silero-vad hears here: 16 kHz, mono, 16 bits.

export const RATE = 16000;

/** The samples of a WAV file, from -1 to 1. */
export function readWav(file: Uint8Array): Float32Array {
  const chunks = new Map(readChunks(file));
  const format = chunks.get("fmt ");
  const data = chunks.get("data");
  if (!format || !data) {
    throw new Error("not a WAV file");
  }
  const [encoding, channels, bits] = [0, 2, 14].map((at) => format.getUint16(at, true));
  if (encoding !== 1 || channels !== 1 || bits !== 16 || format.getUint32(4, true) !== RATE) {
    throw new Error("the WAV file is not 16 kHz, mono, 16 bits");
  }
  const length = data.byteLength >> 1;
  return Float32Array.from({ length }, (_, i) => data.getInt16(2 * i, true) / 32768);
}

export function isWav({ buffer, byteOffset, length }: Uint8Array): boolean {
  const file = new DataView(buffer, byteOffset, length);
  return length >= 12 && nameAt(file, 0) === "RIFF" && nameAt(file, 8) === "WAVE";
}

/** The named parts of a RIFF file; one of odd length has a byte more behind it. */
function* readChunks(bytes: Uint8Array): Generator<[string, DataView]> {
  if (!isWav(bytes)) {
    return;
  }
  const { buffer, byteOffset, length } = bytes;
  const file = new DataView(buffer, byteOffset, length);
  for (let at = 12; at + 8 <= length; ) {
    const size = file.getUint32(at + 4, true);
    const start = at + 8;
    if (size > length - start) {
      throw new Error("the WAV file is cut off");
    }
    yield [nameAt(file, at), new DataView(buffer, byteOffset + start, size)];
    at = start + size + (size % 2);
  }
}

function nameAt(file: DataView, at: number): string {
  return String.fromCharCode(...[0, 1, 2, 3].map((i) => file.getUint8(at + i)));
}
