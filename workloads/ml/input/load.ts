/** Training data from files to blocks in the store: every format ends up as the one `Dataset`. */
import type { Dataset } from "../dataset.js";
import { findInput } from "./files.js";
import { loadIdx } from "./idx.js";
import { loadLibsvm } from "./libsvm.js";
import type { LoadOptions, LoadSurroundings } from "./options.js";
import { loadTable } from "./tables.js";

export type { LoadOptions, LoadSurroundings } from "./options.js";

/**
 * Reads files on function workers and leaves their good rows in the namespace, as blocks. INVALID_ARGUMENT where the
 * data is not what was asked for, CORRUPT where a file is damaged, with line and column of text.
 */
export async function loadDataset(options: LoadOptions, surroundings: LoadSurroundings): Promise<Dataset> {
  const input = await findInput(options.paths);
  surroundings.signal?.throwIfAborted();
  switch (input.format) {
    case "idx":
      return loadIdx(input, options, surroundings);
    case "libsvm":
      return loadLibsvm(input, options, surroundings);
    case "csv":
    case "parquet":
      return loadTable(input, options, surroundings);
  }
}
