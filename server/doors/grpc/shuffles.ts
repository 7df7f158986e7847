/** `millrace.v1.Shuffles` over the policy in server/shuffles. */
import type { ServerUnaryCall, UntypedServiceImplementation } from "@grpc/grpc-js";
import type { MillraceError } from "../../../proto/errors.js";
import type {
  CommitMapOutputRequest,
  CommitMapOutputResponse,
  CreateShuffleRequest,
  DeleteShuffleRequest,
  DeleteShuffleResponse,
  DescribeShuffleRequest,
  LocatePartitionRequest,
  LocatePartitionResponse,
  ReportLostRequest,
  ReportLostResponse,
  ShuffleMessage,
  WatchShuffleEvent,
  WatchShuffleRequest,
} from "../../../proto/messages.js";
import { type OutStream, serverStream, unary } from "./calls.js";
import { Checks } from "./checks.js";
import type { GrpcDoorContext } from "./context.js";
import type { Calling } from "./guard.js";

export function shufflesService(context: GrpcDoorContext): UntypedServiceImplementation {
  const { shuffles, guard, limits } = context;
  const checks = new Checks(limits.keyBytesMax as number);

  /** A shuffle may have map outputs under any key, so it is for holders of credentials without a prefix. */
  const admit = (call: Calling, request: { namespace: string }, write: boolean) =>
    guard.admit(call, request, request.namespace, { of: "everything", write });

  async function locate(
    request: LocatePartitionRequest,
    call: ServerUnaryCall<LocatePartitionRequest, LocatePartitionResponse>,
  ): Promise<LocatePartitionResponse> {
    const { namespace, shuffle, partition } = request;
    const { holder } = admit(call, request, false);
    const count = Math.max(request.count, 1);
    if (!request.wait) return shuffles.locate(namespace, shuffle, partition, count);
    const leaving = new AbortController();
    const leave = () => leaving.abort();
    call.on("cancelled", leave);
    let ended: MillraceError | null = null;
    const end = (error: MillraceError) => {
      ended = error;
      leave();
    };
    const forgetStream = context.openStreams.add(end);
    const forgetExpiry = guard.whenExpired(holder, end);
    try {
      return await shuffles.locateWhenComplete(namespace, shuffle, partition, count, leaving.signal);
    } catch (thrown) {
      throw ended ?? thrown;
    } finally {
      forgetExpiry();
      forgetStream();
    }
  }

  async function watch(
    request: WatchShuffleRequest,
    out: OutStream<WatchShuffleEvent>,
    call: Calling,
  ): Promise<void> {
    const { namespace, shuffle } = request;
    const { holder } = admit(call, request, false);
    await new Promise<void>((resolve, reject) => {
      // Events of a shuffle are at most a few a map, so a slow watcher needs no bound of its own.
      const unwatch = shuffles.watch(namespace, shuffle, {
        onEvent: (event) => out.push(event),
        onEnd: (error) => stop(error),
      });
      const forgetStream = context.openStreams.add((error) => stop(error));
      const forgetExpiry = guard.whenExpired(holder, (error) => stop(error));
      const stop = (error: MillraceError | null) => {
        unwatch();
        forgetExpiry();
        forgetStream();
        if (error === null) resolve();
        else reject(error);
      };
      out.left.addEventListener("abort", () => stop(null), { once: true });
      if (out.gone) stop(null);
      out.open();
    });
  }

  return {
    CreateShuffle: unary<CreateShuffleRequest, ShuffleMessage>(context, (request, call) => {
      admit(call, request, true);
      const { namespace, shuffle, maps, partitions, partitioner } = request;
      return shuffles.create(namespace, shuffle, maps, partitions, partitioner);
    }),

    DescribeShuffle: unary<DescribeShuffleRequest, ShuffleMessage>(context, (request, call) => {
      admit(call, request, false);
      return shuffles.describe(request.namespace, request.shuffle);
    }),

    CommitMapOutput: unary<CommitMapOutputRequest, CommitMapOutputResponse>(context, (request, call) => {
      admit(call, request, true);
      checks.key(request.key);
      return shuffles.commit(request.namespace, request.shuffle, request);
    }),

    LocatePartition: unary<LocatePartitionRequest, LocatePartitionResponse>(context, locate),

    WatchShuffle: serverStream<WatchShuffleRequest, WatchShuffleEvent>(context, watch),

    ReportLost: unary<ReportLostRequest, ReportLostResponse>(context, (request, call) => {
      admit(call, request, true);
      const { namespace, shuffle, maps } = request;
      return { lostMaps: shuffles.reportLost(namespace, shuffle, maps) };
    }),

    DeleteShuffle: unary<DeleteShuffleRequest, DeleteShuffleResponse>(context, async (request, call) => {
      admit(call, request, true);
      await shuffles.delete(request.namespace, request.shuffle);
      return {};
    }),
  };
}
