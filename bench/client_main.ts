/** The client process of a benchmark: connects as its argument says, then does one task a message. */
import { connect, MillraceError } from "../client/index.js";
import type { ClientSetup, TaskReply, TaskRequest } from "./client_process.js";
import { tasks } from "./client_tasks.js";

const setup = JSON.parse(process.argv[2] ?? "") as ClientSetup;
const send = (reply: TaskReply): void => {
  process.send?.(reply);
};
const failed = (thrown: unknown): TaskReply => {
  const { code, message } = MillraceError.from(thrown);
  return { result: null, error: { code, message } };
};

// Whoever started it is gone, or wants it gone: views and heartbeats have no claim to go on.
process.on("disconnect", () => process.exit(0));
process.on("SIGTERM", () => process.exit(0));
// The driver decides when an interrupted benchmark ends.
process.on("SIGINT", () => {});

try {
  const client = await connect(setup.endpoint, { transport: setup.transport });
  const namespace =
    setup.expectedBytes === null
      ? await client.openNamespace(setup.namespace)
      : await client.createNamespace(setup.namespace, {
          hint: "throughput",
          expectedBytes: setup.expectedBytes,
        });
  process.on("message", (message) => {
    const { task, parameters } = message as TaskRequest;
    const run = tasks[task] as (context: unknown, parameters: unknown) => Promise<unknown>;
    run({ client, namespace }, parameters).then(
      (result) => send({ result, error: null }),
      (thrown) => send(failed(thrown)),
    );
  });
  send({ result: null, error: null });
} catch (thrown) {
  send(failed(thrown));
}
