/** The rival server of the gRPC benchmark, in a process of its own. */
import { serveBareStreams } from "./bare_stream.js";

process.stdout.write(`ready ${await serveBareStreams()}\n`);
