/** Functions of executor.test.ts, whose processes die as they write. */

import { makeContent } from "../../bench/content.js";
import type { CallContext } from "../../functions/index.js";

/**
 * Puts large and small objects of this attempt. All attempts but the last kill their process in the middle, as soon
 * as `kill` of the objects are sealed and others are under way.
 */
export async function putAndDie(
  options: { call: number; objects: number; sizeBytes: number; deaths: number; kill: number },
  context: CallContext,
): Promise<number> {
  const { call, objects, sizeBytes, deaths, kill } = options;
  const namespace = await context.namespace();
  const dies = context.attempt < deaths;
  let sealed = 0;
  const put = async (index: number): Promise<void> => {
    const key = `call/${call}/${index}`;
    await namespace.put(key, makeContent(key, call, context.attempt, sizeBytes + index));
    sealed++;
    if (dies && sealed > kill) process.kill(process.pid, "SIGKILL");
  };
  const batch = namespace.batch();
  for (let index = 0; index < 50; index++) {
    const key = `call/${call}/small/${index}`;
    batch.put(key, makeContent(key, call, context.attempt, 100 + index));
  }
  const writer = await namespace.openWriter(`call/${call}/unsealed`);
  await writer.write(new Uint8Array(sizeBytes));
  await Promise.all([batch.flush(), ...Array.from({ length: objects }, (_, index) => put(index))]);
  await writer.abort();
  return context.attempt;
}
