/** DuckDB through the native addon, for those who run SQL over rows in the store. */
import { loadAddon, type NativeDuckDb, type NativeDuckDbOptions } from "../native/binding/addon.js";
import { MillraceError } from "./errors.js";

export type {
  NativeDuckDb as DuckDb,
  NativeDuckDbOptions as DuckDbOptions,
  NativeRows as DuckDbRows,
  NativeRowsInput as DuckDbInput,
} from "../native/binding/addon.js";

/** A DuckDB of its own, in memory; close it. UNSUPPORTED where the native addon or libduckdb.so is not there. */
export function openDuckDb(options: NativeDuckDbOptions): NativeDuckDb {
  const addon = loadAddon();
  if (addon === null) {
    throw new MillraceError("UNSUPPORTED", "SQL needs the native addon; run `npm run build:native`");
  }
  return new addon.DuckDb(options);
}
