/** `millrace.v1.Namespaces` over the policy in server/namespaces. */
import type { UntypedServiceImplementation } from "@grpc/grpc-js";
import { MillraceError } from "../../../proto/errors.js";
import type {
  CreateNamespaceRequest,
  DeleteNamespaceRequest,
  DeleteNamespaceResponse,
  GetReceiptRequest,
  IssueCredentialsRequest,
  IssueCredentialsResponse,
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

const TTL_DEFAULT_MS = 3_600_000;
const TTL_MIN_MS = 1_000;
const TTL_MAX_MS = 7 * 24 * 3_600_000;
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

    IssueCredentials: unary<IssueCredentialsRequest, IssueCredentialsResponse>(context, (request) => {
      const { namespace, prefix, readOnly, ttlMs } = request;
      namespaces.require(namespace);
      const keyBytesMax = context.limits.keyBytesMax as number;
      if (Buffer.byteLength(prefix) > keyBytesMax) {
        throw new MillraceError("KEY_TOO_LONG", `prefix has more than ${keyBytesMax} bytes`);
      }
      if (ttlMs !== 0 && (ttlMs < TTL_MIN_MS || ttlMs > TTL_MAX_MS)) {
        throw new MillraceError(
          "INVALID_ARGUMENT",
          `ttl_ms must be from ${TTL_MIN_MS} to ${TTL_MAX_MS}, or 0 for an hour, not ${ttlMs}`,
        );
      }
      if (context.keyRing === null) {
        throw new MillraceError(
          "UNSUPPORTED",
          "this node has no S3 door with keys of its own; start it with --s3, --access-key and --secret-key",
        );
      }
      const expiresUnixMs = Date.now() + (ttlMs === 0 ? TTL_DEFAULT_MS : ttlMs);
      return {
        ...context.keyRing.issue({ bucket: namespace, prefix, readOnly, expiresUnixMs }),
        expiresUnixMs,
      };
    }),
  };
}
