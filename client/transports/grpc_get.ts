/** The reading of one `Objects.Get` stream. */
import type { ClientReadableStream } from "@grpc/grpc-js";
import type { GetResponse } from "../../proto/messages.js";
import { crc32c } from "../checksum.js";
import type { ControlChannel } from "../control.js";
import { MillraceError } from "../errors.js";
import { showKey } from "../names.js";
import type { GotObject, ObjectInfo } from "../transport.js";
import { objectInfo, protocolError } from "./grpc_messages.js";
import { Watchdog } from "./watchdog.js";

const NO_BYTES = new Uint8Array(0);

/** Reads a Get stream to its end. Rejects with DEADLINE_EXCEEDED when the node falls silent for too long. */
export async function collect(
  call: ClientReadableStream<GetResponse>,
  channel: ControlChannel,
  offset: number,
  length: number | undefined,
): Promise<GotObject> {
  const watchdog = new Watchdog(channel, () => call.cancel());
  watchdog.reset();
  let info: ObjectInfo | null = null;
  let key: Uint8Array = NO_BYTES;
  let bytes: Uint8Array = NO_BYTES;
  let expected = 0;
  let filled = 0;
  try {
    for await (const message of call as AsyncIterable<GetResponse>) {
      watchdog.reset();
      if (info === null) {
        if (message.info === null) throw protocolError("a Get stream began without the object's info");
        info = objectInfo(message.info);
        key = message.info.key;
        expected = length ?? info.sizeBytes - offset;
      }
      const data = message.data;
      if (data.length === 0) continue;
      if (filled + data.length > expected)
        throw protocolError("a Get stream carried more than was asked for");
      if (data.length === expected) {
        bytes = data; // All of it came in one message: no second copy.
      } else {
        if (filled === 0) bytes = Buffer.allocUnsafeSlow(expected);
        bytes.set(data, filled);
      }
      filled += data.length;
    }
  } catch (thrown) {
    call.cancel();
    throw watchdog.error ?? channel.error(thrown);
  } finally {
    watchdog.stop();
  }
  if (info === null) throw protocolError("a Get stream ended without the object's info");
  if (filled !== expected) throw protocolError(`a Get stream ended after ${filled} of ${expected} bytes`);
  if (filled === info.sizeBytes && crc32c(0, bytes) !== info.crc32c) {
    throw new MillraceError(
      "CHECKSUM_MISMATCH",
      `object ${showKey(key)}: the bytes received do not match their checksum; read the object again`,
    );
  }
  return { info, bytes };
}
