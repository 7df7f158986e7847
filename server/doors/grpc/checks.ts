/** Checks of what requests name. Numbers are checked by the contract, names of namespaces by their policy. */
import { isUtf8 } from "node:buffer";
import { MillraceError } from "../../../proto/errors.js";
import type { ConditionMessage } from "../../../proto/messages.js";
import { type Condition, NO_CONDITION } from "../../engine/engine.js";

export class Checks {
  constructor(private readonly keyBytesMax: number) {}

  /** 1 to 1024 bytes of UTF-8. */
  key(key: Uint8Array, field = "key"): Uint8Array {
    if (key.length === 0) throw new MillraceError("INVALID_ARGUMENT", `${field} must have at least one byte`);
    return this.prefix(key, field);
  }

  /** As a key, but may be empty. */
  prefix(key: Uint8Array, field = "prefix"): Uint8Array {
    if (key.length > this.keyBytesMax) {
      throw new MillraceError(
        "KEY_TOO_LONG",
        `${field} has ${key.length} bytes, the most is ${this.keyBytesMax}`,
      );
    }
    if (!isUtf8(key)) throw new MillraceError("INVALID_ARGUMENT", `${field} must be UTF-8`);
    return key;
  }

  condition(message: ConditionMessage | null): Condition {
    if (message === null) return NO_CONDITION;
    if (message.ifAbsent && message.ifSequence !== 0) {
      throw new MillraceError(
        "INVALID_ARGUMENT",
        "if_absent and if_sequence exclude each other; set one of them",
      );
    }
    return { ifAbsent: message.ifAbsent, ifSequence: message.ifSequence };
  }
}
