/** What the services of the gRPC door share. */
import type { Contract } from "../../../proto/load.js";
import type { NodeMessage } from "../../../proto/messages.js";
import type { Engine } from "../../engine/engine.js";
import type { Namespaces } from "../../namespaces/namespaces.js";
import type { Shuffles } from "../../shuffles/shuffles.js";
import type { KeyRing } from "../s3/auth/credentials.js";
import type { Guard } from "./guard.js";
import type { OpenStreams } from "./open_streams.js";

export interface DoorLog {
  error(fields: object, message: string): void;
  debug(fields: object, message: string): void;
}

export interface GrpcDoorContext {
  contract: Contract;
  engine: Engine;
  namespaces: Namespaces;
  shuffles: Shuffles;
  /** The limits of native/base/limits.h. */
  limits: Record<string, number>;
  /** Asked at each call, because addresses are known only when all doors are open. */
  describeNode: () => NodeMessage;
  openStreams: OpenStreams;
  /** Issues session credentials; null: the node has no keys of its own. */
  keyRing: Pick<KeyRing, "issue"> | null;
  guard: Guard;
  log: DoorLog;
}
