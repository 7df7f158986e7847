/** A node, a namespace and function workers for tests of trainers. */
import { connect, type Namespace } from "../../client/index.js";
import { createExecutor, type Executor } from "../../functions/index.js";
import { startDaemon } from "./daemon.js";

export interface TrainingNode {
  readonly namespace: Namespace;
  /** Its gRPC door. */
  readonly endpoint: string;
  /** With so many function workers, kept for the tests that follow. */
  executorOf(workers: number): Executor;
  close(): Promise<void>;
}

export async function startTrainingNode(name: string): Promise<TrainingNode> {
  const daemon = await startDaemon();
  const client = await connect(daemon.grpcAddress);
  const namespace = await client.createNamespace(name, {});
  const executors = new Map<number, Executor>();
  return {
    namespace,
    endpoint: daemon.grpcAddress,
    executorOf(workers) {
      let executor = executors.get(workers);
      if (executor === undefined) {
        executor = createExecutor({ workers, endpoint: daemon.grpcAddress, namespace: namespace.name });
        executors.set(workers, executor);
      }
      return executor;
    },
    async close() {
      await Promise.all([...executors.values()].map((executor) => executor.close()));
      await client.close();
      await daemon.stop();
    },
  };
}
