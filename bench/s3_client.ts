/**
 * A client of S3 that is in nobody's way: requests are signed before the clock starts and go out as they are over
 * plain sockets, one at a time on each, and of the answers it reads the head and counts the bytes.
 */

import { createHash } from "node:crypto";
import { connect, type Socket } from "node:net";
import { MillraceError } from "../client/index.js";
import { hmac, signingKey } from "../server/doors/s3/auth/signing.js";
import { quantile } from "./measure.js";

export interface S3Target {
  host: string;
  port: number;
  accessKey: string;
  secretKey: string;
  bucket: string;
}

export interface S3Load {
  target: S3Target;
  method: "PUT" | "GET";
  sizeBytes: number;
  /** Objects that are put or got in turn. */
  keys: number;
  connections: number;
  seconds: number;
}

export interface S3Sample {
  operations: number;
  bytes: number;
  seconds: number;
  p50Us: number;
  p99Us: number;
}

const REGION = "us-east-1";
const READ_BYTES = 256 * 1024;
const HEAD_BYTES_MAX = 16 * 1024;
const HEAD_END = Buffer.from("\r\n\r\n");

/** The head of a request with its signature. The payload is not signed: its hash would be the client's work. */
export function signedHead(target: S3Target, method: string, path: string, sizeBytes: number): Buffer {
  const host = `${target.host}:${target.port}`;
  const date = new Date().toISOString().replace(/[-:]|\.\d+/g, "");
  const day = date.slice(0, 8);
  const scope = `${day}/${REGION}/s3/aws4_request`;
  const names = "host;x-amz-content-sha256;x-amz-date";
  const headers = `host:${host}\nx-amz-content-sha256:UNSIGNED-PAYLOAD\nx-amz-date:${date}\n`;
  const canonical = `${method}\n${path}\n\n${headers}\n${names}\nUNSIGNED-PAYLOAD`;
  const hash = createHash("sha256").update(canonical).digest("hex");
  const toSign = `AWS4-HMAC-SHA256\n${date}\n${scope}\n${hash}`;
  const signature = hmac(signingKey(target.secretKey, day, REGION), toSign).toString("hex");
  return Buffer.from(
    `${method} ${path} HTTP/1.1\r\nHost: ${host}\r\nx-amz-date: ${date}\r\n` +
      `x-amz-content-sha256: UNSIGNED-PAYLOAD\r\nContent-Length: ${sizeBytes}\r\n` +
      `Authorization: AWS4-HMAC-SHA256 Credential=${target.accessKey}/${scope}, SignedHeaders=${names}, ` +
      `Signature=${signature}\r\n\r\n`,
  );
}

/** One connection, on which one request is under way at a time. */
class Connection {
  private head: Buffer = Buffer.alloc(0);
  /** Of the answer's body, still to come; -1: its head has not come. */
  private leftBytes = -1;
  private settle: { resolve: () => void; reject: (error: Error) => void } | null = null;
  /** Why nothing more comes of it. */
  private failure: Error | null = null;

  private constructor(private readonly socket: Socket) {}

  static open({ host, port }: S3Target): Promise<Connection> {
    return new Promise((resolve, reject) => {
      const buffer = Buffer.allocUnsafe(READ_BYTES);
      let connection: Connection | null = null;
      const socket = connect({
        host,
        port,
        noDelay: true,
        onread: {
          buffer,
          callback: (bytes) => {
            connection?.take(buffer.subarray(0, bytes));
            return true;
          },
        },
      });
      connection = new Connection(socket);
      socket.once("connect", () => resolve(connection as Connection));
      const fail = (error?: Error) => {
        const why = error ?? new MillraceError("UNAVAILABLE", "the server closed the connection");
        reject(why);
        connection?.fail(why);
      };
      socket.once("error", fail).once("close", () => fail());
    });
  }

  /** Resolves when the answer has come to its end. */
  request(head: Buffer, body: Buffer | null): Promise<void> {
    return new Promise((resolve, reject) => {
      // A socket that is gone tells nobody a second time.
      if (this.failure !== null) return reject(this.failure);
      this.settle = { resolve, reject };
      this.leftBytes = -1;
      this.socket.cork();
      this.socket.write(head);
      if (body !== null) this.socket.write(body);
      this.socket.uncork();
    });
  }

  close(): void {
    this.settle = null;
    this.socket.destroy();
  }

  private take(piece: Buffer): void {
    let bytes = piece.length;
    if (this.leftBytes < 0) {
      const all = this.head.length === 0 ? piece : Buffer.concat([this.head, piece]);
      const end = all.indexOf(HEAD_END);
      if (end < 0) {
        if (all.length > HEAD_BYTES_MAX) this.fail(new MillraceError("INTERNAL", "an endless head"));
        // The memory of the piece is used again.
        this.head = Buffer.from(all);
        return;
      }
      const text = all.toString("latin1", 0, end);
      this.head = Buffer.alloc(0);
      const length = /\r\ncontent-length: *(\d+)/i.exec(text);
      if (!text.startsWith("HTTP/1.1 200 ") || length === null) {
        const said = all.toString("latin1", 0, 600);
        this.fail(new MillraceError("INTERNAL", `the server answered: ${said}`));
        return;
      }
      this.leftBytes = Number(length[1]);
      bytes = all.length - end - HEAD_END.length;
    }
    this.leftBytes -= bytes;
    if (this.leftBytes <= 0) {
      const { settle } = this;
      this.settle = null;
      settle?.resolve();
    }
  }

  private fail(error: Error): void {
    this.failure ??= error;
    const { settle } = this;
    this.settle = null;
    settle?.reject(this.failure);
  }
}

/** Puts or gets for about so many seconds; what has begun is finished. */
export async function runLoad(load: S3Load): Promise<S3Sample> {
  const { target, method, sizeBytes, keys, connections, seconds } = load;
  const body = method === "PUT" ? Buffer.alloc(sizeBytes, "millrace ") : null;
  const heads = Array.from({ length: keys }, (_, i) =>
    signedHead(target, method, `/${target.bucket}/${sizeBytes}/${i}`, body?.length ?? 0),
  );
  const open = await Promise.all(Array.from({ length: connections }, () => Connection.open(target)));
  const latencies: number[] = [];
  let next = 0;
  const start = performance.now();
  const until = start + seconds * 1000;
  try {
    await Promise.all(
      open.map(async (connection) => {
        let before = performance.now();
        do {
          await connection.request(heads[next++ % keys] as Buffer, body);
          const now = performance.now();
          latencies.push(now - before);
          before = now;
        } while (before < until);
      }),
    );
  } finally {
    for (const connection of open) connection.close();
  }
  const elapsed = (performance.now() - start) / 1000;
  const sorted = Float64Array.from(latencies).sort();
  return {
    operations: latencies.length,
    bytes: latencies.length * sizeBytes,
    seconds: elapsed,
    p50Us: quantile(sorted, 0.5) * 1000,
    p99Us: quantile(sorted, 0.99) * 1000,
  };
}

/** Creates the bucket; puts every object that loads of this size get. */
export async function prepare(target: S3Target, sizeBytes: number, keys: number): Promise<void> {
  const connection = await Connection.open(target);
  try {
    const body = Buffer.alloc(sizeBytes, "millrace ");
    for (let i = 0; i < keys; i++) {
      await connection.request(
        signedHead(target, "PUT", `/${target.bucket}/${sizeBytes}/${i}`, sizeBytes),
        body,
      );
    }
  } finally {
    connection.close();
  }
}

export async function createBucket(target: S3Target): Promise<void> {
  const connection = await Connection.open(target);
  try {
    await connection.request(signedHead(target, "PUT", `/${target.bucket}`, 0), null);
  } finally {
    connection.close();
  }
}
