import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { UsageError } from "../../../../server/cli/errors.js";
import { resolveServeConfig } from "../../../../server/cli/serve_config.js";
import { formatSize, parseAddress, parseDuration, parseSize } from "../../../../server/cli/values.js";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "millrace-config-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

function configFile(content: unknown): string {
  const path = join(folder, `${Math.random()}.json`);
  writeFileSync(path, typeof content === "string" ? content : JSON.stringify(content));
  return path;
}

describe("sizes", () => {
  it.each([
    ["64MiB", 64 * 1024 ** 2],
    ["1GiB", 1024 ** 3],
    ["512M", 512 * 1024 ** 2],
    ["1.5g", 1.5 * 1024 ** 3],
    ["100MB", 100e6],
    ["4096", 4096],
    ["0", 0],
    ["2 TiB", 2 * 1024 ** 4],
  ])("reads %s", (text, bytes) => {
    expect(parseSize(text)).toBe(bytes);
  });

  it.each(["", "MiB", "-1", "1XB", "1e9", "0x10", "1 2", "99999999999T", "NaN"])("refuses %j", (text) => {
    expect(() => parseSize(text)).toThrow(UsageError);
  });

  it("prints what it reads", () => {
    for (const bytes of [0, 1, 1023, 1024, 1536, 64 * 1024 ** 2, 1024 ** 4]) {
      expect(parseSize(formatSize(bytes))).toBe(bytes);
    }
  });
});

describe("addresses and durations", () => {
  it("reads them", () => {
    expect(parseAddress("127.0.0.1:0")).toEqual({ host: "127.0.0.1", port: 0 });
    expect(parseAddress("[::1]:80")).toEqual({ host: "::1", port: 80 });
    expect(parseAddress(":7400")).toEqual({ host: "0.0.0.0", port: 7400 });
    expect(parseDuration("90s")).toBe(90_000);
    expect(parseDuration("1.5h")).toBe(5_400_000);
  });

  it.each(["", "host", "host:", "host:65536", "::1:80", "host:http", "a b:1"])(
    "refuses the address %j",
    (text) => {
      expect(() => parseAddress(text)).toThrow(UsageError);
    },
  );

  it.each(["", "5", "s", "-1s", "1y"])("refuses the duration %j", (text) => {
    expect(() => parseDuration(text)).toThrow(UsageError);
  });
});

describe("serve's settings", () => {
  it("have defaults", () => {
    const config = resolveServeConfig({}, {});
    expect(config).toMatchObject({
      grpc: { host: "127.0.0.1", port: 7400 },
      data: { host: "127.0.0.1", port: 7401 },
      hugePages: "auto",
      nvme: [],
      state: null,
      logLevel: "info",
    });
    expect(config.dramBytes).toBeGreaterThan(0);
    expect(config.socketPath).toMatch(/millrace\.sock$/);
  });

  it("come from a flag before the environment before the file", () => {
    const config = configFile({
      dram: "32MiB",
      grpc: "127.0.0.1:1",
      hugePages: "off",
      socket: "/tmp/file.sock",
    });
    const resolved = resolveServeConfig(
      { config, dram: "64MiB" },
      { MILLRACE_DRAM: "48MiB", MILLRACE_GRPC: "127.0.0.1:2", MILLRACE_SOCKET: "" },
    );
    expect(resolved).toMatchObject({
      dramBytes: 64 * 1024 ** 2,
      grpc: { port: 2 },
      hugePages: "off",
      socketPath: "/tmp/file.sock",
    });
    expect(resolveServeConfig({}, { MILLRACE_CONFIG: config }).dramBytes).toBe(32 * 1024 ** 2);
  });

  it("take several NVMe directories, and make them", () => {
    const [a, b] = [join(folder, "nvme/a"), join(folder, "nvme:b")];
    const expected = [
      { path: a, limitBytes: 1024 ** 3 },
      { path: b, limitBytes: 64 * 1024 ** 2 },
    ];
    expect(resolveServeConfig({ nvme: [`${a}:1GiB`, `${b}:64MiB`] }, {}).nvme).toEqual(expected);
    expect(existsSync(a)).toBe(true);
    expect(resolveServeConfig({}, { MILLRACE_NVME: `${a}:1GiB, ${b}:64MiB` }).nvme).toEqual(expected);
    const file = configFile({ nvme: [`${a}:1GiB`, `${b}:64MiB`], state: join(folder, "state") });
    expect(resolveServeConfig({ config: file }, {})).toMatchObject({
      nvme: expected,
      state: join(folder, "state"),
    });
    expect(resolveServeConfig({ config: configFile({ nvme: `${a}:1GiB` }) }, {}).nvme).toEqual([expected[0]]);
  });

  it("refuse NVMe directories that cannot be used", () => {
    const file = join(folder, "file");
    writeFileSync(file, "");
    const locked = join(folder, "locked");
    mkdirSync(locked);
    chmodSync(locked, 0o500);
    const resolve =
      (...nvme: string[]) =>
      () =>
        resolveServeConfig({ nvme }, {});
    expect(resolve("/somewhere")).toThrow(/is not DIR:SIZE/);
    expect(resolve(":1GiB")).toThrow(/is not DIR:SIZE/);
    expect(resolve(`${folder}/a:plenty`)).toThrow(/not a size/);
    expect(resolve(`${folder}/a:63MiB`)).toThrow(/at least 64 MiB/);
    expect(resolve(`${folder}/a:1GiB`, `${folder}//a:1GiB`)).toThrow(/twice/);
    expect(resolve(`${file}:1GiB`)).toThrow(/cannot be used/);
    expect(resolve(`${file}/below:1GiB`)).toThrow(UsageError);
    // Root may write everywhere.
    if (process.getuid?.() !== 0) expect(resolve(`${locked}:1GiB`)).toThrow(/cannot be used/);
  });

  it("may close the doors that may be closed", () => {
    expect(resolveServeConfig({ socket: "off", data: "off" }, {})).toMatchObject({
      socketPath: null,
      data: null,
    });
    expect(() => resolveServeConfig({ grpc: "off" }, {})).toThrow(/cannot be off/);
  });

  it("open the S3 door with its keys", () => {
    expect(resolveServeConfig({}, {}).s3).toBeNull();
    expect(resolveServeConfig({ s3: "off", accessKey: "k", secretKey: "s" }, {}).s3).toBeNull();
    expect(resolveServeConfig({ s3: "[::1]:0" }, {}).s3).toEqual({
      address: { host: "::1", port: 0 },
      keys: null,
      anonymous: false,
      domain: null,
    });
    const file = configFile({ s3Anonymous: true, s3Domain: "s3.example.com", secretKey: "s" });
    expect(resolveServeConfig({ s3: ":9000", config: file }, { MILLRACE_ACCESS_KEY: "k" }).s3).toEqual({
      address: { host: "0.0.0.0", port: 9000 },
      keys: { accessKey: "k", secretKey: "s" },
      anonymous: true,
      domain: "s3.example.com",
    });
  });

  it.each([
    [{ s3: ":9000" }, {}, /--s3 :9000: without keys .* loopback only/],
    [{ s3: "0.0.0.0:9000", s3Anonymous: true }, {}, /loopback only/],
    [{ s3: "127.0.0.1" }, {}, /is not HOST:PORT/],
    [{ s3Domain: "a/b" }, {}, /is not a host name/],
    [{ admin: ":1" }, {}, /--admin is not built/],
    [{}, { MILLRACE_ACCESS_KEY: "k" }, /belong together/],
    [{ accessKey: "a/b" }, { MILLRACE_SECRET_KEY: "s" }, /--access-key must be/],
    [{}, { MILLRACE_S3_ANONYMOUS: "perhaps" }, /must be one of true, 1, false, 0/],
    [{ dram: "1MiB" }, {}, /at least 16 MiB/],
    [{ dram: "900TiB" }, {}, /more than this machine/],
    [{ hugePages: "yes" }, {}, /must be one of auto, reserve, off/],
    [{ socket: `/tmp/${"s".repeat(110)}` }, {}, /at most 107 bytes/],
    [{ config: "/nonexistent.json" }, {}, /cannot read the config file/],
  ])("refuses %j with %j", (flags, environment, message) => {
    const resolve = () => resolveServeConfig(flags, environment as Record<string, string>);
    expect(resolve).toThrow(UsageError);
    expect(resolve).toThrow(message);
  });

  it("refuses config files that are not what they should be", () => {
    const resolve = (content: unknown) => () => resolveServeConfig({ config: configFile(content) }, {});
    expect(resolve("{")).toThrow(/is not JSON/);
    expect(resolve([])).toThrow(/one JSON object/);
    expect(resolve({ Dram: "1GiB" })).toThrow(/unknown key "Dram"/);
    expect(resolve({ dram: true })).toThrow(/must be a string or a number/);
    expect(resolve({ dram: ["1GiB"] })).toThrow(/must be a string or a number/);
    expect(resolve({ nvme: [true] })).toThrow(/must be a string or a number, or a list/);
    expect(resolve({ admin: ":9000" })).toThrow(/admin in .* is not built/);
    expect(resolve({ s3Domain: true })).toThrow(/must be a string or a number/);
  });
});
