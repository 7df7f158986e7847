/** The native kernels over fixed-size records, for those who write and read shuffles. */
import { type Kernels, loadAddon } from "../native/binding/addon.js";
import { MillraceError } from "./errors.js";

export type { Kernels, RecordsSummary } from "../native/binding/addon.js";

/** The kernels. UNSUPPORTED where the native addon is not built for this machine. */
export function kernels(): Kernels {
  const addon = loadAddon();
  if (addon === null) {
    throw new MillraceError("UNSUPPORTED", "the kernels need the native addon; run `npm run build:native`");
  }
  return addon.kernels;
}
