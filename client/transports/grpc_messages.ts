/** Between the SDK's types and the messages of the contract. */
import type { ConditionMessage, ObjectInfoMessage } from "../../proto/messages.js";
import { MillraceError } from "../errors.js";
import type { Condition, ObjectInfo } from "../transport.js";

export function objectInfo(message: ObjectInfoMessage): ObjectInfo {
  const { sizeBytes, sequence, crc32c, sealedUnixMs } = message;
  return { sizeBytes, sequence, crc32c, sealedUnixMs };
}

export function conditionMessage(condition: Condition | undefined): ConditionMessage | null {
  if (condition?.ifAbsent !== true && condition?.ifSequence === undefined) return null;
  return { ifAbsent: condition.ifAbsent ?? false, ifSequence: condition.ifSequence ?? 0 };
}

export function protocolError(message: string): MillraceError {
  return new MillraceError("PROTOCOL", `${message}; client and node may be of different versions`);
}
