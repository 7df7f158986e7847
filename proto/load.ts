/**
 * The contract, loaded once from `proto/millrace/v1/*.proto`: service definitions for both sides, typed by
 * `messages.ts`. The files are found from the package's root, so sources and `dist/` load the same ones.
 */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import type { MethodDefinition } from "@grpc/grpc-js";
import { loadSync, type PackageDefinition } from "@grpc/proto-loader";
import { packageRoot } from "../native/binding/addon.js";
import { MillraceError } from "./errors.js";
import type {
  ErrorMessage,
  NamespacesDefinition,
  NodesDefinition,
  ObjectsDefinition,
  ShufflesDefinition,
} from "./messages.js";

export interface MessageCodec<T> {
  serialize(value: T): Buffer;
  deserialize(bytes: Buffer): T;
}

export interface Contract {
  /** For reflection. */
  packageDefinition: PackageDefinition;
  namespaces: NamespacesDefinition;
  objects: ObjectsDefinition;
  shuffles: ShufflesDefinition;
  nodes: NodesDefinition;
  /** What travels in the trailer `millrace-error-bin`. */
  error: MessageCodec<ErrorMessage>;
  /**
   * Checks the integers of a request of the method at `path`: within their type, and below 2^53 where they have
   * 64 bits. Throws OUT_OF_RANGE.
   */
  checkRequest(path: string, request: unknown): void;
}

/** The most bytes of an object that one message of a Put or Get stream carries from this package. */
export const CHUNK_BYTES_MAX = 1 << 20;

/**
 * Channel and server options on which both sides rely. Large enough for a commit of 65,536 partitions and for a
 * location of 65,536 maps; the flow-control window lets one stream keep several chunks in flight, where HTTP/2's
 * own 64 KiB would make every chunk wait for sixteen round trips.
 */
export const GRPC_OPTIONS = {
  "grpc.max_receive_message_length": 64 << 20,
  "grpc.max_send_message_length": -1,
  "grpc-node.flow_control_window": 8 << 20,
} as const;

const PACKAGE = "millrace.v1";

let loaded: Contract | undefined;

/** The contract; the first call reads and compiles the .proto files (some 20 ms), later ones are free. */
export function loadContract(): Contract {
  loaded ??= load();
  return loaded;
}

function load(): Contract {
  const root = join(packageRoot(), "proto");
  const folder = join(root, "millrace", "v1");
  const files = readdirSync(folder)
    .filter((file) => file.endsWith(".proto"))
    .map((file) => join(folder, file));
  const packageDefinition = loadSync(files, {
    keepCase: false,
    longs: Number,
    enums: String,
    defaults: true,
    oneofs: true,
    includeDirs: [root],
  });
  const checkers = new CheckerCompiler(packageDefinition);
  const requestCheckers = new Map<string, Checker>();

  const service = <T>(name: string): T => {
    const definition = packageDefinition[`${PACKAGE}.${name}`] as unknown as Record<string, RawMethod>;
    for (const method of Object.values(definition)) {
      const checkRequest = checkers.ofMessage(method.requestType.type as MessageDescriptor);
      const checkResponse = checkers.ofMessage(method.responseType.type as MessageDescriptor);
      requestCheckers.set(method.path, checkRequest);
      // The client's half is checked here. The server checks requests in its handlers, because grpc-js answers
      // an error thrown by a deserializer with a bare INTERNAL.
      const { requestSerialize, responseSerialize, responseDeserialize } = method;
      // A Buffer is a message encoded already, see chunks.ts.
      method.requestSerialize = (value) => {
        if (value instanceof Buffer) return value;
        checkRequest(value);
        return requestSerialize(value);
      };
      method.responseSerialize = (value) => (value instanceof Buffer ? value : responseSerialize(value));
      method.responseDeserialize = (bytes) => {
        const value = responseDeserialize(bytes);
        checkResponse(value);
        return value;
      };
    }
    return definition as T;
  };

  return {
    packageDefinition,
    namespaces: service<NamespacesDefinition>("Namespaces"),
    objects: service<ObjectsDefinition>("Objects"),
    shuffles: service<ShufflesDefinition>("Shuffles"),
    nodes: service<NodesDefinition>("Nodes"),
    error: packageDefinition[`${PACKAGE}.Error`] as unknown as MessageCodec<ErrorMessage>,
    checkRequest(path, request) {
      requestCheckers.get(path)?.(request);
    },
  };
}

interface MessageDescriptor {
  name: string;
  field: FieldDescriptor[];
}

interface FieldDescriptor {
  name: string;
  jsonName?: string;
  label: string;
  type: string;
  typeName: string;
}

type RawMethod = MethodDefinition<object, object> & {
  requestType: { type: object };
  responseType: { type: object };
};

type Checker = (message: unknown) => void;

const UINT_MAX: Record<string, number> = {
  TYPE_UINT64: Number.MAX_SAFE_INTEGER,
  TYPE_FIXED64: Number.MAX_SAFE_INTEGER,
  TYPE_UINT32: 0xffff_ffff,
  TYPE_FIXED32: 0xffff_ffff,
};

/**
 * Builds, from descriptors, functions that check every unsigned integer of a message. Protobuf's JavaScript
 * would wrap 2^32 + 1 to 1 and round 2^53 + 1 to 2^53 without a word.
 */
class CheckerCompiler {
  private readonly known = new Map<string, Checker>();

  constructor(private readonly definitions: PackageDefinition) {}

  ofMessage(descriptor: MessageDescriptor): Checker {
    const before = this.known.get(descriptor.name);
    if (before !== undefined) return before;
    const steps: ((message: Record<string, unknown>) => void)[] = [];
    for (const field of descriptor.field) {
      const name = camelCase(field.name);
      const checkValue = this.ofField(descriptor.name, field, name);
      if (checkValue === null) continue;
      const repeated = field.label === "LABEL_REPEATED";
      steps.push((message) => {
        const value = message[name];
        if (value === undefined || value === null) return;
        if (repeated) for (const item of value as unknown[]) checkValue(item);
        else checkValue(value);
      });
    }
    const checker: Checker = (message) => {
      for (const step of steps) step(message as Record<string, unknown>);
    };
    this.known.set(descriptor.name, checker);
    return checker;
  }

  private ofField(owner: string, field: FieldDescriptor, name: string): Checker | null {
    if (field.type === "TYPE_MESSAGE") {
      const typeName = field.typeName.split(".").at(-1) ?? "";
      const definition = this.definitions[`${PACKAGE}.${typeName}`];
      return this.ofMessage((definition as unknown as { type: MessageDescriptor }).type);
    }
    const max = UINT_MAX[field.type];
    if (max === undefined) return null;
    return (value) => {
      if (!Number.isInteger(value) || (value as number) < 0 || (value as number) > max) {
        throw new MillraceError(
          "OUT_OF_RANGE",
          `${owner}.${name} is ${String(value)}; it must be a whole number from 0 to ${max}`,
        );
      }
    };
  }
}

function camelCase(name: string): string {
  return name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
}
