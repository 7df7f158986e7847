/** The record kernels, by native/bench/kernels_bench: one thread, each beside memcpy of the same bytes. */
import { MillraceError } from "../client/index.js";
import { type BenchFigure, type BenchOptions, comparedFigure, plainFigure } from "./figure.js";
import { rounded } from "./measure.js";
import { findNativeProgram, runNativeProgram } from "./native_program.js";

interface KernelsDocument {
  records: number;
  rounds: number;
  simd: string;
  kernels: {
    name: string;
    bytes: number;
    seconds: number;
    records_per_second: number;
    times_memcpy: number;
    target: number | null;
  }[];
  crc32c_hot: { bytes: number; nanoseconds: number }[];
}

const RECORDS = 4_000_000;
/** All kernels of one round take this long for a million records, on a slow machine. */
const SECONDS_A_MILLION = 2;

export async function run(options: BenchOptions): Promise<BenchFigure[]> {
  const program = findNativeProgram("kernels_bench");
  if (program === null) {
    throw new MillraceError("UNSUPPORTED", "kernels_bench is not built; run `npm run build:native`");
  }
  const affordable = (options.seconds / options.rounds / SECONDS_A_MILLION) * 1e6;
  const records = Math.round(Math.max(10_000, Math.min(RECORDS * options.scale, affordable)));
  const document = await runNativeProgram<KernelsDocument>(
    program,
    ["--json", "--records", String(records), "--rounds", String(options.rounds)],
    options.signal,
  );
  const figures = document.kernels.map((kernel) =>
    comparedFigure(
      kernel.name,
      rounded(kernel.seconds * 1000),
      "ms",
      { name: "memcpy of the same bytes", figure: rounded((kernel.seconds * 1000) / kernel.times_memcpy) },
      kernel.target === null ? null : `<= ${rounded(kernel.target, 3)}x`,
      {
        recordsPerSecond: Math.round(kernel.records_per_second),
        bytesPerSecond: Math.round(kernel.bytes / kernel.seconds),
        records: document.records,
      },
    ),
  );
  const hot = document.crc32c_hot.map(({ bytes, nanoseconds }) =>
    plainFigure(`crc32c of ${bytes} bytes in cache`, rounded(nanoseconds), "ns", null, {
      bytesPerSecond: Math.round((bytes / nanoseconds) * 1e9),
    }),
  );
  return [...figures, ...hot];
}
