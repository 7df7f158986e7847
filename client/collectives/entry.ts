/**
 * The header of every object that collectives put. It says what the object is, so that members that disagree find
 * out, and which round it is of, so that a slot that still holds an older round is told from one that was filled.
 *
 *     0 magic   4 format   5 operation   6 type   7 sharded   8 rank   12 size   16 root   20 slots
 *     24 round (or version)   32 bytes that follow the header   40 to 63 zero          all little-endian
 */
import { MillraceError } from "../errors.js";
import { showKey } from "../names.js";
import type { NumberType } from "./numbers.js";

export const HEADER_BYTES = 64;

export type Operation = "allReduce" | "reduce" | "barrier" | "broadcast" | "slice" | "value";

export interface Header {
  operation: Operation;
  /** Null where the bytes are no numbers. */
  type: NumberType | null;
  /** Members sum a slice each. */
  sharded: boolean;
  rank: number;
  size: number;
  root: number;
  /** Rounds that have a slot of their own before slots are used again. */
  slots: number;
  round: number;
  /** That follow the header. */
  payloadBytes: number;
}

const MAGIC = 0x4543524d; // "MRCE"
const FORMAT = 1;
const OPERATIONS: readonly Operation[] = ["allReduce", "reduce", "barrier", "broadcast", "slice", "value"];
const TYPES: readonly (NumberType | null)[] = [null, "float32", "float64", "int32", "int64"];

export function encodeHeader(header: Header): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint8(4, FORMAT);
  view.setUint8(5, OPERATIONS.indexOf(header.operation));
  view.setUint8(6, TYPES.indexOf(header.type));
  view.setUint8(7, header.sharded ? 1 : 0);
  view.setUint32(8, header.rank, true);
  view.setUint32(12, header.size, true);
  view.setUint32(16, header.root, true);
  view.setUint32(20, header.slots, true);
  view.setBigUint64(24, BigInt(header.round), true);
  view.setBigUint64(32, BigInt(header.payloadBytes), true);
  return bytes;
}

/** CORRUPT where the object under `key` is none of ours. `bytes`: its first ones. */
export function decodeHeader(key: string, bytes: Uint8Array, objectBytes: number): Header {
  if (bytes.length >= HEADER_BYTES) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, HEADER_BYTES);
    const operation = OPERATIONS[view.getUint8(5)];
    const type = TYPES[view.getUint8(6)];
    const sharded = view.getUint8(7);
    const round = Number(view.getBigUint64(24, true));
    const payloadBytes = Number(view.getBigUint64(32, true));
    if (
      view.getUint32(0, true) === MAGIC &&
      view.getUint8(4) === FORMAT &&
      operation !== undefined &&
      type !== undefined &&
      sharded <= 1 &&
      Number.isSafeInteger(round) &&
      payloadBytes === objectBytes - HEADER_BYTES
    ) {
      return {
        operation,
        type,
        sharded: sharded === 1,
        rank: view.getUint32(8, true),
        size: view.getUint32(12, true),
        root: view.getUint32(16, true),
        slots: view.getUint32(20, true),
        round,
        payloadBytes,
      };
    }
  }
  throw new MillraceError(
    "CORRUPT",
    `the object ${showKey(key)} was not put by this version of the SDK; leave its keys to the SDK`,
  );
}
