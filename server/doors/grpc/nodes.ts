/** `millrace.v1.Nodes`: who this node is, how it fares, and whether its bytes are the ones that were sealed. */
import type { ServerUnaryCall, UntypedServiceImplementation } from "@grpc/grpc-js";
import type {
  DescribeNodeRequest,
  NodeMessage,
  NodeStatsRequest,
  NodeStatsResponse,
  VerifyRequest,
  VerifyResponse,
} from "../../../proto/messages.js";
import { unary } from "./calls.js";
import type { GrpcDoorContext } from "./context.js";

export function nodesService(context: GrpcDoorContext): UntypedServiceImplementation {
  const { engine, namespaces, guard, describeNode } = context;

  async function verify(
    request: VerifyRequest,
    call: ServerUnaryCall<VerifyRequest, VerifyResponse>,
  ): Promise<VerifyResponse> {
    const { namespace } = request;
    guard.admit(call, request, namespace, { of: "everything", write: false });
    const stopping = new AbortController();
    const stop = () => stopping.abort();
    call.on("cancelled", stop);
    const forgetStream = context.openStreams.add(stop);
    try {
      return await engine.verifyNamespace(namespace, stopping.signal);
    } finally {
      forgetStream();
    }
  }

  return {
    DescribeNode: unary<DescribeNodeRequest, NodeMessage>(context, () => describeNode()),

    NodeStats: unary<NodeStatsRequest, NodeStatsResponse>(context, () => {
      let segments = 0;
      let objects = 0;
      let sealedTotal = 0;
      let grantedBytes = 0;
      let demotedBytes = 0;
      let promotedBytes = 0;
      let cleanedBytes = 0;
      let bufferBytes = 0;
      for (const name of namespaces.names()) {
        const stats = engine.namespaceStats(name);
        segments += stats.segments;
        objects += stats.objects;
        sealedTotal += stats.sealedTotal;
        grantedBytes += stats.grantedBytes;
        demotedBytes += stats.demotedBytes;
        promotedBytes += stats.promotedBytes;
        cleanedBytes += stats.cleanedBytes;
        bufferBytes += stats.bufferBytes;
      }
      return {
        ...engine.stats(),
        namespaces: namespaces.size,
        segments,
        objects,
        sealedTotal,
        grantedBytes,
        demotedBytes,
        promotedBytes,
        cleanedBytes,
        bufferBytes,
      };
    }),

    Verify: unary<VerifyRequest, VerifyResponse>(context, verify),
  };
}
