/** The page that `--report` asks for. */
import { closeSync, existsSync, openSync, rmSync, writeFileSync } from "node:fs";
import { UsageError } from "./errors.js";

/** The page's file, opened before the work so that a path that cannot be written is known at once. */
export class ReportFile {
  readonly #path: string;
  readonly #wasThere: boolean;

  constructor(path: string) {
    this.#path = path;
    this.#wasThere = existsSync(path);
    try {
      closeSync(openSync(path, "a"));
    } catch (error) {
      throw new UsageError(`the report cannot be written: ${(error as Error).message}`);
    }
  }

  write(page: string): void {
    writeFileSync(this.#path, page);
  }

  discard(): void {
    if (!this.#wasThere) rmSync(this.#path, { force: true });
  }
}
