/**
 * Removes what lifecycle rules say has expired, and what uploads left that nobody completed. A namespace is walked in
 * pages with room for others between them; only what still is what it was when it was judged is removed.
 */
import { setImmediate as turn } from "node:timers/promises";
import { MillraceError } from "../../../proto/errors.js";
import type { Clock } from "../../clock.js";
import type { Engine } from "../../engine/engine.js";
import type { Namespaces } from "../../namespaces/namespaces.js";
import type { DoorLog } from "../grpc/context.js";
import { onlyOver } from "./conditions.js";
import { PARTS_PREFIX, UPLOADS_PREFIX } from "./hidden.js";
import { dueUnixMs, hasExpired } from "./lifecycle.js";
import { type LifecycleRule, readSettings } from "./settings.js";
import { decodeUpload, findUpload, removeUpload, type Upload, uploadIdOf } from "./uploads.js";
import { objectsOf } from "./walk.js";

/** Rules count in days. */
export const SWEEP_INTERVAL_MS = 10 * 60_000;
/** Longer than any job, and as long as a bucket lives without being used. */
export const UPLOAD_AGE_MAX_MS = 7 * 24 * 3_600_000;

export interface SweeperOptions {
  engine: Engine;
  namespaces: Pick<Namespaces, "names">;
  clock: Clock;
  log: DoorLog;
}

export interface Swept {
  objects: number;
  uploads: number;
}

export class LifecycleSweeper {
  private timer: NodeJS.Timeout | null = null;
  private sweeping: Promise<Swept> | null = null;
  private stopped = false;

  constructor(private readonly options: SweeperOptions) {}

  /** Sweeps every so often until it is stopped. */
  start(): void {
    this.timer = setInterval(() => void this.sweep(), SWEEP_INTERVAL_MS);
    this.timer.unref();
  }

  /** Resolves when nothing is touched any more. */
  async stop(): Promise<void> {
    this.stopped = true;
    if (this.timer !== null) clearInterval(this.timer);
    await this.sweeping;
  }

  /** Goes through all namespaces once; a sweep that runs already is joined. Says how much it removed. */
  sweep(): Promise<Swept> {
    this.sweeping ??= this.sweepAll().finally(() => {
      this.sweeping = null;
    });
    return this.sweeping;
  }

  private async sweepAll(): Promise<Swept> {
    const swept: Swept = { objects: 0, uploads: 0 };
    for (const name of this.options.namespaces.names()) {
      if (this.stopped) break;
      try {
        await this.sweepNamespace(name, swept);
      } catch (thrown) {
        const { code } = MillraceError.from(thrown);
        // It ended meanwhile.
        if (code === "NAMESPACE_GONE" || code === "NOT_FOUND" || this.stopped) continue;
        this.options.log.error({ err: thrown, namespace: name }, "what has expired could not be removed");
      }
    }
    return swept;
  }

  private async sweepNamespace(name: string, swept: Swept): Promise<void> {
    const { lifecycle } = await readSettings(this.options.engine, name);
    const rules = (lifecycle ?? []).filter(({ enabled }) => enabled);
    for (const rule of rules) {
      if (rule.expiration !== null) swept.objects += await this.expire(name, rule);
    }
    swept.uploads += await this.endUploads(name, rules);
    await this.removeStrayParts(name);
  }

  private async expire(name: string, rule: LifecycleRule): Promise<number> {
    const { engine } = this.options;
    let removed = 0;
    for await (const object of objectsOf(engine, name, Buffer.from(rule.prefix))) {
      if (this.stopped) break;
      if (!hasExpired(rule, object.sealedUnixMs, this.options.clock.unixMs())) continue;
      if (removeIfSame(() => engine.remove(name, object.key, onlyOver(object)))) removed += 1;
    }
    return removed;
  }

  private async endUploads(name: string, rules: readonly LifecycleRule[]): Promise<number> {
    const { engine } = this.options;
    let removed = 0;
    for await (const { key, attributes } of objectsOf(engine, name, UPLOADS_PREFIX)) {
      if (this.stopped) break;
      const upload = decodeUpload(attributes);
      if (endOf(upload, rules) > this.options.clock.unixMs()) continue;
      removeUpload(engine, name, uploadIdOf(key));
      removed += 1;
    }
    return removed;
  }

  /** Parts whose upload is no more: it was aborted by a node that was killed midway, say. */
  private async removeStrayParts(name: string): Promise<void> {
    const { engine } = this.options;
    let startAfter: Buffer = PARTS_PREFIX;
    while (!this.stopped) {
      const [part] = engine.list(name, PARTS_PREFIX, startAfter, 1, false).objects;
      if (part === undefined) return;
      const uploadId = uploadIdOf(part.key);
      if (findUpload(engine, name, uploadId) === null) removeUpload(engine, name, uploadId);
      // Past all parts of this upload.
      startAfter = Buffer.concat([PARTS_PREFIX, Buffer.from(`${uploadId}/~`)]);
      await turn();
    }
  }
}

/** When the upload may be ended (Unix ms). */
function endOf({ key, initiatedUnixMs }: Upload, rules: readonly LifecycleRule[]): number {
  return rules
    .filter(({ prefix, abortDays }) => abortDays !== null && key.startsWith(prefix))
    .reduce(
      (end, { abortDays }) => Math.min(end, dueUnixMs(initiatedUnixMs, abortDays as number)),
      initiatedUnixMs + UPLOAD_AGE_MAX_MS,
    );
}

/** Whether it was removed: not where it was overwritten since it was seen. */
function removeIfSame(remove: () => boolean): boolean {
  try {
    return remove();
  } catch (thrown) {
    if (MillraceError.from(thrown).code !== "CONDITION_FAILED") throw thrown;
    return false;
  }
}
