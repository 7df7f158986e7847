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
import { unary } from "./calls.js";
import type { GrpcDoorContext } from "./context.js";
import { type Admitted, attachToken, type Calling } from "./guard.js";

const TTL_DEFAULT_MS = 3_600_000;
const TTL_MIN_MS = 1_000;
const TTL_MAX_MS = 7 * 24 * 3_600_000;
const NO_LIMITS = { sizeBytes: 0, dramBytes: 0, bandwidthBytesPerSecond: 0 };

export function namespacesService(context: GrpcDoorContext): UntypedServiceImplementation {
  const { namespaces, engine, guard } = context;

  const describe = (admitted: Admitted): NamespaceMessage => {
    const { namespace } = admitted;
    return {
      name: namespace.name,
      token: attachToken(engine, admitted),
      leaseMs: namespace.leaseMs,
      leaseRemainingMs: namespaces.leaseRemainingMs(namespace.name),
      limits: namespace.limits,
      hint: namespace.hint,
      createdUnixMs: namespace.createdUnixMs,
      guarded: namespace.guarded,
      id: namespace.id,
    };
  };

  function create(request: CreateNamespaceRequest, call: Calling): NamespaceMessage {
    if (request.guarded === true) {
      if (context.keyRing === null) throw withoutKeys("a guarded namespace");
      guard.requireNodeKey(call, request, "to create a guarded namespace");
    }
    const limits = request.limits ?? NO_LIMITS;
    return describe({ namespace: namespaces.create(request.name, { ...request, limits }), holder: null });
  }

  function renew(request: RenewLeaseRequest, call: Calling): RenewLeaseResponse {
    const { name, leaseMs } = request;
    const { namespace, holder } = guard.admit(call, request, name, { of: "namespace" });
    const leaseRemainingMs = namespaces.leaseRemainingMs(name);
    // To cut a lease short is to end the namespace, which is not for sessions.
    const isSession = holder !== null && holder.scope !== null;
    if (isSession && (leaseMs || namespace.leaseMs) <= leaseRemainingMs) return { leaseRemainingMs };
    return { leaseRemainingMs: namespaces.renew(name, leaseMs) };
  }

  function issue(request: IssueCredentialsRequest, call: Calling): IssueCredentialsResponse {
    const { namespace: bucket, prefix, readOnly, ttlMs } = request;
    const { namespace, holder } = guard.admit(call, request, bucket, { of: "everything", write: !readOnly });
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
    if (context.keyRing === null) throw withoutKeys("session credentials");
    // Nobody passes on more than he has.
    const expiresUnixMs = Math.min(
      Date.now() + (ttlMs === 0 ? TTL_DEFAULT_MS : ttlMs),
      holder?.scope?.expiresUnixMs ?? Number.POSITIVE_INFINITY,
    );
    const scope = { bucket, prefix, readOnly, expiresUnixMs };
    const issued = context.keyRing.issue(namespace.guarded ? { ...scope, namespaceId: namespace.id } : scope);
    return { ...issued, expiresUnixMs };
  }

  return {
    CreateNamespace: unary<CreateNamespaceRequest, NamespaceMessage>(context, create),

    OpenNamespace: unary<OpenNamespaceRequest, NamespaceMessage>(context, (request, call) =>
      describe(guard.admit(call, request, request.name, { of: "namespace" })),
    ),

    ListNamespaces: unary<ListNamespacesRequest, ListNamespacesResponse>(context, (request, call) => ({
      namespaces: namespaces
        .names()
        .filter((name) => guard.admits(call, request, name, { of: "namespace" }))
        .sort()
        .map((name) => {
          const { objects, sizeBytes, dramBytes, nvmeBytes, bufferBytes } = engine.namespaceStats(name);
          const { createdUnixMs, guarded } = namespaces.require(name);
          return {
            name,
            objects,
            sizeBytes,
            leaseRemainingMs: namespaces.leaseRemainingMs(name),
            createdUnixMs,
            dramBytes,
            nvmeBytes,
            guarded,
            bufferBytes,
          };
        }),
    })),

    RenewLease: unary<RenewLeaseRequest, RenewLeaseResponse>(context, renew),

    DeleteNamespace: unary<DeleteNamespaceRequest, DeleteNamespaceResponse>(context, (request, call) => {
      guard.admit(call, request, request.name, { of: "existence" });
      return { receipt: namespaces.delete(request.name) };
    }),

    GetReceipt: unary<GetReceiptRequest, Receipt>(context, (request, call) => {
      guard.admitRemembered(call, request, request.name, { of: "namespace" });
      return namespaces.receipt(request.name);
    }),

    ReportUsage: unary<ReportUsageRequest, ReportUsageResponse>(context, (request, call) => {
      const { name, traffic, copiesAvoidedBytes } = request;
      guard.admit(call, request, name, { of: "namespace" });
      namespaces.reportUsage(name, traffic, copiesAvoidedBytes);
      return {};
    }),

    IssueCredentials: unary<IssueCredentialsRequest, IssueCredentialsResponse>(context, issue),
  };
}

function withoutKeys(what: string): MillraceError {
  return new MillraceError(
    "UNSUPPORTED",
    `${what} asks for a node with keys of its own: start it with --access-key and --secret-key`,
  );
}
