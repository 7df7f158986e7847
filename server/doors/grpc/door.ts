/** The gRPC door: Millrace's four services, standard health and reflection on one address. */
import { Server, ServerCredentials, type ServerOptions } from "@grpc/grpc-js";
import { ReflectionService } from "@grpc/reflection";
import { HealthImplementation, type ServingStatus } from "grpc-health-check";
import { MillraceError } from "../../../proto/errors.js";
import { GRPC_OPTIONS } from "../../../proto/load.js";
import type { GrpcDoorContext } from "./context.js";
import { namespacesService } from "./namespaces.js";
import { nodesService } from "./nodes.js";
import { objectsService } from "./objects.js";
import { shufflesService } from "./shuffles.js";

// Keepalive finds callers whose host vanished, so that their drafts and watches do not stay for ever.
const SERVER_OPTIONS: ServerOptions = {
  ...GRPC_OPTIONS,
  "grpc.keepalive_time_ms": 30_000,
  "grpc.keepalive_timeout_ms": 20_000,
};

const SERVICES = [
  "",
  "millrace.v1.Namespaces",
  "millrace.v1.Objects",
  "millrace.v1.Shuffles",
  "millrace.v1.Nodes",
];

export class GrpcDoor {
  private readonly server = new Server(SERVER_OPTIONS);
  private readonly health = new HealthImplementation();

  constructor(private readonly context: GrpcDoorContext) {
    const { contract, guard } = context;
    this.server.addService(guard.watched(contract.namespaces), namespacesService(context));
    this.server.addService(guard.watched(contract.objects), objectsService(context));
    this.server.addService(guard.watched(contract.shuffles), shufflesService(context));
    this.server.addService(guard.watched(contract.nodes), nodesService(context));
    this.health.addToServer(this.server);
    new ReflectionService(contract.packageDefinition).addToServer(this.server);
    this.setHealth("NOT_SERVING");
  }

  /** Binds `host` (a name or address; IPv6 without brackets) and returns "host:port" as really bound. */
  async listen(host: string, port: number): Promise<string> {
    const shownHost = host.includes(":") ? `[${host}]` : host;
    const bound = await new Promise<number>((resolve, reject) => {
      this.server.bindAsync(
        `${shownHost}:${port}`,
        ServerCredentials.createInsecure(),
        (error, boundPort) => {
          if (error === null) resolve(boundPort);
          else
            reject(
              new MillraceError("UNAVAILABLE", `cannot listen on ${shownHost}:${port}: ${error.message}`),
            );
        },
      );
    });
    return `${shownHost}:${bound}`;
  }

  setHealth(status: ServingStatus): void {
    for (const service of SERVICES) this.health.setStatus(service, status);
  }

  /** Refuses new calls, ends watches and waits, lets the rest finish for `graceMs`, then cuts. */
  async close(graceMs: number): Promise<void> {
    this.setHealth("NOT_SERVING");
    this.context.openStreams.endAll(new MillraceError("UNAVAILABLE", "the node is shutting down"));
    await new Promise<void>((resolve) => {
      const timer = setTimeout(() => {
        this.server.forceShutdown();
        resolve();
      }, graceMs);
      this.server.tryShutdown(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }
}
