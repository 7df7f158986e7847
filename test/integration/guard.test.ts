/**
 * Guarded namespaces: every door asks for credentials, of the node or of a session, and opens no further than they go.
 * Other namespaces ask for nothing, whatever credentials are shown.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  GetObjectCommand,
  HeadBucketCommand,
  ListObjectsV2Command,
  PutObjectCommand,
} from "@aws-sdk/client-s3";
import { Metadata } from "@grpc/grpc-js";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import {
  type Client,
  type Credentials,
  connect,
  type MillraceError,
  type Namespace,
  type TransportKind,
} from "../../client/index.js";
import { openNativeTransport } from "../../client/transports/native.js";
import { packageRoot } from "../../native/binding/addon.js";
import { fromServiceError } from "../../proto/error_codec.js";
import type { IssueCredentialsResponse } from "../../proto/messages.js";
import { PROOF_HEADERS, PROOF_SKEW_MS, prove } from "../../proto/proof.js";
import { type Daemon, millraceCommand, startDaemon } from "../support/daemon.js";
import { contract, createRequest, RawGrpc } from "../support/raw_grpc.js";
import { ACCESS_KEY, type S3Daemon, SECRET_KEY, startS3Daemon } from "../support/s3.js";

const KINDS: TransportKind[] = ["shm", "tcp", "grpc"];
const NODE_KEY: Credentials = { accessKey: ACCESS_KEY, secretKey: SECRET_KEY };
const NS = "guarded-job";
const OPEN = "open-job";
const { namespaces, objects, shuffles, nodes } = contract;

let door: S3Daemon;
let daemon: Daemon;
let owner: Client;
let guarded: Namespace;
const clients: Client[] = [];

beforeAll(async () => {
  door = await startS3Daemon({ args: ["--s3-anonymous"] });
  daemon = door.daemon;
  owner = await connect(daemon.endpoint, { credentials: NODE_KEY });
  guarded = await owner.createNamespace(NS, { guarded: true });
  await guarded.put("mine/a", "in the prefix");
  await guarded.put("other/b", "outside");
  await (await owner.createNamespace(OPEN, { leaseMs: 3_600_000 })).close();
});
afterAll(async () => {
  await owner.close();
  await daemon.stop();
});
afterEach(async () => {
  await Promise.all(clients.splice(0).map((client) => client.close()));
});

async function client(credentials: Credentials | null, transport?: TransportKind): Promise<Client> {
  const connected = await connect(daemon.endpoint, {
    credentials,
    ...(transport === undefined ? {} : { transport }),
  });
  clients.push(connected);
  return connected;
}

async function open(credentials: Credentials | null, transport?: TransportKind): Promise<Namespace> {
  return (await client(credentials, transport)).openNamespace(NS);
}

function codeOf(attempt: Promise<unknown>): Promise<string> {
  return attempt.then(
    () => "OK",
    (thrown: MillraceError) => thrown.code,
  );
}

function thrownCode(attempt: () => unknown): string {
  try {
    attempt();
    return "OK";
  } catch (thrown) {
    return (thrown as MillraceError).code;
  }
}

const issue = (options: Parameters<Client["issueCredentials"]>[1] = {}) =>
  owner.issueCredentials(NS, options);

/** Lets them expire as far as anybody else can tell. */
async function expiredCredentials(): Promise<Credentials> {
  const issued = await issue({ ttlMs: 1_000 });
  await new Promise((resolve) => setTimeout(resolve, issued.expiresUnixMs - Date.now() + 50));
  return issued;
}

/** Every call about the namespace, by what the caller would do to it. */
type Call = (grpc: Prover) => Promise<unknown>;
const at = { namespace: NS };
const key = Buffer.from("mine/a");
const READS: Record<string, Call> = {
  Get: (grpc) => grpc.stream(objects.Get, { ...at, key, offset: 0, length: 0, ifSequence: 0 }),
  Head: (grpc) => grpc.call(objects.Head, { ...at, key }),
  List: (grpc) =>
    grpc.call(objects.List, { ...at, prefix: Buffer.from("mine/"), startAfter: Buffer.alloc(0), limit: 0 }),
};
const WRITES: Record<string, Call> = {
  Delete: (grpc) => grpc.call(objects.Delete, { ...at, key: Buffer.from("mine/none"), condition: null }),
  Copy: (grpc) =>
    grpc.call(objects.Copy, {
      ...at,
      fromKey: key,
      toKey: Buffer.from("mine/copy"),
      toNamespace: "",
      condition: null,
    }),
};
const WHOLE_READS: Record<string, Call> = {
  "List of everything": (grpc) =>
    grpc.call(objects.List, { ...at, prefix: Buffer.alloc(0), startAfter: Buffer.alloc(0), limit: 0 }),
  "Get outside": (grpc) =>
    grpc.stream(objects.Get, { ...at, key: Buffer.from("other/b"), offset: 0, length: 0, ifSequence: 0 }),
  DescribeShuffle: (grpc) => grpc.call(shuffles.DescribeShuffle, { ...at, shuffle: "s" }),
  LocatePartition: (grpc) =>
    grpc.call(shuffles.LocatePartition, { ...at, shuffle: "s", partition: 0, count: 1, wait: false }),
  Verify: (grpc) => grpc.call(nodes.Verify, at),
};
const WHOLE_WRITES: Record<string, Call> = {
  "Copy from outside": (grpc) =>
    grpc.call(objects.Copy, {
      ...at,
      fromKey: Buffer.from("other/b"),
      toKey: Buffer.from("mine/b"),
      toNamespace: "",
      condition: null,
    }),
  CreateShuffle: (grpc) =>
    grpc.call(shuffles.CreateShuffle, {
      ...at,
      shuffle: "s",
      maps: 1,
      partitions: 1,
      partitioner: Buffer.alloc(0),
    }),
  ReportLost: (grpc) => grpc.call(shuffles.ReportLost, { ...at, shuffle: "s", maps: [0] }),
  DeleteShuffle: (grpc) => grpc.call(shuffles.DeleteShuffle, { ...at, shuffle: "none" }),
  IssueCredentials: (grpc) =>
    grpc.call(namespaces.IssueCredentials, { ...at, prefix: "", readOnly: false, ttlMs: 0 }),
};
const ANY: Record<string, Call> = {
  OpenNamespace: (grpc) => grpc.call(namespaces.OpenNamespace, { name: NS }),
  RenewLease: (grpc) => grpc.call(namespaces.RenewLease, { name: NS, leaseMs: 0 }),
  GetReceipt: (grpc) => grpc.call(namespaces.GetReceipt, { name: NS }),
  ReportUsage: (grpc) => grpc.call(namespaces.ReportUsage, { name: NS, traffic: [], copiesAvoidedBytes: 0 }),
};
const EXISTENCE: Record<string, Call> = {
  DeleteNamespace: (grpc) => grpc.call(namespaces.DeleteNamespace, { name: NS }),
};
const ALL = { ...READS, ...WRITES, ...WHOLE_READS, ...WHOLE_WRITES, ...ANY, ...EXISTENCE };

/** Calls with proofs that are made here, and so can be made wrongly. */
class Prover {
  private readonly raw = new RawGrpc(daemon.endpoint);

  constructor(
    private readonly credentials: Credentials | null,
    private readonly tamper: (
      path: string,
      message: Buffer,
    ) => { date?: string; message?: Buffer; path?: string } = () => ({}),
  ) {}

  // biome-ignore lint/suspicious/noExplicitAny: of any method.
  private prepared(method: any, request: unknown): { message: Buffer; metadata: Metadata } {
    const message: Buffer = method.requestSerialize(request);
    const metadata = new Metadata();
    if (this.credentials !== null) {
      const { accessKey, secretKey, sessionToken } = this.credentials;
      const wrong = this.tamper(method.path, message);
      const date = wrong.date ?? String(Date.now());
      metadata.set(PROOF_HEADERS.accessKey, accessKey);
      if (sessionToken !== undefined) metadata.set(PROOF_HEADERS.sessionToken, sessionToken);
      metadata.set(PROOF_HEADERS.date, date);
      const proof = prove(secretKey, wrong.path ?? method.path, date, wrong.message ?? message);
      metadata.set(PROOF_HEADERS.proof, proof);
    }
    return { message, metadata };
  }

  // biome-ignore lint/suspicious/noExplicitAny: of any method.
  call(method: any, request: unknown): Promise<unknown> {
    const { message, metadata } = this.prepared(method, request);
    return new Promise((resolve, reject) => {
      this.raw.channel.makeUnaryRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        message,
        metadata,
        (error, value) => (error === null ? resolve(value) : reject(fromServiceError(error))),
      );
    });
  }

  // biome-ignore lint/suspicious/noExplicitAny: of any method.
  async stream(method: any, request: unknown): Promise<unknown> {
    const { message, metadata } = this.prepared(method, request);
    const call = this.raw.channel.makeServerStreamRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      message,
      metadata,
    );
    try {
      return await call.toArray();
    } catch (thrown) {
      throw fromServiceError(thrown);
    }
  }

  close(): void {
    this.raw.close();
  }
}

async function codesOf(
  calls: Record<string, Call>,
  ...args: ConstructorParameters<typeof Prover>
): Promise<Record<string, string>> {
  const prover = new Prover(...args);
  try {
    const codes = Object.entries(calls).map(async ([name, call]) => [name, await codeOf(call(prover))]);
    return Object.fromEntries(await Promise.all(codes));
  } finally {
    prover.close();
  }
}

const allOf = (calls: Record<string, Call>, code: string) =>
  Object.fromEntries(Object.keys(calls).map((name) => [name, code]));

describe("creating", () => {
  const guardedRequest = { ...createRequest("another"), guarded: true };
  const create = async (credentials: Credentials | null) => {
    const prover = new Prover(credentials);
    const code = await codeOf(prover.call(namespaces.CreateNamespace, guardedRequest));
    prover.close();
    return code;
  };

  it("asks for the node's own key", async () => {
    expect(await create(null)).toBe("UNAUTHENTICATED");
    expect(await create({ ...NODE_KEY, secretKey: "wrong" })).toBe("UNAUTHENTICATED");
    expect(await create(await issue())).toBe("PERMISSION_DENIED");
    expect(await create(await owner.issueCredentials(OPEN))).toBe("PERMISSION_DENIED");
    expect(await create(NODE_KEY)).toBe("OK");
    await owner.deleteNamespace("another");
  });

  it("asks for a node with keys", async () => {
    const keyless = await startDaemon({ dram: "64MiB" });
    const connected = await connect(keyless.endpoint, { credentials: NODE_KEY });
    const attempt = connected.createNamespace("job-1", { guarded: true });
    await expect(attempt).rejects.toMatchObject({
      code: "UNSUPPORTED",
      message: expect.stringContaining("--access-key"),
    });
    // And without, credentials are nobody's business.
    await (await connected.createNamespace("job-1")).put("key", "x");
    await connected.close();
    await keyless.stop();
  });
});

describe("gRPC", () => {
  it("refuses who shows nothing", async () => {
    expect(await codesOf(ALL, null)).toEqual(allOf(ALL, "UNAUTHENTICATED"));
  });

  it("refuses the wrong secret, the unknown key and the expired session", async () => {
    const wrong = [
      { ...NODE_KEY, secretKey: "wrong" },
      { ...NODE_KEY, accessKey: "nobody" },
      { ...NODE_KEY, sessionToken: "not.one" },
      { ...(await issue()), secretKey: SECRET_KEY },
      { ...(await issue()), sessionToken: (await issue()).sessionToken },
      await expiredCredentials(),
    ];
    for (const credentials of wrong) {
      expect(await codesOf(ALL, credentials)).toEqual(allOf(ALL, "UNAUTHENTICATED"));
    }
  });

  it("refuses proofs of another message, another call, another time", async () => {
    const tampered: ConstructorParameters<typeof Prover>[1][] = [
      (_, message) => ({ message: Buffer.concat([message, Buffer.from([0])]) }),
      (path) => ({ path: `${path}x` }),
      () => ({ date: String(Date.now() - PROOF_SKEW_MS - 60_000) }),
      () => ({ date: String(Date.now() + PROOF_SKEW_MS + 60_000) }),
      () => ({ date: "yesterday" }),
      () => ({ date: "" }),
    ];
    for (const tamper of tampered) {
      expect(await codesOf(ALL, NODE_KEY, tamper)).toEqual(allOf(ALL, "UNAUTHENTICATED"));
    }
    const withinSkew = () => ({ date: String(Date.now() - PROOF_SKEW_MS + 60_000) });
    expect(await codesOf(ANY, NODE_KEY, withinSkew)).toEqual(allOf(ANY, "OK"));
  });

  it("refuses the sessions of other namespaces", async () => {
    const others = await owner.issueCredentials(OPEN);
    expect(await codesOf(ALL, others)).toEqual(allOf(ALL, "PERMISSION_DENIED"));
  });

  it("opens to the node's key and to sessions, as far as they go", async () => {
    const whole = { ...READS, ...WRITES, ...ANY, Verify: WHOLE_READS.Verify as Call };
    const issuing = { IssueCredentials: WHOLE_WRITES.IssueCredentials as Call };
    expect(await codesOf({ ...whole, ...issuing }, NODE_KEY)).toEqual(allOf({ ...whole, ...issuing }, "OK"));
    expect(await codesOf({ ...whole, ...issuing }, await issue())).toEqual(
      allOf({ ...whole, ...issuing }, "OK"),
    );
    expect(await codesOf(EXISTENCE, await issue())).toEqual(allOf(EXISTENCE, "PERMISSION_DENIED"));

    const reading = await issue({ readOnly: true });
    expect(await codesOf({ ...READS, ...ANY }, reading)).toEqual(allOf({ ...READS, ...ANY }, "OK"));
    const writing = { ...WRITES, ...WHOLE_WRITES, ...EXISTENCE };
    expect(await codesOf(writing, reading)).toEqual(allOf(writing, "PERMISSION_DENIED"));

    const prefixed = await issue({ prefix: "mine/" });
    const within = { ...READS, ...WRITES, ...ANY };
    expect(await codesOf(within, prefixed)).toEqual(allOf(within, "OK"));
    const beyond = { ...WHOLE_READS, ...WHOLE_WRITES, ...EXISTENCE };
    expect(await codesOf(beyond, prefixed)).toEqual(allOf(beyond, "PERMISSION_DENIED"));
  });

  it("lists guarded namespaces to those whom they are open to", async () => {
    const names = async (credentials: Credentials | null) =>
      (await (await client(credentials)).listNamespaces()).map(({ name }) => name);
    expect(await names(null)).toEqual([OPEN]);
    expect(await names(await owner.issueCredentials(OPEN))).toEqual([OPEN]);
    expect(await names(NODE_KEY)).toEqual([NS, OPEN]);
    expect(await names(await issue({ prefix: "mine/" }))).toEqual([NS, OPEN]);
  });

  it("passes on no more than it has", async () => {
    const brief = await issue({ ttlMs: 60_000 });
    const passedOn = await (await client(brief)).issueCredentials(NS, { ttlMs: 3_600_000 });
    expect(passedOn.expiresUnixMs).toBe(brief.expiresUnixMs);
    const reading = await client(await issue({ readOnly: true }));
    expect(await codeOf(reading.issueCredentials(NS))).toBe("PERMISSION_DENIED");
    const passed = await reading.issueCredentials(NS, { readOnly: true, prefix: "mine/" });
    expect(await codeOf((await open(passed)).get("mine/a"))).toBe("OK");
  });

  it.each([{ readOnly: true }, { prefix: "mine/" }, {}])(
    "keep a namespace alive, and cut no lease short: %o",
    async (what) => {
      const name = "leased";
      await (await owner.createNamespace(name, { guarded: true })).close();
      const [node, session] = [new Prover(NODE_KEY), new Prover(await owner.issueCredentials(name, what))];
      const renew = async (prover: Prover, leaseMs: number) => {
        const renewed = await prover.call(namespaces.RenewLease, { name, leaseMs });
        return (renewed as { leaseRemainingMs: number }).leaseRemainingMs;
      };
      const [minuteMs, hourMs] = [60_000, 3_600_000];
      try {
        expect(await renew(node, hourMs)).toBe(hourMs);
        for (const leaseMs of [100, minuteMs, 0]) {
          expect(await renew(session, leaseMs)).toBeGreaterThan(hourMs / 2);
        }
        expect(await renew(session, 2 * hourMs)).toBe(2 * hourMs);
        expect(await renew(node, minuteMs)).toBe(minuteMs);
      } finally {
        node.close();
        session.close();
        await owner.deleteNamespace(name);
      }
    },
  );

  it("ends watches when the session does", async () => {
    const handle = await open(await issue({ prefix: "mine/", ttlMs: 1_500 }));
    const watch = handle.watch("mine/");
    await watch.ready;
    const seen: string[] = [];
    const ended = (async () => {
      for await (const event of watch) seen.push(event.key);
    })();
    await guarded.put("mine/watched", "x");
    await guarded.put("other/watched", "x");
    expect(await codeOf(ended)).toBe("UNAUTHENTICATED");
    expect(seen).toEqual(["mine/watched"]);
    const beyond = (await open(await issue({ prefix: "mine/" }))).watch("min");
    expect(await codeOf(beyond.ready)).toBe("PERMISSION_DENIED");
  });
});

describe.each(KINDS)("over %s", (kind) => {
  it("nobody gets in without credentials that hold", async () => {
    expect(await codeOf(open(null, kind))).toBe("UNAUTHENTICATED");
    expect(await codeOf(open({ ...NODE_KEY, secretKey: "wrong" }, kind))).toBe("UNAUTHENTICATED");
    expect(await codeOf(open(await expiredCredentials(), kind))).toBe("UNAUTHENTICATED");
    expect(await codeOf(open(await owner.issueCredentials(OPEN), kind))).toBe("PERMISSION_DENIED");
  });

  it.each(["the node's key", "a session"])("%s does everything", async (what) => {
    const handle = await open(what === "a session" ? await issue() : NODE_KEY, kind);
    expect(handle.transport).toBe(kind);
    const name = `whole/${kind}/${what}`;
    const large = Buffer.alloc(3 << 20, "l");
    await handle.put(name, "x");
    await handle.put(`${name}/large`, large);
    expect(Buffer.from(await handle.get(name)).toString()).toBe("x");
    expect(large.equals(await handle.get(`${name}/large`))).toBe(true);
    const batch = handle.batch();
    batch.put(`${name}/batch`, "y");
    await batch.flush();
    expect((await handle.listPage({ prefix: name })).objects).toHaveLength(3);
    expect(await handle.delete(name)).toBe(true);
  });

  it("a session for reading writes nothing", async () => {
    const handle = await open(await issue({ readOnly: true }), kind);
    expect(handle.transport).toBe(kind);
    expect(Buffer.from(await handle.get("mine/a")).toString()).toBe("in the prefix");
    expect(await codeOf(handle.put("mine/new", "x"))).toBe("PERMISSION_DENIED");
    expect(await codeOf(handle.put("mine/new", Buffer.alloc(3 << 20)))).toBe("PERMISSION_DENIED");
    expect(await codeOf(handle.delete("mine/a"))).toBe("PERMISSION_DENIED");
    expect(await codeOf(handle.copy("mine/a", "mine/c"))).toBe("PERMISSION_DENIED");
    const batch = handle.batch();
    const flushed = Promise.resolve().then(() => {
      batch.put("mine/new", "x");
      return batch.flush();
    });
    expect(await codeOf(flushed)).toBe("PERMISSION_DENIED");
    expect(await handle.exists("mine/new")).toBe(false);
    expect(await handle.exists("mine/a")).toBe(true);
  });

  it("a session for a prefix has it over gRPC alone", async () => {
    const prefixed = await issue({ prefix: "mine/" });
    if (kind !== "grpc") {
      expect(await codeOf(open(prefixed, kind))).toBe("PERMISSION_DENIED");
      return;
    }
    const handle = await open(prefixed);
    expect(handle.transport).toBe("grpc");
    expect(Buffer.from(await handle.get("mine/a")).toString()).toBe("in the prefix");
    await handle.put("mine/own", "z");
    expect(await codeOf(handle.put("other/own", "z"))).toBe("PERMISSION_DENIED");
    expect(await codeOf(handle.get("other/b"))).toBe("PERMISSION_DENIED");
    expect(await codeOf(handle.head("other/b"))).toBe("PERMISSION_DENIED");
    expect(await codeOf(handle.delete("other/b"))).toBe("PERMISSION_DENIED");
    expect(await codeOf(handle.copy("other/b", "mine/b"))).toBe("PERMISSION_DENIED");
    expect(await codeOf(handle.copy("mine/a", "other/a"))).toBe("PERMISSION_DENIED");
    expect(await codeOf(handle.listPage())).toBe("PERMISSION_DENIED");
    const listed = (await handle.listPage({ prefix: "mine/" })).objects.map((object) => object.key);
    expect(listed).toContain("mine/own");
    expect(await guarded.exists("other/own")).toBe(false);
  });

  it("ends when the session expires", async () => {
    const handle = await open(await issue({ ttlMs: 2_500 }), kind);
    expect(handle.transport).toBe(kind);
    const before = await handle.get("mine/a");
    if (kind === "shm") expect(handle.view("mine/a")).toEqual(before);
    await handle.put(`late/${kind}`, "in time");
    await vi.waitFor(async () => expect(await codeOf(handle.get("mine/a"))).toBe("UNAUTHENTICATED"), {
      timeout: 20_000,
      interval: 100,
    });
    expect(await codeOf(handle.put(`late/${kind}`, "too late"))).toBe("UNAUTHENTICATED");
    if (kind === "shm") {
      await vi.waitFor(() => expect(thrownCode(() => handle.view("mine/a"))).toBe("UNAUTHENTICATED"), {
        timeout: 20_000,
      });
    }
    // What was read in time stays, and what was put.
    expect(Buffer.from(before).toString()).toBe("in the prefix");
    expect(Buffer.from(await guarded.get(`late/${kind}`)).toString()).toBe("in time");
  });

  it("an open namespace asks for nothing, whatever is shown", async () => {
    for (const credentials of [null, NODE_KEY, { ...NODE_KEY, secretKey: "wrong" }, await issue()]) {
      const handle = await (await client(credentials, kind)).openNamespace(OPEN);
      await handle.put("key", "x");
      expect(Buffer.from(await handle.get("key")).toString()).toBe("x");
    }
  });
});

describe("a native session", () => {
  const attach = async (kind: "shm" | "tcp", token: Uint8Array) => {
    const [host = "", port = ""] = daemon.dataAddress.split(":");
    const where =
      kind === "shm"
        ? { socketPath: daemon.socketPath, host: "", port: 0 }
        : { socketPath: null, host, port: Number(port) };
    const transport = await openNativeTransport({ ...where, namespace: NS, token, timeoutMs: 5_000 });
    await transport.close();
  };
  const tokenFor = async (credentials: Credentials) => {
    const prover = new Prover(credentials);
    const { token } = (await prover.call(namespaces.OpenNamespace, { name: NS })) as { token: Buffer };
    prover.close();
    return token;
  };

  it.each(["shm", "tcp"] as const)("over %s asks for the token", async (kind) => {
    const right = await tokenFor(NODE_KEY);
    await attach(kind, right);
    const passing = await tokenFor(await issue());
    await attach(kind, passing);
    expect(passing.equals(right)).toBe(false);
    for (const wrong of [new Uint8Array(16), right.map((byte, at) => (at === 15 ? byte ^ 1 : byte))]) {
      expect(await codeOf(attach(kind, wrong))).toBe("UNAUTHENTICATED");
    }
    expect(await tokenFor(await issue({ prefix: "mine/" }))).toHaveLength(0);
  });

  it.each(["shm", "tcp"] as const)("over %s is not opened with a token that expired", async (kind) => {
    const issued = await issue({ ttlMs: 1_000 });
    const token = await tokenFor(issued);
    await attach(kind, token);
    await new Promise((resolve) => setTimeout(resolve, issued.expiresUnixMs - Date.now() + 50));
    expect(await codeOf(attach(kind, token))).toBe("UNAUTHENTICATED");
  });
});

describe("S3", () => {
  const s3 = (keys: IssueCredentialsResponse | Credentials | null) =>
    door.client(
      keys === null
        ? {
            credentials: { accessKeyId: "", secretAccessKey: "" },
            signer: { sign: async (request) => request },
          }
        : {
            credentials: {
              accessKeyId: keys.accessKey,
              secretAccessKey: keys.secretKey,
              ...(keys.sessionToken === undefined ? {} : { sessionToken: keys.sessionToken }),
            },
          },
    );
  const nameOf = (attempt: Promise<unknown>) =>
    attempt.then(
      () => "OK",
      (thrown: Error & { $metadata?: { httpStatusCode?: number } }) =>
        thrown.name === "Unknown" || thrown.name === "403"
          ? String(thrown.$metadata?.httpStatusCode)
          : thrown.name,
    );
  const get = (keys: Parameters<typeof s3>[0], Key: string, Bucket = NS) =>
    nameOf(s3(keys).send(new GetObjectCommand({ Bucket, Key })));

  it("opens to whom it should", async () => {
    await guarded.put("mine/a", "in the prefix");
    expect(await get(NODE_KEY, "mine/a")).toBe("OK");
    expect(await get(await issue(), "other/b")).toBe("OK");
    const prefixed = await issue({ prefix: "mine/" });
    expect(await get(prefixed, "mine/a")).toBe("OK");
    expect(await get(prefixed, "other/b")).toBe("AccessDenied");
    const put = new PutObjectCommand({ Bucket: NS, Key: "mine/s3", Body: "x" });
    expect(await nameOf(s3(await issue({ readOnly: true })).send(put))).toBe("AccessDenied");
    expect(await nameOf(s3(prefixed).send(put))).toBe("OK");
    expect(Buffer.from(await guarded.get("mine/s3")).toString()).toBe("x");
  });

  it("takes nobody's word, though requests without a signature are taken elsewhere", async () => {
    const open = await (await client(null)).openNamespace(OPEN);
    await open.put("public", "x");
    expect(await get(null, "public", OPEN)).toBe("OK");
    expect(await get(null, "mine/a")).toBe("AccessDenied");
    expect(await nameOf(s3(null).send(new ListObjectsV2Command({ Bucket: NS })))).toBe("AccessDenied");
    expect(await nameOf(s3(null).send(new HeadBucketCommand({ Bucket: NS })))).toBe("403");
    expect(await get(await owner.issueCredentials(OPEN), "mine/a")).toBe("AccessDenied");
    expect(await get(await expiredCredentials(), "mine/a")).toBe("ExpiredToken");
  });
});

it("credentials of an earlier namespace of the name are good for nothing", async () => {
  const name = "named-again";
  await (await owner.createNamespace(name)).close();
  // Anybody may have them issued while the namespace is open to all.
  const stolen = await (await client(null)).issueCredentials(name);
  await owner.deleteNamespace(name);
  const again = await owner.createNamespace(name, { guarded: true });
  await again.put("key", "x");
  const earlier = await owner.issueCredentials(name);
  for (const credentials of [stolen]) {
    expect(await codeOf((await client(credentials)).openNamespace(name))).toBe("PERMISSION_DENIED");
  }
  expect(await codeOf((await client(earlier)).openNamespace(name))).toBe("OK");
  await owner.deleteNamespace(name);
  expect(await codeOf((await client(null)).issueCredentials(name))).toBe("NAMESPACE_GONE");
  const third = await owner.createNamespace(name, { guarded: true });
  expect(await codeOf((await client(earlier)).openNamespace(name))).toBe("PERMISSION_DENIED");
  await owner.deleteNamespace(third.name);
  // Nor does what is left of it speak to everybody.
  const raw = new RawGrpc(daemon.endpoint);
  expect(await codeOf(raw.call(namespaces.GetReceipt, { name }))).toBe("UNAUTHENTICATED");
  raw.close();
});

it("the shell and whatever else inherits the environment prove themselves", async () => {
  const [program, ...leading] = millraceCommand();
  const millrace = (credentials: Credentials | null, ...args: string[]) => {
    const run = spawnSync(program, [...leading, ...args, "--endpoint", daemon.endpoint], {
      cwd: packageRoot(),
      encoding: "utf8",
      env: {
        ...process.env,
        ...(credentials === null
          ? {}
          : {
              MILLRACE_ACCESS_KEY: credentials.accessKey,
              MILLRACE_SECRET_KEY: credentials.secretKey,
              MILLRACE_SESSION_TOKEN: credentials.sessionToken ?? "",
            }),
      },
    });
    return { status: run.status, stdout: run.stdout, stderr: run.stderr };
  };
  expect(millrace(null, "namespace", "create", "from-shell", "--guarded")).toMatchObject({
    status: 1,
    stderr: expect.stringContaining("MILLRACE_ACCESS_KEY"),
  });
  expect(millrace(NODE_KEY, "namespace", "create", "from-shell", "--guarded")).toMatchObject({ status: 0 });
  expect(millrace(NODE_KEY, "namespace", "list").stdout).toContain("from-shell");
  expect(millrace(null, "namespace", "list").stdout).not.toContain("from-shell");
  expect(millrace(null, "ls", "from-shell").stderr).toContain("guarded");
  const issued = JSON.parse(
    millrace(NODE_KEY, "namespace", "credentials", "from-shell", "--prefix", "p/", "--json").stdout,
  );
  expect(millrace(issued, "ls", "from-shell", "p/")).toMatchObject({ status: 0 });
  expect(millrace(issued, "ls", "from-shell")).toMatchObject({ status: 1 });
  expect(millrace(issued, "namespace", "delete", "from-shell")).toMatchObject({ status: 1 });
  expect(millrace(NODE_KEY, "namespace", "delete", "from-shell")).toMatchObject({ status: 0 });
});

it("stays guarded over a restart, and shut where the node has no keys any more", async () => {
  const folder = mkdtempSync(join(tmpdir(), "millrace-guard-"));
  const state = join(folder, "state");
  const start = (keys: boolean) =>
    startDaemon({
      dram: "128MiB",
      args: ["--state", state],
      env: keys ? { MILLRACE_ACCESS_KEY: ACCESS_KEY, MILLRACE_SECRET_KEY: SECRET_KEY } : {},
    });
  let running = await start(true);
  try {
    let connected = await connect(running.endpoint, { credentials: NODE_KEY });
    // Without an S3 door as well.
    const handle = await connected.createNamespace("kept", { guarded: true, leaseMs: 3_600_000 });
    await handle.put("key", "kept");
    const issued = await connected.issueCredentials("kept");
    await connected.close();
    running.kill("SIGKILL");
    await running.exited();

    running = await start(true);
    const openAs = async (credentials: Credentials | null) => {
      connected = await connect(running.endpoint, { credentials });
      try {
        const opened = await connected.openNamespace("kept");
        return `${opened.transport} ${Buffer.from(await opened.get("key")).toString()}`;
      } catch (thrown) {
        return (thrown as MillraceError).code;
      } finally {
        await connected.close();
      }
    };
    expect(await openAs(null)).toBe("UNAUTHENTICATED");
    expect(await openAs(NODE_KEY)).toBe("shm kept");
    expect(await openAs(issued)).toBe("shm kept");
    await running.stop();

    running = await start(false);
    expect(await openAs(null)).toBe("UNAUTHENTICATED");
    expect(await openAs(NODE_KEY)).toBe("UNAUTHENTICATED");
    expect(running.log()).toContain("nobody can get at guarded namespaces");
    expect(running.log()).not.toContain(SECRET_KEY);
  } finally {
    await running.stop();
    const { memoryDirectory } = JSON.parse(readFileSync(join(state, "node.json"), "utf8"));
    rmSync(memoryDirectory, { recursive: true, force: true });
    rmSync(folder, { recursive: true, force: true });
  }
});

it("the node tells nobody its secret", () => {
  expect(daemon.log()).toContain(ACCESS_KEY);
  expect(daemon.log()).not.toContain(SECRET_KEY);
});
