/** `millrace.v1.Objects` over the engine. */
import type {
  handleClientStreamingCall,
  ServerWritableStream,
  UntypedServiceImplementation,
} from "@grpc/grpc-js";
import { ChunkPool } from "../../../proto/chunks.js";
import { MillraceError } from "../../../proto/errors.js";
import type {
  CopyRequest,
  DeleteRequest,
  DeleteResponse,
  GetRequest,
  GetResponse,
  HeadRequest,
  ListRequest,
  ListResponse,
  ObjectInfoMessage,
  PutRequest,
  WatchEvent,
  WatchRequest,
} from "../../../proto/messages.js";
import type { WatchEvent as EngineWatchEvent, ObjectInfo } from "../../engine/engine.js";
import { type OutStream, pause, serverStream, unary } from "./calls.js";
import { Checks } from "./checks.js";
import type { GrpcDoorContext } from "./context.js";
import type { Calling } from "./guard.js";
import { PutStream } from "./put.js";

/** Events that a watcher may lag behind before it is told to list and watch anew. */
const WATCH_BACKLOG_MAX = 65_536;
const NO_BYTES = new Uint8Array(0);

export function objectsService(context: GrpcDoorContext): UntypedServiceImplementation {
  const { engine, namespaces, guard, limits } = context;
  const checks = new Checks(limits.keyBytesMax as number);
  const listPageMax = limits.listPageMax as number;
  const chunks = new ChunkPool();
  const { responseSerialize: encodeInfo } = context.contract.objects.Get;

  const put: handleClientStreamingCall<PutRequest, ObjectInfoMessage> = (call, respond) => {
    new PutStream(context, checks, call, respond);
  };

  /** NOT_FOUND, or that the caller may not read (or write) the key. */
  const admitKey = (call: Calling, request: object, name: string, prefix: Uint8Array, write: boolean) =>
    guard.admit(call, request, name, { of: "keys", prefix, write });

  async function get(request: GetRequest, out: OutStream<GetResponse>, call: Calling): Promise<void> {
    const { namespace, offset, length, ifSequence } = request;
    const { pace } = admitKey(call, request, namespace, request.key, false).namespace;
    const key = checks.key(request.key);
    const reader = engine.open(namespace, key, offset, length);
    if (reader === null) throw noObject(namespace, key);
    let sentBytes = 0;
    try {
      const { info } = reader;
      if (ifSequence !== 0 && info.sequence !== ifSequence) {
        throw new MillraceError(
          "CONDITION_FAILED",
          `the object has sequence ${info.sequence}, not ${ifSequence}: it was overwritten`,
        );
      }
      const rangeBytes = length === 0 ? info.sizeBytes - offset : length;
      let fields: Buffer | null = encodeInfo({ info: toMessage(key, info), data: NO_BYTES });
      // One message is filled while the one before it is sent.
      let before: Promise<void> | null = null;
      // A range of no bytes still has one message, because that carries the info.
      while (fields !== null || sentBytes < rangeBytes) {
        const chunk = chunks.take(rangeBytes - sentBytes);
        const bytes = reader.inFiles ? await reader.readAsync(chunk.data) : reader.read(chunk.data);
        if (bytes === 0 && sentBytes < rangeBytes)
          throw new MillraceError("INTERNAL", "the object ended early");
        const sending = out.send(chunk.encode(fields, bytes)).then((taken) => {
          if (taken) chunks.giveBack(chunk);
        });
        fields = null;
        sentBytes += bytes;
        const restMs = pace.spend(bytes);
        if (before !== null) await before;
        if (restMs > 0) await pause(restMs, out.left);
        if (out.gone) return;
        before = sending;
      }
    } finally {
      reader.close();
      engine.count(namespace, "grpc", 0, sentBytes, 1);
    }
  }

  function head(request: HeadRequest, call: Calling): ObjectInfoMessage {
    const { namespace, key } = request;
    admitKey(call, request, namespace, key, false);
    const info = engine.head(namespace, checks.key(key));
    engine.count(namespace, "grpc", 0, 0, 1);
    if (info === null) throw noObject(namespace, key);
    return toMessage(key, info);
  }

  function remove(request: DeleteRequest, call: Calling): DeleteResponse {
    const { namespace, key, condition } = request;
    admitKey(call, request, namespace, key, true);
    const existed = engine.remove(namespace, checks.key(key), checks.condition(condition));
    engine.count(namespace, "grpc", 0, 0, 1);
    return { existed };
  }

  function list(request: ListRequest, call: Calling): ListResponse {
    const { namespace, prefix, startAfter, limit } = request;
    admitKey(call, request, namespace, prefix, false);
    const page = engine.list(
      namespace,
      checks.prefix(prefix),
      checks.prefix(startAfter, "start_after"),
      limit === 0 ? listPageMax : Math.min(limit, listPageMax),
      false,
    );
    engine.count(namespace, "grpc", 0, 0, 1);
    return {
      objects: page.objects.map((object) => toMessage(object.key, object)),
      truncated: page.truncated,
    };
  }

  async function copy(request: CopyRequest, call: Calling): Promise<ObjectInfoMessage> {
    const { namespace } = request;
    const toNamespace = request.toNamespace === "" ? namespace : request.toNamespace;
    admitKey(call, request, namespace, request.fromKey, false);
    admitKey(call, request, toNamespace, request.toKey, true);
    const from = checks.key(request.fromKey, "from_key");
    const to = checks.key(request.toKey, "to_key");
    const condition = checks.condition(request.condition);
    const info = await engine.copy(namespace, from, toNamespace, to, condition, null);
    engine.count(toNamespace, "grpc", 0, 0, 1);
    return toMessage(to, info);
  }

  async function watch(
    request: WatchRequest,
    out: OutStream<WatchEvent>,
    call: ServerWritableStream<WatchRequest, WatchEvent>,
  ): Promise<void> {
    const { namespace, prefix } = request;
    const { holder } = admitKey(call, request, namespace, prefix, false);
    checks.prefix(prefix);
    await new Promise<void>((resolve, reject) => {
      const id = engine.watch(namespace, prefix, (events) => {
        for (const event of events) out.push(toWatchEvent(event));
        if (out.backlog > WATCH_BACKLOG_MAX) {
          stop(new MillraceError("ABORTED", "the watcher fell too far behind; list and watch again"));
        }
      });
      const forgetEnd = namespaces.onEnd((name) => {
        if (name === namespace) {
          stop(new MillraceError("NAMESPACE_GONE", `namespace ${namespace} has ended`));
        }
      });
      const forgetStream = context.openStreams.add((error) => stop(error));
      const forgetExpiry = guard.whenExpired(holder, (error) => stop(error));
      const stop = (error: MillraceError | null) => {
        engine.unwatch(namespace, id);
        forgetEnd();
        forgetExpiry();
        forgetStream();
        if (error === null) resolve();
        else reject(error);
      };
      out.left.addEventListener("abort", () => stop(null), { once: true });
      if (out.gone) stop(null);
      // From here on nothing is missed, and the caller can tell by the headers.
      out.open();
    });
  }

  return {
    Put: put,
    Get: serverStream<GetRequest, GetResponse>(context, get),
    Head: unary<HeadRequest, ObjectInfoMessage>(context, head),
    Delete: unary<DeleteRequest, DeleteResponse>(context, remove),
    List: unary<ListRequest, ListResponse>(context, list),
    Copy: unary<CopyRequest, ObjectInfoMessage>(context, copy),
    Watch: serverStream<WatchRequest, WatchEvent>(context, watch),
  };
}

function toMessage(key: Uint8Array, info: ObjectInfo): ObjectInfoMessage {
  return {
    key,
    sizeBytes: info.sizeBytes,
    sequence: info.sequence,
    crc32c: info.crc32c,
    sealedUnixMs: info.sealedUnixMs,
  };
}

function toWatchEvent(event: EngineWatchEvent): WatchEvent {
  return { type: event.deleted ? "DELETED" : "SEALED", object: toMessage(event.key, event.info) };
}

function noObject(namespace: string, key: Uint8Array): MillraceError {
  return new MillraceError(
    "NOT_FOUND",
    `there is no object ${JSON.stringify(Buffer.from(key).toString())} in namespace ${namespace}`,
  );
}
