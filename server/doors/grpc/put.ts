/**
 * One `Objects.Put` stream.
 *
 *   header -> data* -> (trailer) -> end of stream -> sealed
 *
 * Whatever else ends it (an error, a cancel, a broken connection) aborts the draft, so nothing is left behind.
 * Chunks are copied into the store as they arrive; while the store has no room, reading stops, and HTTP/2's flow
 * control makes the sender wait.
 */
import type { ServerReadableStream, sendUnaryData } from "@grpc/grpc-js";
import { MillraceError } from "../../../proto/errors.js";
import type { ObjectInfoMessage, PutHeader, PutRequest, PutTrailer } from "../../../proto/messages.js";
import type { Draft } from "../../engine/engine.js";
import type { Holder } from "../../namespaces/guard.js";
import type { LiveNamespace } from "../../namespaces/namespaces.js";
import { isFull, ROOM_POLL_FIRST_MS, ROOM_POLL_MAX_MS } from "../room.js";
import { failure, pause } from "./calls.js";
import type { Checks } from "./checks.js";
import type { GrpcDoorContext } from "./context.js";

/** How long a full store may hold up a put whose caller set no deadline. */
const ROOM_WAIT_DEFAULT_MS = 5_000;
/** So that the typed error gets out before grpc-js answers the deadline by itself. */
const DEADLINE_MARGIN_MS = 50;

/** How long a stream's end is doubted that has neither an announced size nor a trailer to vouch for it. */
const RESET_LINGER_MS = 25;

type PutCall = ServerReadableStream<PutRequest, ObjectInfoMessage>;

export class PutStream {
  private header: PutHeader | null = null;
  private trailer: PutTrailer | null = null;
  private namespace: LiveNamespace | null = null;
  private holder: Holder | null = null;
  private draft: Draft | null = null;
  private writtenBytes = 0;
  /** Of the message at hand, where the store had no room for all of its data. */
  private takenOfMessage = 0;
  private ended = false;
  private readonly leaving = new AbortController();

  constructor(
    private readonly context: GrpcDoorContext,
    private readonly checks: Checks,
    private readonly call: PutCall,
    private readonly respond: sendUnaryData<ObjectInfoMessage>,
  ) {
    call.on("data", (message: PutRequest) => this.onMessage(message));
    call.on("end", () => this.onEnd());
    call.on("cancelled", () => this.abandon());
    call.on("close", () => this.abandon());
    call.on("error", () => this.abandon());
  }

  private onMessage(message: PutRequest): void {
    if (this.ended) return;
    try {
      const waitMs = this.accept(message);
      if (waitMs > 0) this.holdUp(() => pause(waitMs, this.leaving.signal));
    } catch (thrown) {
      if (isFull(thrown)) this.holdUp(() => this.waitForRoom(message, thrown));
      else this.fail(thrown);
    }
  }

  /**
   * Takes one message in; returns how long to rest before the next, for the sake of a bandwidth limit. When it
   * throws RESOURCE_EXHAUSTED it may be called again with the same message, and goes on where it stopped.
   */
  private accept(message: PutRequest): number {
    this.context.contract.checkRequest(this.call.getPath(), message);
    if (this.trailer !== null) throw invalid("a message came after the trailer");
    if (this.header === null) {
      if (message.header === null) throw invalid("the first message of a put must carry its header");
      this.begin(message.header, message);
    } else if (message.header !== null && message.header !== this.header) {
      throw invalid("only the first message of a put may carry a header");
    }
    this.checkSize(this.writtenBytes + message.data.length - this.takenOfMessage);
    while (this.takenOfMessage < message.data.length) {
      const taken = (this.draft as Draft).write(message.data.subarray(this.takenOfMessage));
      this.takenOfMessage += taken;
      this.writtenBytes += taken;
    }
    this.takenOfMessage = 0;
    this.trailer = message.trailer;
    return this.namespace?.pace.spend(message.data.length) ?? 0;
  }

  private begin(header: PutHeader, message: PutRequest): void {
    const { guard } = this.context;
    const need = { of: "keys", prefix: header.key, write: true } as const;
    const { namespace, holder } = guard.admit(this.call, message, header.namespace, need);
    const key = this.checks.key(header.key);
    this.checks.condition(header.condition);
    if (header.sizeKnown) this.checkLimits(header.sizeBytes, namespace);
    this.draft = this.context.engine.begin(header.namespace, key, header.sizeKnown ? header.sizeBytes : null);
    this.namespace = namespace;
    this.holder = holder;
    this.header = header;
  }

  private checkSize(sizeBytes: number): void {
    const { header, namespace } = this;
    if (header === null || namespace === null) return;
    if (header.sizeKnown && sizeBytes > header.sizeBytes) {
      throw invalid(`the header says ${header.sizeBytes} bytes, but more came`);
    }
    this.checkLimits(sizeBytes, namespace);
  }

  /** What waiting cannot help. */
  private checkLimits(sizeBytes: number, namespace: LiveNamespace): void {
    const objectBytesMax = this.context.limits.objectBytesMax as number;
    if (sizeBytes > objectBytesMax) {
      throw new MillraceError("OBJECT_TOO_LARGE", `an object has at most ${objectBytesMax} bytes`);
    }
    const limitBytes = namespace.limits.sizeBytes;
    if (limitBytes !== 0 && sizeBytes > limitBytes) {
      throw new MillraceError(
        "RESOURCE_EXHAUSTED",
        `the object is larger than limits.size_bytes of namespace ${namespace.name}, which is ${limitBytes}`,
        { retryable: false },
      );
    }
  }

  /** Stops reading while `wait` goes on. The end of the stream is not seen meanwhile either. */
  private holdUp(wait: () => Promise<void>): void {
    this.call.pause();
    wait().then(
      () => {
        if (!this.ended) this.call.resume();
      },
      (thrown: unknown) => this.fail(thrown),
    );
  }

  private async waitForRoom(message: PutRequest, full: unknown): Promise<void> {
    const waitMs = this.roomWaitMs();
    const startedMs = performance.now();
    for (let pollMs = ROOM_POLL_FIRST_MS; ; pollMs = Math.min(pollMs * 2, ROOM_POLL_MAX_MS)) {
      const leftMs = waitMs - (performance.now() - startedMs);
      if (leftMs <= 0) throw full;
      await pause(Math.min(pollMs, leftMs), this.leaving.signal);
      if (this.ended) return;
      try {
        const restMs = this.accept(message);
        if (restMs > 0) await pause(restMs, this.leaving.signal);
        return;
      } catch (thrown) {
        if (!isFull(thrown)) throw thrown;
      }
    }
  }

  private roomWaitMs(): number {
    const asked = this.header?.roomWaitMs ?? 0;
    if (asked > 0) return asked;
    const deadline = this.call.getDeadline();
    const deadlineMs = deadline instanceof Date ? deadline.getTime() : deadline;
    if (!Number.isFinite(deadlineMs)) return ROOM_WAIT_DEFAULT_MS;
    return deadlineMs - Date.now() - DEADLINE_MARGIN_MS;
  }

  private onEnd(): void {
    if (this.ended) return;
    if (this.header?.sizeKnown || this.header?.endsWithTrailer || this.trailer !== null) {
      this.seal();
      return;
    }
    // Nothing says that this end is the one meant: http2 of Node.js, as a client, ends a stream in good order
    // before it resets it. The reset is right behind, so it is given a moment, and a turn of the event loop in
    // which it is read even where that moment passed while the loop was busy.
    setTimeout(() => {
      setImmediate(() => {
        if (!this.ended) this.seal();
      });
    }, RESET_LINGER_MS);
  }

  private seal(): void {
    const { header, trailer, draft } = this;
    if (header === null || draft === null) {
      this.fail(invalid("the stream ended without a header"));
      return;
    }
    try {
      this.context.guard.checkStillGood(this.holder);
      if (header.sizeKnown && this.writtenBytes !== header.sizeBytes) {
        throw invalid(`the header says ${header.sizeBytes} bytes, but ${this.writtenBytes} came`);
      }
      if (header.endsWithTrailer && trailer === null) {
        throw new MillraceError("ABORTED", "the stream broke off before its trailer");
      }
      const condition = this.checks.condition(trailer?.condition ?? header.condition);
      let crc32c: number | null = null;
      if (trailer?.hasCrc32c) crc32c = trailer.crc32c;
      else if (header.hasCrc32c) crc32c = header.crc32c;
      const info = draft.seal(condition, crc32c, null);
      this.finish();
      this.context.engine.count(header.namespace, "grpc", this.writtenBytes, 0, 1);
      this.respond(null, { key: header.key, ...info });
    } catch (thrown) {
      this.fail(thrown);
    }
  }

  private fail(thrown: unknown): void {
    if (this.ended) return;
    this.abandon();
    this.respond(failure(this.context, this.call.getPath(), thrown));
  }

  private abandon(): void {
    if (this.ended) return;
    const { draft } = this;
    this.finish();
    draft?.abort();
  }

  private finish(): void {
    this.ended = true;
    this.draft = null;
    this.leaving.abort();
  }
}

function invalid(message: string): MillraceError {
  return new MillraceError("INVALID_ARGUMENT", message);
}
