/**
 * What `millrace serve` runs with. One table names every setting with its flag, its environment variable and its
 * key in the config file; a flag beats the environment, that beats the file, that beats the default.
 */
import { accessSync, constants, mkdirSync, readFileSync } from "node:fs";
import { tmpdir, totalmem, userInfo } from "node:os";
import { join, resolve } from "node:path";
import { type Command, Option } from "commander";
import { UsageError } from "./errors.js";
import { type Address, formatSize, parseAddress, parseSize } from "./values.js";

export type HugePages = "auto" | "reserve" | "off";
export const LOG_LEVELS = ["fatal", "error", "warn", "info", "debug", "trace", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export interface ServeConfig {
  /** Null: the shared-memory door stays closed. */
  socketPath: string | null;
  grpc: Address;
  /** Null: the native TCP door stays closed. */
  data: Address | null;
  /** Null: the S3 door stays closed. */
  s3: S3Config | null;
  /** The node's own; null: it has none, and so no guarded namespaces. */
  keys: Keys | null;
  dramBytes: number;
  /** Directories of the NVMe tier; none: there is no such tier. */
  nvme: NvmeDirectory[];
  hugePages: HugePages;
  /** Where what outlives the daemon is noted; null: nothing does. */
  state: string | null;
  logLevel: LogLevel;
}

export interface Keys {
  accessKey: string;
  secretKey: string;
}

export interface S3Config {
  address: Address;
  /** Null: the door is for this machine alone, and takes `LOCAL_KEYS` and requests without a signature. */
  keys: Keys | null;
  /** Whether requests without a signature may do everything. */
  anonymous: boolean;
  /** Name below which every bucket has a host name of its own; null: none but localhost. */
  domain: string | null;
}

export interface NvmeDirectory {
  path: string;
  limitBytes: number;
}

interface Setting {
  /** Key in the config file, and what commander calls the flag. */
  key: string;
  flag: string;
  env: string;
  help: string;
  /** A flag of the design whose feature does not exist yet: refused, not ignored. */
  notBuilt?: true;
}

/** What requests to an S3 door without keys of its own may be signed with: no secret, and good on loopback alone. */
export const LOCAL_KEYS = { accessKey: "millrace", secretKey: "millrace-local-only" };

const SETTINGS: readonly Setting[] = [
  {
    key: "socket",
    flag: "--socket <path>",
    env: "MILLRACE_SOCKET",
    help: "Unix socket of the shared-memory door, or off",
  },
  {
    key: "grpc",
    flag: "--grpc <host:port>",
    env: "MILLRACE_GRPC",
    help: "gRPC door; port 0 picks one (default 127.0.0.1:7400)",
  },
  {
    key: "data",
    flag: "--data <host:port>",
    env: "MILLRACE_DATA",
    help: "native TCP door, or off (default 127.0.0.1:7401)",
  },
  {
    key: "dram",
    flag: "--dram <size>",
    env: "MILLRACE_DRAM",
    help: "most memory for objects, for example 8GiB (default half of what there is)",
  },
  {
    key: "nvme",
    flag: "--nvme <dir:size...>",
    env: "MILLRACE_NVME",
    help: "directory on a local device for objects that memory has no room for, for example /mnt/nvme:500GiB; several make one tier",
  },
  {
    key: "state",
    flag: "--state <dir>",
    env: "MILLRACE_STATE",
    help: "directory that lets objects outlive the daemon: the next start with it goes on where this one ended",
  },
  {
    key: "hugePages",
    flag: "--huge-pages <mode>",
    env: "MILLRACE_HUGE_PAGES",
    help: "auto takes free ones, reserve raises the pool, off (default auto)",
  },
  {
    key: "logLevel",
    flag: "--log-level <level>",
    env: "MILLRACE_LOG_LEVEL",
    help: `${LOG_LEVELS.join(", ")} (default info)`,
  },
  {
    key: "s3",
    flag: "--s3 <host:port>",
    env: "MILLRACE_S3",
    help:
      "S3 door, or off (the default); without keys on loopback only, where it takes requests without a signature and " +
      `those signed with the keys ${LOCAL_KEYS.accessKey} and ${LOCAL_KEYS.secretKey}`,
  },
  {
    key: "accessKey",
    flag: "--access-key <key>",
    env: "MILLRACE_ACCESS_KEY",
    help: "that requests to the S3 door are signed with, and that guarded namespaces ask for at every door",
  },
  {
    key: "secretKey",
    flag: "--secret-key <secret>",
    env: "MILLRACE_SECRET_KEY",
    help: "that belongs to the access key; other users of the machine can read flags, so rather set the environment",
  },
  {
    key: "s3Anonymous",
    flag: "--s3-anonymous",
    env: "MILLRACE_S3_ANONYMOUS",
    help: "take requests without a signature, and let them do everything",
  },
  {
    key: "s3Domain",
    flag: "--s3-domain <name>",
    env: "MILLRACE_S3_DOMAIN",
    help: "host name of the S3 door, below which each bucket has its own: BUCKET.NAME",
  },
  { key: "admin", flag: "--admin <host:port>", env: "MILLRACE_ADMIN", help: "admin door", notBuilt: true },
];

const CONFIG_ENV = "MILLRACE_CONFIG";
const DRAM_BYTES_MIN = 16 * 1024 ** 2;
const NVME_BYTES_MIN = 64 * 1024 ** 2;
// sun_path has 108 bytes and ends with a zero.
const SOCKET_PATH_BYTES_MAX = 107;

/** Adds the flags of `serve` to a command. */
export function addServeOptions(command: Command): Command {
  for (const { flag, help, env, notBuilt } of SETTINGS) {
    const note = notBuilt ? "not built in this version" : `env ${env}`;
    command.addOption(new Option(flag, `${help} [${note}]`));
  }
  return command.addOption(
    new Option(
      "--config <file>",
      `JSON file with any of these settings, keys in camelCase [env ${CONFIG_ENV}]`,
    ),
  );
}

/** Merges flags (as commander parsed them), environment and config file. Throws UsageError. */
export function resolveServeConfig(
  flags: Record<string, unknown>,
  environment: Record<string, string | undefined>,
): ServeConfig {
  const configPath = (flags.config as string | undefined) ?? nonEmpty(environment[CONFIG_ENV]);
  const file = configPath === undefined ? {} : readConfigFile(configPath);
  const found = new Map<string, Found>();
  for (const setting of SETTINGS) {
    const value = find(setting, flags, environment, file, configPath);
    if (value === null) continue;
    if (setting.notBuilt) throw new UsageError(`${value.from} is not built in this version; leave it out`);
    found.set(setting.key, value);
  }
  const read = <T>(key: string, parse: (value: Found) => T, otherwise: () => T): T => {
    const value = found.get(key);
    return value === undefined ? otherwise() : parse(value);
  };
  return {
    socketPath: read("socket", readSocketPath, defaultSocketPath),
    grpc: read("grpc", readGrpc, () => ({ host: "127.0.0.1", port: 7400 })),
    data: read(
      "data",
      ({ text, from }) => (text === "off" ? null : parseAddress(text, from)),
      () => ({ host: "127.0.0.1", port: 7401 }),
    ),
    s3: readS3(found),
    keys: readKeys(found.get("accessKey"), found.get("secretKey")),
    dramBytes: read("dram", ({ text, from }) => checkDram(parseSize(text, from), from), defaultDramBytes),
    nvme: read("nvme", readNvme, () => []),
    state: read(
      "state",
      ({ text }) => resolve(text),
      () => null,
    ),
    hugePages: read(
      "hugePages",
      (value) => oneOf(value, ["auto", "reserve", "off"] as const),
      () => "auto",
    ),
    logLevel: read(
      "logLevel",
      (value) => oneOf(value, LOG_LEVELS),
      () => "info",
    ),
  };
}

/** Half of the memory that this process may use. */
export function defaultDramBytes(): number {
  return Math.max(DRAM_BYTES_MIN, Math.floor(usableMemoryBytes() / 2));
}

/** The machine's memory, or less where a control group allows less. */
function usableMemoryBytes(): number {
  const constrained = process.constrainedMemory() ?? 0;
  return constrained > 0 ? Math.min(constrained, totalmem()) : totalmem();
}

/** Where the socket lies unless told otherwise: a folder of this user alone. */
export function defaultSocketPath(): string {
  const runtime = nonEmpty(process.env.XDG_RUNTIME_DIR);
  return runtime === undefined
    ? join(tmpdir(), `millrace-${userInfo().uid}`, "millrace.sock")
    : join(runtime, "millrace.sock");
}

interface Found {
  /** Several are joined by commas. */
  text: string;
  /** How to name its source in an error. */
  from: string;
}

function find(
  setting: Setting,
  flags: Record<string, unknown>,
  environment: Record<string, string | undefined>,
  file: Record<string, unknown>,
  configPath: string | undefined,
): Found | null {
  const flag = flags[setting.key];
  if (flag !== undefined) return { text: String(flag), from: setting.flag.split(" ")[0] as string };
  const fromEnvironment = nonEmpty(environment[setting.env]);
  if (fromEnvironment !== undefined) return { text: fromEnvironment, from: setting.env };
  const fromFile = file[setting.key];
  if (fromFile === undefined) return null;
  const from = `${setting.key} in ${configPath}`;
  const isSwitch = !setting.flag.includes("<");
  const isText = (value: unknown) =>
    typeof value === "string" || typeof value === "number" || (isSwitch && typeof value === "boolean");
  const list = setting.flag.endsWith("...>") && Array.isArray(fromFile) && fromFile.every(isText);
  if (!isText(fromFile) && !list && !setting.notBuilt) {
    throw new UsageError(
      `${from} must be a string or a number${setting.key === "nvme" ? ", or a list" : ""}`,
    );
  }
  return { text: String(fromFile), from };
}

function readConfigFile(path: string): Record<string, unknown> {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw new UsageError(`cannot read the config file ${path}: ${(error as Error).message}`);
  }
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw new UsageError(`the config file ${path} is not JSON: ${(error as Error).message}`);
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) {
    throw new UsageError(`the config file ${path} must hold one JSON object`);
  }
  const known = new Set(SETTINGS.map((setting) => setting.key));
  for (const key of Object.keys(parsed)) {
    if (!known.has(key)) {
      throw new UsageError(
        `the config file ${path} has the unknown key ${JSON.stringify(key)}; known are ${[...known].join(", ")}`,
      );
    }
  }
  return parsed as Record<string, unknown>;
}

function readSocketPath({ text, from }: Found): string | null {
  if (text === "off") return null;
  if (Buffer.byteLength(text) > SOCKET_PATH_BYTES_MAX) {
    throw new UsageError(`${from}: a socket's path has at most ${SOCKET_PATH_BYTES_MAX} bytes`);
  }
  return text;
}

function readGrpc({ text, from }: Found): Address {
  if (text === "off") throw new UsageError(`${from}: the gRPC door is the control plane and cannot be off`);
  return parseAddress(text, from);
}

// What fits between the slashes of a credential scope; Amazon's are letters and digits.
const ACCESS_KEY = /^[\w.+=@-]{1,128}$/;
const SECRET_CHARACTERS_MAX = 256;
const DOMAIN = /^(?!-)[a-z0-9-]+(\.[a-z0-9-]+)*$/i;

function readS3(found: ReadonlyMap<string, Found>): S3Config | null {
  const keys = readKeys(found.get("accessKey"), found.get("secretKey"));
  const anonymous = found.get("s3Anonymous");
  const domain = found.get("s3Domain");
  const door = found.get("s3");
  if (domain !== undefined && (!DOMAIN.test(domain.text) || domain.text.length > 253)) {
    throw new UsageError(`${domain.from} ${JSON.stringify(domain.text)} is not a host name`);
  }
  const takesAnonymous =
    anonymous !== undefined && ["true", "1"].includes(oneOf(anonymous, ["true", "1", "false", "0"] as const));
  if (door === undefined || door.text === "off") return null;
  const address = parseAddress(door.text, door.from);
  if (keys === null && !isLoopback(address.host)) {
    throw new UsageError(
      `${door.from} ${door.text}: without keys the S3 door opens on loopback only; set --access-key and --secret-key, ` +
        "or use 127.0.0.1",
    );
  }
  return { address, keys, anonymous: takesAnonymous, domain: domain?.text ?? null };
}

function readKeys(access: Found | undefined, secret: Found | undefined): Keys | null {
  if (access === undefined && secret === undefined) return null;
  if (access === undefined || secret === undefined) {
    throw new UsageError("--access-key and --secret-key belong together; set both or none");
  }
  if (!ACCESS_KEY.test(access.text)) {
    throw new UsageError(`${access.from} must be 1 to 128 letters, digits and any of _ . + = @ -`);
  }
  if (secret.text === "" || secret.text.length > SECRET_CHARACTERS_MAX) {
    throw new UsageError(`${secret.from} must have 1 to ${SECRET_CHARACTERS_MAX} characters`);
  }
  return { accessKey: access.text, secretKey: secret.text };
}

/** Whether nobody beyond this machine can reach it. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host);
}

/** "DIR:SIZE", several of them with commas between. Makes the directories. */
function readNvme({ text, from }: Found): NvmeDirectory[] {
  const directories: NvmeDirectory[] = [];
  for (const item of text.split(",").map((part) => part.trim())) {
    const colon = item.lastIndexOf(":");
    if (colon < 1) {
      throw new UsageError(`${from} ${JSON.stringify(item)} is not DIR:SIZE, for example /mnt/nvme:500GiB`);
    }
    const path = resolve(item.slice(0, colon));
    const limitBytes = parseSize(item.slice(colon + 1), `${from}: the size`);
    if (limitBytes < NVME_BYTES_MIN) {
      throw new UsageError(`${from}: ${path} needs at least ${formatSize(NVME_BYTES_MIN)}`);
    }
    if (directories.some((other) => other.path === path)) throw new UsageError(`${from} names ${path} twice`);
    try {
      mkdirSync(path, { recursive: true });
      accessSync(path, constants.R_OK | constants.W_OK | constants.X_OK);
    } catch (error) {
      throw new UsageError(`${from}: ${path} cannot be used: ${(error as Error).message}`);
    }
    directories.push({ path, limitBytes });
  }
  return directories;
}

function checkDram(bytes: number, from: string): number {
  const memoryBytes = usableMemoryBytes();
  if (bytes < DRAM_BYTES_MIN)
    throw new UsageError(`${from}: at least ${formatSize(DRAM_BYTES_MIN)} are needed`);
  if (bytes > memoryBytes) {
    throw new UsageError(
      `${from}: ${formatSize(bytes)} is more than this machine's ${formatSize(memoryBytes)} of memory`,
    );
  }
  return bytes;
}

function oneOf<T extends string>({ text, from }: Found, choices: readonly T[]): T {
  const choice = choices.find((candidate) => candidate === text);
  if (choice === undefined)
    throw new UsageError(`${from} must be one of ${choices.join(", ")}, not ${JSON.stringify(text)}`);
  return choice;
}

function nonEmpty(text: string | undefined): string | undefined {
  return text === undefined || text === "" ? undefined : text;
}
