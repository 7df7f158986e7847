/** The S3 client of the benchmark, in a process of its own: a load a message, a sample an answer. */
import { runLoad, type S3Load } from "./s3_client.js";

process.on("message", (load: S3Load) => {
  runLoad(load).then(
    (sample) => process.send?.({ sample, error: null }),
    (thrown: unknown) => process.send?.({ sample: null, error: String(thrown) }),
  );
});
process.on("disconnect", () => process.exit(0));
