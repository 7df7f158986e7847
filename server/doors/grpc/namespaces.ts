/** `millrace.v1.Namespaces` over the policy in server/namespaces. */
import type { UntypedServiceImplementation } from "@grpc/grpc-js";
import type {
  CreateNamespaceRequest,
  DeleteNamespaceRequest,
  DeleteNamespaceResponse,
  GetReceiptRequest,
  ListNamespacesRequest,
  ListNamespacesResponse,
  NamespaceMessage,
  OpenNamespaceRequest,
  Receipt,
  RenewLeaseRequest,
  RenewLeaseResponse,
  ReportUsageRequest,
  ReportUsageResponse,
} from "../../../proto/messages.js";
import type { LiveNamespace } from "../../namespaces/namespaces.js";
import { unary } from "./calls.js";
import type { GrpcDoorContext } from "./context.js";

const NO_LIMITS = { sizeBytes: 0, dramBytes: 0, bandwidthBytesPerSecond: 0 };

export function namespacesService(context: GrpcDoorContext): UntypedServiceImplementation {
  const { namespaces, engine } = context;

  const describe = (namespace: LiveNamespace): NamespaceMessage => ({
    name: namespace.name,
    token: namespace.token,
    leaseMs: namespace.leaseMs,
    leaseRemainingMs: namespaces.leaseRemainingMs(namespace.name),
    limits: namespace.limits,
    hint: namespace.hint,
    createdUnixMs: namespace.createdUnixMs,
  });

  return {
    CreateNamespace: unary<CreateNamespaceRequest, NamespaceMessage>(context, (request) =>
      describe(namespaces.create(request.name, { ...request, limits: request.limits ?? NO_LIMITS })),
    ),

    OpenNamespace: unary<OpenNamespaceRequest, NamespaceMessage>(context, ({ name }) =>
      describe(namespaces.require(name)),
    ),

    ListNamespaces: unary<ListNamespacesRequest, ListNamespacesResponse>(context, () => ({
      namespaces: namespaces
        .names()
        .sort()
        .map((name) => {
          const { objects, sizeBytes, dramBytes, nvmeBytes } = engine.namespaceStats(name);
          const { createdUnixMs } = namespaces.require(name);
          return {
            name,
            objects,
            sizeBytes,
            leaseRemainingMs: namespaces.leaseRemainingMs(name),
            createdUnixMs,
            dramBytes,
            nvmeBytes,
          };
        }),
    })),

    RenewLease: unary<RenewLeaseRequest, RenewLeaseResponse>(context, ({ name, leaseMs }) => ({
      leaseRemainingMs: namespaces.renew(name, leaseMs),
    })),

    DeleteNamespace: unary<DeleteNamespaceRequest, DeleteNamespaceResponse>(context, ({ name }) => ({
      receipt: namespaces.delete(name),
    })),

    GetReceipt: unary<GetReceiptRequest, Receipt>(context, ({ name }) => namespaces.receipt(name)),

    ReportUsage: unary<ReportUsageRequest, ReportUsageResponse>(
      context,
      ({ name, traffic, copiesAvoidedBytes }) => {
        namespaces.reportUsage(name, traffic, copiesAvoidedBytes);
        return {};
      },
    ),
  };
}
