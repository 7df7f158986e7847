/** Writes a block where it is to lie. */
import type { ByteSpan, Namespace } from "../../../client/index.js";

/** `fill` gets exactly `sizeBytes` bytes to fill. Twice the same is harmless: whoever comes last wins. */
export async function writeObject(
  namespace: Namespace,
  key: string,
  sizeBytes: number,
  fill: (out: ByteSpan) => Promise<unknown>,
): Promise<void> {
  const writer = await namespace.openWriter(key, { sizeBytes });
  try {
    const out =
      writer.reserveSpan === undefined
        ? await writer.reserve(sizeBytes)
        : await writer.reserveSpan(sizeBytes);
    try {
      await fill(out);
    } finally {
      // A span would hold its segment until it is collected.
      if ("release" in out) out.release();
    }
    await writer.seal();
  } catch (error) {
    await writer.abort().catch(() => undefined);
    throw error;
  }
}
