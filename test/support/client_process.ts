/**
 * A client in a process of its own: a module that calls `answerCalls` with its functions, and the test's end of
 * the line, which calls them by name. Calls of one process run at the same time.
 */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { packageRoot } from "../../native/binding/addon.js";

// biome-ignore lint/suspicious/noExplicitAny: any function whose values can be cloned.
type Functions = Record<string, (...args: any[]) => unknown>;

interface CallMessage {
  id: number;
  name: string;
  args: unknown[];
}
type ReplyMessage = { id: number; value: unknown } | { id: number; error: string; code: string | null };

export interface ClientProcess<F extends Functions> {
  readonly pid: number;
  /** Rejects with the function's error (message and `code`), or when the process ends first. */
  call<N extends keyof F & string>(name: N, ...args: Parameters<F[N]>): Promise<Awaited<ReturnType<F[N]>>>;
  /** SIGKILL where nothing else is said; resolves when the process is gone. */
  kill(signal?: NodeJS.Signals): Promise<void>;
}

/** Starts `module`, which calls `answerCalls`. Resolves when it is ready. */
export async function startClientProcess<F extends Functions>(module: URL): Promise<ClientProcess<F>> {
  const child = fork(fileURLToPath(module), {
    cwd: packageRoot(), // tsx is resolved from there.
    execArgv: ["--import", "tsx"],
    serialization: "advanced",
  });
  const killAtExit = () => child.kill("SIGKILL");
  process.once("exit", killAtExit);
  const waiting = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>();
  let gone: Error | null = null;
  const exit = once(child, "exit").then(([code, signal]) => {
    process.off("exit", killAtExit);
    gone = new Error(`client process ${child.pid} ended: code ${code}, signal ${signal}`);
    for (const { reject } of waiting.values()) reject(gone);
    waiting.clear();
  });
  await Promise.race([once(child, "message"), exit]);
  if (gone !== null) throw gone;
  child.on("message", (message: ReplyMessage) => {
    const call = waiting.get(message.id);
    waiting.delete(message.id);
    if ("error" in message) call?.reject(Object.assign(new Error(message.error), { code: message.code }));
    else call?.resolve(message.value);
  });
  let ids = 0;
  return {
    pid: child.pid as number,
    call: (name, ...args) =>
      new Promise((resolve, reject) => {
        if (gone !== null) return reject(gone);
        const id = ids++;
        waiting.set(id, { resolve: resolve as (value: unknown) => void, reject });
        send(child, { id, name, args });
      }),
    kill: async (signal = "SIGKILL") => {
      child.kill(signal);
      await exit;
    },
  };
}

/** The process that is gone says so by itself. */
function send(child: ChildProcess, message: CallMessage): void {
  child.send(message, () => {});
}

/** The other end: serves `functions` until the process that started this one is gone. */
export function answerCalls(functions: Functions): void {
  process.on("message", ({ id, name, args }: CallMessage) => {
    Promise.resolve()
      .then(() => functions[name]?.(...args))
      .then(
        (value): ReplyMessage => ({ id, value }),
        (thrown: Error & { code?: string }): ReplyMessage => ({
          id,
          error: thrown.stack ?? String(thrown),
          code: thrown.code ?? null,
        }),
      )
      .then((reply) => process.send?.(reply, undefined, undefined, () => {}));
  });
  process.once("disconnect", () => process.exit(0));
  process.send?.("ready");
}
