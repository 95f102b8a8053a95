// What all calls share: the client's type and how failures are put into words.

import { Code, ConnectError, type Client as ServiceClient } from "@connectrpc/connect";
import type { GRPCInferenceService } from "./gen/inference_pb.js";

export type Client = ServiceClient<typeof GRPCInferenceService>;

/** The name of a code as gRPC spells it: Connect says `InvalidArgument`, and `Canceled` with one l. */
export function codeName(code: Code): string {
  return code === Code.Canceled
    ? "CANCELLED"
    : Code[code].replace(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase();
}

/** Code and message of a failed call, or the text of another error. */
export function explain(error: unknown): string {
  return error instanceof ConnectError
    ? `${codeName(error.code)}: ${error.rawMessage}`
    : error instanceof Error ? error.message : String(error);
}
