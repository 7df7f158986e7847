/** An S3 door in this process, over an engine of its own: for what the door of a daemon cannot be told. */
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { requireAddon } from "../../native/binding/addon.js";
import type { Patience } from "../../server/doors/s3/arrivals.js";
import { KeyRing } from "../../server/doors/s3/auth/credentials.js";
import { S3Door } from "../../server/doors/s3/door.js";
import { Engine } from "../../server/engine/engine.js";
import { Namespaces } from "../../server/namespaces/namespaces.js";
import { ACCESS_KEY, SECRET_KEY } from "./s3.js";

export interface LocalS3Door {
  readonly host: string;
  readonly port: number;
  stop(): Promise<void>;
}

export async function startS3Door(options: { patience: Patience }): Promise<LocalS3Door> {
  const folder = mkdtempSync(join(tmpdir(), "millrace-s3-door-"));
  const engine = new Engine({
    dramBytes: 256 << 20,
    nvme: [],
    hugePages: "off",
    keep: false,
    memoryDirectory: null,
    hugeDirectory: null,
    ioThreads: 1,
    socketPath: join(folder, "millrace.sock"),
    dataHost: null,
    dataPort: 0,
    nodeId: "s3-door",
  });
  const clock = { monotonicMs: () => performance.now(), unixMs: () => Date.now() };
  const namespaces = new Namespaces({
    clock,
    randomBytes,
    store: engine,
    slowestPartition: () => ({ partition: "", bytes: 0 }),
    sweepIntervalMs: 1_000,
  });
  const door = new S3Door({
    engine,
    namespaces,
    limits: requireAddon().limits,
    credentials: new KeyRing({ accessKey: ACCESS_KEY, secretKey: SECRET_KEY, anonymous: false }),
    domain: null,
    clock,
    log: { error() {}, debug() {} },
    patience: options.patience,
  });
  const address = await door.listen("127.0.0.1", 0);
  return {
    host: "127.0.0.1",
    port: Number(address.split(":")[1]),
    stop: async () => {
      await door.close(0);
      engine.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
