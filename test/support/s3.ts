/** The S3 door of a real daemon: Amazon's client for it, and requests byte by byte for what no client sends. */
import { createHash, createHmac } from "node:crypto";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { S3Client, type S3ClientConfig } from "@aws-sdk/client-s3";
import { type Daemon, type DaemonOptions, startDaemon } from "./daemon.js";

export const ACCESS_KEY = "test-key";
export const SECRET_KEY = "test-secret";
const REGION = "us-east-1";

export interface S3Daemon {
  readonly daemon: Daemon;
  readonly host: string;
  readonly port: number;
  /** "http://host:port". */
  readonly url: string;
  /** A client of its own, to be destroyed by whoever asked for it. */
  client(config?: Partial<S3ClientConfig>): S3Client;
}

export interface S3DaemonOptions extends DaemonOptions {
  /** Without keys the door is for this machine alone. */
  keys?: boolean;
}

export async function startS3Daemon(options: S3DaemonOptions = {}): Promise<S3Daemon> {
  const keys = options.keys ?? true;
  const daemon = await startDaemon({
    ...options,
    args: ["--s3", "127.0.0.1:0", ...(options.args ?? [])],
    env: {
      ...(keys ? { MILLRACE_ACCESS_KEY: ACCESS_KEY, MILLRACE_SECRET_KEY: SECRET_KEY } : {}),
      ...options.env,
    },
  });
  const colon = daemon.s3Address.lastIndexOf(":");
  const url = `http://${daemon.s3Address}`;
  process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED ??= "true";
  return {
    daemon,
    host: daemon.s3Address.slice(0, colon),
    port: Number(daemon.s3Address.slice(colon + 1)),
    url,
    client: (config = {}) =>
      new S3Client({
        endpoint: url,
        region: REGION,
        forcePathStyle: true,
        credentials: { accessKeyId: ACCESS_KEY, secretAccessKey: SECRET_KEY },
        maxAttempts: 1,
        ...config,
      }),
  };
}

export interface RawRequest {
  method: string;
  /** Percent-encoded, with the query; signed as it stands here. */
  target: string;
  /** Beside host, date and authorization; by lower-case name. */
  headers?: Record<string, string>;
  /** What x-amz-content-sha256 says. Left out: the hash of `body`. */
  payloadHash?: string;
  body?: Uint8Array;
  /** Left out: the test's own keys. Null: no signature. */
  keys?: { accessKey: string; secretKey: string } | null;
  nowUnixMs?: number;
}

/** The headers of a request with its signature among them, and what its chunks' signatures continue from. */
export function signedHeaders(
  host: string,
  request: RawRequest,
): { headers: Record<string, string>; signature: string; signingKey: Buffer; date: string; scope: string } {
  const keys = request.keys === undefined ? { accessKey: ACCESS_KEY, secretKey: SECRET_KEY } : request.keys;
  const body = request.body ?? new Uint8Array(0);
  const date = new Date(request.nowUnixMs ?? Date.now()).toISOString().replace(/[-:]|\.\d+/g, "");
  const scope = `${date.slice(0, 8)}/${REGION}/s3/aws4_request`;
  const headers: Record<string, string> = { host, ...request.headers };
  if (keys === null) return { headers, signature: "", signingKey: Buffer.alloc(0), date, scope };
  headers["x-amz-date"] = date;
  headers["x-amz-content-sha256"] = request.payloadHash ?? sha256(body);
  const names = Object.keys(headers).sort();
  const [path = "", query = ""] = request.target.split("?");
  const pairs = query
    .split("&")
    .filter((pair) => pair !== "")
    .map((pair) => (pair.includes("=") ? pair : `${pair}=`))
    .sort();
  const canonical = [
    request.method,
    path,
    pairs.join("&"),
    ...names.map((name) => `${name}:${(headers[name] as string).trim().replace(/ +/g, " ")}`),
    "",
    names.join(";"),
    headers["x-amz-content-sha256"],
  ].join("\n");
  const signingKey = [date.slice(0, 8), REGION, "s3", "aws4_request"].reduce<Buffer | string>(
    (key, part) => hmac(key, part),
    `AWS4${keys.secretKey}`,
  ) as Buffer;
  const toSign = ["AWS4-HMAC-SHA256", date, scope, sha256(Buffer.from(canonical))].join("\n");
  const signature = hmac(signingKey, toSign).toString("hex");
  headers.authorization =
    `AWS4-HMAC-SHA256 Credential=${keys.accessKey}/${scope}, SignedHeaders=${names.join(";")}, ` +
    `Signature=${signature}`;
  return { headers, signature, signingKey, date, scope };
}

export function hmac(key: string | Buffer, text: string): Buffer {
  return createHmac("sha256", key).update(text).digest();
}

export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

export interface RawResponse {
  status: number;
  /** By lower-case name. */
  headers: Record<string, string>;
  body: Buffer;
}

/** One TCP connection to a door, on which a test says what it likes. */
export class RawConnection {
  private received = Buffer.alloc(0);
  private ended = false;
  private wake: (() => void) | null = null;

  private constructor(
    readonly socket: Socket,
    private readonly host: string,
  ) {
    socket.on("data", (bytes: Buffer) => {
      this.received = Buffer.concat([this.received, bytes]);
      this.wake?.();
    });
    const end = () => {
      this.ended = true;
      this.wake?.();
    };
    socket.on("close", end).on("end", end).on("error", end);
  }

  static async open({ host, port }: Pick<S3Daemon, "host" | "port">): Promise<RawConnection> {
    const socket = connect(port, host);
    await once(socket, "connect");
    return new RawConnection(socket, `${host}:${port}`);
  }

  /** Sends a signed head with a Content-Length unless the headers have a length of their own, and the body. */
  send(request: RawRequest, { body = true } = {}): ReturnType<typeof signedHeaders> {
    const bytes = request.body ?? new Uint8Array(0);
    const signed = signedHeaders(this.host, request);
    const { headers } = signed;
    if (headers["content-length"] === undefined && headers["transfer-encoding"] === undefined) {
      headers["content-length"] = String(bytes.length);
    }
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
    this.write(`${request.method} ${request.target} HTTP/1.1\r\n${lines.join("")}\r\n`);
    if (body && bytes.length > 0) this.write(bytes);
    return signed;
  }

  write(bytes: string | Uint8Array): void {
    this.socket.write(bytes);
  }

  /** The next response. `bodiless`: the answer to a HEAD. Throws where the connection ends before it is whole. */
  async response({ bodiless = false } = {}): Promise<RawResponse> {
    const headEnd = await this.until(() => {
      const at = this.received.indexOf("\r\n\r\n");
      return at < 0 ? null : at;
    });
    const [line = "", ...fields] = this.received.subarray(0, headEnd).toString("latin1").split("\r\n");
    this.received = this.received.subarray(headEnd + 4);
    const headers: Record<string, string> = {};
    for (const field of fields) {
      const colon = field.indexOf(":");
      headers[field.slice(0, colon).toLowerCase()] = field.slice(colon + 1).trim();
    }
    const status = Number(line.split(" ")[1]);
    const empty = bodiless || status === 304 || status === 204 || status < 200;
    const length = empty ? 0 : Number(headers["content-length"] ?? 0);
    await this.until(() => (this.received.length >= length ? length : null));
    const body = this.received.subarray(0, length);
    this.received = this.received.subarray(length);
    return { status, headers, body };
  }

  /** Resolves when the other side has closed. */
  async closed(): Promise<void> {
    while (!this.ended) await this.news();
  }

  close(): void {
    this.socket.destroy();
  }

  private async until(ready: () => number | null): Promise<number> {
    for (;;) {
      const found = ready();
      if (found !== null) return found;
      if (this.ended) throw new Error(`the connection ended after: ${this.received.toString("latin1")}`);
      await this.news();
    }
  }

  private news(): Promise<void> {
    return new Promise((resolve) => {
      this.wake = resolve;
    });
  }
}

/** One request on a connection of its own. */
export async function rawRequest(
  door: Pick<S3Daemon, "host" | "port">,
  request: RawRequest,
): Promise<RawResponse> {
  const connection = await RawConnection.open(door);
  try {
    connection.send(request);
    return await connection.response({ bodiless: request.method === "HEAD" });
  } finally {
    connection.close();
  }
}

/** The text of the first element of that name in an answer. */
export function xmlText({ body }: RawResponse, name: string): string | null {
  return new RegExp(`<${name}>([^<]*)</${name}>`).exec(body.toString())?.[1] ?? null;
}
