/** Damage to what lies on disk, as a failing device does it. */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** Changes a bit wherever `bytes` lie in a file, and tells in how many. */
export function damageFiles(folder: string, bytes: Uint8Array): number {
  let found = 0;
  for (const name of readdirSync(folder, { recursive: true, encoding: "utf8" })) {
    // One that is still being written is renamed or removed at any moment, and holds nothing that is read yet.
    if (!name.endsWith(".seg")) continue;
    const path = join(folder, name);
    const content = readFileSync(path);
    const at = content.indexOf(bytes);
    if (at < 0) continue;
    content[at] = (content[at] as number) ^ 1;
    writeFileSync(path, content, { flag: "r+" });
    found++;
  }
  return found;
}
