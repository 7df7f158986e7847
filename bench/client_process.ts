/** A client in a process of its own, told by messages what to do. Its other end is client_main.ts. */
import { MillraceError, type TransportKind } from "../client/index.js";
import type { ClientTasks } from "./client_tasks.js";
import { type Launched, launch, moduleCommand } from "./processes.js";

export interface ClientSetup {
  endpoint: string;
  transport: TransportKind;
  namespace: string;
  /** Creates the namespace, prepared for as many bytes; null opens it. */
  expectedBytes: number | null;
}

export type TaskName = keyof ClientTasks;
export type TaskParameters<T extends TaskName> = Parameters<ClientTasks[T]>[1];
export type TaskResult<T extends TaskName> = Awaited<ReturnType<ClientTasks[T]>>;

/** From the driver to the client. */
export interface TaskRequest {
  task: TaskName;
  parameters: unknown;
}

/** From the client to the driver: one at start, one a task. */
export interface TaskReply {
  result: unknown;
  error: { code: string; message: string } | null;
}

export interface ClientProcess {
  readonly pid: number;
  /** One task at a time. Rejects as the task does, or with INTERNAL where the process ends. */
  run<T extends TaskName>(task: T, parameters: TaskParameters<T>): Promise<TaskResult<T>>;
  stop(): Promise<void>;
}

export async function startClient(setup: ClientSetup, signal: AbortSignal): Promise<ClientProcess> {
  const launched = await launch([...moduleCommand(import.meta.url, "./client_main"), JSON.stringify(setup)], {
    stdio: ["ignore", "inherit", "pipe", "ipc"],
  });
  try {
    await reply(launched, signal);
  } catch (thrown) {
    await launched.stop("SIGKILL");
    throw thrown;
  }
  return {
    pid: launched.pid,
    async run<T extends TaskName>(task: T, parameters: TaskParameters<T>): Promise<TaskResult<T>> {
      signal.throwIfAborted();
      const answer = reply<TaskResult<T>>(launched, signal);
      launched.child.send({ task, parameters } satisfies TaskRequest);
      return answer;
    },
    stop: () => launched.stop(),
  };
}

function reply<T>(launched: Launched, signal: AbortSignal): Promise<T> {
  const { child } = launched;
  return new Promise((resolve, reject) => {
    const settle = (act: () => void) => {
      child.off("message", onMessage);
      signal.removeEventListener("abort", onAbort);
      act();
    };
    const onMessage = (message: unknown) => {
      const { result, error } = message as TaskReply;
      settle(() =>
        error === null ? resolve(result as T) : reject(new MillraceError(error.code as never, error.message)),
      );
    };
    const onAbort = () => settle(() => reject(signal.reason as Error));
    child.on("message", onMessage);
    signal.addEventListener("abort", onAbort, { once: true });
    void launched.exited.then(({ code, signal: killedBy }) =>
      settle(() => {
        const how = `the client process ended with ${killedBy ?? `status ${code}`}`;
        reject(new MillraceError("INTERNAL", `${how}: ${launched.errors().trim() || "no message"}`));
      }),
    );
    // A process that ended before has no more to say.
    if (signal.aborted) onAbort();
  });
}
