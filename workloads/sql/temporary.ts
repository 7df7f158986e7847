/** Folders that go with the process, also where it ends before anybody could clean up: a reader that went away. */
import { rmSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface TemporaryFolder {
  readonly path: string;
  remove(): Promise<void>;
}

export async function temporaryFolder(): Promise<TemporaryFolder> {
  const path = await mkdtemp(join(tmpdir(), "millrace-sql-"));
  const onExit = (): void => rmSync(path, { recursive: true, force: true });
  process.once("exit", onExit);
  return {
    path,
    remove: async () => {
      await rm(path, { recursive: true, force: true });
      process.off("exit", onExit);
    },
  };
}
