/** Clients of S3, each behind the same few calls, so that one list of cases is held against all of them. */
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import {
  CreateBucketCommand,
  GetObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  type S3Client,
} from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";
import { Client as MinioClient } from "minio";
import { packageRoot } from "../../native/binding/addon.js";
import { ACCESS_KEY, SECRET_KEY } from "../support/s3.js";
import { clientsFolder, type Door, doorEnvironment, REGION, runClient, s3Client } from "./door.js";

export interface ConformanceClient {
  makeBucket(bucket: string): Promise<void>;
  put(bucket: string, key: string, bytes: Buffer): Promise<void>;
  /** In parts of `PART_BYTES`. */
  putInParts(bucket: string, key: string, bytes: Buffer): Promise<void>;
  get(bucket: string, key: string): Promise<Buffer>;
  /** `length` bytes from `offset` on; null: the client cannot ask for that. */
  getRange: ((bucket: string, key: string, offset: number, length: number) => Promise<Buffer>) | null;
  list(bucket: string, prefix: string): Promise<string[]>;
  stop(): Promise<void>;
}

export const PART_BYTES = 8 << 20;

export interface Kind {
  name: string;
  /** What must be installed for it, in build/clients/bin; null: it comes from npm. */
  program: string | null;
  /** Keys that the client itself cannot say, with the reason. */
  unsaid: Readonly<Record<string, string>>;
  start(door: Door, folder: string): Promise<ConformanceClient>;
}

export const CLIENTS: readonly Kind[] = [
  { name: "@aws-sdk/client-s3 and lib-storage", program: null, unsaid: {}, start: startAwsSdk },
  { name: "minio-js", program: null, unsaid: {}, start: startMinio },
  {
    name: "boto3",
    program: "python",
    unsaid: {},
    start: (door, folder) => startAgent("boto3", door, folder),
  },
  {
    name: "pyarrow",
    program: "python",
    unsaid: { "a//b": "its paths have no empty parts", "/leading": "its paths have no empty parts" },
    start: (door, folder) => startAgent("pyarrow", door, folder),
  },
  { name: "aws cli", program: "aws", unsaid: {}, start: startAwsCli },
  { name: "s3cmd", program: "s3cmd", unsaid: {}, start: startS3cmd },
  {
    name: "rclone",
    program: "rclone",
    unsaid: { "a//b": "its paths have no empty parts", "/leading": "its paths have no empty parts" },
    start: startRclone,
  },
];

async function startAwsSdk(door: Door): Promise<ConformanceClient> {
  const client: S3Client = s3Client(door);
  const body = async (bucket: string, key: string, range?: string) => {
    const got = await client.send(new GetObjectCommand({ Bucket: bucket, Key: key, Range: range }));
    return buffer(got.Body as Readable);
  };
  return {
    makeBucket: async (bucket) => void (await client.send(new CreateBucketCommand({ Bucket: bucket }))),
    put: async (bucket, key, bytes) =>
      void (await client.send(new PutObjectCommand({ Bucket: bucket, Key: key, Body: bytes }))),
    putInParts: async (bucket, key, bytes) =>
      void (await new Upload({
        client,
        params: { Bucket: bucket, Key: key, Body: Readable.from(slices(bytes)) },
        partSize: PART_BYTES,
      }).done()),
    get: (bucket, key) => body(bucket, key),
    getRange: (bucket, key, offset, length) => body(bucket, key, rangeHeader(offset, length)),
    async list(bucket, prefix) {
      const keys: string[] = [];
      let token: string | undefined;
      do {
        const page = await client.send(
          new ListObjectsV2Command({ Bucket: bucket, Prefix: prefix, ContinuationToken: token }),
        );
        keys.push(...(page.Contents ?? []).map((object) => object.Key as string));
        token = page.NextContinuationToken;
      } while (token !== undefined);
      return keys;
    },
    stop: async () => client.destroy(),
  };
}

/** Pieces that fit no part. */
function* slices(bytes: Buffer): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += 1_000_000) yield bytes.subarray(at, at + 1_000_000);
}

async function startMinio(door: Door): Promise<ConformanceClient> {
  const client = new MinioClient({
    endPoint: door.host,
    port: door.port,
    useSSL: false,
    accessKey: ACCESS_KEY,
    secretKey: SECRET_KEY,
    region: REGION,
    partSize: PART_BYTES,
  });
  return {
    makeBucket: (bucket) => client.makeBucket(bucket),
    put: async (bucket, key, bytes) => void (await client.putObject(bucket, key, bytes, bytes.length)),
    putInParts: async (bucket, key, bytes) =>
      void (await client.putObject(bucket, key, Readable.from(slices(bytes)), bytes.length)),
    get: async (bucket, key) => buffer(await client.getObject(bucket, key)),
    getRange: async (bucket, key, offset, length) =>
      buffer(await client.getPartialObject(bucket, key, offset, length)),
    list: async (bucket, prefix) => {
      const keys: string[] = [];
      for await (const object of client.listObjectsV2(bucket, prefix, true)) keys.push(object.name as string);
      return keys;
    },
    stop: async () => {},
  };
}

/** A library of Python's, in a process that lives as long as the client. */
async function startAgent(library: string, door: Door, folder: string): Promise<ConformanceClient> {
  const script = join(packageRoot(), "test", "conformance", "python", "agent.py");
  const child: ChildProcess = spawn(join(clientsFolder(), "bin", "python"), [script, library], {
    cwd: folder,
    env: doorEnvironment(door, folder),
    stdio: ["pipe", "pipe", "inherit"],
  });
  const replies = createInterface({ input: child.stdout as Readable })[Symbol.asyncIterator]();
  const ask = async (request: object): Promise<string[]> => {
    child.stdin?.write(`${JSON.stringify(request)}\n`);
    const { value, done } = await replies.next();
    if (done === true) throw new Error(`the agent for ${library} ended: ${JSON.stringify(request)}`);
    const reply = JSON.parse(value as string) as { error: string | null; keys?: string[] };
    if (reply.error !== null) throw new Error(`${library}: ${reply.error}`);
    return reply.keys ?? [];
  };
  const file = join(folder, `${library}.bytes`);
  const got = async (request: object) => {
    rmSync(file, { force: true });
    await ask({ ...request, file });
    return readFileSync(file);
  };
  const put = async (call: string, bucket: string, key: string, bytes: Buffer) => {
    writeFileSync(file, bytes);
    await ask({ call, bucket, key, file, partBytes: PART_BYTES });
  };
  return {
    makeBucket: async (bucket) => void (await ask({ call: "makeBucket", bucket })),
    put: (bucket, key, bytes) => put("put", bucket, key, bytes),
    putInParts: (bucket, key, bytes) => put("putInParts", bucket, key, bytes),
    get: (bucket, key) => got({ call: "get", bucket, key }),
    getRange: (bucket, key, offset, length) => got({ call: "getRange", bucket, key, offset, length }),
    list: (bucket, prefix) => ask({ call: "list", bucket, prefix }),
    stop: async () => {
      child.stdin?.end();
    },
  };
}

async function startAwsCli(door: Door, folder: string): Promise<ConformanceClient> {
  const config = join(folder, "aws.config");
  writeFileSync(config, `[default]\ns3 =\n  multipart_threshold = 8MB\n  multipart_chunksize = 8MB\n`);
  const env = { ...doorEnvironment(door, folder), AWS_CONFIG_FILE: config };
  const aws = (...args: string[]) => runClient("aws", args, env, folder);
  const file = join(folder, "aws.bytes");
  const put = async (bucket: string, key: string, bytes: Buffer) => {
    writeFileSync(file, bytes);
    await aws("s3", "cp", "--quiet", file, `s3://${bucket}/${key}`);
  };
  return {
    makeBucket: async (bucket) => void (await aws("s3", "mb", `s3://${bucket}`)),
    put,
    putInParts: put,
    get: (bucket, key) => aws("s3", "cp", `s3://${bucket}/${key}`, "-"),
    async getRange(bucket, key, offset, length) {
      const range = rangeHeader(offset, length);
      await aws("s3api", "get-object", "--bucket", bucket, "--key", key, "--range", range, file);
      return readFileSync(file);
    },
    async list(bucket, prefix) {
      const query = ["--query", "Contents[].Key", "--output", "json"];
      const text = await aws("s3api", "list-objects-v2", "--bucket", bucket, "--prefix", prefix, ...query);
      return JSON.parse(text.toString()) as string[];
    },
    stop: async () => {},
  };
}

async function startS3cmd(door: Door, folder: string): Promise<ConformanceClient> {
  const config = join(folder, "s3cmd.config");
  const settings = {
    access_key: ACCESS_KEY,
    secret_key: SECRET_KEY,
    host_base: `${door.host}:${door.port}`,
    host_bucket: `${door.host}:${door.port}`,
    use_https: "False",
    bucket_location: REGION,
    multipart_chunk_size_mb: "8",
    progress_meter: "False",
    check_ssl_certificate: "False",
  };
  const lines = Object.entries(settings).map(([name, value]) => `${name} = ${value}\n`);
  writeFileSync(config, `[default]\n${lines.join("")}`);
  const env = doorEnvironment(door, folder);
  const s3cmd = (...args: string[]) => runClient("s3cmd", ["--config", config, ...args], env, folder);
  const file = join(folder, "s3cmd.bytes");
  const put = async (bucket: string, key: string, bytes: Buffer) => {
    writeFileSync(file, bytes);
    await s3cmd("put", file, `s3://${bucket}/${key}`);
  };
  return {
    makeBucket: async (bucket) => void (await s3cmd("mb", `s3://${bucket}`)),
    put,
    putInParts: put,
    async get(bucket, key) {
      await s3cmd("get", "--force", `s3://${bucket}/${key}`, file);
      return readFileSync(file);
    },
    getRange: null,
    async list(bucket, prefix) {
      const text = await s3cmd("ls", "--recursive", `s3://${bucket}/${prefix}`);
      const start = `s3://${bucket}/`;
      const lines = text.toString().split("\n").filter(Boolean);
      return lines.map((line) => line.slice(line.indexOf(start) + start.length));
    },
    stop: async () => {},
  };
}

async function startRclone(door: Door, folder: string): Promise<ConformanceClient> {
  const env = {
    ...doorEnvironment(door, folder),
    RCLONE_CONFIG: "/dev/null",
    RCLONE_CONFIG_DOOR_TYPE: "s3",
    RCLONE_CONFIG_DOOR_PROVIDER: "Other",
    RCLONE_CONFIG_DOOR_ENDPOINT: door.url,
    RCLONE_CONFIG_DOOR_ACCESS_KEY_ID: ACCESS_KEY,
    RCLONE_CONFIG_DOOR_SECRET_ACCESS_KEY: SECRET_KEY,
    RCLONE_CONFIG_DOOR_REGION: REGION,
    RCLONE_CONFIG_DOOR_FORCE_PATH_STYLE: "true",
    // Keys as they are, but for what no path of rclone's can be.
    RCLONE_CONFIG_DOOR_ENCODING: "None",
    RCLONE_S3_UPLOAD_CUTOFF: "8Mi",
    RCLONE_S3_CHUNK_SIZE: "8Mi",
    RCLONE_RETRIES: "1",
  };
  const rclone = (...args: string[]) => runClient("rclone", args, env, folder);
  const file = join(folder, "rclone.bytes");
  const put = async (bucket: string, key: string, bytes: Buffer) => {
    writeFileSync(file, bytes);
    await rclone("copyto", file, `door:${bucket}/${key}`);
  };
  return {
    makeBucket: async (bucket) => void (await rclone("mkdir", `door:${bucket}`)),
    put,
    putInParts: put,
    get: (bucket, key) => rclone("cat", `door:${bucket}/${key}`),
    getRange: (bucket, key, offset, length) =>
      rclone("cat", "--offset", String(offset), "--count", String(length), `door:${bucket}/${key}`),
    async list(bucket, prefix) {
      const text = await rclone("lsf", "--recursive", "--files-only", `door:${bucket}/${prefix}`);
      return text
        .toString()
        .split("\n")
        .filter(Boolean)
        .map((name) => prefix + name);
    },
    stop: async () => {},
  };
}

function rangeHeader(offset: number, length: number): string {
  return `bytes=${offset}-${offset + length - 1}`;
}
