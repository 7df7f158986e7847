/** All objects of a bucket below a prefix, hidden ones where the prefix is. */
import { setImmediate as turn } from "node:timers/promises";
import type { Engine } from "../../engine/engine.js";

const PAGE_OBJECTS = 1000;

/** In the order of their keys, with their attributes; others get a turn between pages. */
export async function* objectsOf(
  engine: Engine,
  bucket: string,
  prefix: Buffer,
): AsyncGenerator<ReturnType<Engine["list"]>["objects"][number], void, void> {
  let startAfter: Buffer = Buffer.alloc(0);
  for (let more = true; more; ) {
    const page = engine.list(bucket, prefix, startAfter, PAGE_OBJECTS, true);
    yield* page.objects;
    more = page.truncated;
    startAfter = page.objects.at(-1)?.key ?? startAfter;
    if (more) await turn();
  }
}
