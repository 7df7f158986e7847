/** `millrace put|get|ls|stat|rm`: objects from the shell, through the SDK. */
import { createReadStream, createWriteStream } from "node:fs";
import { rename, rm, stat } from "node:fs/promises";
import { Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { Command } from "commander";
import type { Namespace, ObjectInfo } from "../../client/index.js";
import { MillraceError } from "../../proto/errors.js";
import { addConnectionOptions, type ConnectionFlags, withClient } from "./connection.js";
import { UsageError } from "./errors.js";
import { printJson, printTable } from "./output.js";
import { formatSize } from "./values.js";

const STANDARD_STREAM = "-";

export function register(program: Command): void {
  addConnectionOptions(program.command("put"))
    .description("store a file, or standard input, as an object")
    .argument("<namespace>")
    .argument("<key>")
    .argument("[file]", "- or left out: standard input", STANDARD_STREAM)
    .option("--if-absent", "fail where the key exists")
    .action(put);
  addConnectionOptions(program.command("get"))
    .description("write an object to a file or to standard output")
    .argument("<namespace>")
    .argument("<key>")
    .argument("[file]", "- or left out: standard output", STANDARD_STREAM)
    .option("--offset <bytes>", "start here", parseCount)
    .option("--length <bytes>", "this many bytes and not all", parseCount)
    .action(get);
  addConnectionOptions(program.command("ls"))
    .description("list the objects of a namespace, in the order of their keys")
    .argument("<namespace>")
    .argument("[prefix]", "only keys that begin with it", "")
    .option("--limit <count>", "at most this many", parseCount)
    .action(list);
  addConnectionOptions(program.command("stat"))
    .description("show size, checksum and version of an object")
    .argument("<namespace>")
    .argument("<key>")
    .action(show);
  addConnectionOptions(program.command("rm"))
    .description("delete objects")
    .argument("<namespace>")
    .argument("<keys...>")
    .option("--force", "objects that are not there are no failure")
    .action(remove);
}

async function put(
  namespace: string,
  key: string,
  file: string,
  flags: ConnectionFlags & { ifAbsent?: boolean },
): Promise<void> {
  const sizeBytes = file === STANDARD_STREAM ? null : await fileBytes(file);
  const known = sizeBytes === null ? {} : { sizeBytes };
  await withNamespace(namespace, flags, async (ns) => {
    const input = file === STANDARD_STREAM ? process.stdin : createReadStream(file);
    const output = ns.createWriteStream(key, { ...known, ifAbsent: flags.ifAbsent ?? false });
    await pipeline(input, output);
    const info = output.info as ObjectInfo;
    if (flags.json) printJson(describe(namespace, key, info));
    else process.stderr.write(`${namespace}/${key}: ${formatSize(info.sizeBytes)}\n`);
  });
}

async function get(
  namespace: string,
  key: string,
  file: string,
  flags: ConnectionFlags & { offset?: number; length?: number },
): Promise<void> {
  if (flags.json && file === STANDARD_STREAM) {
    throw new UsageError(
      "get --json needs a file: standard output cannot hold both the object and the document",
    );
  }
  const range = {
    ...(flags.offset === undefined ? {} : { offset: flags.offset }),
    ...(flags.length === undefined ? {} : { length: flags.length }),
  };
  await withNamespace(namespace, flags, async (ns) => {
    const info = await requireObject(ns, key);
    const input = ns.createReadStream(key, range);
    if (file === STANDARD_STREAM) {
      await pipeline(input, standardOutput());
      return;
    }
    // Under another name first, so that a failure leaves neither half a file nor the old one spoilt.
    const part = `${file}.${process.pid}.part`;
    try {
      await pipeline(input, createWriteStream(part, { flags: "wx" }));
      await rename(part, file);
    } catch (thrown) {
      await rm(part, { force: true });
      throw thrown;
    }
    if (flags.json) printJson({ ...describe(namespace, key, info), file });
  });
}

async function list(
  namespace: string,
  prefix: string,
  flags: ConnectionFlags & { limit?: number },
): Promise<void> {
  const limit = flags.limit ?? Number.POSITIVE_INFINITY;
  await withNamespace(namespace, flags, async (ns) => {
    const objects: object[] = [];
    const rows: string[][] = [];
    let count = 0;
    for await (const entry of ns.list({ prefix })) {
      if (count++ >= limit) break;
      if (flags.json) {
        objects.push(entry);
        continue;
      }
      rows.push([
        String(entry.sizeBytes).padStart(14),
        new Date(entry.sealedUnixMs).toISOString(),
        entry.key,
      ]);
      if (rows.length >= 1000) printTable(rows.splice(0));
    }
    if (flags.json) printJson({ namespace, prefix, objects });
    else printTable(rows);
  });
}

async function show(namespace: string, key: string, flags: ConnectionFlags): Promise<void> {
  await withNamespace(namespace, flags, async (ns) => {
    const info = await requireObject(ns, key);
    if (flags.json) {
      printJson(describe(namespace, key, info));
      return;
    }
    printTable([
      ["key", key],
      ["size", `${info.sizeBytes} (${formatSize(info.sizeBytes)})`],
      ["sequence", String(info.sequence)],
      ["crc32c", info.crc32c.toString(16).padStart(8, "0")],
      ["sealed", new Date(info.sealedUnixMs).toISOString()],
    ]);
  });
}

async function remove(
  namespace: string,
  keys: string[],
  flags: ConnectionFlags & { force?: boolean },
): Promise<void> {
  await withNamespace(namespace, flags, async (ns) => {
    const deleted: string[] = [];
    const missing: string[] = [];
    for (const key of keys) ((await ns.delete(key)) ? deleted : missing).push(key);
    if (flags.json) printJson({ namespace, deleted, missing });
    if (missing.length > 0 && !flags.force) {
      throw new MillraceError("NOT_FOUND", `not in namespace ${namespace}: ${missing.join(", ")}`);
    }
  });
}

function withNamespace<T>(
  name: string,
  flags: ConnectionFlags,
  work: (namespace: Namespace) => Promise<T>,
): Promise<T> {
  return withClient(flags, async (client) => work(await client.openNamespace(name)));
}

async function requireObject(namespace: Namespace, key: string): Promise<ObjectInfo> {
  const info = await namespace.head(key);
  if (info === null) {
    throw new MillraceError(
      "NOT_FOUND",
      `there is no object ${JSON.stringify(key)} in namespace ${namespace.name}`,
    );
  }
  return info;
}

function describe(namespace: string, key: string, info: ObjectInfo): object {
  return { namespace, key, ...info };
}

/** Null where it cannot be known ahead: a pipe, a device. */
async function fileBytes(file: string): Promise<number | null> {
  const stats = await stat(file);
  if (stats.isDirectory()) throw new UsageError(`${file} is a directory; put stores one file`);
  return stats.isFile() ? stats.size : null;
}

/** Standard output as the end of a pipeline, which would close it; a reader that went away ends quietly. */
function standardOutput(): Writable {
  return new Writable({
    write(chunk: Uint8Array, _encoding, callback) {
      // The chunk may be a view of the store, so it is handed on only when it has been written.
      process.stdout.write(chunk, callback);
    },
  });
}

function parseCount(text: string): number {
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(Number(text))) {
    throw new UsageError(`${JSON.stringify(text)} is not a whole number`);
  }
  return Number(text);
}
