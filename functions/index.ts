/** `millrace/functions`: run exported TypeScript functions on stateless function workers. */

export { MillraceError } from "../client/errors.js";
export type { Client, Namespace } from "../client/index.js";
export type {
  Backend,
  Departure,
  FunctionWorker,
  FunctionWorkerEvents,
  FunctionWorkerSetup,
} from "./backends/backend.js";
export { type LocalBackendOptions, localBackend } from "./backends/local.js";
export type { AttemptStats, CallState, CallStats, MapProgress } from "./call.js";
export type { CallContext } from "./context.js";
export {
  type ArgumentWithFutures,
  type CallOptions,
  createExecutor,
  type Executor,
  type ExecutorOptions,
  type MapOptions,
  type ReturnWhen,
  type WaitOptions,
} from "./executor.js";
export { CallFuture } from "./future.js";
export {
  type Callable,
  type FunctionRef,
  functionRef,
  type RegisteredFunction,
  type WorkerFunction,
  workerFunction,
} from "./reference.js";
export type { SchedulerStats as ExecutorStats } from "./scheduler.js";
export type { StragglerPolicy } from "./stragglers.js";
