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

export function shufflesService(context: GrpcDoorContext): UntypedServiceImplementation {
  const { shuffles, namespaces, limits } = context;
  const checks = new Checks(limits.keyBytesMax as number);

  async function locate(
    request: LocatePartitionRequest,
    call: ServerUnaryCall<LocatePartitionRequest, LocatePartitionResponse>,
  ): Promise<LocatePartitionResponse> {
    const { namespace, shuffle, partition } = request;
    namespaces.require(namespace);
    const count = Math.max(request.count, 1);
    if (!request.wait) return shuffles.locate(namespace, shuffle, partition, count);
    const leaving = new AbortController();
    const leave = () => leaving.abort();
    call.on("cancelled", leave);
    let shutdown: MillraceError | null = null;
    const forgetStream = context.openStreams.add((error) => {
      shutdown = error;
      leave();
    });
    try {
      return await shuffles.locateWhenComplete(namespace, shuffle, partition, count, leaving.signal);
    } catch (thrown) {
      throw shutdown ?? thrown;
    } finally {
      forgetStream();
    }
  }

  async function watch(
    { namespace, shuffle }: WatchShuffleRequest,
    out: OutStream<WatchShuffleEvent>,
  ): Promise<void> {
    namespaces.require(namespace);
    await new Promise<void>((resolve, reject) => {
      // Events of a shuffle are at most a few a map, so a slow watcher needs no bound of its own.
      const unwatch = shuffles.watch(namespace, shuffle, {
        onEvent: (event) => out.push(event),
        onEnd: (error) => stop(error),
      });
      const forgetStream = context.openStreams.add((error) => stop(error));
      const stop = (error: MillraceError | null) => {
        unwatch();
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
    CreateShuffle: unary<CreateShuffleRequest, ShuffleMessage>(context, (request) => {
      namespaces.require(request.namespace);
      const { namespace, shuffle, maps, partitions, partitioner } = request;
      return shuffles.create(namespace, shuffle, maps, partitions, partitioner);
    }),

    DescribeShuffle: unary<DescribeShuffleRequest, ShuffleMessage>(context, ({ namespace, shuffle }) => {
      namespaces.require(namespace);
      return shuffles.describe(namespace, shuffle);
    }),

    CommitMapOutput: unary<CommitMapOutputRequest, CommitMapOutputResponse>(context, (request) => {
      namespaces.require(request.namespace);
      checks.key(request.key);
      return shuffles.commit(request.namespace, request.shuffle, request);
    }),

    LocatePartition: unary<LocatePartitionRequest, LocatePartitionResponse>(context, locate),

    WatchShuffle: serverStream<WatchShuffleRequest, WatchShuffleEvent>(context, watch),

    ReportLost: unary<ReportLostRequest, ReportLostResponse>(context, ({ namespace, shuffle, maps }) => {
      namespaces.require(namespace);
      return { lostMaps: shuffles.reportLost(namespace, shuffle, maps) };
    }),

    DeleteShuffle: unary<DeleteShuffleRequest, DeleteShuffleResponse>(
      context,
      async ({ namespace, shuffle }) => {
        namespaces.require(namespace);
        await shuffles.delete(namespace, shuffle);
        return {};
      },
    ),
  };
}
