/** The S3 door against MinIO: put and get of small, middling and large objects, by the same client, in turns. */
import { existsSync } from "node:fs";
import { freemem } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { MillraceError } from "../client/index.js";
import { formatSize } from "../server/cli/values.js";
import { type BenchFigure, type BenchOptions, comparedFigure } from "./figure.js";
import { median, medianOf, rounded, takeTurns, usedWhile } from "./measure.js";
import { startMinio } from "./minio.js";
import { launch, moduleCommand } from "./processes.js";
import { createBucket, prepare, type S3Load, type S3Sample, type S3Target } from "./s3_client.js";
import { freshName, type Workbench, withWorkbench } from "./workbench.js";

const SIZES_BYTES = [1 << 10, 1 << 20, 64 << 20];
const CONNECTIONS = [1, 16, 64];
/** Objects that a load goes round, by their size. */
const KEYS_BYTES_MAX = 256 << 20;
const KEYS_MAX = 1_000;
/**
 * A turn of large objects takes as long as every connection needs for one, however few seconds are asked for: so they
 * have one round and no warming up, and are left out where it would be longer than so many times those seconds.
 */
const LARGE_BYTES = 16 << 20;
const LARGE_ROUNDS_MAX = 1;
const LARGE_TIMES_MAX = 1.25;
/** All that is being put lies in memory with one server, some of it on its way too; the other keeps what it had. */
const MEMORY_SHARE_MAX = 1 / 2;
/** After so long a process that was killed is gone. */
const ENDING_MS = 500;
const KEYS = { accessKey: "bench-key", secretKey: "bench-secret" };

export function run(options: BenchOptions): Promise<BenchFigure[]> {
  return withWorkbench(options, measure);
}

async function measure(workbench: Workbench): Promise<BenchFigure[]> {
  const { options } = workbench;
  const daemon = await workbench.daemon({ s3: KEYS });
  const colon = daemon.s3Address.lastIndexOf(":");
  const bucket = freshName();
  const host = daemon.s3Address.slice(0, colon);
  const door: S3Target = { ...KEYS, host, port: Number(daemon.s3Address.slice(colon + 1)), bucket };
  const minio = await startMinio(workbench, KEYS);
  const rival = minio === null ? null : { ...KEYS, host: minio.host, port: minio.port, bucket };
  const client = await startClient(workbench);
  for (const target of [door, rival]) if (target !== null) await createBucket(target);

  const figures: BenchFigure[] = [];
  const share = 1 / (SIZES_BYTES.length * CONNECTIONS.length);
  for (const fullBytes of SIZES_BYTES) {
    const sizeBytes = Math.max(1 << 10, Math.round(fullBytes * Math.min(1, options.scale)));
    const keys = Math.max(1, Math.min(KEYS_MAX, Math.floor(KEYS_BYTES_MAX / sizeBytes)));
    for (const target of [door, rival]) if (target !== null) await prepare(target, sizeBytes, keys);
    const isLarge = sizeBytes >= LARGE_BYTES;
    // What one byte of each contender took, together, with the connections before.
    let secondsPerByte = 0;
    for (const connections of CONNECTIONS) {
      const bytesAtOnce = connections * sizeBytes;
      const atOnce = `${connections} times ${formatSize(sizeBytes)} at once`;
      if (bytesAtOnce > freemem() * MEMORY_SHARE_MAX) {
        options.note(`${atOnce} is too much for the memory that is free`);
        continue;
      }
      const neededSeconds = secondsPerByte * bytesAtOnce;
      if (isLarge && neededSeconds > LARGE_TIMES_MAX * options.seconds) {
        const ask = Math.ceil((neededSeconds / LARGE_TIMES_MAX) * 1.1);
        options.note(`${atOnce} would take about ${Math.ceil(neededSeconds)} s: ask for --seconds ${ask}`);
        continue;
      }
      const drive = (target: S3Target, method: "PUT" | "GET") => (seconds: number) =>
        client({ target, method, sizeBytes, keys, connections, seconds }).catch(async (thrown: unknown) => {
          options.signal.throwIfAborted();
          const [whose, pid] = target === door ? ["the door", daemon.pid] : ["MinIO", minio?.pid];
          // Of a server that ended nothing is seen but connections that were reset.
          await sleep(ENDING_MS);
          const ended = existsSync(`/proc/${pid}`) ? "" : ", which has ended";
          const { message } = MillraceError.from(thrown);
          throw new MillraceError("INTERNAL", `${method} to ${whose}${ended}, ${atOnce}: ${message}`, {
            cause: thrown,
          });
        });
      const rounds = isLarge ? Math.min(options.rounds, LARGE_ROUNDS_MAX) : options.rounds;
      const contenders = {
        put: (seconds: number) => usedWhile(daemon.pid, () => drive(door, "PUT")(seconds)),
        rivalPut: rival === null ? null : drive(rival, "PUT"),
        get: (seconds: number) => usedWhile(daemon.pid, () => drive(door, "GET")(seconds)),
        rivalGet: rival === null ? null : drive(rival, "GET"),
      };
      const turns = await takeTurns({ ...options, rounds }, share, contenders, { warmsUp: !isLarge });
      secondsPerByte = [...turns.put, ...turns.get]
        .map(({ result }) => result)
        .concat(turns.rivalPut, turns.rivalGet)
        .reduce((sum, { seconds, bytes }) => sum + seconds / bytes / rounds, 0);
      for (const [what, own, others] of [
        ["put", turns.put, turns.rivalPut],
        ["get", turns.get, turns.rivalGet],
      ] as const) {
        const inOperations = sizeBytes < 1 << 20;
        const rate = ({ operations, bytes, seconds }: S3Sample) =>
          (inOperations ? operations : bytes) / seconds;
        const theirs = medianOf(others, rate);
        figures.push(
          comparedFigure(
            `${what}, ${formatSize(sizeBytes)}, ${connections} at a time`,
            rounded(median(own.map(({ result }) => rate(result)))),
            inOperations ? "ops/s" : "B/s",
            {
              name: minio === null ? "MinIO is not built" : "MinIO on one drive in memory",
              figure: theirs === null ? null : rounded(theirs),
            },
            null,
            {
              latency_us_p50: rounded(median(own.map(({ result }) => result.p50Us))),
              latency_us_p99: rounded(median(own.map(({ result }) => result.p99Us))),
              rivalLatency_us_p50: rounded(medianOf(others, (sample) => sample.p50Us) ?? Number.NaN),
              daemonCpu_us: rounded(
                median(own.map(({ result, used }) => (used.cpuSeconds * 1e6) / result.operations)),
              ),
              objects: keys,
            },
          ),
        );
      }
    }
  }
  return figures;
}

/** The client, in a process of its own. */
async function startClient(workbench: Workbench): Promise<(load: S3Load) => Promise<S3Sample>> {
  const { signal } = workbench.options;
  const launched = await launch(moduleCommand(import.meta.url, "./s3_client_main"), {
    stdio: ["ignore", "inherit", "pipe", "ipc"],
  });
  workbench.defer(() => launched.stop());
  return (load) =>
    new Promise((resolve, reject) => {
      const settle = (act: () => void) => {
        launched.child.off("message", onMessage);
        signal.removeEventListener("abort", onAbort);
        act();
      };
      const onMessage = (message: unknown) => {
        const { sample, error } = message as { sample: S3Sample; error: string | null };
        settle(() => (error === null ? resolve(sample) : reject(new MillraceError("INTERNAL", error))));
      };
      const onAbort = () => settle(() => reject(signal.reason as Error));
      launched.child.on("message", onMessage);
      signal.addEventListener("abort", onAbort, { once: true });
      void launched.exited.then(() =>
        settle(() => reject(new MillraceError("INTERNAL", `the S3 client ended: ${launched.errors()}`))),
      );
      launched.child.send(load);
    });
}
