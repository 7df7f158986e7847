/** The client process of isolation.test.ts. */
import { type Client, connect, type Namespace, type TransportKind } from "../../client/index.js";
import { answerCalls } from "../support/client_process.js";
import { Pattern } from "../support/pattern.js";

const clients: Client[] = [];
const namespaces = new Map<string, Namespace>();
const views: { bytes: Uint8Array; pattern: Pattern }[] = [];

const named = (name: string) => namespaces.get(name) as Namespace;

const functions = {
  async create(endpoint: string, name: string): Promise<TransportKind> {
    const client = await connect(endpoint);
    clients.push(client);
    const namespace = await client.createNamespace(name);
    namespaces.set(name, namespace);
    return namespace.transport;
  },

  async open(endpoint: string, name: string): Promise<TransportKind> {
    const client = await connect(endpoint);
    clients.push(client);
    const namespace = await client.openNamespace(name);
    namespaces.set(name, namespace);
    return namespace.transport;
  },

  async put(name: string, key: string, sizeBytes: number): Promise<void> {
    await named(name).put(key, new Pattern(`${name}/${key}`).bytes(0, sizeBytes));
  },

  /** Keeps the view. */
  async read(name: string, key: string): Promise<string | null> {
    const bytes = await named(name).get(key);
    const pattern = new Pattern(`${name}/${key}`);
    views.push({ bytes, pattern });
    return pattern.differs(bytes, 0);
  },

  checkViews(): (string | null)[] {
    return views.map(({ bytes, pattern }) => pattern.differs(bytes, 0));
  },

  viewLengths(): number[] {
    return views.map(({ bytes }) => bytes.length);
  },

  async delete(name: string, key: string): Promise<boolean> {
    return named(name).delete(key);
  },

  /** Of what a writer is given to fill: how many bytes are not zero. */
  async unclean(name: string, sizeBytes: number): Promise<number> {
    const writer = await named(name).openWriter("unclean", { sizeBytes });
    const room = await writer.reserve(sizeBytes);
    let count = 0;
    for (const byte of room) if (byte !== 0) count++;
    await writer.abort();
    return count;
  },

  async close(name: string): Promise<void> {
    await named(name).close();
    namespaces.delete(name);
  },
};

export type IsolationClient = typeof functions;
answerCalls(functions);
