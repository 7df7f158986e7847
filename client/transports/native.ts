/** Opens the native transports: `shm` for the daemon's own host, `tcp` for others; the addon moves their bytes. */
import type { SessionOptions } from "../../native/binding/addon.js";
import { requireAddon } from "../../native/binding/addon.js";
import { MillraceError } from "../errors.js";
import type { Transport } from "../transport.js";
import type { NativeHandle, NativeShmHandle } from "./native_handle.js";
import { ShmTransport } from "./shm.js";
import { TcpTransport } from "./tcp.js";

/** Opens a transport: `shm` where `socketPath` is given, else `tcp`. */
export async function openNativeTransport(options: SessionOptions): Promise<Transport> {
  let handle: NativeHandle;
  try {
    handle = (await requireAddon().openSession(options)) as NativeHandle;
  } catch (error) {
    throw MillraceError.from(error);
  }
  return handle.kind === "shm"
    ? new ShmTransport(handle as NativeShmHandle, options.timeoutMs)
    : new TcpTransport(handle, options.timeoutMs);
}
