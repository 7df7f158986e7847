/** The rival MinIO: one server on one drive in memory, as scripts/clients.sh builds it. */
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { MillraceError } from "../client/index.js";
import { packageRoot } from "../native/binding/addon.js";
import { findProgram, launch } from "./processes.js";
import type { Workbench } from "./workbench.js";

export interface Minio {
  readonly pid: number;
  readonly host: string;
  readonly port: number;
}

const START_TIMEOUT_MS = 20_000;
const MEMORY = "/dev/shm";

/** Null, with a note, where it is not built. */
export async function startMinio(
  workbench: Workbench,
  keys: { accessKey: string; secretKey: string },
): Promise<Minio | null> {
  const { signal, note } = workbench.options;
  const built = join(packageRoot(), "build", "clients", "bin", "minio");
  const program = existsSync(built) ? built : findProgram("minio");
  if (program === null) {
    note("MinIO is not built (scripts/clients.sh minio): no comparison with it");
    return null;
  }
  const folder = mkdtempSync(join(existsSync(MEMORY) ? MEMORY : workbench.folder, "minio-bench-"));
  const remove = () => rmSync(folder, { recursive: true, force: true });
  process.once("exit", remove);
  workbench.defer(() => {
    process.off("exit", remove);
    remove();
  });
  const host = "127.0.0.1";
  const port = await freePort();
  const launched = await launch(
    [
      // It takes its keys from the environment alone.
      "/usr/bin/env",
      `MINIO_ROOT_USER=${keys.accessKey}`,
      `MINIO_ROOT_PASSWORD=${keys.secretKey}`,
      "MINIO_BROWSER=off",
      program,
      ...["server", "--quiet", "--address", `${host}:${port}`, folder],
    ],
    { cwd: folder },
  );
  workbench.defer(() => launched.stop());
  const until = performance.now() + START_TIMEOUT_MS;
  for (;;) {
    const live = await fetch(`http://${host}:${port}/minio/health/live`).catch(() => null);
    // It says that it lives before it can serve, and then in this header that it cannot.
    const serves = live?.ok === true && live.headers.get("x-minio-server-status") === null;
    if (serves) return { pid: launched.pid, host, port };
    signal.throwIfAborted();
    if (launched.child.exitCode !== null || performance.now() > until) {
      throw new MillraceError("UNAVAILABLE", `minio did not start: ${launched.output()}${launched.errors()}`);
    }
    await sleep(50);
  }
}

/** It cannot say which port it picked, so one is picked for it. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
