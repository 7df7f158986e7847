// Who may include whom in native/: DESIGN section 3. Part of `npm test`.
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const native = join(dirname(fileURLToPath(import.meta.url)), "..", "native");
const MAY_INCLUDE = {
  base: ["base"],
  segment: ["base", "segment"],
  index: ["base", "segment", "index"],
  tier: ["base", "segment", "tier"],
  store: ["base", "segment", "index", "tier", "store"],
  transport: ["base", "segment", "index", "tier", "store", "transport"],
  kernels: ["base", "kernels"],
  duckdb: ["base", "duckdb"],
  binding: ["base", "segment", "index", "tier", "store", "transport", "kernels", "duckdb", "binding"],
};

let broken = 0;
for (const [folder, allowed] of Object.entries(MAY_INCLUDE)) {
  for (const name of readdirSync(join(native, folder), { recursive: true })) {
    if (!/\.(h|cc)$/.test(name)) continue;
    const file = join(native, folder, name);
    for (const [line, includes] of readFileSync(file, "utf8").matchAll(/^#include ["<]([^">]+)[">]/gm)) {
      const from = includes.split("/")[0];
      const ours = from in MAY_INCLUDE;
      const napi = includes.startsWith("napi") || includes.startsWith("node_api");
      if ((ours && !allowed.includes(from)) || (napi && folder !== "binding")) {
        console.error(`${relative(native, file)}: ${line} is not allowed in ${folder}/`);
        broken += 1;
      }
    }
  }
}
process.exitCode = broken > 0 ? 1 : 0;
