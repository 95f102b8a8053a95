// Tensors in requests and answers: their elements travel raw, in little-endian order, which is how
// typed arrays lie in memory wherever a browser runs.

import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ModelInferRequestSchema, ModelInferResponse } from "./gen/inference_pb";

export type Request = MessageInitShape<typeof ModelInferRequestSchema>;

export interface Tensor {
  name: string;
  datatype: string;
  shape: number[];
  elements: ArrayBufferView;
}

/** A request to the newest version of a model. */
export function request(modelName: string, ...tensors: Tensor[]): Request {
  return {
    modelName,
    inputs: tensors.map(({ name, datatype, shape }) => ({ name, datatype, shape: shape.map(BigInt) })),
    rawInputContents: tensors.map(({ elements: { buffer, byteOffset, byteLength } }) =>
      new Uint8Array(buffer, byteOffset, byteLength)),
  };
}

/** The elements of an FP32 output. */
export function floats(answer: ModelInferResponse, name: string): Float32Array {
  const raw = answer.rawOutputContents[answer.outputs.findIndex((output) => output.name === name)];
  if (raw === undefined) {
    throw new Error(`the answer has no output \`${name}\``);
  }
  // A copy, because the bytes may lie anywhere in the message and floats must be aligned.
  return new Float32Array(new Uint8Array(raw).buffer);
}
