/**
 * The rival of the gRPC door: streams of chunks over grpc-js with the very channel options of Millrace, and
 * nothing else. No protobuf, no store, no checksum.
 */
import { Client, credentials, Server, ServerCredentials, type ServiceDefinition } from "@grpc/grpc-js";
import { GRPC_OPTIONS } from "../proto/load.js";

const identity = (bytes: Buffer): Buffer => bytes;
const codec = {
  requestSerialize: identity,
  requestDeserialize: identity,
  responseSerialize: identity,
  responseDeserialize: identity,
};

const SERVICE = {
  /** Takes chunks and answers with how many bytes they were, as text. */
  send: { path: "/bench.Bare/Send", requestStream: true, responseStream: false, ...codec },
  /** The request is `TOTAL CHUNK`, the answer so many bytes in such chunks. */
  receive: { path: "/bench.Bare/Receive", requestStream: false, responseStream: true, ...codec },
} satisfies ServiceDefinition;

/** Serves on any free port of 127.0.0.1; its address. */
export async function serveBareStreams(): Promise<string> {
  const server = new Server(GRPC_OPTIONS);
  server.addService(SERVICE, {
    send(call: AsyncIterable<Buffer>, callback: (error: null, bytes: Buffer) => void) {
      void (async () => {
        let total = 0;
        for await (const chunk of call) total += chunk.length;
        callback(null, Buffer.from(String(total)));
      })();
    },
    receive(call: Outgoing & { request: Buffer; end(): void }) {
      const [total, chunkBytes] = call.request.toString().split(" ").map(Number) as [number, number];
      void writeChunks(call, chunkOf(chunkBytes), total).then(() => call.end());
    },
  } as never);
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    );
  });
  return `127.0.0.1:${port}`;
}

export async function sendBareStream(address: string, data: Uint8Array, chunkBytes: number): Promise<void> {
  const answer = await new Promise<Buffer>((resolve, reject) => {
    const call = clientOf(address).makeClientStreamRequest(
      SERVICE.send.path,
      identity,
      identity,
      (error, bytes) => (error === null ? resolve(bytes as Buffer) : reject(error)),
    );
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.length);
    void writeChunks(call, bytes, bytes.length, chunkBytes).then(() => call.end());
  });
  if (Number(answer.toString()) !== data.length) throw new Error(`the bare server took ${answer} bytes`);
}

export async function receiveBareStream(
  address: string,
  totalBytes: number,
  chunkBytes: number,
): Promise<void> {
  const call = clientOf(address).makeServerStreamRequest(
    SERVICE.receive.path,
    identity,
    identity,
    Buffer.from(`${totalBytes} ${chunkBytes}`),
  );
  // Put together, as every client must that wants the object.
  const whole = Buffer.allocUnsafe(totalBytes);
  let taken = 0;
  for await (const chunk of call as AsyncIterable<Buffer>) taken += chunk.copy(whole, taken);
  if (taken !== totalBytes) throw new Error(`the bare server sent ${taken} bytes`);
}

interface Outgoing {
  write(chunk: Buffer): boolean;
  once(event: "drain" | "close" | "error", listener: () => void): unknown;
}

/** `total` bytes of `data`, over and over, in chunks, with back-pressure. */
async function writeChunks(
  call: Outgoing,
  data: Buffer,
  total: number,
  chunkBytes = data.length,
): Promise<void> {
  for (let sent = 0; sent < total; ) {
    const offset = sent % data.length;
    const bytes = Math.min(chunkBytes, total - sent, data.length - offset);
    if (!call.write(data.subarray(offset, offset + bytes))) {
      await new Promise<void>((resolve) => {
        call.once("drain", resolve);
        call.once("close", resolve);
        call.once("error", resolve);
      });
    }
    sent += bytes;
  }
}

const clients = new Map<string, Client>();

function clientOf(address: string): Client {
  let client = clients.get(address);
  if (client === undefined) {
    client = new Client(address, credentials.createInsecure(), GRPC_OPTIONS);
    clients.set(address, client);
  }
  return client;
}

const chunks = new Map<number, Buffer>();

function chunkOf(bytes: number): Buffer {
  let chunk = chunks.get(bytes);
  if (chunk === undefined) {
    chunk = Buffer.alloc(bytes, 7);
    chunks.set(bytes, chunk);
  }
  return chunk;
}
