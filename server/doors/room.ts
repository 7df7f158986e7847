/** Waiting for room in a full store, which every door does for those who put. */
import { MillraceError } from "../../proto/errors.js";

/** How often it is tried again: soon at first, then in steps that double up to the second. */
export const ROOM_POLL_FIRST_MS = 5;
export const ROOM_POLL_MAX_MS = 200;

/** Whether a failure is want of room that may pass. */
export function isFull(thrown: unknown): boolean {
  return thrown instanceof MillraceError && thrown.code === "RESOURCE_EXHAUSTED" && thrown.retryable;
}
