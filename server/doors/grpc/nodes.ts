/** `millrace.v1.Nodes`: who this node is and how it fares. */
import type { UntypedServiceImplementation } from "@grpc/grpc-js";
import type {
  DescribeNodeRequest,
  NodeMessage,
  NodeStatsRequest,
  NodeStatsResponse,
} from "../../../proto/messages.js";
import { unary } from "./calls.js";
import type { GrpcDoorContext } from "./context.js";

export function nodesService(context: GrpcDoorContext): UntypedServiceImplementation {
  const { engine, namespaces, describeNode } = context;
  return {
    DescribeNode: unary<DescribeNodeRequest, NodeMessage>(context, () => describeNode()),

    NodeStats: unary<NodeStatsRequest, NodeStatsResponse>(context, () => {
      let segments = 0;
      let objects = 0;
      let sealedTotal = 0;
      for (const name of namespaces.names()) {
        const stats = engine.namespaceStats(name);
        segments += stats.segments;
        objects += stats.objects;
        sealedTotal += stats.sealedTotal;
      }
      return { ...engine.stats(), namespaces: namespaces.size, segments, objects, sealedTotal };
    }),
  };
}
