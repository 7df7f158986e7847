/**
 * The gRPC door as any other language would use it: grpc-js stubs of the contract and nothing of the SDK.
 */
import {
  Client,
  type ClientReadableStream,
  type ClientWritableStream,
  credentials,
  Metadata,
  type MethodDefinition,
} from "@grpc/grpc-js";
import { fromServiceError } from "../../proto/error_codec.js";
import { GRPC_OPTIONS, loadContract } from "../../proto/load.js";
import type {
  ConditionMessage,
  GetRequest,
  GetResponse,
  ObjectInfoMessage,
  PutHeader,
  PutRequest,
} from "../../proto/messages.js";

export const contract = loadContract();

export class RawGrpc {
  readonly channel: Client;

  constructor(address: string) {
    this.channel = new Client(address, credentials.createInsecure(), GRPC_OPTIONS);
  }

  /** Rejects with the MillraceError that the trailer carries. */
  call<Request, Response>(
    method: MethodDefinition<Request, Response>,
    request: Request,
    timeoutMs = 20_000,
  ): Promise<Response> {
    return new Promise((resolve, reject) => {
      this.channel.makeUnaryRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        request,
        new Metadata(),
        { deadline: Date.now() + timeoutMs },
        (error, value) => (error === null ? resolve(value as Response) : reject(fromServiceError(error))),
      );
    });
  }

  stream<Request, Response>(
    method: MethodDefinition<Request, Response>,
    request: Request,
  ): ClientReadableStream<Response> {
    return this.channel.makeServerStreamRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      request,
    );
  }

  openPut(deadline?: number): { call: ClientWritableStream<PutRequest>; result: Promise<ObjectInfoMessage> } {
    const { path, requestSerialize, responseDeserialize } = contract.objects.Put;
    let call: ClientWritableStream<PutRequest> | undefined;
    const result = new Promise<ObjectInfoMessage>((resolve, reject) => {
      call = this.channel.makeClientStreamRequest(
        path,
        requestSerialize,
        responseDeserialize,
        new Metadata(),
        deadline === undefined ? {} : { deadline },
        (error, value) =>
          error === null ? resolve(value as ObjectInfoMessage) : reject(fromServiceError(error)),
      );
    });
    result.catch(() => {});
    return { call: call as ClientWritableStream<PutRequest>, result };
  }

  async put(
    namespace: string,
    key: string,
    chunks: readonly Uint8Array[],
    header: Partial<PutHeader> = {},
  ): Promise<ObjectInfoMessage> {
    const { call, result } = this.openPut();
    call.write({ header: putHeader(namespace, key, header), data: new Uint8Array(0), trailer: null });
    for (const data of chunks) call.write({ header: null, data, trailer: null });
    call.end();
    return result;
  }

  async get(
    namespace: string,
    key: string,
    range: Partial<GetRequest> = {},
  ): Promise<{ info: ObjectInfoMessage | null; bytes: Buffer; messages: number; largest: number }> {
    const call = this.stream(contract.objects.Get, {
      namespace,
      key: Buffer.from(key),
      offset: 0,
      length: 0,
      ifSequence: 0,
      ...range,
    });
    const parts: Uint8Array[] = [];
    let info: ObjectInfoMessage | null = null;
    try {
      for await (const message of call as AsyncIterable<GetResponse>) {
        if (message.info !== null) info = message.info;
        parts.push(message.data);
      }
    } catch (thrown) {
      throw fromServiceError(thrown);
    }
    const largest = Math.max(0, ...parts.map((part) => part.length));
    return { info, bytes: Buffer.concat(parts), messages: parts.length, largest };
  }

  close(): void {
    this.channel.close();
  }
}

export function putHeader(namespace: string, key: string, header: Partial<PutHeader> = {}): PutHeader {
  return {
    namespace,
    key: Buffer.from(key),
    sizeBytes: 0,
    sizeKnown: false,
    condition: null,
    crc32c: 0,
    hasCrc32c: false,
    endsWithTrailer: false,
    roomWaitMs: 0,
    ...header,
  };
}

export function createRequest(name: string) {
  return {
    name,
    leaseMs: 0,
    limits: null,
    hint: "HINT_UNSPECIFIED" as const,
    expectedBytes: 0,
    atEnd: "",
  };
}

export const IF_ABSENT: ConditionMessage = { ifAbsent: true, ifSequence: 0 };
