/**
 * The S3 door: HTTP, and what is the same for every operation.
 *
 *   head -> request -> signature -> operation -> scope -> bucket -> handler, which reads the body and answers
 *
 * Nothing of a body is read, and no `100 Continue` sent, before all of that has been found good.
 */
import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
  STATUS_CODES,
} from "node:http";
import type { AddressInfo, Socket } from "node:net";
import type { Duplex } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { MillraceError } from "../../../proto/errors.js";
import type { Clock } from "../../clock.js";
import { allowed } from "./auth/credentials.js";
import { authorize } from "./auth/signature.js";
import { useBucket } from "./bucket.js";
import { hasBody, type S3Context, type S3Request } from "./call.js";
import { S3Error } from "./errors.js";
import { newRequestId, parseRequest, type RequestRules } from "./request.js";
import { errorXml, writeError } from "./respond.js";
import { findOperation, type Operation } from "./router.js";
import { LifecycleSweeper } from "./sweeper.js";

const HEADER_BYTES_MAX = 64 * 1024;
// Clients of S3 expect a quiet connection to stay for a minute; longer than that, or both would close at once.
const KEEP_ALIVE_MS = 75_000;
const HEADERS_TIMEOUT_MS = 60_000;
// The last resort against connections that do nothing: bodies have limits of their own, which are shorter.
const IDLE_TIMEOUT_MS = 300_000;
const CONNECTIONS_MAX = 10_000;
// What is read and thrown away of a refused body, so that its sender gets to read why. Of a longer one the rest stays
// unread for what is left of the time: to close upon bytes that nobody read resets the connection, and the answer with
// it where the sender has not come to it.
const DRAIN_BYTES_MAX = 8 * 1024 * 1024;
const DRAIN_MS = 5_000;
// A refused body of so much at most is read to its end first, which saves the connection.
const DRAIN_FIRST_BYTES_MAX = 64 * 1024;
const RESOURCE_CHARACTERS_SHOWN = 2_048;

export interface S3DoorOptions extends S3Context {
  /** A host name below which each bucket has a name of its own, beside localhost; null: none. */
  domain: string | null;
  clock: Clock;
}

/** A response that is under way on a connection. */
interface UnderWay {
  response: ServerResponse;
  id: string;
}

export class S3Door {
  private readonly server: Server;
  private readonly rules: RequestRules;
  private readonly underWay = new Map<Duplex, UnderWay>();
  /** Resolves when the last request of a connection is answered. */
  private readonly turns = new WeakMap<Duplex, Promise<void>>();
  private readonly sweeper: LifecycleSweeper;

  constructor(private readonly options: S3DoorOptions) {
    const { domain, limits } = options;
    this.rules = {
      domains: ["localhost", ...(domain === null ? [] : [domain.toLowerCase()])],
      keyBytesMax: limits.keyBytesMax as number,
    };
    this.sweeper = new LifecycleSweeper(options);
    this.server = createServer({
      maxHeaderSize: HEADER_BYTES_MAX,
      keepAliveTimeout: KEEP_ALIVE_MS,
      headersTimeout: HEADERS_TIMEOUT_MS,
      // Of a whole request: large bodies take their time.
      requestTimeout: 0,
      // Its absence is answered with XML, as all else.
      requireHostHeader: false,
      noDelay: true,
    });
    this.server.maxConnections = CONNECTIONS_MAX;
    this.server.timeout = IDLE_TIMEOUT_MS;
    const serve = (message: IncomingMessage, response: ServerResponse) => {
      const { socket } = message;
      const earlier = this.turns.get(socket);
      this.turns.set(socket, this.inTurn(earlier, message, response));
    };
    this.server.on("request", serve);
    this.server.on("checkContinue", serve);
    // As S3 does, which takes no notice of expectations that it does not know.
    this.server.on("checkExpectation", serve);
    this.server.on("clientError", (error, socket) => this.refuseUnreadable(error, socket));
  }

  /** Binds `host` (a name or address; IPv6 without brackets) and returns "host:port" as really bound. */
  async listen(host: string, port: number): Promise<string> {
    const shownHost = host.includes(":") ? `[${host}]` : host;
    await new Promise<void>((resolve, reject) => {
      const refuse = (error: Error) => {
        reject(new MillraceError("UNAVAILABLE", `cannot listen on ${shownHost}:${port}: ${error.message}`));
      };
      this.server.once("error", refuse);
      this.server.listen(port, host, () => {
        this.server.off("error", refuse);
        resolve();
      });
    });
    this.sweeper.start();
    return `${shownHost}:${(this.server.address() as AddressInfo).port}`;
  }

  /** Takes no new requests, waits at most `graceMs` for those under way, and cuts off what is left. */
  async close(graceMs: number): Promise<void> {
    await this.sweeper.stop();
    if (!this.server.listening) return;
    const closed = new Promise<void>((resolve) => this.server.close(() => resolve()));
    // Connections that are kept alive by their clients would otherwise hold it open.
    for (const { response } of this.underWay.values()) {
      if (!response.headersSent) response.setHeader("Connection", "close");
    }
    this.server.closeIdleConnections();
    const timeout = new AbortController();
    await Promise.race([closed, delay(graceMs, null, { signal: timeout.signal }).catch(() => null)]);
    timeout.abort();
    this.server.closeAllConnections();
    await closed;
  }

  /**
   * Pipelined requests wait for those before them, on which what they see may depend. Nor would a response that is not
   * yet that of its socket be told when the socket goes.
   */
  private async inTurn(
    earlier: Promise<void> | undefined,
    message: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    if (earlier !== undefined) {
      await earlier;
      if (message.socket.destroyed) return;
    }
    const answered = new Promise<void>((resolve) => response.once("close", resolve));
    await this.serve(message, response);
    await answered;
  }

  private async serve(message: IncomingMessage, response: ServerResponse): Promise<void> {
    const id = newRequestId();
    const { socket } = message;
    const underWay = { response, id };
    this.underWay.set(socket, underWay);
    let operation: Operation | null = null;
    response.once("close", () => {
      if (this.underWay.get(socket) === underWay) this.underWay.delete(socket);
      this.options.log.debug(
        {
          requestId: id,
          method: message.method,
          path: shownPath(message),
          operation: operation?.name,
          status: response.statusCode,
          finished: response.writableFinished,
        },
        "s3 request",
      );
    });
    // A client that leaves is noticed by whoever reads or writes; nobody else need hear of it.
    message.on("error", () => {});
    response.on("error", () => {});
    if (!this.server.listening) response.setHeader("Connection", "close");
    try {
      const request = parseRequest(message, id, this.rules);
      const authorization = authorize(request, this.options.credentials, this.options.clock.unixMs());
      operation = findOperation(request);
      this.checkScope(request, operation, authorization.grantee);
      if (request.bucket !== null && operation.name !== "CreateBucket") {
        useBucket(this.options, request.bucket, authorization.grantee);
      }
      await operation.handle({ context: this.options, request, response, authorization });
    } catch (thrown) {
      await this.fail(message, response, id, thrown);
    }
  }

  private checkScope(
    request: S3Request,
    { reach, writes }: Operation,
    grantee: Parameters<typeof allowed>[0],
  ): void {
    const { bucket, key, query } = request;
    const nowUnixMs = this.options.clock.unixMs();
    if (reach === "node") allowed(grantee, null, null, writes, nowUnixMs);
    else if (reach === "bucket") allowed(grantee, bucket, null, writes, nowUnixMs);
    // Whether they may be written depends on which they are.
    else if (reach === "keys") allowed(grantee, bucket, null, false, nowUnixMs);
    else allowed(grantee, bucket, reach === "key" ? key : (query.get("prefix") ?? ""), writes, nowUnixMs);
  }

  private async fail(
    message: IncomingMessage,
    response: ServerResponse,
    id: string,
    thrown: unknown,
  ): Promise<void> {
    const error = S3Error.from(thrown);
    const about = { requestId: id, method: message.method, path: shownPath(message) };
    if (error.code === "InternalError" && !response.destroyed) {
      this.options.log.error({ ...about, err: thrown }, "s3 request failed");
    } else {
      this.options.log.debug({ ...about, code: error.code, reason: error.message }, "s3 request refused");
    }
    if (response.destroyed || response.writableEnded) return;
    // The head has told of success: all that is left is to show that it did not come to that.
    if (response.headersSent) {
      message.socket.destroy();
      return;
    }
    // Of what a handler set before it failed the rest is about an answer that is not given.
    for (const name of response.getHeaderNames()) {
      if (name !== "connection") response.removeHeader(name);
    }
    // A client that was not told to go on sends its body, or another request; nobody can tell which.
    const awaited = message.headers.expect !== undefined && !message.readableDidRead;
    const isUnread = () => hasBody(message) && !message.complete;
    if (isUnread() && !awaited && announcedBytes(message) <= DRAIN_FIRST_BYTES_MAX) await drain(message);
    const unread = isUnread();
    if (unread) response.setHeader("Connection", "close");
    writeError(response, error, shownPath(message), id);
    if (unread && !awaited) await drain(message);
    response.end();
  }

  /** For bytes that node's parser did not take for HTTP, or that did not come in time. */
  private refuseUnreadable(thrown: NodeJS.ErrnoException, socket: Duplex): void {
    const underWay = this.underWay.get(socket);
    if (!socket.writable || thrown.code === "ECONNRESET" || underWay?.response.headersSent) {
      socket.destroy();
      return;
    }
    const error =
      thrown.code === "HPE_HEADER_OVERFLOW"
        ? new S3Error("RequestHeaderSectionTooLarge", `headers may have at most ${HEADER_BYTES_MAX} bytes`)
        : thrown.code === "ERR_HTTP_REQUEST_TIMEOUT"
          ? new S3Error("RequestTimeout", "the head of the request did not come in time")
          : new S3Error("BadRequest", "the request is not HTTP as this server reads it");
    const id = underWay?.id ?? newRequestId();
    this.options.log.debug({ requestId: id, code: thrown.code }, "s3 request unreadable");
    const xml = errorXml(error, "", id);
    socket.end(
      `HTTP/1.1 ${error.status} ${STATUS_CODES[error.status]}\r\nContent-Type: application/xml\r\n` +
        `Content-Length: ${Buffer.byteLength(xml)}\r\nx-amz-request-id: ${id}\r\nServer: Millrace\r\n` +
        `Date: ${new Date().toUTCString()}\r\nConnection: close\r\n\r\n${xml}`,
      () => (socket as Socket).destroySoon(),
    );
  }
}

/** Throws away what still comes of a body. Resolves at its end, or after a while. */
function drain(message: IncomingMessage): Promise<void> {
  let bytes = 0;
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      resolve();
    };
    const timer = setTimeout(done, DRAIN_MS);
    message.once("end", done).once("close", done);
    message.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > DRAIN_BYTES_MAX) message.pause();
    });
    message.resume();
  });
}

function announcedBytes({ headers }: IncomingMessage): number {
  return Number(headers["content-length"] ?? Number.POSITIVE_INFINITY);
}

function shownPath(message: IncomingMessage): string {
  return (message.url ?? "").split("?", 1)[0]?.slice(0, RESOURCE_CHARACTERS_SHOWN) ?? "";
}
