/** `millrace` as a shell sees it: output, exit codes, files, against a real daemon. */
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { packageRoot } from "../../native/binding/addon.js";
import { type Daemon, millraceCommand, startDaemon } from "../support/daemon.js";

interface Outcome {
  code: number | null;
  stdout: Buffer;
  stderr: string;
}

let daemon: Daemon;
let folder: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "millrace-cli-"));
  daemon = await startDaemon();
});

afterAll(async () => {
  await daemon?.stop();
  rmSync(folder, { recursive: true, force: true });
});

function millrace(
  args: readonly string[],
  input?: Uint8Array,
  env: Record<string, string> = {},
): Promise<Outcome> {
  const [program, ...leading] = millraceCommand();
  return new Promise((resolve) => {
    const child = spawn(program, [...leading, ...args], {
      cwd: packageRoot(),
      env: { ...process.env, MILLRACE_ENDPOINT: daemon.endpoint, ...env },
    });
    const stdout: Buffer[] = [];
    let stderr = "";
    child.stdout.on("data", (chunk: Buffer) => stdout.push(chunk));
    child.stderr.on("data", (chunk: Buffer) => {
      stderr += chunk;
    });
    child.on("close", (code) => resolve({ code, stdout: Buffer.concat(stdout), stderr }));
    child.stdin.end(input);
  });
}

async function json(args: readonly string[], input?: Uint8Array): Promise<Record<string, unknown>> {
  const { code, stdout, stderr } = await millrace([...args, "--json"], input);
  expect(stderr).toBe("");
  expect(code).toBe(0);
  return JSON.parse(stdout.toString()) as Record<string, unknown>;
}

describe("objects from the shell", () => {
  const ns = "shell";

  beforeAll(async () => {
    expect(await json(["namespace", "create", ns, "--lease", "2h", "--limit", "200MiB"])).toMatchObject({
      name: ns,
      leaseMs: 7_200_000,
      limits: { sizeBytes: 200 * 1024 ** 2 },
    });
  });

  it("go in from a file or a pipe and come out the same", async () => {
    const bytes = randomBytes(3_000_000);
    const file = join(folder, "in");
    writeFileSync(file, bytes);
    expect(await json(["put", ns, "a/file", file])).toMatchObject({ key: "a/file", sizeBytes: bytes.length });
    expect(await json(["put", ns, "a/pipe"], bytes)).toMatchObject({ sizeBytes: bytes.length });
    expect(await json(["put", ns, "a/empty"], new Uint8Array(0))).toMatchObject({ sizeBytes: 0 });
    expect((await millrace(["get", ns, "a/pipe"])).stdout.equals(bytes)).toBe(true);
    const out = join(folder, "out");
    expect(await json(["get", ns, "a/file", out])).toMatchObject({ sizeBytes: bytes.length, file: out });
    expect(readFileSync(out).equals(bytes)).toBe(true);
    const range = await millrace(["get", ns, "a/file", "--offset", "1000", "--length", "5000"]);
    expect(range.stdout.equals(bytes.subarray(1000, 6000))).toBe(true);
  });

  it("are listed, described and removed", async () => {
    const { objects } = (await json(["ls", ns, "a/"])) as { objects: { key: string }[] };
    expect(objects.map(({ key }) => key)).toEqual(["a/empty", "a/file", "a/pipe"]);
    expect(await json(["stat", ns, "a/empty"])).toMatchObject({ sizeBytes: 0, crc32c: 0 });
    expect((await millrace(["ls", ns])).stdout.toString()).toMatch(/3000000 .*Z {2}a\/file\n/);
    expect(await json(["rm", ns, "a/empty", "a/pipe"])).toMatchObject({ deleted: ["a/empty", "a/pipe"] });
    const again = await millrace(["rm", ns, "a/empty"]);
    expect(again).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/not in namespace shell: a\/empty/),
    });
    expect((await millrace(["rm", ns, "a/empty", "--force"])).code).toBe(0);
  });

  it("that are not there leave no file behind", async () => {
    const before = readdirSync(folder);
    const { code, stderr } = await millrace(["get", ns, "nothing", join(folder, "nothing")]);
    expect(code).toBe(1);
    expect(stderr).toBe('millrace: there is no object "nothing" in namespace shell\n');
    expect(readdirSync(folder)).toEqual(before);
  });

  it("are not overwritten with --if-absent", async () => {
    const { code, stderr } = await millrace(["put", ns, "a/file", "--if-absent"], Buffer.from("x"));
    expect(code).toBe(1);
    expect(stderr).toMatch(/^millrace: [^\n]+\n$/);
    expect(await json(["stat", ns, "a/file"])).toMatchObject({ sizeBytes: 3_000_000 });
  });

  it("go with their namespace, which leaves a receipt", async () => {
    expect(await json(["namespace", "renew", ns, "--lease", "90s"])).toEqual({
      name: ns,
      leaseRemainingMs: 90_000,
    });
    const { namespaces } = (await json(["namespace", "list"])) as { namespaces: object[] };
    expect(namespaces).toEqual([expect.objectContaining({ name: ns, objects: 1, sizeBytes: 3_000_000 })]);
    expect(await json(["top", "--once"])).toMatchObject({ stats: { objects: 1, namespaces: 1 } });
    const receipt = await json(["namespace", "delete", ns]);
    expect(receipt).toMatchObject({ namespace: ns, ended: true, objects: 1 });
    expect(await json(["namespace", "receipt", ns])).toEqual(receipt);
    expect((await millrace(["ls", ns])).code).toBe(1);
  });
});

describe("commands used wrongly", () => {
  it.each([
    [["nonsense"], /unknown command/],
    [["serve", "--nonsense"], /unknown option/],
    [["serve", "--dram", "lots"], /not a size/],
    [["serve", "--s3", ":9000"], /loopback only/],
    [["serve", "--admin", ":9000"], /not built in this version/],
    [["serve", "--nvme", "/tmp:1KiB"], /at least 64 MiB/],
    [["put", "only-namespace"], /missing required argument/],
    [["get", "job", "key", "--offset", "minus"], /not a whole number/],
    [["get", "job", "key", "--json"], /needs a file/],
    [["namespace", "create", "Not A Bucket"], /must have 3 to 63/],
    [["namespace", "create", "job", "--lease", "soon"], /not a duration/],
    [[], /Usage/],
  ])("%j exit 2", async (args, message) => {
    const { code, stdout, stderr } = await millrace(args);
    expect(stderr).toMatch(message);
    expect(stdout.toString()).toBe("");
    expect(code).toBe(2);
  });

  it("say which node is missing, and which cannot be reached", async () => {
    expect(await millrace(["ls", "job"], undefined, { MILLRACE_ENDPOINT: "" })).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/--endpoint/),
    });
    expect(await millrace(["namespace", "list", "--endpoint", "127.0.0.1:1"])).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^millrace: [^\n]*127\.0\.0\.1:1[^\n]*\n$/),
    });
  });

  it("show a stack only when asked to", async () => {
    const { stderr } = await millrace(["ls", "no-such"], undefined, { MILLRACE_DEBUG: "1" });
    expect(stderr).toMatch(/\n {4}at /);
  });
});

describe("without a node", () => {
  it("help, version and doctor work", async () => {
    const help = await millrace(["--help"]);
    expect(help.code).toBe(0);
    for (const command of [
      "serve",
      "put",
      "get",
      "ls",
      "stat",
      "rm",
      "namespace",
      "doctor",
      "top",
      "inspect",
    ]) {
      expect(help.stdout.toString()).toMatch(new RegExp(`^ {2}${command} `, "m"));
    }
    expect((await millrace(["--version"])).stdout.toString()).toBe("0.1.0\n");
    const doctor = (await json(["doctor"])) as { node: string; addon: object | null; advice: string[] };
    expect(doctor.node).toBe(process.version);
    expect(doctor.addon).not.toBeNull();
    expect((await millrace(["doctor"])).stdout.toString()).toMatch(/^io_uring +(yes|no)$/m);
  });
});

describe("serve", () => {
  it("refuses a socket that another daemon uses, and takes over one whose daemon is gone", async () => {
    const clash = await millrace([
      "serve",
      "--grpc",
      "127.0.0.1:0",
      "--data",
      "off",
      "--socket",
      daemon.socketPath,
    ]);
    expect(clash).toMatchObject({ code: 1, stderr: expect.stringMatching(/another process listens on/) });
    const socket = join(folder, "own", "node.sock");
    const killed = await startDaemon({ args: ["--socket", socket] });
    killed.kill("SIGKILL");
    await killed.exited();
    expect(existsSync(socket)).toBe(true);
    const next = await startDaemon({ args: ["--socket", socket] });
    expect(await next.stop()).toEqual({ code: 0, signal: null });
    expect(existsSync(socket)).toBe(false);
  });

  it("refuses a gRPC port that is taken, with exit 1", async () => {
    const { code, stderr } = await millrace([
      "serve",
      "--grpc",
      daemon.grpcAddress,
      "--data",
      "off",
      "--socket",
      "off",
    ]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/cannot listen on 127\.0\.0\.1:\d+/);
  });

  it("takes its settings from the environment and from a file", async () => {
    const config = join(folder, "config.json");
    writeFileSync(config, JSON.stringify({ logLevel: "debug", data: "off" }));
    const { code, stderr } = await millrace(["serve", "--config", config, "--socket", "off"], undefined, {
      MILLRACE_GRPC: daemon.grpcAddress,
    });
    expect({ code, refused: /cannot listen/.test(stderr) }).toEqual({ code: 1, refused: true });
  });
});
